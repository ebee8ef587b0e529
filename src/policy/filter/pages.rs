//! What weir's own errors look like: files, read before the generation is served.
//! A page tells no more than the file does, and the id of the request where the file asks for it.
//! Here the walk ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Body, Files};
use crate::config::model::ErrorPage;

/// Stands for the request's id.
const ID: &[u8] = b"{request_id}";

/// The pages of a route.
#[derive(Debug)]
pub(super) struct ErrorPages(Vec<Page>);

#[derive(Debug)]
struct Page {
    statuses: (u16, u16),
    file: PathBuf,
    body: Body,
}

impl ErrorPages {
    /// Without what is in the files yet.
    pub(super) fn new(pages: &[ErrorPage]) -> ErrorPages {
        let page = |page: &ErrorPage| Page {
            statuses: page.statuses,
            file: page.file.clone(),
            body: Body {
                content_type: media_type(&page.file).into(),
                bytes: Arc::default(),
            },
        };
        ErrorPages(pages.iter().map(page).collect())
    }

    /// Takes what is in the files.
    pub(super) fn attach(&mut self, files: &Files) {
        for page in &mut self.0 {
            page.body.bytes = files.pages.get(&page.file).cloned().unwrap_or_default();
        }
    }

    /// The page of a status: one for it alone before one for its class.
    pub(super) fn page(&self, status: u16, push_id: impl Fn(&mut Vec<u8>)) -> Option<Body> {
        let fits = |page: &&Page| (page.statuses.0..=page.statuses.1).contains(&status);
        let width = |page: &&Page| page.statuses.1 - page.statuses.0;
        let page = self.0.iter().filter(fits).min_by_key(width)?;
        Some(Body {
            content_type: page.body.content_type.clone(),
            bytes: with_id(&page.body.bytes, push_id),
        })
    }
}

/// A page with the request's id in it.
fn with_id(page: &Arc<[u8]>, push_id: impl Fn(&mut Vec<u8>)) -> Arc<[u8]> {
    let mut places = memchr::memmem::find_iter(page, ID).peekable();
    if places.peek().is_none() {
        return page.clone();
    }
    let (mut out, mut from) = (Vec::with_capacity(page.len() + 64), 0);
    for at in places {
        out.extend_from_slice(&page[from..at]);
        push_id(&mut out);
        from = at + ID.len();
    }
    out.extend_from_slice(&page[from..]);
    out.into()
}

/// What a file is, by the end of its name.
fn media_type(file: &Path) -> &'static str {
    match file.extension().and_then(|end| end.to_str()) {
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        Some("xml") => "application/xml",
        _ => "text/html; charset=utf-8",
    }
}

//! Sends a client elsewhere (RFC 9110 section 15.4), to a place that it cannot make up: a path of its own never becomes a host.
//! A redirect that would lead to where the request is lets it pass, so that `scheme = "https"` may stand on a route for both.
//! Here the walk ends.

use super::template::{push_variable, render};
use super::{Answer, Flow, Memory, Refusal, Request, View};
use crate::config::model::{self, Piece, Scheme, Template, Variable};
use crate::http::head::host_of;
use crate::http::path::PathFault;
use crate::http::request::is_authority;
use crate::http::rewrite::{push_as_sent, push_encoded, single_slash};
use crate::http::text::push_number;

/// A redirect.
#[derive(Debug)]
pub(super) struct Redirect(model::Redirect);

impl Redirect {
    pub(super) fn new(redirect: &model::Redirect) -> Redirect {
        Redirect(redirect.clone())
    }

    pub(super) fn request(&self, request: &Request<'_>, memory: &Memory) -> Flow {
        let view = request.view;
        let mut place = Vec::with_capacity(64 + view.authority.len() + view.target.len());
        if !self.push_origin(view, memory, &mut place) {
            return Flow::Refuse(Refusal::Host);
        }
        let start = place.len();
        self.push_target(view, memory, &mut place);
        if has_dot_segment(&place[start..]) {
            return Flow::Refuse(Refusal::Path(PathFault::DotSegment));
        }
        if is_here(view, &place[..start], &place[start..]) {
            return Flow::Continue;
        }
        let mut fields = b"Location: ".to_vec();
        fields.append(&mut place);
        fields.extend_from_slice(b"\r\n");
        Flow::Answer(Answer::meant(self.0.code, fields))
    }

    /// Adds `scheme://host:port`; nothing when no host is known. False when the host is none.
    fn push_origin(&self, view: &View<'_>, memory: &Memory, out: &mut Vec<u8>) -> bool {
        let here = scheme_of(view);
        let scheme = self.0.scheme.unwrap_or(here);
        let mut host = Vec::new();
        match &self.0.host {
            Some(template) => render(template, view, memory, &mut host),
            None => host.extend_from_slice(host_of(view.authority)),
        }
        if host.is_empty() {
            return true;
        }
        let stays = scheme == here && self.0.host.is_none();
        let port = self
            .0
            .port
            .or_else(|| port_of(view.authority).filter(|_| stays));
        if let Some(port) = port.filter(|port| *port != scheme.port()) {
            host.push(b':');
            push_number(port.into(), &mut host);
        }
        out.extend_from_slice(scheme.as_str().as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(&host);
        is_authority(&host)
    }

    /// Adds path and query, beginning with a single slash.
    fn push_target(&self, view: &View<'_>, memory: &Memory, out: &mut Vec<u8>) {
        let (path, query) = memory.path_and_query(view);
        let mut target = Vec::new();
        let has_query = match &self.0.path {
            Some(template) => push_path(template, view, memory, &mut target),
            None => {
                push_as_sent(path, &mut target);
                false
            }
        };
        if !has_query {
            push_as_sent(query, &mut target);
        }
        out.extend_from_slice(single_slash(&target));
    }
}

/// Adds a path with variables, and perhaps a query; whether it has one. A `?` at the very end only takes the query away.
fn push_path(template: &Template, view: &View<'_>, memory: &Memory, out: &mut Vec<u8>) -> bool {
    let mut has_query = false;
    let mut value = Vec::new();
    for piece in &template.0 {
        value.clear();
        match piece {
            Piece::Text(text) => {
                has_query |= text.contains('?');
                out.extend_from_slice(text.as_bytes());
            }
            Piece::Variable(variable) => {
                push_variable(*variable, view, memory, &mut value);
                match variable {
                    Variable::Path if !has_query => {
                        let skipped = usize::from(out.ends_with(b"/") && value.starts_with(b"/"));
                        push_as_sent(&value[skipped..], out);
                    }
                    Variable::Query if has_query => push_as_sent(&value, out),
                    _ => push_encoded(&value, b"", out),
                }
            }
        }
    }
    if out.ends_with(b"?") {
        out.pop();
    }
    has_query
}

fn scheme_of(view: &View<'_>) -> Scheme {
    match view.secure {
        true => Scheme::Https,
        false => Scheme::Http,
    }
}

fn port_of(authority: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(authority).ok()?;
    let (before, port) = text.rsplit_once(':')?;
    let is_bare = before.contains('[') == before.contains(']');
    port.parse().ok().filter(|_| is_bare)
}

/// Whether the request is at that place already.
fn is_here(view: &View<'_>, origin: &[u8], target: &[u8]) -> bool {
    let came = match view.target.starts_with(b"?") {
        true => [b"/", view.target].concat(),
        false => view.target.to_vec(),
    };
    if came != target {
        return false;
    }
    let scheme = scheme_of(view);
    let mut here = Vec::new();
    if !view.authority.is_empty() {
        here.extend_from_slice(scheme.as_str().as_bytes());
        here.extend_from_slice(b"://");
        here.extend_from_slice(host_of(view.authority));
        if let Some(port) = port_of(view.authority).filter(|port| *port != scheme.port()) {
            here.push(b':');
            push_number(port.into(), &mut here);
        }
    }
    here.eq_ignore_ascii_case(origin)
}

fn has_dot_segment(target: &[u8]) -> bool {
    let path = target
        .split(|&byte| byte == b'?')
        .next()
        .unwrap_or_default();
    let dots = |segment: &[u8]| {
        let mut decoded = segment.to_ascii_lowercase();
        while let Some(at) = decoded.windows(3).position(|three| three == b"%2e") {
            decoded.splice(at..at + 3, *b".");
        }
        decoded == b"." || decoded == b".."
    };
    path.split(|&byte| byte == b'/').any(dots)
}

//! Another path for the backend: a prefix that gives way to another one, or what an expression makes of the whole path.
//! What comes out is checked as strictly as what clients send; the query is never looked at.
//! Here the walk ends.

use regex::bytes::{Regex, RegexBuilder};

use super::{Flow, Memory, Refusal, Request};
use crate::config::model::{MAX_REGEX, Part, Rewrite};
use crate::http::path::normalize;
use crate::http::rewrite::{after_prefix, check_made, push_normal, single_slash};

/// A change of the path.
#[derive(Debug)]
pub(super) enum RewritePath {
    Prefix { prefix: String, to: String },
    Regex { regex: Regex, to: Vec<Part> },
}

impl RewritePath {
    /// `None` for an expression that does not compile, which no valid file has.
    pub(super) fn new(rewrite: &Rewrite) -> Option<RewritePath> {
        Some(match rewrite.clone() {
            Rewrite::Prefix { prefix, to } => RewritePath::Prefix { prefix, to },
            Rewrite::Regex { regex, to } => {
                let builder = RegexBuilder::new(&regex).size_limit(MAX_REGEX).build();
                let regex = builder.ok()?;
                RewritePath::Regex { regex, to }
            }
        })
    }

    pub(super) fn request(&self, request: &Request<'_>, memory: &mut Memory) -> Flow {
        let target = memory.target(request.view);
        if target == b"*" {
            return Flow::Continue;
        }
        let (path, query) = memory.path_and_query(request.view);
        let (mut made, mut scratch) = (Vec::with_capacity(target.len() + 32), Vec::new());
        let normal = match normalize(path, &mut scratch, request.checks) {
            Ok(normal) => normal,
            Err(fault) => return Flow::Refuse(Refusal::Path(fault)),
        };
        if !self.make(path, normal, &mut made) {
            return Flow::Continue;
        }
        if let Err(fault) = check_made(&made, request.checks, &mut Vec::new()) {
            return Flow::Refuse(Refusal::Path(fault));
        }
        made.extend_from_slice(query);
        memory.target = made;
        Flow::Continue
    }

    /// Writes the new path to `made`; false when the path stays.
    fn make(&self, path: &[u8], normal: &[u8], made: &mut Vec<u8>) -> bool {
        match self {
            RewritePath::Prefix { prefix, to } => {
                let Some(rest) = after_prefix(path, prefix.as_bytes()) else {
                    return false;
                };
                made.extend_from_slice(to.as_bytes());
                if !rest.starts_with(b"/") && made.is_empty() {
                    made.push(b'/');
                }
                made.extend_from_slice(rest);
                true
            }
            RewritePath::Regex { regex, to } => {
                if expand(regex, to, path, made) {
                    return true;
                }
                // Another spelling of a path must not slip past.
                let mut spelled = Vec::with_capacity(normal.len());
                push_normal(normal, &mut spelled);
                spelled != path && expand(regex, to, &spelled, made)
            }
        }
    }
}

/// Writes what `to` makes of the path, with a single slash at its start; false when the expression does not match.
fn expand(regex: &Regex, to: &[Part], path: &[u8], made: &mut Vec<u8>) -> bool {
    let Some(groups) = regex.captures(path) else {
        return false;
    };
    let mut parts = vec![b'/'];
    for part in to {
        match part {
            Part::Text(text) => parts.extend_from_slice(text.as_bytes()),
            Part::Group(ordinal) => {
                let group = groups.get(*ordinal);
                parts.extend_from_slice(group.map_or(&b""[..], |group| group.as_bytes()));
            }
        }
    }
    made.extend_from_slice(single_slash(&parts));
    true
}

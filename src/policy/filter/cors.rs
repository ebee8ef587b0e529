//! Lets scripts of other origins read answers (Fetch Standard, section 3.2), and answers the questions that browsers ask before.
//! It names an origin only to that origin, and what the backend says about origins does not count beside it.
//! Here the walk ends.

use super::{Answer, Flow, Memory, Request};
use crate::config::model::{self, Origins};
use crate::http::edits::Edits;
use crate::http::head::AnswerHead;

/// Which origins may do what.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<Origins>,
    credentials: bool,
    expose: String,
    /// What a browser that asks is told.
    told: Vec<u8>,
}

impl Cors {
    pub(super) fn new(cors: &model::Cors) -> Cors {
        let mut told = format!(
            "Access-Control-Allow-Methods: {}\r\n",
            cors.methods.join(", ")
        );
        if !cors.headers.is_empty() {
            let headers = cors.headers.join(", ");
            told += &format!("Access-Control-Allow-Headers: {headers}\r\n");
        }
        told += &format!("Access-Control-Max-Age: {}\r\n", cors.max_age.as_secs());
        Cors {
            origins: cors.origins.clone(),
            credentials: cors.credentials,
            expose: cors.expose.join(", "),
            told: told.into_bytes(),
        }
    }

    pub(super) fn request(&self, request: &Request<'_>, memory: &mut Memory) -> Flow {
        let head = request.head;
        memory.origin.clear();
        let mut origins = head.values("origin");
        // Who says it twice says nothing.
        let origin = origins.next().filter(|_| origins.next().is_none());
        let Some(origin) = origin else {
            return Flow::Continue;
        };
        let is_allowed = self.allows(origin);
        if is_allowed {
            memory.origin.extend_from_slice(origin);
        }
        let asks = head.method == b"OPTIONS"
            && head
                .values("access-control-request-method")
                .next()
                .is_some();
        match (asks, is_allowed) {
            (false, _) => Flow::Continue,
            (true, true) => Flow::Answer(Answer::meant(204, self.told.clone())),
            (true, false) => Flow::Answer(Answer::meant(204, Vec::new())),
        }
    }

    pub(super) fn answer(&self, memory: &Memory, head: &AnswerHead<'_>, edits: &mut Edits) {
        for name in [
            "Access-Control-Allow-Origin",
            "Access-Control-Allow-Credentials",
            "Access-Control-Expose-Headers",
        ] {
            edits.remove_named(head.bytes, head.lines, name.as_bytes());
        }
        let is_for_any = self.is_for_any();
        if !is_for_any {
            // Also where nobody asked: the answer would be another one then.
            edits.append("Vary", b"Origin");
        }
        if memory.origin.is_empty() {
            return;
        }
        let origin = if is_for_any { b"*" } else { &memory.origin[..] };
        edits.append("Access-Control-Allow-Origin", origin);
        if self.credentials {
            edits.append("Access-Control-Allow-Credentials", b"true");
        }
        if !self.expose.is_empty() {
            edits.append("Access-Control-Expose-Headers", self.expose.as_bytes());
        }
    }

    fn is_for_any(&self) -> bool {
        self.origins.contains(&Origins::Any) && !self.credentials
    }

    fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| match allowed {
            Origins::Any => true,
            Origins::Exact(known) => known.as_bytes() == origin,
            Origins::Between { scheme, suffix } => {
                let rest = origin.strip_prefix(scheme.as_bytes());
                let labels = rest.and_then(|rest| rest.strip_suffix(suffix.as_bytes()));
                labels.is_some_and(are_labels)
            }
        })
    }
}

/// Labels of a host name with dots between them, at least one.
fn are_labels(text: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.split(|&byte| byte == b'.')
        .all(|label| !label.is_empty() && label.iter().all(fits))
}

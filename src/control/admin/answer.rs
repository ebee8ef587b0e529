//! Answers of the admin server: text, JSON, and problems (RFC 9457).
//! Nothing in it may be kept by a cache or read as another type than it says.
//! The walk goes back to `api.rs`.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// An answer, whole.
pub(super) type Answer = Response<Full<Bytes>>;

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

/// A problem as RFC 9457 section 3 writes it; without a type of its own its title is that of the status.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            detail: detail.into(),
            header: None,
        }
    }

    pub(super) fn unauthorized(detail: &str) -> Problem {
        let challenge = (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Problem {
            header: Some(challenge),
            ..Problem::new(StatusCode::UNAUTHORIZED, detail)
        }
    }

    pub(super) fn method_not_allowed(allowed: &'static str) -> Problem {
        let detail = format!("this resource knows {allowed}");
        Problem {
            header: Some((ALLOW, HeaderValue::from_static(allowed))),
            ..Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    pub(super) fn into_answer(self) -> Answer {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        let mut answer = written(self.status, "application/problem+json", &document);
        answer.headers_mut().extend(self.header);
        answer
    }
}

/// A document as JSON.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Answer {
    written(status, "application/json", document)
}

/// Anything else.
pub(super) fn content(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderName::from_static("x-content-type-options");
    headers.insert(nosniff, HeaderValue::from_static("nosniff"));
    answer
}

fn written(status: StatusCode, content_type: &'static str, document: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(document) {
        Ok(mut text) => {
            text.push(b'\n');
            content(status, content_type, text)
        }
        // Only maps with keys that are no text cannot be written, and there are none.
        Err(_) => content(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", ""),
    }
}

//! A fixed answer to every request.
//! It knows the request no more than the file does.
//! Here the walk ends.

use std::sync::Arc;

use super::{Answer, Flow};
use crate::config::model;

/// The answer.
#[derive(Debug)]
pub(super) struct Respond(Answer);

impl Respond {
    pub(super) fn new(respond: &model::Respond) -> Respond {
        let fields = match respond.body.is_empty() {
            true => Vec::new(),
            false => format!("Content-Type: {}\r\n", respond.content_type).into_bytes(),
        };
        Respond(Answer {
            body: Arc::from(respond.body.as_bytes()),
            ..Answer::meant(respond.status, fields)
        })
    }

    pub(super) fn request(&self) -> Flow {
        Flow::Answer(self.0.clone())
    }
}

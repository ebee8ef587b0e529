//! A fixed answer to every request.
//! It knows the request no more than the file does.
//! Here the walk ends.

use std::sync::Arc;

use super::{Answer, Body, Flow};
use crate::config::model;

/// The answer.
#[derive(Debug)]
pub(super) struct Respond(Answer);

impl Respond {
    pub(super) fn new(respond: &model::Respond) -> Respond {
        Respond(Answer {
            body: Body {
                content_type: respond.content_type.as_str().into(),
                bytes: Arc::from(respond.body.as_bytes()),
            },
            ..Answer::meant(respond.status, Vec::new())
        })
    }

    pub(super) fn request(&self) -> Flow {
        Flow::Answer(self.0.clone())
    }
}

//! Text with variables, filled in.
//! What comes out never has a control character, whatever a client put into what a variable stands for.
//! Here the walk ends.

use super::{Memory, View};
use crate::config::model::{Piece, Template, Variable};
use crate::http::head::host_of;
use crate::http::text::{push_address, push_number};

/// Adds the text, without control characters.
pub(super) fn render(template: &Template, view: &View<'_>, memory: &Memory, out: &mut Vec<u8>) {
    for piece in &template.0 {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Variable(variable) => push_variable(*variable, view, memory, out),
        }
    }
}

/// Adds what a variable stands for, without control characters.
pub(super) fn push_variable(
    variable: Variable,
    view: &View<'_>,
    memory: &Memory,
    out: &mut Vec<u8>,
) {
    let (path, query) = memory.path_and_query(view);
    match variable {
        Variable::ClientIp => push_address(view.client, out),
        Variable::ClientPort => {
            if let Some(port) = view.port {
                push_number(port.into(), out);
            }
        }
        Variable::RequestId => memory.push_id(view.id, out),
        Variable::Host => push_clean(host_of(view.authority), out),
        Variable::Method => push_clean(view.method, out),
        Variable::Path => push_clean(path, out),
        Variable::Query => push_clean(query.get(1..).unwrap_or_default(), out),
        Variable::Scheme => push_clean(view.scheme().as_bytes(), out),
        Variable::Listener => push_clean(view.listener.as_bytes(), out),
        Variable::Route => push_clean(view.route.as_bytes(), out),
        Variable::Pool => push_clean(view.pool.as_bytes(), out),
        Variable::Backend => push_clean(view.backend.as_bytes(), out),
        Variable::Sni => push_clean(view.sni.as_bytes(), out),
        Variable::User => push_clean(memory.user.as_bytes(), out),
    }
}

/// Adds the bytes that may stand in the value of a header (RFC 9110 section 5.5), and no others.
fn push_clean(value: &[u8], out: &mut Vec<u8>) {
    out.extend(value.iter().filter(|byte| **byte >= b' ' && **byte != 0x7f));
}

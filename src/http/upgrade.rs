//! Upgrades to another protocol (RFC 9110 section 7.8): what of a client's offer is passed on, and whether an answer accepts it.
//! It must never let a client go on with HTTP past weir, where nothing routes, checks or logs its requests.
//! The walk goes on in `request.rs` (the offer), `l7/answer.rs` (the answer) and `l7/upgrade.rs` (what follows).

use super::edits::Edits;
use super::framing::{Framing, is_token};
use super::head::list_members;

/// Protocols that carry HTTP again: behind a backend's 101 a client could ask for anything, unseen.
const HTTP_AGAIN: [&[u8]; 4] = [b"h2c", b"h2", b"http", b"tls"];

/// Whether the offer in the value of `Upgrade` can be passed on with this request. A WebSocket begins with a GET (RFC 6455 section
/// 4.1) and without a body; a client that says otherwise is asking for something else.
pub fn is_passed_on(offer: &[u8], method: &[u8], body: Framing) -> bool {
    let is_plain = method == b"GET" && body == Framing::NONE;
    let mut protocols = protocols(offer).peekable();
    protocols.peek().is_some()
        && protocols.all(|protocol| is_plain || !protocol.eq_ignore_ascii_case(b"websocket"))
}

/// Lists the fields that make the offer to the backend.
pub fn offer(offer: &[u8], edits: &mut Edits) {
    append(protocols(offer), edits);
}

/// Whether a 101 with this `Upgrade` value switches to what was offered, and to nothing else.
pub fn is_accepted(offer: &[u8], accepted: &[u8]) -> bool {
    let mut accepted = list_members(accepted).peekable();
    accepted.peek().is_some()
        && accepted.all(|one| protocols(offer).any(|protocol| protocol.eq_ignore_ascii_case(one)))
}

/// Lists the fields that tell the client of the switch.
pub fn confirm(accepted: &[u8], edits: &mut Edits) {
    append(list_members(accepted), edits);
}

/// The protocols of an offer that are passed on.
fn protocols(offer: &[u8]) -> impl Iterator<Item = &[u8]> {
    list_members(offer).filter(|protocol| is_protocol(protocol) && !is_http_again(protocol))
}

/// `name ["/" version]`, both tokens.
fn is_protocol(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'/')
        .all(|part| !part.is_empty() && part.iter().all(|&byte| is_token(byte)))
}

fn is_http_again(protocol: &[u8]) -> bool {
    let name = protocol.split(|&byte| byte == b'/').next();
    name.is_some_and(|name| {
        HTTP_AGAIN
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    })
}

fn append<'a>(protocols: impl Iterator<Item = &'a [u8]>, edits: &mut Edits) {
    edits.append("Connection", b"Upgrade");
    edits.append_with("Upgrade", |value| {
        for (ordinal, protocol) in protocols.enumerate() {
            value.extend_from_slice(if ordinal == 0 { b"" } else { b", " });
            value.extend_from_slice(protocol);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(value: &str) -> String {
        let mut edits = Edits::default();
        offer(value.as_bytes(), &mut edits);
        let mut out = Vec::new();
        edits.apply(b"", &[], &mut out);
        let text = String::from_utf8(out).unwrap();
        let (first, second) = text.split_once("\r\n").unwrap();
        assert_eq!(first, "Connection: Upgrade");
        second
            .strip_prefix("Upgrade: ")
            .and_then(|rest| rest.strip_suffix("\r\n"))
            .unwrap()
            .to_owned()
    }

    #[test]
    fn what_carries_http_again_is_no_offer() {
        let get = |value: &str| is_passed_on(value.as_bytes(), b"GET", Framing::NONE);
        for value in [
            "",
            ",",
            "h2c",
            "H2C",
            "h2",
            "HTTP/2.0",
            "http/1.1",
            "TLS/1.0",
            "h2c, h2c",
            "h2c\tx",
            "websocket h2c",
            "/",
            "a/",
            "h2c/2",
        ] {
            assert!(!get(value), "{value:?}");
        }
        for (value, wanted) in [
            ("websocket", "websocket"),
            ("h2c, WebSocket", "WebSocket"),
            ("IRC/6.9 , h2c,RTA/x11", "IRC/6.9, RTA/x11"),
            ("tcp, websocket h2c", "tcp"),
        ] {
            assert!(get(value), "{value:?}");
            assert_eq!(offered(value), wanted);
        }
    }

    #[test]
    fn a_websocket_begins_with_a_get_without_body() {
        let some = Framing::Length(1);
        assert!(!is_passed_on(b"websocket", b"POST", Framing::NONE));
        assert!(!is_passed_on(b"tcp, WEBSOCKET", b"GET", some));
        assert!(is_passed_on(b"tcp", b"POST", some));
    }

    #[test]
    fn only_what_was_offered_is_accepted() {
        let offer = b"websocket, tcp/1, h2c";
        for (accepted, wanted) in [
            ("websocket", true),
            ("WEBSOCKET", true),
            ("tcp/1, websocket", true),
            ("tcp", false),
            ("h2c", false),
            ("websocket, h2c", false),
            ("", false),
            ("irc", false),
        ] {
            assert_eq!(
                is_accepted(offer, accepted.as_bytes()),
                wanted,
                "{accepted:?}"
            );
        }
    }
}

//! An access-log line as one JSON object (RFC 8259), its keys in a fixed order.
//! It must be valid JSON in one line whatever a client sent.
//! The walk goes back to `mod.rs`.

use super::date::DateCache;
use super::mask::masked;
use super::{Record, cut};
use crate::http::text::{
    is_plain, push_address, push_digits, push_hex, push_id, push_number, push_seconds,
};

pub(super) fn line(record: &Record<'_>, date: &mut DateCache, out: &mut Vec<u8>) {
    begin(record.wall_millis, record.id, date, out);
    if !record.request_id.is_empty() {
        bytes(b"\",\"request_id\":\"", record.request_id, out);
    }
    text(b"\",\"listener\":\"", record.listener, out);
    out.extend_from_slice(b"\",\"client\":\"");
    push_address(record.client, out);
    if !record.user.is_empty() {
        text(b"\",\"user\":\"", record.user, out);
    }
    bytes(b"\",\"method\":\"", record.method, out);
    bytes(b"\",\"host\":\"", record.host, out);
    out.extend_from_slice(b"\",\"path\":\"");
    masked(cut(record.path)).for_each(|piece| escape(piece, out));
    text(b"\",\"version\":\"", record.version, out);
    number(b"\",\"status\":", record.status.into(), out);
    number(b",\"bytes_in\":", record.bytes_in, out);
    number(b",\"bytes_out\":", record.bytes_out, out);
    text(b",\"route\":\"", record.route, out);
    text(b"\",\"pool\":\"", record.pool, out);
    text(b"\",\"backend\":\"", record.backend, out);
    number(b"\",\"tries\":", record.tries.into(), out);
    out.extend_from_slice(match record.reused {
        true => b",\"reused\":true",
        false => b",\"reused\":false",
    });
    optional(b",\"sticky\":\"", record.sticky, out);
    optional(b",\"home\":\"", record.home, out);
    out.extend_from_slice(b",\"duration\":");
    push_seconds(record.duration, out);
    out.extend_from_slice(b",\"overhead\":");
    push_seconds(record.overhead, out);
    if !record.held.is_zero() {
        out.extend_from_slice(b",\"held\":");
        push_seconds(record.held, out);
    }
    if !record.queued.is_zero() {
        out.extend_from_slice(b",\"queued\":");
        push_seconds(record.queued, out);
    }
    optional(b",\"error\":\"", record.error, out);
    out.extend_from_slice(b"}\n");
}

/// The members that every line begins with, the last one without its closing quote.
pub(super) fn begin(wall_millis: u64, id: u64, date: &mut DateCache, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(date.rfc3339(wall_millis / 1000));
    out.push(b'.');
    push_digits(wall_millis % 1000, 3, out);
    out.extend_from_slice(b"Z\",\"id\":\"");
    push_id(id, out);
}

pub(super) fn number(before: &[u8], number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    push_number(number, out);
}

pub(super) fn text(before: &[u8], text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    escape(text.as_bytes(), out);
}

pub(super) fn bytes(before: &[u8], bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    escape(cut(bytes), out);
}

/// A member that is left out when it is empty.
pub(super) fn optional(before: &[u8], value: &str, out: &mut Vec<u8>) {
    if !value.is_empty() {
        text(before, value, out);
        out.push(b'"');
    }
}

/// The inside of a JSON string.
fn escape(value: &[u8], out: &mut Vec<u8>) {
    if is_plain(value) {
        out.extend_from_slice(value);
    } else {
        escape_slowly(value, out);
    }
}

/// Control characters, also those above ASCII, are escaped for the sake of whoever reads the log in a terminal; what is not
/// UTF-8 becomes U+FFFD.
#[cold]
fn escape_slowly(value: &[u8], out: &mut Vec<u8>) {
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                // Every control character lies below U+00A0.
                control if control.is_control() => {
                    out.extend_from_slice(b"\\u00");
                    push_hex(control as u8, out);
                }
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::access_log::tests::record;

    fn written(record: &Record<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        line(record, &mut DateCache::default(), &mut out);
        let text = String::from_utf8(out).expect("a line is UTF-8");
        let (line, rest) = text.split_once('\n').expect("a line ends");
        assert_eq!(rest, "");
        serde_json::from_str(line).expect("a line is JSON")
    }

    #[test]
    fn a_line_has_its_keys_in_order() {
        let mut out = Vec::new();
        line(&record(), &mut DateCache::default(), &mut out);
        let wanted = concat!(
            r#"{"time":"2026-11-20T23:59:59.042Z","id":"00000000deadbeef","listener":"web","client":"192.0.2.7","#,
            r#""method":"GET","host":"shop.example.com","path":"/cart;jsessionid=***?q=1","version":"HTTP/1.1","#,
            r#""status":200,"bytes_in":120,"bytes_out":4096,"route":"cart","pool":"was","backend":"was1","tries":1,"#,
            r#""reused":true,"sticky":"kept","home":"was1","duration":0.001500,"overhead":0.000020}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn a_line_says_how_long_its_request_was_held() {
        let line = written(&Record {
            held: std::time::Duration::from_millis(1250),
            ..record()
        });
        assert_eq!(line["held"], 1.25);
    }

    #[test]
    fn a_line_says_what_filters_found_out() {
        let line = written(&Record {
            request_id: b"ab-12",
            user: "j\"ane",
            ..record()
        });
        assert_eq!(
            (&line["request_id"], &line["user"]),
            (&"ab-12".into(), &"j\"ane".into())
        );
    }

    #[test]
    fn empty_members_are_left_out_and_errors_are_told() {
        let line = written(&Record {
            sticky: "",
            error: "connect: refused \"twice\"",
            ..record()
        });
        assert!(line.get("sticky").is_none());
        assert_eq!(line["error"], "connect: refused \"twice\"");
    }

    #[test]
    fn whatever_a_client_sends_stays_one_line_of_json() {
        let all: Vec<u8> = (0..=255).collect();
        let line = written(&Record {
            method: b"G\"ET",
            host: &all,
            path: b"/\x00\n\r\xc3\xa4\xc2\x9b\xff\xfe?\\\x7f",
            ..record()
        });
        assert_eq!(line["method"], "G\"ET");
        assert_eq!(line["path"], "/\0\n\r\u{e4}\u{9b}\u{fffd}\u{fffd}?\\\u{7f}");
    }

    #[test]
    fn a_field_without_end_is_cut() {
        let long = vec![b'a'; 100_000];
        let line = written(&Record {
            path: &long,
            ..record()
        });
        assert_eq!(
            line["path"].as_str().unwrap().len(),
            super::super::FIELD_MAX
        );
    }
}

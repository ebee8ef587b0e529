//! An access-log line in the NCSA combined format, as Apache and nginx write it.
//! It must be one line of printable ASCII whatever a client sent.
//! The walk goes back to `mod.rs`.

use super::date::DateCache;
use super::mask::masked;
use super::{Record, cut};
use crate::http::text::{is_plain, push_address, push_hex, push_number};

pub(super) fn line(record: &Record<'_>, date: &mut DateCache, out: &mut Vec<u8>) {
    push_address(record.client, out);
    out.extend_from_slice(b" - ");
    match record.user {
        "" => out.push(b'-'),
        // A blank would end the name for whoever reads the line.
        user => user.split(' ').enumerate().for_each(|(ordinal, part)| {
            out.extend_from_slice(if ordinal > 0 { b"_" } else { b"" });
            escape(part.as_bytes(), out);
        }),
    }
    out.extend_from_slice(b" [");
    out.extend_from_slice(date.ncsa(record.wall_millis / 1000));
    out.extend_from_slice(b"] \"");
    request_line(record, out);
    out.extend_from_slice(b"\" ");
    push_number(record.status.into(), out);
    out.push(b' ');
    push_number(record.bytes_out, out);
    out.extend_from_slice(b" \"");
    dash_when_empty(record.referer, out);
    masked(cut(record.referer)).for_each(|piece| escape(piece, out));
    out.extend_from_slice(b"\" \"");
    dash_when_empty(record.user_agent, out);
    escape(cut(record.user_agent), out);
    out.extend_from_slice(b"\"\n");
}

fn request_line(record: &Record<'_>, out: &mut Vec<u8>) {
    if record.method.is_empty() {
        out.push(b'-');
        return;
    }
    escape(cut(record.method), out);
    out.push(b' ');
    masked(cut(record.path)).for_each(|piece| escape(piece, out));
    out.push(b' ');
    out.extend_from_slice(record.version.as_bytes());
}

fn dash_when_empty(value: &[u8], out: &mut Vec<u8>) {
    if value.is_empty() {
        out.push(b'-');
    }
}

/// Quotes and backslashes get a backslash, everything outside printable ASCII becomes `\xhh` or the C escape of the control.
fn escape(value: &[u8], out: &mut Vec<u8>) {
    if is_plain(value) {
        out.extend_from_slice(value);
        return;
    }
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0b => out.extend_from_slice(b"\\v"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b' '..=b'~' => out.push(byte),
            _ => {
                out.extend_from_slice(b"\\x");
                push_hex(byte, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::access_log::tests::record;

    fn written(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        line(record, &mut DateCache::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_reads_as_analysers_expect() {
        let wanted = concat!(
            r#"192.0.2.7 - - [20/Nov/2026:23:59:59 +0000] "GET /cart;jsessionid=***?q=1 HTTP/1.1" 200 4096 "#,
            r#""https://shop.example.com/?sid=***" "Mozilla/5.0 (X11)""#,
            "\n"
        );
        assert_eq!(written(&record()), wanted);
    }

    #[test]
    fn a_user_is_one_word() {
        let line = written(&Record {
            user: "j. doe",
            ..record()
        });
        assert!(line.starts_with("192.0.2.7 - j._doe ["), "{line}");
    }

    #[test]
    fn what_is_missing_is_a_dash() {
        let line = written(&Record {
            method: b"",
            path: b"",
            status: 408,
            referer: b"",
            user_agent: b"",
            ..record()
        });
        assert!(line.ends_with("] \"-\" 408 4096 \"-\" \"-\"\n"), "{line}");
    }

    #[test]
    fn quotes_and_controls_are_escaped() {
        let line = written(&Record {
            user_agent: b"a\"b\\c\n\r\t\x1b\xff",
            ..record()
        });
        assert!(
            line.ends_with("\"a\\\"b\\\\c\\n\\r\\t\\x1b\\xff\"\n"),
            "{line}"
        );
        assert_eq!(line.matches('\n').count(), 1);
    }
}

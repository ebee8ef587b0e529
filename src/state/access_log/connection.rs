//! A line of the access log about a connection that was relayed, in either format.
//! It must be one line whatever a client sent.
//! The walk goes back to `mod.rs`.

use std::net::IpAddr;
use std::time::Duration;

use super::date::DateCache;
use super::json::{begin, bytes, number, optional, text};
use crate::http::text::{push_address, push_number, push_seconds};

/// One relayed connection that ended, or that found no backend.
#[derive(Debug)]
pub struct Connection<'a> {
    /// Wall time of the accept, in milliseconds since the epoch.
    pub wall_millis: u64,
    /// Unique within the fleet, for all practical purposes.
    pub id: u64,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Listener name.
    pub listener: &'a str,
    /// The client's address, past trusted proxies.
    pub client: IpAddr,
    /// The name that it asked for by TLS; empty: none that was looked at.
    pub server_name: &'a [u8],
    /// Datagrams from the client and to it; absent: it was a stream of bytes.
    pub datagrams: Option<(u64, u64)>,
    /// Bytes read from the client.
    pub bytes_in: u64,
    /// Bytes read from the backend.
    pub bytes_out: u64,
    /// Route name; empty: none matched.
    pub route: &'a str,
    /// Pool name; empty: none.
    pub pool: &'a str,
    /// Backend name; empty: none was reached.
    pub backend: &'a str,
    /// Backends tried.
    pub tries: u8,
    /// What persistence did; empty on a route that is not sticky.
    pub sticky: &'static str,
    /// How long it waited in its pool's queue; zero: it did not.
    pub queued: Duration,
    /// From the accept to the end.
    pub duration: Duration,
    /// Who ended it, or what.
    pub end: &'static str,
    /// Why there was no connection to a backend; empty: there was one.
    pub error: &'static str,
}

pub(super) fn json(record: &Connection<'_>, date: &mut DateCache, out: &mut Vec<u8>) {
    begin(record.wall_millis, record.id, date, out);
    text(b"\",\"listener\":\"", record.listener, out);
    out.extend_from_slice(b"\",\"client\":\"");
    push_address(record.client, out);
    text(b"\",\"protocol\":\"", record.protocol, out);
    if !record.server_name.is_empty() {
        bytes(b"\",\"sni\":\"", record.server_name, out);
    }
    out.push(b'"');
    if let Some((from_client, to_client)) = record.datagrams {
        number(b",\"datagrams_in\":", from_client, out);
        number(b",\"datagrams_out\":", to_client, out);
    }
    number(b",\"bytes_in\":", record.bytes_in, out);
    number(b",\"bytes_out\":", record.bytes_out, out);
    text(b",\"route\":\"", record.route, out);
    text(b"\",\"pool\":\"", record.pool, out);
    text(b"\",\"backend\":\"", record.backend, out);
    number(b"\",\"tries\":", record.tries.into(), out);
    optional(b",\"sticky\":\"", record.sticky, out);
    out.extend_from_slice(b",\"duration\":");
    push_seconds(record.duration, out);
    if !record.queued.is_zero() {
        out.extend_from_slice(b",\"queued\":");
        push_seconds(record.queued, out);
    }
    optional(b",\"end\":\"", record.end, out);
    optional(b",\"error\":\"", record.error, out);
    out.extend_from_slice(b"}\n");
}

/// Who reads this format wants a request and a status: the protocol and the listener stand for the one, 200 or 503 for the other.
pub(super) fn combined(record: &Connection<'_>, date: &mut DateCache, out: &mut Vec<u8>) {
    push_address(record.client, out);
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(date.ncsa(record.wall_millis / 1000));
    out.extend_from_slice(b"] \"");
    out.extend_from_slice(record.protocol.to_ascii_uppercase().as_bytes());
    out.push(b' ');
    out.extend_from_slice(record.listener.as_bytes());
    out.extend_from_slice(match record.error {
        "" => b"\" 200 ",
        _ => b"\" 503 ",
    });
    push_number(record.bytes_out, out);
    out.extend_from_slice(b" \"-\" \"-\"\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Connection<'static> {
        Connection {
            wall_millis: 1_795_219_199_042,
            id: 0xdead_beef,
            protocol: "tcp",
            listener: "db",
            client: IpAddr::from([192, 0, 2, 7]),
            server_name: b"",
            datagrams: None,
            bytes_in: 120,
            bytes_out: 4096,
            route: "main",
            pool: "pg",
            backend: "pg1",
            tries: 1,
            sticky: "",
            queued: Duration::ZERO,
            duration: Duration::from_millis(1500),
            end: "client",
            error: "",
        }
    }

    fn written(
        line: fn(&Connection<'_>, &mut DateCache, &mut Vec<u8>),
        record: &Connection<'_>,
    ) -> String {
        let mut out = Vec::new();
        line(record, &mut DateCache::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_json() {
        let line = written(json, &record());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2026-11-20T23:59:59.042Z");
        assert_eq!(value["end"], "client");
        assert!(value.get("error").is_none() && value.get("sni").is_none());
        let odd = Connection {
            server_name: b"a\"b\n",
            datagrams: Some((3, 4)),
            sticky: "kept",
            error: "no_backend",
            ..record()
        };
        let value: serde_json::Value = serde_json::from_str(&written(json, &odd)).unwrap();
        assert_eq!(value["sni"], "a\"b\n");
        assert_eq!(value["datagrams_out"], 4);
        assert_eq!(
            (&value["sticky"], &value["error"]),
            (&"kept".into(), &"no_backend".into())
        );
    }

    #[test]
    fn a_line_reads_as_analysers_expect() {
        let wanted = "192.0.2.7 - - [20/Nov/2026:23:59:59 +0000] \"TCP db\" 200 4096 \"-\" \"-\"\n";
        assert_eq!(written(combined, &record()), wanted);
    }
}

//! Framing that two readers could understand differently is refused, on both sides.
//! A refused request is answered once, the connection closes, nothing of it reaches an origin, and nothing behind it is served.

mod answers;
mod bodies;

use crate::support::message::Fault;
use crate::support::weir::get;
use crate::support::{Client, Origin, Weir, shown};

const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";

/// A request line with a good Host.
fn line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: shop.example.com\r\n\r\n"].concat()
}

/// A POST with this field line between good ones.
fn field(field: &[u8]) -> Vec<u8> {
    [
        b"POST / HTTP/1.1\r\nHost: shop.example.com\r\n",
        field,
        b"\r\nX-After: 1\r\n\r\n",
    ]
    .concat()
}

/// A request whose only difference from a good one is its Host line.
fn host(lines: &[u8]) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\n", lines, b"Accept: */*\r\n\r\n"].concat()
}

/// Sends every request with another behind it; each must get one answer with one of `statuses`, and the end.
#[track_caller]
fn refused(statuses: &[u16], cases: &[(&str, Vec<u8>)]) {
    let origin = Origin::named("reached");
    let weir = Weir::before(&[&origin]);
    let mut complaints = Vec::new();
    for (name, request) in cases {
        if let Err(complaint) = refusal(weir.client(), request, statuses) {
            complaints.push(format!("{name}: {complaint}  [{}]", shown(request)));
        }
        if origin.connections() > 0 && complaints.is_empty() {
            complaints.push(format!("{name}: the origin was reached"));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert_eq!(origin.hits(), 0, "requests at the origin");
    assert_eq!(weir.get("/fine").status(), 200, "weir still serves");
}

fn refusal(mut client: Client, request: &[u8], statuses: &[u16]) -> Result<(), String> {
    client
        .try_send(&[request, SMUGGLED].concat())
        .map_err(|error| error.to_string())?;
    let answer = client.try_answer().map_err(|fault| format!("{fault:?}"))?;
    if !statuses.contains(&answer.status()) {
        return Err(format!("answered {}", answer.first_line()));
    }
    if answer.value("connection").as_deref() != Some("close") {
        return Err("the answer does not say Connection: close".into());
    }
    let _ = client.reader.stream.shutdown(std::net::Shutdown::Write);
    match client.rest() {
        (rest, Fault::Closed) if rest.is_empty() => Ok(()),
        (rest, fault) => Err(format!("then {fault:?} after {:?}", shown(&rest))),
    }
}

#[test]
fn a_length_beside_a_coding() {
    let both = |fields: &str| {
        format!("POST / HTTP/1.1\r\nHost: shop.example.com\r\n{fields}\r\n0\r\n\r\n").into_bytes()
    };
    refused(
        &[400],
        &[
            (
                "CL, TE",
                both("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            ),
            (
                "TE, CL",
                both("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            ),
            (
                "CL 0, TE",
                both("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
            ),
            (
                "cl, te in odd case",
                both("cOnTeNt-lEnGtH: 5\r\ntRaNsFeR-eNcOdInG: ChUnKeD\r\n"),
            ),
            (
                "CL, unknown TE",
                both("Content-Length: 5\r\nTransfer-Encoding: x\r\n"),
            ),
            (
                "CL on TE, far apart",
                both(&format!(
                    "Transfer-Encoding: chunked\r\n{}Content-Length: 5\r\n",
                    "X-Fill: 1\r\n".repeat(60)
                )),
            ),
        ],
    );
}

#[test]
fn lengths_that_are_no_single_number() {
    let cases: Vec<(&str, Vec<u8>)> = [
        ("repeated", "Content-Length: 5\r\nContent-Length: 5"),
        ("differing", "Content-Length: 5\r\nContent-Length: 6"),
        (
            "repeated in odd case",
            "Content-Length: 5\r\ncontent-length: 5",
        ),
        ("list of equals", "Content-Length: 5, 5"),
        ("list", "Content-Length: 5, 6"),
        ("plus", "Content-Length: +5"),
        ("minus", "Content-Length: -5"),
        ("minus zero", "Content-Length: -0"),
        ("blank within", "Content-Length: 5 5"),
        ("empty", "Content-Length:"),
        ("blank", "Content-Length:  "),
        ("hexadecimal", "Content-Length: 0x5"),
        ("hexadecimal letters", "Content-Length: a"),
        ("fraction", "Content-Length: 5.0"),
        ("exponent", "Content-Length: 1e1"),
        ("underscore", "Content-Length: 1_0"),
        ("semicolon", "Content-Length: 5;"),
        ("quoted", "Content-Length: \"5\""),
        ("2^64", "Content-Length: 18446744073709551616"),
        ("2^64 + 5", "Content-Length: 18446744073709551621"),
        (
            "far too much",
            "Content-Length: 99999999999999999999999999999999",
        ),
        ("vertical tab", "Content-Length: \x0b5"),
    ]
    .into_iter()
    .map(|(name, text)| (name, field(text.as_bytes())))
    .collect();
    refused(&[400], &cases);
}

#[test]
fn codings_that_are_not_chunked_once_and_last() {
    let cases: Vec<(&str, Vec<u8>)> = [
        ("twice in a list", "Transfer-Encoding: chunked, chunked"),
        (
            "twice in lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        ("not last", "Transfer-Encoding: chunked, gzip"),
        (
            "not last, in lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        ("unknown", "Transfer-Encoding: gzip"),
        ("unknown, then chunked", "Transfer-Encoding: gzip, chunked"),
        ("identity", "Transfer-Encoding: identity"),
        (
            "identity, then chunked",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        ),
        ("misspelt", "Transfer-Encoding: xchunked"),
        ("longer", "Transfer-Encoding: chunkedx"),
        ("quoted", "Transfer-Encoding: \"chunked\""),
        ("parameter", "Transfer-Encoding: chunked;q=1"),
        ("empty", "Transfer-Encoding:"),
        ("vertical tab", "Transfer-Encoding: \x0bchunked"),
        ("form feed", "Transfer-Encoding: chunked\x0c"),
        ("no-break space", "Transfer-Encoding: \u{a0}chunked"),
        ("two words", "Transfer-Encoding: chun ked"),
    ]
    .into_iter()
    .map(|(name, text)| (name, field(text.as_bytes())))
    .collect();
    refused(&[400, 501], &cases);
}

#[test]
fn a_coding_in_http_1_0() {
    let request =
        b"POST / HTTP/1.0\r\nHost: shop.example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let kept = b"POST / HTTP/1.0\r\nHost: shop.example.com\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refused(
        &[400],
        &[("plain", request.to_vec()), ("kept alive", kept.to_vec())],
    );
}

#[test]
fn folded_lines() {
    refused(
        &[400],
        &[
            ("blank", field(b"X-A: b\r\n c")),
            ("tab", field(b"X-A: b\r\n\tc")),
            ("folded length", field(b"Content-Length:\r\n 5")),
            ("folded coding", field(b"Transfer-Encoding:\r\n chunked")),
            ("only blanks", field(b"X-A: b\r\n  ")),
            (
                "first line",
                b"GET / HTTP/1.1\r\n Host: shop.example.com\r\n\r\n".to_vec(),
            ),
            (
                "first line, tab",
                b"GET / HTTP/1.1\r\n\tX: y\r\nHost: shop.example.com\r\n\r\n".to_vec(),
            ),
        ],
    );
}

#[test]
fn bare_cr() {
    refused(
        &[400],
        &[
            ("target", line(b"GET /a\rb HTTP/1.1")),
            ("before the target", line(b"GET \r/ HTTP/1.1")),
            ("version", line(b"GET / HTTP/1.1\r")),
            (
                "instead of CRLF",
                b"GET / HTTP/1.1\rHost: shop.example.com\r\n\r\n".to_vec(),
            ),
            ("value", field(b"X-A: b\rc")),
            ("hidden field", field(b"X-A: b\rTransfer-Encoding: chunked")),
            ("end of value", field(b"X-A: b\r")),
            ("name", field(b"X\r-A: b")),
            ("start of line", field(b"\rX-A: b")),
            (
                "empty line",
                b"GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\r\n".to_vec(),
            ),
        ],
    );
}

#[test]
fn bare_lf() {
    refused(
        &[400],
        &[
            (
                "request line",
                b"GET / HTTP/1.1\nHost: shop.example.com\r\n\r\n".to_vec(),
            ),
            (
                "field",
                b"GET / HTTP/1.1\r\nHost: shop.example.com\nX-A: b\r\n\r\n".to_vec(),
            ),
            ("hidden field", field(b"X-A: b\nTransfer-Encoding: chunked")),
            (
                "empty line",
                b"GET / HTTP/1.1\r\nHost: shop.example.com\r\n\n".to_vec(),
            ),
            (
                "last field",
                b"GET / HTTP/1.1\r\nHost: shop.example.com\n\r\n".to_vec(),
            ),
            (
                "everywhere",
                b"GET / HTTP/1.1\nHost: shop.example.com\n\n".to_vec(),
            ),
            ("target", line(b"GET /a\nb HTTP/1.1")),
            ("before the request", [b"\n", get("/").as_bytes()].concat()),
        ],
    );
}

#[test]
fn white_space_around_names() {
    refused(
        &[400],
        &[
            ("blank before the colon", field(b"X-A : b")),
            ("tab before the colon", field(b"X-A\t: b")),
            ("length", field(b"Content-Length : 5")),
            ("coding", field(b"Transfer-Encoding : chunked")),
            ("coding, tab", field(b"Transfer-Encoding\t: chunked")),
            ("host", host(b"Host : shop.example.com\r\n")),
            ("within the name", field(b"X A: b")),
        ],
    );
}

#[test]
fn names_that_are_no_token() {
    refused(
        &[400],
        &[
            ("empty", field(b": b")),
            ("no colon", field(b"X-A")),
            ("parenthesis", field(b"X(A): b")),
            ("slash", field(b"X/A: b")),
            ("at", field(b"X@A: b")),
            ("quote", field(b"\"X\": b")),
            ("brace", field(b"X{}: b")),
            ("NUL", field(b"X\0A: b")),
            ("control", field(b"X\x01A: b")),
            ("delete", field(b"X\x7fA: b")),
            ("above ASCII", field(b"X\xffA: b")),
            ("UTF-8", field("Ünder: b".as_bytes())),
        ],
    );
}

#[test]
fn control_characters_in_values() {
    let cases: Vec<(String, Vec<u8>)> = (0..=0x1f_u8)
        .chain([0x7f])
        .filter(|byte| !b"\t\r\n".contains(byte))
        .map(|byte| {
            (
                format!("{byte:#04x}"),
                field(&[b"X-A: b", &[byte][..], b"c"].concat()),
            )
        })
        .collect();
    let named: Vec<(&str, Vec<u8>)> = cases
        .iter()
        .map(|(name, request)| (name.as_str(), request.clone()))
        .collect();
    refused(&[400], &named);
}

#[test]
fn hosts_that_are_missing_repeated_or_no_host() {
    refused(
        &[400],
        &[
            ("missing", host(b"")),
            (
                "missing, absolute form",
                b"GET http://shop.example.com/ HTTP/1.1\r\nAccept: */*\r\n\r\n".to_vec(),
            ),
            (
                "repeated",
                host(b"Host: shop.example.com\r\nHost: shop.example.com\r\n"),
            ),
            (
                "differing",
                host(b"Host: shop.example.com\r\nHost: evil.example.com\r\n"),
            ),
            (
                "repeated, 1.0",
                b"GET / HTTP/1.0\r\nHost: a.example\r\nHost: b.example\r\n\r\n".to_vec(),
            ),
            (
                "repeated, absolute form",
                b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n"
                    .to_vec(),
            ),
            ("userinfo", host(b"Host: user@shop.example.com\r\n")),
            (
                "userinfo with password",
                host(b"Host: user:word@shop.example.com\r\n"),
            ),
            (
                "blank within",
                host(b"Host: shop.example.com evil.example.com\r\n"),
            ),
            ("tab within", host(b"Host: shop\texample\r\n")),
            (
                "list",
                host(b"Host: shop.example.com, evil.example.com\r\n"),
            ),
            ("path", host(b"Host: shop.example.com/admin\r\n")),
            ("query", host(b"Host: shop.example.com?x\r\n")),
            ("fragment", host(b"Host: shop.example.com#x\r\n")),
            ("backslash", host(b"Host: shop\\example\r\n")),
            ("scheme", host(b"Host: http://shop.example.com\r\n")),
            ("port of letters", host(b"Host: shop.example.com:http\r\n")),
            ("two ports", host(b"Host: shop.example.com:80:81\r\n")),
            ("open bracket", host(b"Host: [::1\r\n")),
            ("bracket within", host(b"Host: shop[1]\r\n")),
            ("above ASCII", host("Host: shöp.example.com\r\n".as_bytes())),
            ("NUL", host(b"Host: shop\0example\r\n")),
        ],
    );
}

#[test]
fn targets_that_are_no_target() {
    refused(
        &[400],
        &[
            ("blank", line(b"GET /a b HTTP/1.1")),
            ("two blanks before", line(b"GET  / HTTP/1.1")),
            ("two blanks behind", line(b"GET /  HTTP/1.1")),
            ("tabs", line(b"GET\t/\tHTTP/1.1")),
            ("empty", line(b"GET  HTTP/1.1")),
            ("fragment", line(b"GET /a#b HTTP/1.1")),
            ("NUL", line(b"GET /a\0b HTTP/1.1")),
            ("control", line(b"GET /a\x01b HTTP/1.1")),
            ("tab within", line(b"GET /a\tb HTTP/1.1")),
            ("delete", line(b"GET /a\x7fb HTTP/1.1")),
            ("above ASCII", line(b"GET /a\xffb HTTP/1.1")),
            ("UTF-8", line("GET /ä HTTP/1.1".as_bytes())),
            ("UTF-8 in the query", line("GET /?q=ä HTTP/1.1".as_bytes())),
            ("relative", line(b"GET a HTTP/1.1")),
            ("dots", line(b"GET ../a HTTP/1.1")),
            ("asterisk, not OPTIONS", line(b"GET * HTTP/1.1")),
            (
                "authority, not CONNECT",
                line(b"GET shop.example.com:80 HTTP/1.1"),
            ),
            ("asterisk and more", line(b"OPTIONS *a HTTP/1.1")),
            ("absolute without a host", line(b"GET http:///a HTTP/1.1")),
            (
                "absolute with userinfo",
                line(b"GET http://user@shop.example.com/ HTTP/1.1"),
            ),
            (
                "absolute with blank",
                line(b"GET http://shop.example.com /a HTTP/1.1"),
            ),
            (
                "absolute with a bad port",
                line(b"GET http://shop.example.com:x/ HTTP/1.1"),
            ),
            (
                "another scheme",
                line(b"GET ftp://shop.example.com/ HTTP/1.1"),
            ),
            ("no scheme", line(b"GET ://shop.example.com/ HTTP/1.1")),
        ],
    );
}

#[test]
fn methods_that_are_no_token() {
    refused(
        &[400],
        &[
            ("none", line(b" / HTTP/1.1")),
            ("blank first", line(b" GET / HTTP/1.1")),
            ("parenthesis", line(b"G(T / HTTP/1.1")),
            ("colon", line(b"GET: / HTTP/1.1")),
            ("control", line(b"G\x01T / HTTP/1.1")),
            ("NUL", line(b"G\0T / HTTP/1.1")),
            ("above ASCII", line("GËT / HTTP/1.1".as_bytes())),
            ("quote", line(b"\"GET\" / HTTP/1.1")),
        ],
    );
}

#[test]
fn connect_is_not_offered() {
    refused(
        &[405],
        &[
            (
                "authority form",
                line(b"CONNECT shop.example.com:443 HTTP/1.1"),
            ),
            ("origin form", line(b"CONNECT / HTTP/1.1")),
        ],
    );
}

#[test]
fn versions_that_are_unknown() {
    refused(
        &[505],
        &[
            ("1.2", line(b"GET / HTTP/1.2")),
            ("2.0", line(b"GET / HTTP/2.0")),
            ("3.0", line(b"GET / HTTP/3.0")),
            ("0.9", line(b"GET / HTTP/0.9")),
            ("9.9", line(b"GET / HTTP/9.9")),
        ],
    );
}

#[test]
fn versions_that_are_no_version() {
    refused(
        &[400],
        &[
            ("none", line(b"GET /")),
            ("none, with a blank", line(b"GET / ")),
            ("no minor", line(b"GET / HTTP/1.")),
            ("no point", line(b"GET / HTTP/11")),
            ("major only", line(b"GET / HTTP/1")),
            ("comma", line(b"GET / HTTP/1,1")),
            ("lower case", line(b"GET / http/1.1")),
            ("misspelt", line(b"GET / HTP/1.1")),
            ("blank within", line(b"GET / HTTP /1.1")),
            ("blank behind", line(b"GET / HTTP/1.1 ")),
            ("letter behind", line(b"GET / HTTP/1.1x")),
            ("two digits", line(b"GET / HTTP/1.10")),
            ("leading zero", line(b"GET / HTTP/01.1")),
            ("minus", line(b"GET / HTTP/-1.1")),
        ],
    );
}

/// A request line that is nearly what HTTP/2 begins with is still one of HTTP/1.
#[test]
fn nearly_the_preface_of_http_2_is_refused() {
    refused(
        &[505, 400],
        &[
            ("no body", b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n".to_vec()),
            ("a field", b"PRI * HTTP/2.0\r\nHost: a\r\n\r\n".to_vec()),
        ],
    );
}

#[test]
fn what_weir_answers_itself_echoes_nothing() {
    let origin = Origin::named("reached");
    let weir = Weir::before(&[&origin]);
    let answer = weir
        .client()
        .ask("GET /<script>\x01 HTTP/1.1\r\nHost: <b>\r\n\r\n");
    assert_eq!(answer.status(), 400);
    assert!(
        !answer.text().contains("script") && !answer.text().contains("<b>"),
        "{}",
        answer.text()
    );
    assert!(
        answer.has("content-type") && answer.has("content-length"),
        "{}",
        answer.first_line()
    );
}

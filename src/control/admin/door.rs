//! Who may ask the admin server what: by where it listens, by the token, by the name the client used for it.
//! It must let nobody on the network read or change anything without the token, and no web page act for an operator who has it open.
//! The walk goes on in `api.rs`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};

use super::answer::Problem;
use crate::config::model::{Admin, AdminBind};

/// Served to everyone who reaches the address.
const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// The rules of one generation.
#[derive(Debug)]
pub(super) struct Door {
    /// Whether reaching the address is proof enough: a loopback address or a Unix socket.
    local: bool,
    /// The bound address, which is one of the names that the server goes by.
    address: Option<SocketAddr>,
    token: Option<Vec<u8>>,
}

impl Door {
    pub(super) fn new(admin: &Admin) -> io::Result<Door> {
        let address = match admin.bind {
            AdminBind::Tcp(address) => Some(address),
            AdminBind::Unix(_) => None,
        };
        let local = address.is_none_or(|address| address.ip().to_canonical().is_loopback());
        let token = admin.token_file.as_deref().map(read_token).transpose()?;
        Ok(Door {
            local,
            address,
            token,
        })
    }

    /// Whether the request may be answered.
    pub(super) fn check(&self, request: &Parts) -> Result<(), Problem> {
        if OPEN.contains(&request.uri.path()) {
            return Ok(());
        }
        if !self.has_token(&request.headers)? {
            self.check_host(request)?;
        }
        if request.method == Method::POST && !is_json(&request.headers) {
            let detail = "send Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        Ok(())
    }

    /// Whether the request carries the token; an error when it has to and does not. A wrong token is an error everywhere.
    fn has_token(&self, headers: &HeaderMap) -> Result<bool, Problem> {
        match (&self.token, bearer(headers)) {
            (Some(token), Some(given)) => match verify_slices_are_equal(token, given) {
                Ok(()) => Ok(true),
                Err(_) => Err(Problem::unauthorized(
                    "the token is not the one in token_file",
                )),
            },
            _ if self.local => Ok(false),
            (Some(_), None) => Err(Problem::unauthorized("send Authorization: Bearer TOKEN")),
            (None, _) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "off loopback and unix sockets the API needs a token: set admin.token_file to a file that holds one, \
                 or bind a loopback address or unix:PATH",
            )),
        }
    }

    /// A page on the web can point its own name at a loopback address, but it cannot send another Host than that name.
    fn check_host(&self, request: &Parts) -> Result<(), Problem> {
        let host = request
            .headers
            .get(HOST)
            .and_then(|host| host.to_str().ok());
        if host.is_some_and(|host| self.goes_by(host)) {
            return Ok(());
        }
        let detail = "the Host is not a loopback name or address, nor the address that weir binds";
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }

    fn goes_by(&self, host: &str) -> bool {
        let name = name_of(host);
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let address = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        address.is_ok_and(|address| {
            address.to_canonical().is_loopback()
                || self.address.is_some_and(|own| own.ip() == address)
        })
    }
}

/// The bearer token of the request (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// The host of an authority, without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn read_token(path: &Path) -> io::Result<Vec<u8>> {
    let failed = |kind, why: &dyn std::fmt::Display| {
        io::Error::new(kind, format!("admin token file {}: {why}", path.display()))
    };
    let text = std::fs::read(path).map_err(|error| failed(error.kind(), &error))?;
    let token = text.trim_ascii();
    if token.is_empty() {
        return Err(failed(io::ErrorKind::InvalidData, &"it is empty"));
    }
    Ok(token.to_vec())
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn door(bind: &str, token: Option<&str>) -> Door {
        let bind = match bind.strip_prefix("unix:") {
            Some(path) => AdminBind::Unix(path.into()),
            None => AdminBind::Tcp(bind.parse().unwrap()),
        };
        let mut door = Door::new(&Admin {
            bind,
            token_file: None,
        })
        .unwrap();
        door.token = token.map(Into::into);
        door
    }

    fn ask(door: &Door, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        door.check(&parts)
            .map_or_else(|problem| problem.status(), |()| 200)
    }

    const STATUS: &str = "/api/v1/status";
    const RELOAD: &str = "/api/v1/reload";
    const JSON: (&str, &str) = ("Content-Type", "application/json; charset=utf-8");

    #[test]
    fn reaching_a_local_address_is_enough() {
        for bind in [
            "127.0.0.1:9900",
            "[::1]:9900",
            "[::ffff:127.0.0.1]:9900",
            "unix:/run/weir.sock",
        ] {
            let door = door(bind, None);
            assert_eq!(
                ask(&door, "GET", STATUS, &[("Host", "localhost")]),
                200,
                "{bind}"
            );
            assert_eq!(
                ask(&door, "POST", RELOAD, &[("Host", "127.0.0.1:9900"), JSON]),
                200,
                "{bind}"
            );
        }
    }

    #[test]
    fn off_loopback_the_token_decides() {
        let open = door("192.0.2.1:9900", None);
        let host = ("Host", "192.0.2.1:9900");
        for path in OPEN {
            assert_eq!(ask(&open, "GET", path, &[]), 200);
        }
        for path in [STATUS, "/", "/metrics/", "/nothing"] {
            assert_eq!(ask(&open, "GET", path, &[host]), 403);
            assert_eq!(
                ask(&open, "GET", path, &[host, ("Authorization", "Bearer ")]),
                403
            );
        }
        let guarded = door("0.0.0.0:9900", Some("s3cret"));
        let with = |value| {
            ask(
                &guarded,
                "GET",
                STATUS,
                &[("Host", "lb1.example.com:9900"), ("Authorization", value)],
            )
        };
        assert_eq!(with("Bearer s3cret"), 200);
        assert_eq!(with("bearer  s3cret "), 200);
        for wrong in [
            "Bearer s3cre",
            "Bearer s3cret1",
            "Bearer",
            "Bearer ",
            "Basic s3cret",
            "s3cret",
            "Bearer S3CRET",
        ] {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(ask(&guarded, "GET", STATUS, &[host]), 401);
        let token = ("Authorization", "Bearer s3cret");
        assert_eq!(ask(&guarded, "POST", RELOAD, &[token, JSON]), 200);
        assert_eq!(ask(&guarded, "POST", RELOAD, &[token]), 415);
    }

    #[test]
    fn a_wrong_token_is_told_even_where_none_is_needed() {
        let door = door("127.0.0.1:9900", Some("s3cret"));
        let host = ("Host", "localhost");
        assert_eq!(ask(&door, "GET", STATUS, &[host]), 200);
        assert_eq!(
            ask(&door, "GET", STATUS, &[host, ("Authorization", "Bearer x")]),
            401
        );
    }

    #[test]
    fn a_name_that_somebody_else_chose_is_refused() {
        let door = door("127.0.0.1:9900", None);
        for good in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:9900",
            "127.8.9.1",
            "[::1]:9900",
            "[::1]",
        ] {
            assert_eq!(
                ask(&door, "POST", RELOAD, &[("Host", good), JSON]),
                200,
                "{good}"
            );
        }
        for bad in [
            "evil.example.com",
            "localhost.evil.example.com:9900",
            "192.0.2.1",
            "",
            ":9900",
            "127.0.0.1.evil.example.com",
        ] {
            assert_eq!(
                ask(&door, "POST", RELOAD, &[("Host", bad), JSON]),
                403,
                "{bad}"
            );
            assert_eq!(ask(&door, "GET", STATUS, &[("Host", bad)]), 403, "{bad}");
            assert_eq!(
                ask(&door, "GET", "/metrics", &[("Host", bad)]),
                200,
                "{bad}"
            );
        }
        assert_eq!(ask(&door, "POST", RELOAD, &[JSON]), 403);
    }

    #[test]
    fn a_form_cannot_post() {
        let door = door("127.0.0.1:9900", None);
        let host = ("Host", "localhost");
        for wrong in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonp",
        ] {
            assert_eq!(
                ask(&door, "POST", RELOAD, &[host, ("Content-Type", wrong)]),
                415
            );
        }
        assert_eq!(ask(&door, "POST", RELOAD, &[host]), 415);
    }

    #[test]
    fn a_token_file_must_hold_a_token() {
        let path = std::env::temp_dir().join(format!("weir-{}-token", std::process::id()));
        std::fs::write(&path, " s3cret\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), b"s3cret");
        std::fs::write(&path, "\n").unwrap();
        assert!(
            read_token(&path)
                .unwrap_err()
                .to_string()
                .ends_with("token: it is empty")
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            read_token(&path).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}

//! Who may ask the admin server what: by where it listens, by the token, by the name the client used for it.
//! It must let nobody on the network read or change anything without the token, and no web page act for an operator who has it open.
//! The walk goes on in `api.rs`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};

use super::answer::Problem;
use crate::config::model::AdminBind;

/// Served to everyone who reaches the address.
const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// The rules of one address.
#[derive(Debug)]
pub(super) struct Door {
    /// Whether reaching the address is proof enough: a loopback address or a Unix socket.
    local: bool,
    /// The bound address, which is one of the names that the server goes by.
    address: Option<SocketAddr>,
}

impl Door {
    pub(super) fn new(bind: &AdminBind) -> Door {
        let address = match *bind {
            AdminBind::Tcp(address) => Some(address),
            AdminBind::Unix(_) => None,
        };
        let local = address.is_none_or(|address| address.ip().to_canonical().is_loopback());
        Door { local, address }
    }

    /// Whether the request may be answered. The token file is read when it is needed, so that a new token counts at once.
    pub(super) async fn check(
        &self,
        request: &Parts,
        token_file: Option<&Path>,
    ) -> Result<(), Problem> {
        if OPEN.contains(&request.uri.path()) {
            return Ok(());
        }
        let token = match token_file {
            Some(path) if !self.local || bearer(&request.headers).is_some() => {
                Some(read_token(path).await?)
            }
            _ => None,
        };
        self.decide(request, token.as_deref())
    }

    fn decide(&self, request: &Parts, token: Option<&[u8]>) -> Result<(), Problem> {
        if !self.has_token(&request.headers, token)? {
            self.check_host(request)?;
        }
        if request.method == Method::POST && !is_json(&request.headers) {
            let detail = "send Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        Ok(())
    }

    /// Whether the request carries the token; an error when it has to and does not. A wrong token is an error everywhere.
    fn has_token(&self, headers: &HeaderMap, token: Option<&[u8]>) -> Result<bool, Problem> {
        match (token, bearer(headers)) {
            (Some(token), Some(given)) => match verify_slices_are_equal(token, given) {
                Ok(()) => Ok(true),
                Err(_) => Err(Problem::unauthorized(
                    "the token is not the one in admin.token_file",
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

async fn read_token(path: &Path) -> Result<Vec<u8>, Problem> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| error.to_string())
        .and_then(token)
        .map_err(|why| {
            log::error!("admin: token_file {}: {why}", path.display());
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "admin.token_file cannot be read; the log says why",
            )
        })
}

/// The token in the text of a token file.
pub(super) fn token(text: Vec<u8>) -> Result<Vec<u8>, String> {
    match text.trim_ascii() {
        [] => Err("it is empty".into()),
        token => Ok(token.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn door(bind: &str) -> Door {
        Door::new(&match bind.strip_prefix("unix:") {
            Some(path) => AdminBind::Unix(path.into()),
            None => AdminBind::Tcp(bind.parse().unwrap()),
        })
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn ask(
        door: &Door,
        token: Option<&str>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> u16 {
        let decision = door.decide(&request(method, path, headers), token.map(str::as_bytes));
        decision.map_or_else(|problem| problem.status(), |()| 200)
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
            let door = door(bind);
            assert_eq!(
                ask(&door, None, "GET", STATUS, &[("Host", "localhost")]),
                200,
                "{bind}"
            );
            let post = [("Host", "127.0.0.1:9900"), JSON];
            assert_eq!(ask(&door, None, "POST", RELOAD, &post), 200, "{bind}");
        }
    }

    #[tokio::test]
    async fn some_paths_are_open_to_all() {
        let door = door("192.0.2.1:9900");
        for path in OPEN {
            assert!(door.check(&request("GET", path, &[]), None).await.is_ok());
        }
        for path in [STATUS, "/", "/metrics/", "/nothing"] {
            let problem = door
                .check(&request("GET", path, &[]), None)
                .await
                .unwrap_err();
            assert_eq!(problem.status(), 403, "{path}");
        }
    }

    #[test]
    fn off_loopback_the_token_decides() {
        let door = door("0.0.0.0:9900");
        let host = ("Host", "192.0.2.1:9900");
        assert_eq!(ask(&door, None, "GET", STATUS, &[host]), 403);
        assert_eq!(
            ask(
                &door,
                None,
                "GET",
                STATUS,
                &[host, ("Authorization", "Bearer ")]
            ),
            403
        );
        let token = Some("s3cret");
        let with = |value| {
            let headers = [("Host", "lb1.example.com:9900"), ("Authorization", value)];
            ask(&door, token, "GET", STATUS, &headers)
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
        assert_eq!(ask(&door, token, "GET", STATUS, &[host]), 401);
        let good = ("Authorization", "Bearer s3cret");
        assert_eq!(ask(&door, token, "POST", RELOAD, &[good, JSON]), 200);
        assert_eq!(ask(&door, token, "POST", RELOAD, &[good]), 415);
    }

    #[test]
    fn a_wrong_token_is_told_even_where_none_is_needed() {
        let (door, token, host) = (
            door("127.0.0.1:9900"),
            Some("s3cret"),
            ("Host", "localhost"),
        );
        assert_eq!(ask(&door, token, "GET", STATUS, &[host]), 200);
        assert_eq!(
            ask(
                &door,
                token,
                "GET",
                STATUS,
                &[host, ("Authorization", "Bearer x")]
            ),
            401
        );
    }

    #[test]
    fn a_name_that_somebody_else_chose_is_refused() {
        let door = door("127.0.0.1:9900");
        for good in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:9900",
            "127.8.9.1",
            "[::1]:9900",
            "[::1]",
        ] {
            assert_eq!(
                ask(&door, None, "POST", RELOAD, &[("Host", good), JSON]),
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
            "127.0.0.1.example.com",
        ] {
            assert_eq!(
                ask(&door, None, "POST", RELOAD, &[("Host", bad), JSON]),
                403,
                "{bad}"
            );
            assert_eq!(
                ask(&door, None, "GET", STATUS, &[("Host", bad)]),
                403,
                "{bad}"
            );
        }
        assert_eq!(ask(&door, None, "POST", RELOAD, &[JSON]), 403);
    }

    #[test]
    fn a_form_cannot_post() {
        let (door, host) = (door("127.0.0.1:9900"), ("Host", "localhost"));
        for wrong in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonp",
        ] {
            assert_eq!(
                ask(
                    &door,
                    None,
                    "POST",
                    RELOAD,
                    &[host, ("Content-Type", wrong)]
                ),
                415
            );
        }
        assert_eq!(ask(&door, None, "POST", RELOAD, &[host]), 415);
    }

    #[test]
    fn a_token_file_must_hold_a_token() {
        assert_eq!(token(b" s3cret\n".to_vec()).unwrap(), b"s3cret");
        assert_eq!(token(b"\n".to_vec()).unwrap_err(), "it is empty");
    }

    #[tokio::test]
    async fn a_token_file_that_is_gone_lets_nobody_in() {
        let nowhere = Some(Path::new("/nonexistent/token"));
        let asked = request("GET", STATUS, &[("Authorization", "Bearer x")]);
        let problem = door("192.0.2.1:9900")
            .check(&asked, nowhere)
            .await
            .unwrap_err();
        assert_eq!(problem.status(), 500);
    }
}

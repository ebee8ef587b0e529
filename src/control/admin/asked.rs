//! The question of `/api/v1/explain`: a request, described in a query, as the bytes that a client would send.
//! It judges nothing; whatever can be sent can be asked about, but one question is one head.
//! The walk goes back to `explain.rs`.

use std::net::{IpAddr, Ipv4Addr};

use hyper::StatusCode;

use super::answer::Problem;
use super::backend_state::decoded;

/// A request to explain.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its head.
    pub head: Vec<u8>,
    /// Who would send it.
    pub client: IpAddr,
    /// The port that the URL leads to.
    pub port: u16,
    /// The name of the listener that would get it, if that was said.
    pub listener: Option<String>,
}

impl Asked {
    /// Reads a query: `url`, and perhaps `method`, `client`, `listener` and any number of `header`, `Name: value` each.
    pub(super) fn of(query: &str) -> Result<Asked, Problem> {
        let (mut url, mut method) = (None, "GET".to_owned());
        let (mut client, mut listener) = (IpAddr::V4(Ipv4Addr::LOCALHOST), None);
        let mut fields = String::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            if value.contains(['\r', '\n', '\0']) {
                return Err(bad(&format!("`{key}` has a line end in it")));
            }
            match key {
                "url" => url = Some(value),
                "method" => method = value,
                "client" => {
                    client = value
                        .parse()
                        .map_err(|_| bad("`client` is not an IP address"))?;
                }
                "listener" => listener = Some(value),
                "header" if value.contains(':') => fields += &format!("{value}\r\n"),
                "header" => return Err(bad("`header` is not \"Name: value\"")),
                _ => {
                    let known = "url, method, header, client and listener";
                    return Err(bad(&format!("the query may have {known}, not {key:?}")));
                }
            }
        }
        let url = url.ok_or_else(|| bad("the query lacks `url`"))?;
        let Url {
            authority,
            target,
            port,
        } = Url::of(&url)?;
        let names_host = |line: &str| {
            line.get(..5)
                .is_some_and(|name| name.eq_ignore_ascii_case("host:"))
        };
        let host = match fields.lines().any(names_host) {
            true => String::new(),
            false => format!("Host: {authority}\r\n"),
        };
        Ok(Asked {
            head: format!("{method} {target} HTTP/1.1\r\n{host}{fields}\r\n").into_bytes(),
            client,
            port,
            listener,
        })
    }
}

struct Url<'a> {
    authority: &'a str,
    target: String,
    port: u16,
}

impl<'a> Url<'a> {
    /// Takes `http://host/path`, `https://…`, `host/path` or a path alone.
    fn of(url: &'a str) -> Result<Url<'a>, Problem> {
        let url = url.split('#').next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let default = match scheme.to_ascii_lowercase().as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(bad("the URL is not one of http or https")),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority = match authority {
            "" => "localhost",
            authority => authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host),
        };
        let port = authority
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        Ok(Url {
            authority,
            target: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
            port: port.unwrap_or(default),
        })
    }
}

fn bad(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(query: &str) -> String {
        String::from_utf8(Asked::of(query).unwrap().head).unwrap()
    }

    #[test]
    fn a_query_becomes_a_head() {
        assert_eq!(
            head(
                "url=https%3A%2F%2Fshop.example.com%2Fcart%3Fa=b&method=POST&header=Cookie%3A%20a%3Db&header=X: y"
            ),
            "POST /cart?a=b HTTP/1.1\r\nHost: shop.example.com\r\nCookie: a=b\r\nX: y\r\n\r\n"
        );
        assert_eq!(head("url=/x"), "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(
            head("url=a:81?q&header=host: b"),
            "GET /?q HTTP/1.1\r\nhost: b\r\n\r\n"
        );
        let asked = Asked::of("url=http://u@a:81/x%23y&client=192.0.2.7&listener=web").unwrap();
        assert_eq!(
            (asked.port, asked.client.to_string()),
            (81, "192.0.2.7".to_owned())
        );
        assert_eq!(asked.listener.as_deref(), Some("web"));
        assert!(asked.head.starts_with(b"GET /x HTTP/1.1\r\nHost: a:81\r\n"));
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        for query in [
            "",
            "url=ftp://a/",
            "url=/&client=me",
            "url=/&header=x",
            "url=/&header=x:%0d%0ay:z",
            "url=/&method=GET%20/%20HTTP/1.1%0d%0a",
            "url=/&user=x",
            "url=%zz",
        ] {
            assert_eq!(Asked::of(query).unwrap_err().status(), 400, "{query}");
        }
    }
}

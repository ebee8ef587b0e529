//! The question of `/api/v1/explain`: a request, described in a query, as the bytes that a client would send, or what a client says whose
//! bytes are passed on. It judges nothing; whatever can be sent can be asked about, but one question is one head.
//! The walk goes back to `explain.rs`.

use std::net::{IpAddr, Ipv4Addr};

use hyper::StatusCode;

use super::answer::Problem;
use super::backend_state::decoded;
use crate::net::client_hello::host_name;

/// What is to be explained.
#[derive(Debug)]
pub(super) struct Asked {
    /// Who would send it.
    pub client: IpAddr,
    /// The name of the listener that would get it; always there where bytes are passed on.
    pub listener: Option<String>,
    /// What it is.
    pub what: What,
}

/// What a client would send.
#[derive(Debug)]
pub(super) enum What {
    /// A request.
    Request {
        /// Its head.
        head: Vec<u8>,
        /// The port that the URL leads to.
        port: u16,
    },
    /// A connection, or a datagram, whose bytes are passed on.
    Passed(Passed),
}

/// What its client says in the clear.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// The name that it asks for (SNI).
    pub server_name: Option<String>,
    /// The protocols that it offers (ALPN).
    pub protocols: Vec<String>,
}

impl Passed {
    /// The protocols as they stand in a ClientHello: each behind a byte of its length.
    pub(super) fn protocol_list(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for protocol in &self.protocols {
            list.push(protocol.len() as u8);
            list.extend_from_slice(protocol.as_bytes());
        }
        list
    }

    fn set_name(&mut self, name: &str) -> Result<(), Problem> {
        let found = host_name(name.as_bytes()).ok().flatten();
        let name = found.ok_or_else(|| bad("`sni` is not a name that a client can ask for"))?;
        self.server_name = Some(name.to_owned());
        Ok(())
    }

    fn add_protocol(&mut self, protocol: String) -> Result<(), Problem> {
        if !(1..=255).contains(&protocol.len()) {
            return Err(bad("`alpn` is not a protocol, of 1 to 255 bytes"));
        }
        self.protocols.push(protocol);
        Ok(())
    }
}

impl Asked {
    /// Reads a query: `url`, and perhaps `method`, `client`, `listener` and any number of `header`, `Name: value` each; or a `listener` that
    /// passes on, and perhaps `client`, `sni` and any number of `alpn`.
    pub(super) fn of(query: &str) -> Result<Asked, Problem> {
        let (mut url, mut method) = (None, None);
        let (mut client, mut listener) = (IpAddr::V4(Ipv4Addr::LOCALHOST), None);
        let mut fields = String::new();
        let mut passed = Passed::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            if value.contains(['\r', '\n', '\0']) {
                return Err(bad(&format!("`{key}` has a line end in it")));
            }
            match key {
                "url" => url = Some(value),
                "method" => method = Some(value),
                "client" => {
                    client = value
                        .parse()
                        .map_err(|_| bad("`client` is not an IP address"))?;
                }
                "listener" => listener = Some(value),
                "header" if value.contains(':') => fields += &format!("{value}\r\n"),
                "header" => return Err(bad("`header` is not \"Name: value\"")),
                "sni" => passed.set_name(&value)?,
                "alpn" => passed.add_protocol(value)?,
                _ => {
                    let known = "url, method, header, client, listener, sni and alpn";
                    return Err(bad(&format!("the query may have {known}, not {key:?}")));
                }
            }
        }
        let says_something = passed.server_name.is_some() || !passed.protocols.is_empty();
        let what = match url {
            Some(_) if says_something => {
                return Err(bad(
                    "a question with `url` is of a request: `sni` and `alpn` are of connections that are passed on",
                ));
            }
            Some(url) => request(&url, method.as_deref().unwrap_or("GET"), &fields)?,
            None if method.is_some() || !fields.is_empty() => {
                return Err(bad(
                    "`method` and `header` are of a request, which has a `url`",
                ));
            }
            None if listener.is_none() => {
                return Err(bad(
                    "the query lacks `url`, or the `listener` of a connection that is passed on",
                ));
            }
            None => What::Passed(passed),
        };
        Ok(Asked {
            client,
            listener,
            what,
        })
    }
}

fn request(url: &str, method: &str, fields: &str) -> Result<What, Problem> {
    let Url {
        authority,
        target,
        port,
    } = Url::of(url)?;
    let names_host = |line: &str| {
        line.get(..5)
            .is_some_and(|name| name.eq_ignore_ascii_case("host:"))
    };
    let host = match fields.lines().any(names_host) {
        true => String::new(),
        false => format!("Host: {authority}\r\n"),
    };
    Ok(What::Request {
        head: format!("{method} {target} HTTP/1.1\r\n{host}{fields}\r\n").into_bytes(),
        port,
    })
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

    fn head_and_port(query: &str) -> (String, u16) {
        match Asked::of(query).unwrap().what {
            What::Request { head, port } => (String::from_utf8(head).unwrap(), port),
            What::Passed(passed) => panic!("{passed:?}"),
        }
    }

    fn head(query: &str) -> String {
        head_and_port(query).0
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
        let query = "url=http://u@a:81/x%23y&client=192.0.2.7&listener=web";
        let asked = Asked::of(query).unwrap();
        assert_eq!(asked.client.to_string(), "192.0.2.7");
        assert_eq!(asked.listener.as_deref(), Some("web"));
        let (head, port) = head_and_port(query);
        assert!(head.starts_with("GET /x HTTP/1.1\r\nHost: a:81\r\n"));
        assert_eq!(port, 81);
    }

    #[test]
    fn a_query_without_a_url_is_of_a_connection() {
        let asked = Asked::of("listener=db&sni=A.test.&alpn=h2&alpn=http%2F1.1").unwrap();
        let What::Passed(passed) = asked.what else {
            panic!("a request");
        };
        assert_eq!(passed.server_name.as_deref(), Some("A.test"));
        assert_eq!(passed.protocol_list(), b"\x02h2\x08http/1.1");
        let facts = crate::policy::facts::HelloFacts {
            server_name: b"",
            protocols: &passed.protocol_list(),
        };
        assert!(facts.offers(b"h2") && facts.offers(b"http/1.1"));
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
            "url=/&sni=a",
            "url=/&alpn=h2",
            "listener=db&method=GET",
            "listener=db&header=a:b",
            "listener=db&sni=192.0.2.1",
            "listener=db&sni=a%20b",
            "listener=db&sni=",
            "listener=db&alpn=",
            "client=192.0.2.1",
            "url=%zz",
        ] {
            assert_eq!(Asked::of(query).unwrap_err().status(), 400, "{query}");
        }
    }
}

//! Asks a running weir over its admin address.
//! It must never leave a command hanging: every wait is bounded.
//! The walk goes on in `control/admin/api.rs`, which answers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::ConfigFile;
use crate::config;
use crate::config::model::{Admin, AdminBind};

/// The server answers within this time whatever happens, so a longer silence means that it is gone.
const WAIT: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const ANSWER: u64 = 64 * 1024 * 1024;
/// Field lines that an answer may have.
const LINES: usize = 32;

/// Which running weir is meant.
#[derive(Args)]
pub struct AdminAddress {
    /// The admin address, `IP:PORT` or `unix:PATH`; default: WEIR_ADMIN, else that of the configuration file.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
}

/// A way to ask.
#[derive(Debug)]
pub struct Client {
    /// `IP:port`, `name:port` or `unix:PATH`.
    address: String,
    token: Option<String>,
}

impl AdminAddress {
    /// The configuration file that `-c` names.
    pub fn file(&self) -> &Path {
        &self.file.config
    }

    /// Finds the address, and the token when the configuration file names one. The file may be broken: weir runs on.
    ///
    /// # Errors
    /// What to tell the user when the token cannot be read.
    pub fn client(&self) -> Result<Client, String> {
        let told = config::admin_of(&self.file.config);
        Ok(Client {
            address: self.address(told.as_ref()),
            token: told.as_ref().map_or(Ok(None), token)?,
        })
    }

    /// Finds the address alone, for what anybody may ask: who checks readiness seldom may read the token.
    pub fn stranger(&self) -> Client {
        Client {
            address: self.address(config::admin_of(&self.file.config).as_ref()),
            token: None,
        }
    }

    fn address(&self, told: Option<&Admin>) -> String {
        let given = self.admin.clone();
        let given = given.or_else(|| std::env::var("WEIR_ADMIN").ok().filter(|it| !it.is_empty()));
        let address = given.or_else(|| told.map(|admin| reachable(&admin.bind)));
        address.unwrap_or_else(|| self.assumed())
    }

    /// The default address, with a word about it.
    fn assumed(&self) -> String {
        let address = reachable(&config::default_admin().bind);
        let path = self.file.config.display();
        // A reader that has gone away wanted no more.
        let _ = writeln!(
            io::stderr(),
            "note: {path} does not tell the admin address: asking at {address}; --admin or WEIR_ADMIN names another"
        );
        address
    }
}

impl Client {
    /// Asks for a resource.
    ///
    /// # Errors
    /// What to tell the user, when there is no answer or the answer says no.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.ask(&format!("GET {path} HTTP/1.0\r\n"), "")
    }

    /// Asks weir to do something, with a document that says what.
    ///
    /// # Errors
    /// What to tell the user, when there is no answer or the answer says no.
    pub fn post(&self, path: &str, document: &Value) -> Result<Value, String> {
        let body = document.to_string();
        let fields = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        self.ask(&format!("POST {path} HTTP/1.0\r\n{fields}"), &body)
    }

    fn ask(&self, request: &str, body: &str) -> Result<Value, String> {
        let answer = match self.address.strip_prefix("unix:") {
            Some(path) => self.over_unix(&PathBuf::from(path), request, body),
            None => self.over_tcp(request, body),
        };
        let answer = answer.map_err(|error| {
            let address = &self.address;
            format!(
                "no answer from weir at {address}: {error}\n\
                 help: is it running? --admin, WEIR_ADMIN or -c name another address"
            )
        })?;
        self.read(&answer)
    }

    fn over_tcp(&self, request: &str, body: &str) -> io::Result<Vec<u8>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        // Not the name that led here: weir goes by its address.
        let host = stream.peer_addr()?.to_string();
        self.exchange(stream, &host, request, body)
    }

    fn over_unix(&self, path: &PathBuf, request: &str, body: &str) -> io::Result<Vec<u8>> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        self.exchange(stream, "localhost", request, body)
    }

    /// HTTP/1.0, so that the answer ends with the connection.
    fn exchange(
        &self,
        mut stream: impl Read + Write,
        host: &str,
        request: &str,
        body: &str,
    ) -> io::Result<Vec<u8>> {
        let authorization = self
            .token
            .as_ref()
            .map(|token| format!("Authorization: Bearer {token}\r\n"));
        let authorization = authorization.unwrap_or_default();
        stream
            .write_all(format!("{request}Host: {host}\r\n{authorization}\r\n{body}").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn read(&self, answer: &[u8]) -> Result<Value, String> {
        let foreign = || {
            format!(
                "what answers at {} is not weir's admin server",
                self.address
            )
        };
        let mut lines = [httparse::EMPTY_HEADER; LINES];
        let mut head = httparse::Response::new(&mut lines);
        let Ok(httparse::Status::Complete(length)) = head.parse(answer) else {
            return Err(foreign());
        };
        let document: Value = serde_json::from_slice(&answer[length..]).map_err(|_| foreign())?;
        match head.code {
            Some(200..=299) => Ok(document),
            _ => {
                // A problem has a detail, and what is not ready a reason.
                let why = [&document["detail"], &document["reason"]];
                let why = why.into_iter().find_map(Value::as_str);
                Err(why.map_or_else(foreign, Into::into))
            }
        }
    }
}

/// An address that leads to what the server binds: one that means any address is reached over loopback.
fn reachable(bind: &AdminBind) -> String {
    match bind {
        AdminBind::Tcp(address) if address.ip().is_unspecified() => match address {
            SocketAddr::V4(_) => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())).to_string()
            }
            SocketAddr::V6(_) => {
                SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())).to_string()
            }
        },
        AdminBind::Tcp(_) | AdminBind::Unix(_) => bind.to_string(),
    }
}

fn token(admin: &Admin) -> Result<Option<String>, String> {
    let Some(path) = &admin.token_file else {
        return Ok(None);
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().into())),
        Err(error) => Err(format!("admin.token_file {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client {
            address: "127.0.0.1:9900".into(),
            token: None,
        }
    }

    #[test]
    fn an_answer_is_a_document_or_says_why_not() {
        let good = client().read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\": 1}\n");
        assert_eq!(good.unwrap()["a"], 1);
        let refused = client().read(b"HTTP/1.1 422 No\r\n\r\n{\"detail\":\"no such pool\"}");
        assert_eq!(refused.unwrap_err(), "no such pool");
        for foreign in [
            &b"SSH-2.0\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n<html>",
            b"HTTP/1.1 404 No\r\n\r\n{}",
            b"",
        ] {
            assert!(client().read(foreign).unwrap_err().contains("is not weir"));
        }
    }

    #[test]
    fn any_address_is_reached_over_loopback() {
        for (bind, address) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            let bind = AdminBind::Tcp(bind.parse().unwrap());
            assert_eq!(reachable(&bind), address);
        }
    }
}

//! Authorities, certificates and clients for tests of TLS, and servers that speak it.
//! Keys live in a directory of the test's own; a client reads one answer at a time and expects it to have a length.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use super::{DEADLINE, http2};

/// An authority with a directory for what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub directory: PathBuf,
}

/// How a certificate is to be.
#[derive(Clone, Copy, Default)]
pub struct Kind {
    pub expired: bool,
    pub key: Key,
}

/// What a certificate's key is.
#[derive(Clone, Copy, Debug, Default)]
pub enum Key {
    #[default]
    P256,
    P384,
    /// Of 2048 bits.
    Rsa,
}

impl Kind {
    /// Good for a long time, with such a key.
    pub fn of(key: Key) -> Kind {
        Kind {
            key,
            ..Kind::default()
        }
    }
}

impl Authority {
    /// Its own certificate is `ca.pem`.
    pub fn new() -> Authority {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-tls-{}-{serial}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("authority {serial}"));
        let own = params.self_signed(&key).unwrap();
        fs::write(directory.join("ca.pem"), own.pem()).unwrap();
        Authority {
            issuer: Issuer::new(params, key),
            directory,
        }
    }

    /// Writes `FILE.pem` and `FILE.key` for these names.
    pub fn issue(&self, file: &str, names: &[&str], kind: Kind) {
        let algorithm = match kind.key {
            Key::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Key::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Key::Rsa => &rcgen::PKCS_RSA_SHA256,
        };
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Größe, Ltd");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if kind.expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        // The key first, so that whoever looks in between finds a pair that does not match.
        self.replace(&format!("{file}.key"), &key.serialize_pem());
        self.replace(&format!("{file}.pem"), &signed.pem());
    }

    /// Puts a file in place at once, as tools that renew certificates do.
    pub fn replace(&self, name: &str, text: &str) {
        let whole = self.directory.join(format!(".{name}"));
        fs::write(&whole, text).unwrap();
        fs::rename(whole, self.directory.join(name)).unwrap();
    }

    /// `cert = …, key = …` of a pair, for a configuration.
    pub fn pair(&self, file: &str) -> String {
        let directory = self.directory.display();
        format!("cert = \"{directory}/{file}.pem\", key = \"{directory}/{file}.key\"")
    }

    /// The path of the authority's certificate.
    pub fn ca(&self) -> String {
        self.directory.join("ca.pem").display().to_string()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for certificate in chain(&self.directory.join("ca.pem")) {
            roots.add(certificate).unwrap();
        }
        roots
    }

    /// Clients that believe this authority; with a certificate of their own if `shows` names one.
    pub fn config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shows: Option<&str>,
    ) -> Arc<ClientConfig> {
        self.config_by(provider(), versions, shows)
    }

    /// The same with other cryptography.
    pub fn config_by(
        &self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
        shows: Option<&str>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        let config = match shows {
            Some(file) => {
                let (chain, key) = self.read(file);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        Arc::new(config)
    }

    /// A client of any version without a certificate.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.config(rustls::ALL_VERSIONS, None)
    }

    fn read(&self, file: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let path = |ending: &str| self.directory.join(format!("{file}.{ending}"));
        let key = PrivateKeyDer::from_pem_file(path("key")).unwrap();
        (chain(&path("pem")), key)
    }

    /// A server with the certificate `file` that takes no client which offers other protocols (ALPN) than this one.
    pub fn origin_of(&self, file: &str, protocol: &[u8]) -> TlsOrigin {
        let (chain, key) = self.read(file);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap();
        let mut config = builder
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsOrigin::start(config)
    }

    /// A server with the certificate `file`, which answers every request on a connection alike. It asks for client certificates of
    /// this authority if `asks`.
    pub fn origin(&self, file: &str, asks: bool) -> TlsOrigin {
        TlsOrigin::start(self.server(file, asks, rustls::ALL_VERSIONS))
    }

    /// What such a server, of these versions, speaks TLS with.
    pub fn server(
        &self,
        file: &str,
        asks: bool,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let (chain, key) = self.read(file);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match asks {
            true => {
                let roots = Arc::new(self.roots());
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            false => builder.with_no_client_auth(),
        };
        builder.with_single_cert(chain, key).unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn chain(file: &Path) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_file_iter(file).unwrap();
    read.map(Result::unwrap).collect()
}

/// A client's connection.
pub struct TlsClient {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
}

/// An answer with a length.
pub struct Answer {
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl TlsClient {
    /// Connects and shakes hands.
    pub fn connect(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        name: &'static str,
    ) -> std::io::Result<TlsClient> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from(name).unwrap();
        let mut connection = ClientConnection::new(config.clone(), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(TlsClient {
            stream: StreamOwned::new(connection, socket),
        })
    }

    pub fn ask(&mut self, request: &str) -> std::io::Result<Answer> {
        self.stream.write_all(request.as_bytes())?;
        self.answer()
    }

    pub fn get(&mut self, host: &str) -> std::io::Result<Answer> {
        self.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    pub fn answer(&mut self) -> std::io::Result<Answer> {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 65536];
        loop {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
                let lower = head.to_ascii_lowercase();
                let length = lower
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.map_or(0, |length| length.parse().unwrap());
                if bytes.len() >= end + 4 + length {
                    let body = bytes[end + 4..].to_vec();
                    return Ok(Answer { head, body });
                }
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => bytes.extend_from_slice(&piece[..count]),
            }
        }
    }
}

/// A server that speaks TLS, and within it HTTP/2 if that was agreed on. After a request for `/close` it ends the connection.
pub struct TlsOrigin {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub server_name: Option<String>,
    pub has_certificate: bool,
    pub is_resumed: bool,
    /// What was agreed on by ALPN.
    pub protocol: Option<Vec<u8>>,
    /// Ordinal of the connection.
    pub connection: usize,
}

impl Seen {
    fn new(head: String, connection: &ServerConnection, number: usize) -> Seen {
        Seen {
            head,
            server_name: connection.server_name().map(str::to_owned),
            has_certificate: connection.peer_certificates().is_some(),
            is_resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            protocol: connection.alpn_protocol().map(<[u8]>::to_vec),
            connection: number,
        }
    }
}

impl TlsOrigin {
    pub fn start(config: ServerConfig) -> TlsOrigin {
        let config = Arc::new(config);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = seen.clone();
        thread::spawn(move || {
            for (number, socket) in listener.incoming().enumerate() {
                let (config, seen) = (config.clone(), shared.clone());
                thread::spawn(move || serve(config, socket.unwrap(), number, &seen));
            }
        });
        TlsOrigin { address, seen }
    }

    /// Requests that are no health checks.
    pub fn requests(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        let asked = seen.iter().filter(|seen| !seen.head.contains("(health)"));
        asked.cloned().collect()
    }
}

fn serve(
    config: Arc<ServerConfig>,
    mut socket: TcpStream,
    number: usize,
    seen: &Mutex<Vec<Seen>>,
) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut connection = ServerConnection::new(config).ok()?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).ok()?;
    }
    let speaks_http2 = connection.alpn_protocol() == Some(b"h2");
    let stream = StreamOwned::new(connection, socket);
    match speaks_http2 {
        true => serve_http2(stream, number, seen),
        false => serve_http1(stream, number, seen),
    }
}

type ServerStream = StreamOwned<ServerConnection, TcpStream>;

fn serve_http1(mut stream: ServerStream, number: usize, seen: &Mutex<Vec<Seen>>) -> Option<()> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
            bytes.drain(..end + 4);
            let closes = head.starts_with("GET /close ");
            let request = Seen::new(head, &stream.conn, number);
            seen.lock().unwrap().push(request);
            let connection = if closes { "Connection: close\r\n" } else { "" };
            let answer = format!("HTTP/1.1 200 OK\r\n{connection}Content-Length: 6\r\n\r\nsecure");
            stream.write_all(answer.as_bytes()).ok()?;
            if closes {
                return Some(());
            }
        }
        match stream.read(&mut piece).ok()? {
            0 => return None,
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

/// Answers every header block alike, without a look at it.
fn serve_http2(mut stream: ServerStream, number: usize, seen: &Mutex<Vec<Seen>>) -> Option<()> {
    let mut preface = [0; http2::PREFACE.len()];
    stream.read_exact(&mut preface).ok()?;
    assert_eq!(preface, http2::PREFACE);
    stream.write_all(&http2::settings(&[])).ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).ok()?;
        let on = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let answer = match head[3] {
            http2::SETTINGS if head[4] & http2::ACK == 0 => {
                http2::frame(http2::SETTINGS, http2::ACK, 0, b"")
            }
            http2::HEADERS => {
                let request = Seen::new(format!("stream {on}"), &stream.conn, number);
                seen.lock().unwrap().push(request);
                let head = http2::block(&[(":status", "200")]);
                let body = http2::frame(http2::DATA, http2::END_STREAM, on, b"secure");
                [
                    http2::frame(http2::HEADERS, http2::END_HEADERS, on, head),
                    body,
                ]
                .concat()
            }
            _ => Vec::new(),
        };
        stream.write_all(&answer).ok()?;
    }
}

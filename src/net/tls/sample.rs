//! Certificates and configurations for tests of what lies above and below a handshake.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};

use super::certificates::{Certificate, Certificates};
use super::provider;

/// Every version that weir speaks.
pub const VERSIONS: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

/// A certificate that signed itself, and its key.
pub fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Certificate {
    let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let params = rcgen::CertificateParams::new(names.clone()).expect("good names");
    let signed = params.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let key = CertifiedKey::from_der(vec![signed.der().clone()], key, &provider());
    Certificate {
        names,
        key: Arc::new(key.expect("a pair")),
    }
}

/// Both sides of `shop.test`.
pub fn configs(
    version: &'static SupportedProtocolVersion,
    strict: bool,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let own = certificate(&["shop.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let mut roots = RootCertStore::empty();
    roots.add(own.key.cert[0].clone()).expect("a certificate");
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Certificates::new(vec![own], strict)));
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// A name that a client asks for.
pub fn name(text: &'static str) -> ServerName<'static> {
    ServerName::try_from(text).expect("a name")
}

/// Two ends of one connection: the server's, then the client's.
pub async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = TcpStream::connect(address).await.expect("a connection");
    let (server, _) = listener.accept().await.expect("a connection");
    (server, client)
}

//! The client's side of TLS: whom a pool believes, and what weir shows to its backends.
//! What has not changed is kept, so that sessions are resumed and connections used again.
//! The walk goes on in `net/tls/`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::files::Material;
use crate::config::model::{Config, Pool, PoolProtocol, PoolTls, Protocol, Route, pools_of};
use crate::net::tls::{HTTP1, HTTP2, WallClock, provider};
use crate::state::tls;

/// What a pool speaks TLS with; `before` if it would be the same. `offered` is what backends may agree on (ALPN).
pub(super) fn config(
    tls: &PoolTls,
    offered: Option<&'static [u8]>,
    material: &Material,
    before: Option<&tls::PoolTls>,
) -> Result<tls::PoolTls, String> {
    let identity = identity(tls, offered, material);
    if let Some(before) = before.filter(|before| before.identity == identity) {
        return Ok(before.clone());
    }
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(WallClock))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match tls.verify {
        true => builder.with_root_certificates(roots(tls, material)?),
        false => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(
                provider().signature_verification_algorithms,
            ))),
    };
    let shown = tls.client.as_ref().and_then(|files| material.pair(files));
    let mut config = match shown {
        Some(pair) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.key.clone())))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = offered.into_iter().map(<[u8]>::to_vec).collect();
    let name = tls.sni.clone().map(ServerName::try_from).transpose();
    Ok(tls::PoolTls {
        config: Arc::new(config),
        name: name.map_err(|error| error.to_string())?,
        identity,
    })
}

/// The protocol that weir offers the backends of a pool; none where it only passes bytes on, since it does not know what they are.
pub(super) fn offered(config: &Config, pool: &Pool) -> Option<&'static [u8]> {
    if pool.protocol == PoolProtocol::Http2 {
        return Some(HTTP2);
    }
    let leads_here = |route: &&Route| pools_of(route, &config.pools).contains(&pool.name.as_str());
    let mut listeners =
        (config.routes.iter().filter(leads_here)).flat_map(|route| &route.listeners);
    let is_for_bytes = |name: &String| {
        let mut known = config.listeners.iter();
        known.any(|own| own.name == *name && own.protocol != Protocol::Http)
    };
    match listeners.any(is_for_bytes) {
        true => None,
        false => Some(HTTP1),
    }
}

fn roots(tls: &PoolTls, material: &Material) -> Result<Arc<RootCertStore>, String> {
    if let Some(file) = &tls.ca {
        let authorities = material.authorities(file);
        let own = authorities.ok_or("its authority was not read")?;
        return Ok(own.roots.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match (roots.is_empty(), found.errors.first()) {
        (false, _) => Ok(Arc::new(roots)),
        (true, Some(error)) => Err(format!(
            "the system's authorities cannot be read: {error}; name yours with `ca`"
        )),
        (true, None) => Err(
            "the system trusts no authority: install its ca-certificates, or name yours with `ca`"
                .to_owned(),
        ),
    }
}

fn identity(tls: &PoolTls, offered: Option<&[u8]>, material: &Material) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&tls.sni, tls.verify).hash(&mut hasher);
    offered.hash(&mut hasher);
    let ca = tls.ca.as_ref().and_then(|file| material.authorities(file));
    ca.map(|own| own.digest).hash(&mut hasher);
    let shown = tls.client.as_ref().and_then(|files| material.pair(files));
    shown.map(|pair| pair.digest).hash(&mut hasher);
    hasher.finish().max(1)
}

/// Believes anyone, as `verify = false` asks for. Only what is signed in the handshake is checked.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

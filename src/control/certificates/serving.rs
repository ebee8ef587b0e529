//! The server's side of TLS: certificates, versions, what is asked of clients, and tickets.
//! It reads no file and opens no socket.
//! The walk goes on in `net/tls/`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::{ServerConfig, SupportedProtocolVersion, version};

use super::files::Material;
use crate::config::model::{ClientAuth, Listener, ListenerTls, Protocol, TlsVersion};
use crate::net::tls::certificates::{Certificate, Certificates};
use crate::net::tls::tickets::Tickets;
use crate::net::tls::{HTTP1, HTTP2, WallClock, provider};
use crate::policy::persist::token::Secrets;
use crate::state::tls::{self, Shown};

/// What a listener speaks TLS with.
pub(super) fn config(
    listener: &Listener,
    tls: &ListenerTls,
    material: &Material,
    secrets: Option<&Secrets>,
) -> Result<tls::ListenerTls, String> {
    let pairs = tls
        .certificates
        .iter()
        .filter_map(|files| material.pair(files));
    let shown = pairs.clone().map(|pair| Shown {
        file: pair.file().to_string_lossy().into(),
        names: pair.names.clone(),
        not_after: pair.not_after,
    });
    let list = pairs.map(|pair| Certificate {
        names: pair.names.clone(),
        key: pair.key.clone(),
    });
    let certificates = Certificates::new(list.collect(), tls.strict_sni);
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(WallClock))
        .with_protocol_versions(versions(tls.min_version))
        .map_err(|error| error.to_string())?;
    let builder = match verifier(&tls.client_auth, material)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = protocols(listener);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if let Some(secrets) = secrets {
        let scope = scope(listener, tls, material);
        config.ticketer = Arc::new(Tickets::new(secrets.clone(), scope));
    }
    Ok(tls::ListenerTls {
        config: Arc::new(config),
        certificates: shown.collect(),
    })
}

/// What clients may agree on (ALPN), the best first; nothing where weir does not know what is spoken.
fn protocols(listener: &Listener) -> Vec<Vec<u8>> {
    if listener.protocol != Protocol::Http {
        return Vec::new();
    }
    let all = [HTTP2, HTTP1].map(<[u8]>::to_vec);
    all.into_iter().skip(usize::from(!listener.http2)).collect()
}

static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static FROM_TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match oldest {
        TlsVersion::Tls12 => &FROM_TLS12,
        TlsVersion::Tls13 => &FROM_TLS13,
    }
}

fn verifier(
    auth: &ClientAuth,
    material: &Material,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let Some(authorities) = auth.ca().and_then(|file| material.authorities(file)) else {
        return match auth {
            ClientAuth::Off => Ok(None),
            _ => Err("the authority of client certificates was not read".to_owned()),
        };
    };
    let roots = authorities.roots.clone();
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = match auth {
        ClientAuth::Request(_) => builder.allow_unauthenticated(),
        ClientAuth::Off | ClientAuth::Require(_) => builder,
    };
    builder.build().map(Some).map_err(|error| error.to_string())
}

/// Tickets are good among listeners of one name that ask the same of their clients: who resumes a session is not asked again.
fn scope(listener: &Listener, tls: &ListenerTls, material: &Material) -> String {
    let (asked, ca) = match &tls.client_auth {
        ClientAuth::Off => ("off", None),
        ClientAuth::Request(ca) => ("request", Some(ca)),
        ClientAuth::Require(ca) => ("require", Some(ca)),
    };
    let mut hasher = DefaultHasher::new();
    let authorities = ca.and_then(|file| material.authorities(file));
    authorities.map(|own| own.digest).hash(&mut hasher);
    format!("{} {asked} {:016x}", listener.name, hasher.finish())
}

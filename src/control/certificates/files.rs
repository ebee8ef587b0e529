//! What is in the files behind TLS: certificates with their keys, and authorities, as PEM.
//! It changes no file and shows no key; a file that cannot be used any more is as it was when it could.
//! The walk goes on in `serving.rs` and `asking.rs`.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::model::{CertificateFiles, Config};
use crate::control::watch::Identity;
use crate::net::tls::provider;
use crate::state::tls::TlsFile;

/// A larger file holds something else.
const MAX_FILE: u64 = 4 << 20;

/// What the files of a configuration hold.
#[derive(Clone, Debug, Default)]
pub struct Material {
    pairs: HashMap<CertificateFiles, Arc<Pair>>,
    authorities: HashMap<PathBuf, Arc<Authorities>>,
    /// Why some are as they were before.
    problems: HashMap<PathBuf, String>,
    /// What the files were like just before they were read.
    read: Vec<(PathBuf, Identity)>,
}

/// A certificate chain and its key.
#[derive(Debug)]
pub(super) struct Pair {
    files: CertificateFiles,
    pub(super) key: Arc<CertifiedKey>,
    /// DNS names, lower case.
    pub(super) names: Vec<String>,
    /// Seconds since the epoch.
    pub(super) not_after: i64,
    /// Tells one content of the files from another.
    pub(super) digest: u64,
}

/// Certificates that may vouch for others.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) roots: Arc<RootCertStore>,
    /// Tells one content of the file from another.
    pub(super) digest: u64,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) file: PathBuf,
    pub(super) message: String,
    pub(super) help: String,
}

impl Material {
    /// Reads all files of a configuration. Those that cannot be used are as in `last`, else among the faults.
    pub(super) fn read(config: &Config, last: Option<&Material>) -> (Material, Vec<Fault>) {
        let mut all = Material::default();
        let mut faults = Vec::new();
        for files in pairs_of(config) {
            all.look(&files.cert);
            all.look(&files.key);
            if all.pairs.contains_key(files) {
                continue;
            }
            let known = last.and_then(|last| last.pairs.get(files));
            let pair = Pair::read(files);
            if let Some(pair) = all.settle(pair, known, &mut faults) {
                all.pairs.insert(files.clone(), pair);
            }
        }
        for file in authorities_of(config) {
            all.look(file);
            if all.authorities.contains_key(file) {
                continue;
            }
            let known = last.and_then(|last| last.authorities.get(file));
            let read = Authorities::read(file);
            if let Some(authorities) = all.settle(read, known, &mut faults) {
                all.authorities.insert(file.clone(), authorities);
            }
        }
        (all, faults)
    }

    /// What the files hold now. Those that cannot be used are as in `last`.
    pub fn renewed(config: &Config, last: &Material) -> Material {
        // Every file was read before.
        Material::read(config, Some(last)).0
    }

    /// Notes what a file is like before it is read.
    fn look(&mut self, file: &Path) {
        if self.read.iter().all(|(known, _)| known != file) {
            self.read.push((file.to_owned(), Identity::of(file)));
        }
    }

    /// What was read, or else what is known, or else nothing and a fault more.
    fn settle<T>(
        &mut self,
        read: Result<T, Fault>,
        known: Option<&Arc<T>>,
        faults: &mut Vec<Fault>,
    ) -> Option<Arc<T>> {
        match (read, known) {
            (Ok(read), _) => Some(Arc::new(read)),
            (Err(fault), Some(known)) => {
                self.problems.insert(fault.file, fault.message);
                Some(known.clone())
            }
            (Err(fault), None) => {
                faults.push(fault);
                None
            }
        }
    }

    /// The certificates with their keys.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.values().map(|pair| &**pair)
    }

    pub(super) fn pair(&self, files: &CertificateFiles) -> Option<&Arc<Pair>> {
        self.pairs.get(files)
    }

    pub(super) fn authorities(&self, file: &Path) -> Option<&Arc<Authorities>> {
        self.authorities.get(file)
    }

    /// The files with what is wrong with each, by path.
    pub(super) fn states(&self) -> Vec<TlsFile> {
        let states = self.read.iter().map(|(file, _)| TlsFile {
            file: file.to_string_lossy().into(),
            problem: self.problems.get(file).cloned(),
        });
        states.collect()
    }

    /// What is wrong with files that are served as they were before.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.problems.values().cloned().collect();
        problems.sort();
        problems
    }

    /// Whether the files hold, or lack, something else than in `other`.
    pub fn differs(&self, other: &Material) -> bool {
        let digests = |all: &Material| {
            let pairs = all.pairs.values().map(|pair| pair.digest);
            let authorities = all.authorities.values().map(|own| own.digest);
            let mut digests: Vec<u64> = pairs.chain(authorities).collect();
            digests.sort_unstable();
            digests
        };
        self.problems != other.problems || digests(self) != digests(other)
    }

    /// The files, and what they were like when they were read.
    pub(super) fn identities(&self) -> &[(PathBuf, Identity)] {
        &self.read
    }
}

fn pairs_of(config: &Config) -> impl Iterator<Item = &CertificateFiles> {
    let listeners = config.listeners.iter().filter_map(|own| own.tls.as_ref());
    let pools = config.pools.iter().filter_map(|own| own.tls.as_ref());
    let shown = listeners.flat_map(|tls| &tls.certificates);
    shown.chain(pools.filter_map(|tls| tls.client.as_ref()))
}

fn authorities_of(config: &Config) -> impl Iterator<Item = &PathBuf> {
    let listeners = config.listeners.iter().filter_map(|own| own.tls.as_ref());
    let pools = config.pools.iter().filter_map(|own| own.tls.as_ref());
    let clients = listeners.filter_map(|tls| tls.client_auth.ca());
    clients.chain(pools.filter_map(|tls| tls.ca.as_ref()))
}

impl Pair {
    fn read(files: &CertificateFiles) -> Result<Pair, Fault> {
        let (cert, key) = (bytes(&files.cert)?, bytes(&files.key)?);
        let chain = chain(&files.cert, &cert)?;
        let private = private_key(&files.key, &key)?;
        let certified = CertifiedKey::from_der(chain, private, &provider());
        let certified = certified.map_err(|error| no_pair(files, &error))?;
        let own = certified
            .cert
            .first()
            .and_then(|own| Certificate::from_der(own).ok());
        let own = own.ok_or_else(|| no_certificate(&files.cert))?;
        let until = own.tbs_certificate().validity().not_after;
        Ok(Pair {
            files: files.clone(),
            key: Arc::new(certified),
            names: names(&own),
            not_after: until.to_unix_duration().as_secs().cast_signed(),
            digest: digest(&[&cert, &key]),
        })
    }

    /// The file of the certificate.
    pub(super) fn file(&self) -> &Path {
        &self.files.cert
    }
}

impl Authorities {
    fn read(file: &Path) -> Result<Authorities, Fault> {
        let bytes = bytes(file)?;
        let mut roots = RootCertStore::empty();
        for certificate in chain(file, &bytes)? {
            roots.add(certificate).map_err(|error| Fault {
                file: file.to_owned(),
                message: format!(
                    "a certificate in {} cannot be used: {error}",
                    file.display()
                ),
                help: "it must be an X.509 certificate of version 3".to_owned(),
            })?;
        }
        Ok(Authorities {
            roots: Arc::new(roots),
            digest: digest(&[&bytes]),
        })
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, Fault> {
    let read = || {
        if fs::metadata(file)?.len() > MAX_FILE {
            return Err(io::Error::other("it is larger than 4 MiB"));
        }
        fs::read(file)
    };
    read().map_err(|error| Fault {
        file: file.to_owned(),
        message: format!("{} cannot be read: {error}", file.display()),
        help: match error.kind() {
            io::ErrorKind::NotFound => {
                "see that the path is right; one that does not begin with `/` begins where weir was started"
            }
            io::ErrorKind::PermissionDenied => "let the user that runs weir read it",
            _ => "see that it is a file with PEM text",
        }
        .to_owned(),
    })
}

fn chain(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(no_certificate(file)),
        Err(error) => Err(Fault {
            file: file.to_owned(),
            message: format!("{} is not PEM: {error}", file.display()),
            help: "write certificates between BEGIN CERTIFICATE and END CERTIFICATE lines"
                .to_owned(),
        }),
    }
}

fn no_certificate(file: &Path) -> Fault {
    Fault {
        file: file.to_owned(),
        message: format!("{} has no certificate", file.display()),
        help: "it must have at least one block that begins with -----BEGIN CERTIFICATE-----"
            .to_owned(),
    }
}

fn private_key(file: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| {
        let is_encrypted = bytes.windows(9).any(|part| part == b"ENCRYPTED");
        let (message, help) = match is_encrypted {
            true => ("is encrypted", "write it without a passphrase, such as by openssl pkey"),
            false => (
                "has no private key",
                "it must have a block that begins with -----BEGIN PRIVATE KEY-----, EC PRIVATE KEY or RSA PRIVATE KEY",
            ),
        };
        Fault {
            file: file.to_owned(),
            message: format!("{} {message}", file.display()),
            help: help.to_owned(),
        }
    })
}

fn no_pair(files: &CertificateFiles, error: &rustls::Error) -> Fault {
    let (cert, key) = (files.cert.display(), files.key.display());
    let (file, message, help) = match error {
        rustls::Error::InconsistentKeys(_) => (
            &files.key,
            format!("the key in {key} is not that of the certificate in {cert}"),
            "name the key that the certificate was made for; the certificate itself must stand first in its file",
        ),
        rustls::Error::InvalidCertificate(_) => (
            &files.cert,
            format!("the certificate in {cert} cannot be used: {error}"),
            "it must be an X.509 certificate of version 3",
        ),
        _ => (
            &files.key,
            format!("the key in {key} cannot be used: {error}"),
            "it must be an EC key on P-256, P-384 or P-521, an Ed25519 key, or an RSA key of 2048 to 8192 bits",
        ),
    };
    Fault {
        file: file.clone(),
        message,
        help: help.to_owned(),
    }
}

/// The DNS names of a certificate, lower case.
fn names(certificate: &Certificate) -> Vec<String> {
    let alternative = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>();
    let Ok(Some((_, alternative))) = alternative else {
        return Vec::new();
    };
    let names = alternative.0.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

fn digest(contents: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}

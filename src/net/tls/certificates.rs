//! The certificates of a listener, chosen by the name that a client asks for: exact, then wildcard, then the first one.
//! It reads no file and never changes: other certificates are another set.
//! The walk goes back to `records.rs`, within which rustls asks for the choice.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A chain, its key, and the names that it is good for.
#[derive(Debug)]
pub struct Certificate {
    /// DNS names, lower case; a first label `*` stands for any one label.
    pub names: Vec<String>,
    /// What is shown and what it is proven with.
    pub key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Whether the certificate is good for `host`, in any case (RFC 9525 section 6.3).
    pub fn covers(&self, host: &[u8]) -> bool {
        let dot = host.iter().position(|&byte| byte == b'.');
        let after = dot.and_then(|dot| host.get(dot..));
        let is = |own: &str, host: &[u8]| host.eq_ignore_ascii_case(own.as_bytes());
        self.names.iter().any(|name| match name.strip_prefix('*') {
            Some(suffix) => after.is_some_and(|after| is(suffix, after)),
            None => is(name, host),
        })
    }
}

/// What the name in a ClientHello led to.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// This certificate.
    Certificate {
        /// The certificate.
        certificate: Arc<Certificate>,
        /// The name that was asked for, lower case, if one was.
        name: Option<Box<str>>,
    },
    /// Nothing, and the listener wants it so.
    Unknown,
}

/// The certificates of one listener.
#[derive(Debug)]
pub struct Certificates {
    list: Vec<Arc<Certificate>>,
    /// Ordinals by name, wildcards under what follows `*`.
    by_name: HashMap<String, Vec<usize>>,
    strict: bool,
}

impl Certificates {
    /// The first of `list` is for clients that ask for no name, or for one that none of them has; with `strict` such clients are
    /// refused.
    pub fn new(list: Vec<Certificate>, strict: bool) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (ordinal, certificate) in list.iter().enumerate() {
            for name in &certificate.names {
                let key = name.strip_prefix('*').unwrap_or(name);
                by_name.entry(key.to_owned()).or_default().push(ordinal);
            }
        }
        Certificates {
            list: list.into_iter().map(Arc::new).collect(),
            by_name,
            strict,
        }
    }

    /// The certificate for `name`; of several the first of which `suits` is true, if any is. `None`: the client is refused.
    fn choose(
        &self,
        name: Option<&str>,
        suits: impl Fn(&Certificate) -> bool,
    ) -> Option<&Arc<Certificate>> {
        let wild = |name: &str| Some(name.split_at(name.find('.')?).1.to_owned());
        let exact = name.and_then(|name| self.by_name.get(name));
        let known = exact.or_else(|| self.by_name.get(&wild(name?)?));
        let named = match known {
            Some(ordinals) => &ordinals[..],
            None if self.strict => return None,
            None => self.like_the_first(),
        };
        let mut found = named.iter().map(|ordinal| &self.list[*ordinal]);
        let suitable = found.clone().find(|certificate| suits(certificate));
        suitable.or_else(|| found.next())
    }

    /// The first certificate and those for the same name, such as one with another kind of key.
    fn like_the_first(&self) -> &[usize] {
        let name = self.list.first().and_then(|first| first.names.first());
        let name = name.map(|name| name.strip_prefix('*').unwrap_or(name));
        let alike = name.and_then(|name| self.by_name.get(name));
        alike.map_or(&[0][..self.list.len().min(1)], |alike| &alike[..])
    }
}

thread_local! {
    /// rustls asks on the thread that opens the records, and passes nothing back.
    static CHOSEN: RefCell<Option<Chosen>> = const { RefCell::new(None) };
}

/// What was chosen on this thread since the last call.
pub(super) fn take_choice() -> Option<Chosen> {
    CHOSEN.take()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let suits =
            |certificate: &Certificate| certificate.key.key.choose_scheme(schemes).is_some();
        let chosen = self.choose(hello.server_name(), suits);
        CHOSEN.set(Some(match chosen {
            Some(certificate) => Chosen::Certificate {
                certificate: certificate.clone(),
                name: hello.server_name().map(Into::into),
            },
            None => Chosen::Unknown,
        }));
        chosen.map(|certificate| certificate.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::sample;

    fn certificate(names: &[&str]) -> Certificate {
        sample::certificate(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn names(list: &Certificates, name: Option<&str>) -> Option<String> {
        let chosen = list.choose(name, |_| true);
        chosen.map(|certificate| certificate.names[0].clone())
    }

    #[test]
    fn a_name_leads_to_the_exact_one_then_to_the_wildcard_then_to_the_first() {
        let list = || {
            vec![
                certificate(&["first.test"]),
                certificate(&["*.shop.test"]),
                certificate(&["cart.shop.test"]),
            ]
        };
        let open = Certificates::new(list(), false);
        let strict = Certificates::new(list(), true);
        for (name, expected, known) in [
            (Some("first.test"), "first.test", true),
            (Some("cart.shop.test"), "cart.shop.test", true),
            (Some("www.shop.test"), "*.shop.test", true),
            (Some("a.b.shop.test"), "first.test", false),
            (Some("shop.test"), "first.test", false),
            (Some(".shop.test"), "*.shop.test", true),
            (Some("localhost"), "first.test", false),
            (None, "first.test", false),
        ] {
            assert_eq!(names(&open, name).as_deref(), Some(expected), "{name:?}");
            let strictly = names(&strict, name);
            assert_eq!(strictly.as_deref(), known.then_some(expected), "{name:?}");
        }
    }

    #[test]
    fn of_two_with_one_name_the_client_gets_the_one_that_it_can_check() {
        let list = vec![certificate(&["shop.test"]), certificate(&["shop.test"])];
        let list = Certificates::new(list, false);
        let second = list.list[1].clone();
        for name in [Some("shop.test"), None, Some("elsewhere.test")] {
            let chosen = list.choose(name, |certificate| std::ptr::eq(certificate, &*second));
            assert!(chosen.is_some_and(|chosen| Arc::ptr_eq(chosen, &second)));
            let nothing_suits = list.choose(name, |_| false);
            assert!(nothing_suits.is_some_and(|chosen| Arc::ptr_eq(chosen, &list.list[0])));
        }
    }

    #[test]
    fn a_certificate_covers_its_names_and_one_label_of_a_wildcard() {
        let own = certificate(&["shop.test", "*.shop.test"]);
        for host in ["shop.test", "a.SHOP.test"] {
            assert!(own.covers(host.as_bytes()), "{host}");
        }
        for host in ["a.b.shop.test", "test", "notshop.test", "shop.test.evil"] {
            assert!(!own.covers(host.as_bytes()), "{host}");
        }
    }
}

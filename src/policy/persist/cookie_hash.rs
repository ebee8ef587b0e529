//! `cookie-hash`: weir's own random, authenticated cookie, whose rendezvous among the pool's backends is the client's home.
//! It keeps nothing about a client, so that any weir with the same secrets and pool gives the same answer.
//! The walk goes on in `policy/rendezvous.rs` (homes) and `http/cookie.rs` (the lines).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::private::keep_private;
use super::token::Secrets;
use super::{Answered, Chosen, Home, Means, Persistence, Placed, Recall, Remembered, Tell};
use crate::config::model::Cookie;
use crate::http::cookie::{self, SetCookie};
use crate::http::edits::Edits;
use crate::http::head::RequestHead;
use crate::policy::balance::BackendIndex;
use crate::policy::facts::Facts;
use crate::policy::rendezvous::{self, Rendezvous};

/// The keys' purpose. Another format of the cookie takes another.
const PURPOSE: &str = "cookie-hash 1";
/// Bytes of an id and of its MAC.
const HALF: usize = 16;
/// Bytes of a token as a client sees it.
const TOKEN_LENGTH: usize = 43;
/// Cookies of weir's name that are checked in one request. A browser sends several when another host of its domain set one, too.
const MAX_COOKIES: usize = 4;
/// Ids that are tried for each that it takes on average, before a client is left without one.
const PATIENCE: u64 = 64;

/// The sticky mode `cookie-hash`.
///
/// The cookie is base64url of a random id of 128 bits and of the first 128 bits of HMAC-SHA256 over the id and the cookie's name.
/// Only weir can make one, so that nobody can aim clients at a backend, and one cookie's value is no good under another name.
#[derive(Debug)]
pub struct CookieHash {
    cookie: SetCookie,
    /// The first seals, all open. Never empty.
    keys: Vec<hmac::Key>,
    /// Tells name and secrets apart from all others, for [`Remembered`].
    scope: u64,
}

impl CookieHash {
    /// The mode for one cookie.
    pub fn new(cookie: &Cookie, secrets: &Secrets) -> CookieHash {
        let mut mode = CookieHash {
            cookie: SetCookie::new(cookie),
            keys: secrets.mac_keys(PURPOSE),
            scope: 0,
        };
        // The MAC of a message that no id gives, by every key: whoever has other keys has another scope.
        let macs = mode.keys.iter().flat_map(|key| mode.mac(key, b"scope"));
        mode.scope = rendezvous::key(&macs.collect::<Vec<u8>>());
        mode
    }

    /// See [`AnyPersistence::scope`](super::AnyPersistence::scope).
    pub(super) fn scope(&self) -> u64 {
        self.scope
    }

    fn mac(&self, key: &hmac::Key, id: &[u8]) -> [u8; HALF] {
        let mut context = hmac::Context::with_key(key);
        context.update(id);
        context.update(self.cookie.name().as_bytes());
        let tag = context.sign();
        std::array::from_fn(|at| tag.as_ref()[at])
    }

    /// The key that a cookie's value stands for; `None` when weir did not make it.
    fn open(&self, value: &[u8]) -> Option<u64> {
        let mut bytes = [0; 2 * HALF];
        if value.len() != TOKEN_LENGTH
            || BASE64_URL_SAFE_NO_PAD.decode_slice(value, &mut bytes) != Ok(bytes.len())
        {
            return None;
        }
        let (id, mac) = bytes.split_at(HALF);
        self.keys
            .iter()
            .any(|key| verify_slices_are_equal(&self.mac(key, id), mac).is_ok())
            .then(|| rendezvous::key(id))
    }

    fn seal(&self, id: [u8; HALF]) -> Option<[u8; TOKEN_LENGTH]> {
        let mut bytes = [0; 2 * HALF];
        bytes[..HALF].copy_from_slice(&id);
        bytes[HALF..].copy_from_slice(&self.mac(self.keys.first()?, &id));
        let mut token = [0; TOKEN_LENGTH];
        BASE64_URL_SAFE_NO_PAD
            .encode_slice(bytes, &mut token)
            .ok()
            .map(|_| token)
    }

    /// The key of the first good cookie of the request, or why there is none.
    fn key_of(
        &self,
        head: &RequestHead<'_>,
        remembered: &mut Option<Remembered>,
    ) -> Result<u64, Recall> {
        let mut none = Recall::New;
        for value in cookie::values(head, self.cookie.name()).take(MAX_COOKIES) {
            if let Some(known) = Remembered::home(remembered, self.scope, value) {
                return Ok(known.key);
            }
            if let Some(key) = self.open(value) {
                Remembered::keep(remembered, self.scope, value, Home::of_key(key, None));
                return Ok(key);
            }
            none = Recall::Forged;
        }
        Err(none)
    }
}

impl Persistence for CookieHash {
    fn recall(
        &self,
        facts: &Facts<'_>,
        ring: &Rendezvous,
        remembered: &mut Option<Remembered>,
    ) -> Recall {
        let Some(request) = &facts.request else {
            return Recall::New;
        };
        let key = match self.key_of(request.head, remembered) {
            Ok(key) => key,
            Err(none) => return none,
        };
        match ring.first(key, |_| true) {
            Some(backend) => Recall::Keep(Home::of_key(key, Some(backend))),
            None => Recall::New,
        }
    }

    /// An id whose home is `backend`: the first such from a random one upward. The placement thus follows from the balancer, and
    /// every weir finds it again. Counting up costs a hash where drawing anew would cost a call of the CSPRNG, and leaves
    /// an id as hard to guess, which the MAC does not even need.
    fn admit(&self, backend: BackendIndex, means: &mut Means<'_>) -> Option<Tell> {
        let mut bytes = [0; HALF];
        (means.fill_secure)(&mut bytes);
        let start = u128::from_le_bytes(bytes);
        (0..PATIENCE * means.ring.keys_per_hit(backend))
            .map(|step| start.wrapping_add(u128::from(step)).to_le_bytes())
            .find(|id| means.ring.is_first(rendezvous::key(id), backend))
            .map(Tell::Id)
    }

    /// A client that is away for a while keeps its id; a session that the successor opens needs one that leads there.
    fn place(
        &self,
        home: &Home,
        to: BackendIndex,
        for_good: bool,
        means: &mut Means<'_>,
    ) -> Placed {
        match home.backend {
            Some(backend) if backend == to => Placed::default(),
            _ => Placed {
                tell: self.admit(to, means),
                only_with_session: !for_good,
            },
        }
    }

    fn conceal(&self, head: &RequestHead<'_>, edits: &mut Edits) {
        cookie::remove(head, self.cookie.name(), edits);
    }

    /// Sets the cookie, except on an answer that shared caches may keep: they would hand it to others.
    fn remember(
        &self,
        chosen: &Chosen,
        answer: &Answered<'_>,
        _: &mut dyn FnMut(&mut [u8]),
        edits: &mut Edits,
    ) -> bool {
        let Some(Tell::Id(id)) = chosen.tell else {
            return false;
        };
        let token = self.seal(id);
        let token = token.filter(|_| keep_private(answer.head, edits));
        token.is_some_and(|token| {
            self.cookie.write(&token, answer.secure, edits);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Stickiness;
    use super::*;
    use crate::config::model::{SameSite, Secure};
    use crate::http::Sample;
    use crate::policy::balance::facts;
    use crate::policy::facts::RequestFacts;
    use crate::rng::Rng;

    fn secrets(bytes: &[u8]) -> Secrets {
        let files = bytes
            .iter()
            .map(|&byte| Secrets::new_file(|secret| secret.fill(byte)));
        Secrets::parse(&files.collect::<String>()).unwrap()
    }

    fn mode(name: &str, secret_bytes: &[u8]) -> CookieHash {
        let cookie = Cookie {
            name: name.to_owned(),
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::Lax,
            http_only: true,
            secure: Secure::Auto,
            max_age: None,
        };
        CookieHash::new(&cookie, &secrets(secret_bytes))
    }

    fn ring(weights: &[u16]) -> Rendezvous {
        let names: Vec<String> = (0..weights.len()).map(|n| format!("was{n}")).collect();
        Rendezvous::new(
            names
                .iter()
                .map(String::as_str)
                .zip(weights.iter().copied()),
        )
    }

    fn fill(seed: u64) -> impl FnMut(&mut [u8]) {
        let mut rng = Rng::from_seed(seed);
        move |bytes| bytes.fill_with(|| rng.next_u64() as u8)
    }

    fn recall(
        mode: &CookieHash,
        ring: &Rendezvous,
        cookies: &str,
        remembered: &mut Option<Remembered>,
    ) -> Recall {
        let sample = Sample::new("GET / HTTP/1.1", &[("Cookie", cookies)]);
        let head = sample.request();
        let request = RequestFacts {
            head: &head,
            path: b"/",
            secure: false,
        };
        let facts = crate::policy::facts::Facts {
            request: Some(request),
            ..facts()
        };
        mode.recall(&facts, ring, remembered)
    }

    fn admit(mode: &CookieHash, backend: u16, ring: &Rendezvous, seed: u64) -> Option<[u8; HALF]> {
        let mut means = Means {
            ring,
            facts: &facts(),
            fill_secure: &mut fill(seed),
        };
        match mode.admit(BackendIndex(backend), &mut means)? {
            Tell::Id(id) => Some(id),
            Tell::Ticket(ticket) => panic!("{ticket:?}"),
        }
    }

    fn text(id: [u8; HALF]) -> String {
        let token = mode("w", &[1]).seal(id).unwrap();
        String::from_utf8(token.to_vec()).unwrap()
    }

    #[test]
    fn a_sealed_id_names_its_backend_wherever_the_secret_is_known() {
        let ring = ring(&[1, 5, 100, 1]);
        let (mine, other) = (mode("w", &[1]), mode("w", &[2, 1]));
        for (seed, index) in (0..200_u16).map(|n| (u64::from(n), n % 4)) {
            let token = text(admit(&mine, index, &ring, seed).unwrap());
            for reader in [&mine, &other] {
                let cookies = format!("a=b; w={token}; c=d");
                match recall(reader, &ring, &cookies, &mut None) {
                    Recall::Keep(home) => assert_eq!(home.backend, Some(BackendIndex(index))),
                    recall => panic!("{recall:?}"),
                }
            }
        }
    }

    #[test]
    fn strangers_are_told_from_forgers() {
        let ring = ring(&[1, 1, 1]);
        let mine = mode("w", &[1]);
        let token = text(admit(&mine, 0, &ring, 0).unwrap());
        let seen = |mode: &CookieHash, cookies: &str| recall(mode, &ring, cookies, &mut None);
        assert_eq!(seen(&mine, "a=b"), Recall::New);
        assert_eq!(seen(&mine, "w="), Recall::Forged);
        assert_eq!(seen(&mine, "w=x"), Recall::Forged);
        assert_eq!(seen(&mine, &format!("w={token}x")), Recall::Forged);
        assert_eq!(seen(&mine, &format!("w={token}=")), Recall::Forged);
        assert_eq!(
            seen(&mode("w", &[2]), &format!("w={token}")),
            Recall::Forged
        );
        assert_eq!(
            seen(&mode("v", &[1]), &format!("v={token}")),
            Recall::Forged
        );
        // What another host of the domain set does not keep weir from its own.
        assert!(matches!(
            seen(&mine, &format!("w=x; w={token}")),
            Recall::Keep(_)
        ));
        let many = "w=x; ".repeat(MAX_COOKIES);
        assert_eq!(seen(&mine, &format!("{many}w={token}")), Recall::Forged);
    }

    #[test]
    fn a_connection_remembers_only_under_the_same_name_and_secrets() {
        let ring = ring(&[1, 1, 1]);
        let mine = mode("w", &[1]);
        let token = text(admit(&mine, 0, &ring, 0).unwrap());
        let mut remembered = None;
        let first = recall(&mine, &ring, &format!("w={token}"), &mut remembered);
        let known = remembered.clone();
        assert!(known.is_some());
        assert_eq!(
            recall(&mine, &ring, &format!("w={token}"), &mut remembered),
            first
        );
        assert_eq!(remembered, known);
        for other in [mode("v", &[1]), mode("w", &[2]), mode("w", &[2, 3])] {
            let cookies = format!("w={token}; v={token}");
            let recalled = recall(&other, &ring, &cookies, &mut remembered);
            assert_eq!(recalled, Recall::Forged);
        }
        assert_eq!(recall(&mine, &ring, "w=x", &mut remembered), Recall::Forged);
    }

    #[test]
    fn a_hopeless_id_is_given_up() {
        let mine = mode("w", &[1]);
        assert_eq!(admit(&mine, 9, &ring(&[1, 1]), 0), None);
    }

    #[test]
    fn ids_are_drawn_for_a_thousand_backends() {
        let ring = ring(&[1; 1000]);
        let mine = mode("w", &[1]);
        for index in (0..1000).step_by(37) {
            assert!(admit(&mine, index, &ring, u64::from(index)).is_some());
        }
    }

    #[test]
    fn the_cookie_stays_between_client_and_weir() {
        let sample = Sample::new("GET / HTTP/1.1", &[("Host", "a"), ("Cookie", "a=b; w=x")]);
        let mut edits = Edits::default();
        mode("w", &[1]).conceal(&sample.request(), &mut edits);
        assert_eq!(sample.edited(&mut edits), "Host: a\r\nCookie: a=b\r\n");
    }

    fn answered(cache_control: &[&str]) -> (bool, Vec<String>) {
        let fields: Vec<_> = cache_control
            .iter()
            .map(|v| ("Cache-Control", *v))
            .collect();
        let sample = Sample::new("HTTP/1.1 200 OK", &fields);
        let mode = mode("w", &[1]);
        let id = admit(&mode, 0, &ring(&[1]), 0).unwrap();
        let chosen = Chosen {
            stickiness: Stickiness::New,
            tell: Some(Tell::Id(id)),
            only_with_session: false,
            for_good: false,
            in_passing: false,
            home: None,
            key: None,
            may_leave: false,
        };
        let mut edits = Edits::default();
        let answer = Answered {
            head: &sample.answer(),
            opens_session: false,
            secure: true,
        };
        mode.remember(&chosen, &answer, &mut |_| {}, &mut edits);
        let text = sample.edited(&mut edits);
        let set = format!("Set-Cookie: w={}; Path=/", self::text(id));
        let values = text
            .lines()
            .filter_map(|line| line.strip_prefix("Cache-Control: "));
        (text.contains(&set), values.map(str::to_owned).collect())
    }

    #[test]
    fn no_shared_cache_keeps_a_cookie() {
        for (before, after) in [
            (&[][..], &["private"][..]),
            (&["no-cache"], &["no-cache, private"]),
            (&[""], &["private"]),
            (
                &["max-age=1", "no-cache"],
                &["max-age=1, private", "no-cache"],
            ),
            (&["Private"], &["Private"]),
            (&["max-age=1 , private"], &["max-age=1 , private"]),
            (&["no-cache", "no-store"], &["no-cache", "no-store"]),
            (&["private=\"x\""], &["private=\"x\", private"]),
            (
                &["no-cache=\"a, public\""],
                &["no-cache=\"a, public\", private"],
            ),
            (&["publicity"], &["publicity, private"]),
        ] {
            let after: Vec<String> = after.iter().map(|&value| value.to_owned()).collect();
            assert_eq!(answered(before), (true, after), "{before:?}");
        }
        for before in [
            "public",
            "max-age=3, Public",
            "S-MaxAge=5",
            "s-maxage = 5",
            "s-maxage",
        ] {
            assert_eq!(answered(&[before]), (false, vec![before.to_owned()]));
        }
        assert!(!answered(&["private", "public"]).0);
    }

    proptest! {
        /// One changed character is enough to be a forger.
        #[test]
        fn every_character_counts(seed in any::<u64>(), at in 0..TOKEN_LENGTH, to in "[ -:<-~]") {
            let ring = ring(&[1, 1]);
            let mine = mode("w", &[1]);
            let mut token = text(admit(&mine, 1, &ring, seed).unwrap());
            prop_assume!(token[at..=at] != to);
            token.replace_range(at..=at, &to);
            prop_assert_eq!(recall(&mine, &ring, &format!("w={token}"), &mut None), Recall::Forged);
        }

        #[test]
        fn any_bytes_are_a_forgery(value in "[ -:<-~]{0,60}") {
            let recalled = recall(&mode("w", &[1]), &ring(&[1]), &format!("w={value}"), &mut None);
            prop_assert_eq!(recalled, Recall::Forged);
        }
    }
}

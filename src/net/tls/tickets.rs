//! Session tickets whose keys follow from the secrets and the time: nothing to store, nothing to share but the secrets.
//! A ticket is good in the window of time that it was made in and in the next one; then its key is made no more.
//! The walk goes back to `control/`, which makes one of these for each listener.

use std::time::Duration;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use rustls::server::ProducesTickets;

use crate::clock;
use crate::policy::persist::token::Secrets;
use crate::rng;

/// How long one key seals. Its tickets are opened for twice as long.
pub const WINDOW: Duration = Duration::from_secs(6 * 60 * 60);

/// Bytes of the number of a window.
const NUMBER: usize = 8;

/// Seals and opens tickets.
#[derive(Debug)]
pub struct Tickets {
    secrets: Secrets,
    /// What only listeners that ask the same of their clients have in common.
    scope: String,
    wall_millis: fn() -> u64,
}

impl Tickets {
    /// Tickets of listeners with this `scope`. It must tell listeners apart that ask different things of a client: a resumed
    /// session is not asked for its certificate again.
    pub fn new(secrets: Secrets, scope: String) -> Self {
        Tickets {
            secrets,
            scope,
            wall_millis: clock::wall_millis,
        }
    }

    fn window(&self) -> u64 {
        (self.wall_millis)() / WINDOW.as_millis() as u64
    }

    /// A key from each secret. They are derived anew for each ticket, which costs microseconds beside a handshake's many.
    fn keys(&self, window: u64) -> Vec<LessSafeKey> {
        let purpose = format!("tls ticket {} {window}", self.scope);
        self.secrets.sealing_keys(&purpose)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        WINDOW.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let window = self.window();
        let mut nonce = [0; NONCE_LEN];
        rng::fill_secure(&mut nonce);
        let mut sealed = plain.to_vec();
        let number = window.to_be_bytes();
        let nonced = Nonce::assume_unique_for_key(nonce);
        (self.keys(window).first()?)
            .seal_in_place_append_tag(nonced, Aad::from(number), &mut sealed)
            .ok()?;
        Some([&number[..], &nonce[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (number, rest) = ticket.split_first_chunk::<NUMBER>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (window, now) = (u64::from_be_bytes(*number), self.window());
        // Another weir's clock may be a little ahead.
        if !(now.saturating_sub(1)..=now + 1).contains(&window) {
            return None;
        }
        self.keys(window).iter().find_map(|key| {
            let mut opened = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let plain = key.open_in_place(nonce, Aad::from(number), &mut opened);
            plain.ok().map(|plain| plain.to_vec())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<const HOUR: u64>() -> u64 {
        (1_000_000 * 6 + HOUR) * 60 * 60 * 1000
    }

    fn tickets(secrets: &str, scope: &str, wall_millis: fn() -> u64) -> Tickets {
        Tickets {
            secrets: Secrets::parse(secrets).expect("good secrets"),
            scope: scope.to_owned(),
            wall_millis,
        }
    }

    const ONE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    const TWO: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";

    #[test]
    fn a_ticket_is_opened_by_every_weir_with_the_secret_in_its_window_and_the_next() {
        let ticket = tickets(ONE, "a", at::<0>)
            .encrypt(b"session")
            .expect("a ticket");
        let open = |secrets: &str, scope, now| tickets(secrets, scope, now).decrypt(&ticket);
        let whole = Some(b"session".to_vec());
        assert_eq!(open(ONE, "a", at::<0>), whole);
        assert_eq!(open(ONE, "a", at::<11>), whole);
        assert_eq!(open(&format!("{TWO}{ONE}"), "a", at::<1>), whole);
        assert_eq!(open(ONE, "a", at::<12>), None, "two windows later");
        assert_eq!(open(TWO, "a", at::<0>), None, "other secrets");
        assert_eq!(open(ONE, "b", at::<0>), None, "another scope");
    }

    #[test]
    fn what_was_changed_or_cut_is_no_ticket() {
        let own = tickets(ONE, "a", at::<0>);
        let ticket = own.encrypt(b"session").expect("a ticket");
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert_eq!(own.decrypt(&changed), None, "byte {place}");
            assert_eq!(own.decrypt(&ticket[..place]), None, "{place} bytes");
        }
        assert_ne!(own.encrypt(b"session").expect("a ticket"), ticket);
    }
}

//! `source`: a client is known by the network that its address lies in.
//! It keeps and sends nothing. All who share an address share a home, and one who changes it may move.
//! Here the walk ends.

use std::net::IpAddr;

use super::{Home, Persistence, Recall, Remembered};
use crate::policy::facts::Facts;
use crate::policy::rendezvous::{self, Rendezvous};

/// The sticky mode `source`. The home is the rendezvous choice for the address's network.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    prefix_v4: u8,
    prefix_v6: u8,
}

impl Source {
    /// Takes how many bits of an address tell clients apart: at most 32 and 128.
    pub fn new(prefix_v4: u8, prefix_v6: u8) -> Source {
        Source {
            prefix_v4,
            prefix_v6,
        }
    }

    fn key(&self, client: IpAddr) -> u64 {
        match client.to_canonical() {
            IpAddr::V4(address) => {
                let below = 32 - u32::from(self.prefix_v4.min(32));
                let network = u64::from(address.to_bits()) >> below << below;
                rendezvous::key(&(network as u32).to_be_bytes())
            }
            IpAddr::V6(address) => {
                let below = 128 - u32::from(self.prefix_v6.min(128));
                let network = address.to_bits().checked_shr(below).unwrap_or(0);
                rendezvous::key(&network.to_be_bytes())
            }
        }
    }
}

impl Persistence for Source {
    fn recall(&self, facts: &Facts<'_>, ring: &Rendezvous, _: &mut Option<Remembered>) -> Recall {
        let key = self.key(facts.client);
        match ring.first(key, |_| true) {
            Some(backend) => Recall::Keep(Home::of_key(key, Some(backend))),
            None => Recall::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(mode: Source, address: &str) -> u64 {
        mode.key(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_one_key() {
        let fine = Source::new(32, 64);
        assert_ne!(key(fine, "192.0.2.1"), key(fine, "192.0.2.2"));
        assert_eq!(key(fine, "192.0.2.1"), key(fine, "::ffff:192.0.2.1"));
        assert_eq!(key(fine, "2001:db8::1"), key(fine, "2001:db8::ffff:1"));
        assert_ne!(key(fine, "2001:db8::1"), key(fine, "2001:db8:0:1::1"));
        let coarse = Source::new(24, 0);
        assert_eq!(key(coarse, "192.0.2.1"), key(coarse, "192.0.2.2"));
        assert_ne!(key(coarse, "192.0.2.1"), key(coarse, "192.0.3.1"));
        assert_eq!(key(coarse, "2001:db8::1"), key(coarse, "fe80::1"));
        let all = Source::new(0, 128);
        assert_eq!(key(all, "192.0.2.1"), key(all, "10.0.0.1"));
        assert_ne!(key(all, "2001:db8::1"), key(all, "2001:db8::2"));
    }
}

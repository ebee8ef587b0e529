//! Sets of networks, and the rule of who may come in: what is denied is denied, and where somebody is allowed nobody else is.
//! A set is sorted ranges that do not touch, so that an address is found in as many steps as their number has bits; nothing is parsed here.
//! The walk goes on in `state/gate.rs`, which asks at the accept, and in the filters of a route.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::config::model::{self, Cidr};

/// A set of addresses that networks make up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// First and last address of each range, ascending, with a gap between any two.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<T>(Box<[(T, T)]>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Ranges(Box::default())
    }
}

/// Who may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    deny: Networks,
    /// Absent: everybody who is not denied.
    allow: Option<Networks>,
}

impl Networks {
    /// The addresses of all these networks.
    pub fn new(networks: &[Cidr]) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network.network {
                IpAddr::V4(address) => {
                    let host = ones(u32::from(network.prefix), 32) as u32;
                    let first = address.to_bits() & !host;
                    v4.push((first, first | host));
                }
                IpAddr::V6(address) => {
                    let host = ones(u32::from(network.prefix), 128);
                    let first = address.to_bits() & !host;
                    v6.push((first, first | host));
                }
            }
        }
        Networks {
            v4: Ranges::new(v4, |last| last.checked_add(1)),
            v6: Ranges::new(v6, |last| last.checked_add(1)),
        }
    }

    /// Whether one of the networks has the address; an IPv4-mapped IPv6 address counts as IPv4.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.range(address.to_bits()).is_some(),
            IpAddr::V6(address) => self.v6.range(address.to_bits()).is_some(),
        }
    }

    /// Whether all of a network is in the set.
    pub fn covers(&self, network: &Cidr) -> bool {
        let other = Networks::new(std::slice::from_ref(network));
        let v4 = |range: &(u32, u32)| self.v4.range(range.0).is_some_and(|r| r.contains(&range.1));
        let v6 =
            |range: &(u128, u128)| self.v6.range(range.0).is_some_and(|r| r.contains(&range.1));
        other.v4.0.iter().all(v4) && other.v6.0.iter().all(v6)
    }
}

/// The network that an address lies in, as one value for each: its bits as far as the prefix of its family. An IPv4-mapped IPv6 address
/// counts as IPv4.
#[inline]
pub fn network_of(address: IpAddr, prefix_v4: u8, prefix_v6: u8) -> (bool, u128) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let host = ones(u32::from(prefix_v4), 32);
            (true, u128::from(address.to_bits()) & !host)
        }
        IpAddr::V6(address) => (false, address.to_bits() & !ones(u32::from(prefix_v6), 128)),
    }
}

/// The bits behind a prefix.
fn ones(prefix: u32, width: u32) -> u128 {
    match width.saturating_sub(prefix) {
        0 => 0,
        bits => u128::MAX >> (128 - bits),
    }
}

impl<T: Copy + Ord> Ranges<T> {
    /// Sorts the ranges and joins those that overlap or touch. `next` is the address after one.
    fn new(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if next(before.1).is_none_or(|next| first <= next) => {
                    before.1 = before.1.max(last);
                }
                _ => joined.push((first, last)),
            }
        }
        Ranges(joined.into())
    }

    /// The range that has the address.
    #[inline]
    fn range(&self, address: T) -> Option<RangeInclusive<T>> {
        let above = self.0.partition_point(|(first, _)| *first <= address);
        let (first, last) = self.0.get(above.checked_sub(1)?)?;
        (address <= *last).then_some(*first..=*last)
    }
}

impl Access {
    /// The rule, or nothing where everybody may come in.
    pub fn new(rule: &model::Access) -> Option<Access> {
        let is_open = rule.deny.is_empty() && rule.allow.is_empty();
        (!is_open).then(|| Access {
            deny: Networks::new(&rule.deny),
            allow: (!rule.allow.is_empty()).then(|| Networks::new(&rule.allow)),
        })
    }

    /// Whether the address may come in.
    #[inline]
    pub fn permits(&self, address: IpAddr) -> bool {
        let is_allowed = || (self.allow.as_ref()).is_none_or(|allow| allow.contains(address));
        !self.deny.contains(address) && is_allowed()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn cidr(text: &str) -> Cidr {
        let (network, prefix) = text.split_once('/').unwrap();
        Cidr {
            network: network.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }
    }

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let list = |texts: &[&str]| texts.iter().map(|text| cidr(text)).collect();
        let rule = model::Access {
            allow: list(allow),
            deny: list(deny),
        };
        Access::new(&rule).unwrap()
    }

    #[test]
    fn what_is_denied_is_denied_and_where_somebody_is_allowed_nobody_else_is() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let office = access(&["10.0.0.0/8", "2001:db8::/32"], &["10.1.0.0/16"]);
        assert!(office.permits(address("10.2.0.1")));
        assert!(office.permits(address("::ffff:10.2.0.1")));
        assert!(office.permits(address("2001:db8:ffff::1")));
        assert!(!office.permits(address("10.1.2.3")), "deny comes first");
        assert!(!office.permits(address("192.0.2.1")), "not allowed");
        assert!(!office.permits(address("2001:db9::1")));
        let most = access(&[], &["192.0.2.0/24"]);
        assert!(most.permits(address("10.1.2.3")) && most.permits(address("::1")));
        assert!(!most.permits(address("192.0.2.255")));
        let one_family = access(&["10.0.0.0/8"], &[]);
        assert!(!one_family.permits(address("::1")));
        let open = model::Access::default();
        assert_eq!(Access::new(&open), None);
    }

    #[test]
    fn networks_that_touch_become_one() {
        let all = Networks::new(&[cidr("0.0.0.0/1"), cidr("128.0.0.0/1"), cidr("::/0")]);
        assert_eq!((all.v4.0.len(), all.v6.0.len()), (1, 1));
        assert!(
            all.contains(Ipv4Addr::BROADCAST.into()) && all.contains(Ipv6Addr::UNSPECIFIED.into())
        );
        assert!(all.covers(&cidr("0.0.0.0/0")) && all.covers(&cidr("::/0")));
        let part = Networks::new(&[cidr("10.0.0.0/9"), cidr("10.128.0.0/9"), cidr("12.0.0.0/8")]);
        assert!(part.covers(&cidr("10.0.0.0/8")) && part.covers(&cidr("12.1.0.0/16")));
        assert!(!part.covers(&cidr("10.0.0.0/7")) && !part.covers(&cidr("::/128")));
    }

    #[test]
    fn a_network_is_one_value() {
        let of = |text: &str, v4, v6| network_of(text.parse().unwrap(), v4, v6);
        assert_eq!(of("192.0.2.1", 24, 64), of("::ffff:192.0.2.200", 24, 64));
        assert_ne!(of("192.0.2.1", 32, 64), of("192.0.2.2", 32, 64));
        assert_eq!(of("2001:db8::1", 32, 64), of("2001:db8::ffff:1", 32, 64));
        assert_ne!(of("2001:db8::1", 32, 64), of("2001:db8:0:1::1", 32, 64));
        assert_eq!(of("1.2.3.4", 0, 0), of("4.3.2.1", 0, 0));
        assert_ne!(of("0.0.0.0", 0, 0), of("::", 0, 0));
    }

    /// Networks that have much in common, in both families.
    fn any_cidr() -> impl Strategy<Value = Cidr> {
        (any::<bool>(), any::<u8>(), any::<u8>(), 0..=128_u8).prop_map(|(is_v4, a, b, prefix)| {
            let network: IpAddr = match is_v4 {
                true => Ipv4Addr::new(a & 3, b, a, b).into(),
                false => Ipv6Addr::new(
                    u16::from(a & 3),
                    u16::from(b),
                    0,
                    0,
                    0,
                    0,
                    u16::from(a),
                    u16::from(b),
                )
                .into(),
            };
            let prefix = if is_v4 { prefix % 33 } else { prefix };
            Cidr { network, prefix }
        })
    }

    /// The ends of a network, and what lies beside them.
    fn around(cidr: &Cidr) -> Vec<IpAddr> {
        match cidr.network {
            IpAddr::V4(address) => {
                let host = ones(u32::from(cidr.prefix), 32) as u32;
                let (first, last) = (address.to_bits() & !host, address.to_bits() | host);
                let all = [
                    first,
                    last,
                    first.wrapping_sub(1),
                    last.wrapping_add(1),
                    address.to_bits(),
                ];
                all.map(|bits| Ipv4Addr::from_bits(bits).into()).to_vec()
            }
            IpAddr::V6(address) => {
                let host = ones(u32::from(cidr.prefix), 128);
                let (first, last) = (address.to_bits() & !host, address.to_bits() | host);
                let all = [
                    first,
                    last,
                    first.wrapping_sub(1),
                    last.wrapping_add(1),
                    address.to_bits(),
                ];
                all.map(|bits| Ipv6Addr::from_bits(bits).into()).to_vec()
            }
        }
    }

    proptest! {
        /// Against looking at one network after the other.
        #[test]
        fn it_is_what_a_list_is(list in prop::collection::vec(any_cidr(), 0..40), strangers in prop::collection::vec(any::<[u8; 4]>(), 0..20)) {
            let networks = Networks::new(&list);
            let strangers = strangers.into_iter().map(IpAddr::from);
            for address in list.iter().flat_map(around).chain(strangers) {
                let plain = list.iter().any(|cidr| cidr.contains(address));
                prop_assert_eq!(networks.contains(address), plain, "{}", address);
            }
            prop_assert!(list.iter().all(|cidr| networks.covers(cidr)));
        }
    }
}

//! Who may come in and how often: sets of networks against a look at each network, buckets that never give more than their rate, and
//! rate limits by whatever a client shows.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use weir::config::model::{Access as Rule, Cidr, LimitKey, Rate, RateLimit as LimitRule};
use weir::http::request;
use weir::policy::cidr::{Access, network_of};
use weir::policy::limit::{Bucket, Take};
use weir::state::rate_limit::RateLimit;

use super::support::LIMITS;

pub fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    // An input that is too short stands for its beginning.
    let _ = access(&mut input);
    let _ = bucket(&mut input);
    let _ = keys(input);
}

fn address(input: &mut Unstructured<'_>) -> Result<IpAddr> {
    let bits = u128::from(u32::arbitrary(input)?);
    Ok(match bool::arbitrary(input)? {
        true => std::net::Ipv4Addr::from_bits(bits as u32).into(),
        false => std::net::Ipv6Addr::from_bits(bits << (8 * (bits % 13)) ^ bits >> 3).into(),
    })
}

fn networks(input: &mut Unstructured<'_>) -> Result<Vec<Cidr>> {
    let mut networks = Vec::new();
    for _ in 0..input.int_in_range(0..=6)? {
        let network = address(input)?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let prefix = input.int_in_range(0..=most)?;
        networks.push(Cidr { network, prefix });
    }
    Ok(networks)
}

fn access(input: &mut Unstructured<'_>) -> Result<()> {
    let rule = Rule {
        allow: networks(input)?,
        deny: networks(input)?,
    };
    let compiled = Access::new(&rule);
    for _ in 0..4 {
        let client = address(input)?;
        let is_in = |list: &[Cidr]| list.iter().any(|network| has(network, client));
        let wanted = !is_in(&rule.deny) && (rule.allow.is_empty() || is_in(&rule.allow));
        let permits = compiled
            .as_ref()
            .is_none_or(|access| access.permits(client));
        assert_eq!(permits, wanted, "{client} and {rule:?}");
        network_of(
            client,
            u8::arbitrary(input)? % 33,
            u8::arbitrary(input)? % 129,
        );
    }
    Ok(())
}

/// Bit by bit.
fn has(network: &Cidr, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (own, other) = (bits(network.network), bits(address.to_canonical()));
    let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let prefix = usize::from(network.prefix);
    own.len() == other.len() && (0..prefix).all(|at| bit(&own, at) == bit(&other, at))
}

fn bucket(input: &mut Unstructured<'_>) -> Result<()> {
    let (count, burst) = (u32::arbitrary(input)?, u32::arbitrary(input)?);
    let period = Duration::from_secs(*input.choose(&[1, 60, 3600])?);
    let bucket = Bucket::new(count, period, burst);
    let (mut full_at, mut taken) = (0, 0_u128);
    let (mut first, mut last) = (u64::MAX, 0);
    for _ in 0..input.int_in_range(0..=40)? {
        let now = u64::arbitrary(input)? >> input.int_in_range(8..=40)?;
        (first, last) = (first.min(now), last.max(now));
        match bucket.take(full_at, now) {
            Take::Taken(next) => (full_at, taken) = (next, taken + 1),
            Take::Refused(wait) => assert!(wait > Duration::ZERO),
        }
    }
    let flown = u128::from(last.saturating_sub(first)) * u128::from(count.max(1));
    assert!(taken <= u128::from(burst.max(1)) + flown / period.as_nanos());
    Ok(())
}

fn keys(mut input: Unstructured<'_>) -> Result<()> {
    let names = ["x-key", "cookie", "host"];
    let header = LimitKey::Header((*input.choose(&names)?).to_owned());
    let cookie = LimitKey::Cookie("w".to_owned());
    let rule = LimitRule {
        rate: Rate {
            count: 1,
            period: Duration::from_secs(3600),
        },
        burst: 1,
        key: input
            .choose(&[LimitKey::Source, header, cookie, LimitKey::Route])?
            .clone(),
        prefix_v4: input.int_in_range(0..=32)?,
        prefix_v6: input.int_in_range(0..=128)?,
        max_keys: input.int_in_range(1..=16)?,
    };
    let limit = RateLimit::of(&rule, std::iter::empty::<&Arc<RateLimit>>());
    let client = address(&mut input)?;
    let now = Instant::now() + Duration::from_secs(1);
    let wire = input.take_rest();
    let mut lines = Vec::new();
    if let Ok(Some(request)) = request::parse(wire, &mut lines, &LIMITS) {
        assert_eq!(
            limit.take(client, &request.head, now),
            None,
            "the first one"
        );
        assert!(
            limit.take(client, &request.head, now).is_some(),
            "the same again"
        );
    }
    Ok(())
}

//! One rate limit as the workers share it: whom a request is counted with, whether it may pass, and how many did not.
//! It survives a reload as long as the file says the same of it; it writes no answer and no line of the log.
//! The walk goes on in `rates.rs`, which has the buckets, and in `l7/protect.rs`, which asks.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::rates::Rates;
use super::refusals::Refusals;
use crate::config::model::{self, LimitKey};
use crate::http::cookie;
use crate::http::head::RequestHead;
use crate::policy::cidr::network_of;
use crate::policy::limit::Bucket;

/// A rate limit.
#[derive(Debug)]
pub struct RateLimit {
    /// What it was made from.
    pub rule: model::RateLimit,
    /// As metrics and logs call it.
    pub label: Box<str>,
    /// Who was turned away.
    pub refusals: Refusals,
    cookie: Option<cookie::Name>,
    bucket: Bucket,
    rates: Rates,
    crowded: AtomicU64,
}

/// With whom a request is counted; those that lack what is counted by share a bucket.
#[derive(Hash)]
enum Key<'a> {
    Network(bool, u128),
    Value(&'a [u8]),
    Absent,
    All,
}

impl RateLimit {
    /// The limit of this rule: that of `known`, if it has one of the same rule.
    pub fn of<'a>(
        rule: &model::RateLimit,
        mut known: impl Iterator<Item = &'a Arc<RateLimit>>,
    ) -> Arc<RateLimit> {
        let same = known.find(|known| known.rule == *rule);
        same.map_or_else(|| Arc::new(RateLimit::new(rule)), Arc::clone)
    }

    fn new(rule: &model::RateLimit) -> RateLimit {
        RateLimit {
            rule: rule.clone(),
            label: rule.label().into(),
            refusals: Refusals::default(),
            cookie: match &rule.key {
                LimitKey::Cookie(name) => Some(name.as_str().into()),
                _ => None,
            },
            bucket: Bucket::new(rule.rate.count, rule.rate.period, rule.burst),
            rates: Rates::new(match rule.key {
                LimitKey::Route => 1,
                _ => rule.max_keys,
            }),
            crowded: AtomicU64::new(0),
        }
    }

    /// Lets one more request of this client pass, or says after what time the next one may.
    pub fn take(&self, client: IpAddr, head: &RequestHead<'_>, now: Instant) -> Option<Duration> {
        self.take_of(self.key(client, head), now)
    }

    /// The same for a connection, which is counted by its client's address.
    pub fn take_connection(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        self.take_of(self.network(client), now)
    }

    fn take_of(&self, key: Key<'_>, now: Instant) -> Option<Duration> {
        let outcome = self.rates.take(&self.bucket, key, now);
        if outcome.crowded {
            self.crowded.fetch_add(1, Relaxed);
        }
        outcome.wait
    }

    fn network(&self, client: IpAddr) -> Key<'static> {
        let (prefix_v4, prefix_v6) = (self.rule.prefix_v4, self.rule.prefix_v6);
        let (is_v4, network) = network_of(client, prefix_v4, prefix_v6);
        Key::Network(is_v4, network)
    }

    fn key<'a>(&self, client: IpAddr, head: &RequestHead<'a>) -> Key<'a> {
        let value = match &self.rule.key {
            LimitKey::Source => return self.network(client),
            LimitKey::Route => return Key::All,
            LimitKey::Header(name) => head.values(name).next(),
            LimitKey::Cookie(_) => {
                (self.cookie.as_ref()).and_then(|name| cookie::values(head, name).next())
            }
        };
        value.map_or(Key::Absent, Key::Value)
    }

    /// How often a key took over a bucket that was busy, since all that it might have were.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Relaxed)
    }

    /// How many may pass at once, and how long that takes to come back: what a client is told.
    pub fn quota(&self) -> (u32, Duration) {
        (self.bucket.burst(), self.bucket.window())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Rate;
    use crate::http::Sample;

    const SECOND: Duration = Duration::from_secs(1);

    fn rule(key: LimitKey) -> model::RateLimit {
        model::RateLimit {
            rate: Rate {
                count: 1,
                period: SECOND,
            },
            burst: 1,
            key,
            prefix_v4: 24,
            prefix_v6: 64,
            max_keys: 100,
        }
    }

    fn passes(limit: &RateLimit, client: &str, fields: &[(&str, &str)], now: Instant) -> bool {
        let sample = Sample::new("GET / HTTP/1.1", fields);
        let client = client.parse().unwrap();
        limit.take(client, &sample.request(), now).is_none()
    }

    #[test]
    fn requests_are_counted_with_their_like() {
        let now = crate::clock::now() + SECOND;
        let by_source = RateLimit::new(&rule(LimitKey::Source));
        assert!(passes(&by_source, "192.0.2.1", &[], now));
        assert!(!passes(&by_source, "192.0.2.2", &[], now), "one network");
        assert!(passes(&by_source, "192.0.3.1", &[], now));

        let by_header = RateLimit::new(&rule(LimitKey::Header("x-key".into())));
        let key = |value| [("X-Key", value)];
        assert!(passes(&by_header, "192.0.2.1", &key("a"), now));
        assert!(!passes(&by_header, "192.0.3.1", &key("a"), now));
        assert!(passes(&by_header, "192.0.2.1", &key("b"), now));
        assert!(passes(&by_header, "192.0.2.1", &[], now));
        assert!(
            !passes(&by_header, "192.0.3.1", &[], now),
            "one for all without"
        );
        assert!(
            passes(&by_header, "192.0.2.1", &key(""), now),
            "empty is a value"
        );

        let by_cookie = RateLimit::new(&rule(LimitKey::Cookie("S".into())));
        let cookie = |value| [("Cookie", value)];
        assert!(passes(&by_cookie, "192.0.2.1", &cookie("a=1; S=1"), now));
        assert!(!passes(&by_cookie, "192.0.2.1", &cookie("S=1; a=2"), now));
        assert!(passes(&by_cookie, "192.0.2.1", &cookie("S=2"), now));

        let together = RateLimit::new(&rule(LimitKey::Route));
        assert!(passes(&together, "192.0.2.1", &[], now));
        assert!(!passes(&together, "2001:db8::1", &[], now));
        assert!(passes(&together, "2001:db8::1", &[], now + SECOND));
    }

    #[test]
    fn it_is_kept_while_its_rule_is() {
        let first = RateLimit::of(&rule(LimitKey::Source), [].into_iter());
        let same = RateLimit::of(&rule(LimitKey::Source), [&first].into_iter());
        assert!(Arc::ptr_eq(&first, &same));
        let other = RateLimit::of(&rule(LimitKey::Route), [&first].into_iter());
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(&*other.label, "1/s route");
    }
}

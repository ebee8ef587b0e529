//! Rate limits and access lists, of listeners and of routes.
//! It judges single values; what two of them mean together is judged in `check/access.rs`.
//! Here the walk ends.

use toml::de::DeTable;

use super::{At, Report, Section, values_of};
use crate::config::diagnostic::Span;
use crate::config::model::{Access, Cidr, LimitKey, Rate, RateLimit};
use crate::config::values::{addresses, rates};

/// Where the allowed networks stand.
pub(in crate::config) type AllowPlaces = Vec<Span>;

/// The lists `allow` and `deny` of a table.
pub(super) fn access(report: &mut Report, section: &Section<'_>) -> (Access, AllowPlaces) {
    let allow: Vec<At<Cidr>> = section.list(report, "allow", addresses::network);
    let deny = section.list(report, "deny", addresses::network);
    let places = allow.iter().map(|at| at.span.clone()).collect();
    let access = Access {
        allow: values_of(allow),
        deny: values_of(deny),
    };
    (access, places)
}

/// The `rate_limit` of a listener, which counts by address; `None` when it has none.
pub(super) fn of_listener(report: &mut Report, listener: &Section<'_>) -> Option<RateLimit> {
    listener.value("rate_limit")?;
    let empty = DeTable::new();
    let section = listener.section(report, "rate_limit", "listeners.*.rate_limit", &empty);
    Some(rate_limit(report, &section, LimitKey::Source))
}

/// The rate limit of a table, which counts by `key`.
pub(super) fn rate_limit(report: &mut Report, section: &Section<'_>, key: LimitKey) -> RateLimit {
    let nothing = Rate {
        count: 1,
        period: std::time::Duration::from_secs(1),
    };
    let rate = section.text(report, "rate", rates::rate).unwrap_or(nothing);
    let burst = section.count(report, "burst");
    let mut bits = |name| {
        let count = section.count(report, name).unwrap_or_default();
        u8::try_from(count).unwrap_or(u8::MAX)
    };
    let (prefix_v4, prefix_v6) = (bits("prefix_v4"), bits("prefix_v6"));
    RateLimit {
        rate,
        burst: burst.map_or(rate.count, |burst| u32::try_from(burst).unwrap_or(u32::MAX)),
        key,
        prefix_v4,
        prefix_v6,
        max_keys: section.count(report, "max_keys").unwrap_or_default() as usize,
    }
}

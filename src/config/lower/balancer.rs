//! The balancer of a pool: a word, or a word and the name of a header or cookie.
//! It judges the word alone: whether the pool's listeners carry headers is judged in `check/balancers.rs`.
//! Here the walk ends.

use super::{Report, Section};
use crate::config::keys::BALANCER;
use crate::config::model::{BalancerKind, HashKey};
use crate::config::value::chosen;
use crate::config::values::{Read, cookies, names};

/// The balancer of the pool; one that is refused counts as the first.
pub(super) fn lower(report: &mut Report, section: &Section<'_>) -> BalancerKind {
    let read = section.text(report, "balancer", balancer);
    read.unwrap_or(BalancerKind::RoundRobin)
}

fn balancer(text: &str) -> Read<BalancerKind> {
    if let Some(name) = text.strip_prefix("hash header:") {
        return names::header_name(name).map(|name| BalancerKind::Hash(HashKey::Header(name)));
    }
    if let Some(name) = text.strip_prefix("hash cookie:") {
        return cookies::name(name).map(|name| BalancerKind::Hash(HashKey::Cookie(name)));
    }
    Ok(match chosen(&BALANCER, text)? {
        "least-connections" => BalancerKind::LeastConnections,
        "least-sessions" => BalancerKind::LeastSessions,
        "random-two" => BalancerKind::RandomTwo,
        "peak-ewma" => BalancerKind::PeakEwma,
        "hash source" => BalancerKind::Hash(HashKey::Source),
        "hash uri" => BalancerKind::Hash(HashKey::Uri),
        "maglev" => BalancerKind::Maglev,
        _ => BalancerKind::RoundRobin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_means_something_and_is_written_as_it_is_read() {
        for word in BALANCER.words {
            let read = balancer(&word.replace("NAME", "x-user")).map(|kind| kind.to_string());
            assert_eq!(read, Ok(word.replace("NAME", "x-user")));
        }
        assert!(balancer("hash header:").is_err());
        assert!(balancer("hash cookie:a b").is_err());
        assert!(balancer("hash").is_err());
    }
}

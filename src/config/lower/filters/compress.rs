//! A `compress` filter: absent keys mean what is usual.
//! It compresses nothing.
//! Here the walk ends.

use crate::config::keys;
use crate::config::model::{Algorithm, Compress};
use crate::config::section::{Report, Section};
use crate::config::value::chosen;
use crate::config::values::{Read, names};

use super::super::values_of;

/// Types whose contents are text, and whose formats are not compressed in themselves.
const TYPES: [&str; 13] = [
    "text/*",
    "application/json",
    "application/ld+json",
    "application/problem+json",
    "application/manifest+json",
    "application/graphql-response+json",
    "application/javascript",
    "application/xml",
    "application/xhtml+xml",
    "application/rss+xml",
    "application/atom+xml",
    "application/wasm",
    "image/svg+xml",
];

pub(super) fn lower(report: &mut Report, section: &Section<'_>) -> Compress {
    let mut algorithms = values_of(section.list(report, "algorithms", algorithm));
    if algorithms.is_empty() {
        algorithms = Algorithm::ALL.to_vec();
    }
    let mut types = values_of(section.list(report, "types", names::media_range));
    if types.is_empty() {
        types = TYPES.map(str::to_owned).to_vec();
    }
    let level = section.count(report, "level");
    Compress {
        algorithms,
        min_size: section.size(report, "min_size").unwrap_or_default(),
        types,
        level: level.and_then(|level| u8::try_from(level).ok()),
    }
}

fn algorithm(text: &str) -> Read<Algorithm> {
    let word = chosen(&keys::ALGORITHM, text)?;
    let mut found = Algorithm::ALL.into_iter();
    Ok(found
        .find(|algorithm| algorithm.as_str() == word)
        .unwrap_or(Algorithm::Gzip))
}

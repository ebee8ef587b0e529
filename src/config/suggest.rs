//! Guesses what was meant by a word that weir does not know.
//! It only ever adds to a help; it never accepts anything.
//! Here the walk ends.

use super::codes::Code;
use super::diagnostic::{Diagnostic, Span};
use super::keys;
use super::schema::{self, KEYS, LATER};
use super::values::brief;

/// What other balancers call things.
const SYNONYMS: &[(&str, &str)] = &[
    ("algorithm", "balancer"),
    ("cluster", "pools"),
    ("clusters", "pools"),
    ("endpoints", "backends"),
    ("frontend", "listeners"),
    ("frontends", "listeners"),
    ("listen", "bind"),
    ("log_level", "log"),
    ("outlier", "passive"),
    ("outlier_detection", "passive"),
    ("max_fails", "passive"),
    ("retries", "retry"),
    ("accept_proxy", "proxy_protocol"),
    ("send_proxy", "proxy_protocol"),
    ("servers", "backends"),
    ("services", "pools"),
    ("upstream", "pools"),
    ("upstreams", "pools"),
];

/// What people call the steps of a route.
const FILTERS: &[(&str, &str)] = &[
    ("auth", "basic-auth"),
    ("allow", "access"),
    ("auth_basic", "basic-auth"),
    ("brotli", "compress"),
    ("compression", "compress"),
    ("deny", "access"),
    ("error_page", "error-pages"),
    ("gzip", "compress"),
    ("limit_req", "rate-limit"),
    ("return", "respond"),
    ("rewrite", "rewrite-path"),
    ("strip_prefix", "rewrite-path"),
    ("zstd", "compress"),
];

/// Words that are none of a choice, a word of the choice, and what to say of them.
const WORDS: &[(&str, &str, &str)] = &[
    ("https", "http", HTTPS),
    ("tls", "http", HTTPS),
    ("ssl", "http", HTTPS),
    ("http2", "http", HTTP2),
    ("h2", "http", HTTP2),
    ("h2c", "http", HTTP2),
    ("grpc", "http", HTTP2),
    (
        "https",
        "http1",
        "write \"http1\", and what makes it https: tls = true",
    ),
    ("h2", "http2", "weir calls this \"http2\""),
    ("h2c", "http2", "weir calls this \"http2\""),
    (
        "grpc",
        "http2",
        "weir calls this \"http2\": that is what gRPC needs",
    ),
    ("leastconn", "least-connections", LEAST),
    ("least_conn", "least-connections", LEAST),
    ("brotli", "br", "weir calls this \"br\", as its header does"),
    ("TLS1.2", "1.2", "weir calls this \"1.2\""),
    ("TLS1.3", "1.3", "weir calls this \"1.3\""),
    ("TLSv1.2", "1.2", "weir calls this \"1.2\""),
    ("TLSv1.3", "1.3", "weir calls this \"1.3\""),
    ("ip", "source", "weir calls this \"source\""),
];

const HTTPS: &str = "write \"http\", and what makes it https: tls.certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]";
const HTTP2: &str = "write \"http\": HTTP/2 and gRPC are part of it, unless http2 = false";
const LEAST: &str = "weir calls this \"least-connections\"";

/// Longer words are no slips of the pen, and would take long to compare.
const LONGEST: usize = 64;

/// What to say of a word that is none of `words`, where others call something so.
pub(super) fn other_word(words: &[&str], word: &str) -> Option<String> {
    let mut known = WORDS.iter();
    if let Some((.., help)) = known.find(|(said, meant, _)| *said == word && words.contains(meant))
    {
        return Some((*help).to_owned());
    }
    let meant = filter(word).filter(|meant| words.contains(meant));
    meant.map(|meant| format!("weir calls this \"{meant}\""))
}

/// The step of a route that a word means.
fn filter(word: &str) -> Option<&'static str> {
    let meant = FILTERS.iter().find(|(said, _)| *said == word);
    let own = || {
        let types = keys::FILTER.words.iter().copied();
        types.clone().find(|known| known.replace('-', "_") == word)
    };
    meant.map(|(_, meant)| *meant).or_else(own)
}

/// A key that does not belong in the table at `path`, where those that are `among` do.
pub(super) fn unknown_key(
    path: &'static str,
    name: &str,
    span: Span,
    among: impl Fn(&str) -> bool,
) -> Diagnostic {
    let shown = brief(name);
    let full = if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    };
    if LATER.contains(&full.as_str()) {
        return Diagnostic::at(
            Code::NotYet,
            span,
            format!("`{shown}` is not in this version of weir"),
            "a key of a later version",
        )
        .help("leave it out: a key that does nothing yet is refused, so that nobody relies on it");
    }
    let found = Diagnostic::at(
        Code::UnknownKey,
        span,
        format!("unknown key `{shown}`"),
        match path {
            "" => "not a key of the file's top level".to_owned(),
            path => format!("not a key of {}", place(path)),
        },
    );
    let here = || {
        let known = schema::children(path).map(|(known, _)| known);
        known.filter(|known| among(known))
    };
    if let Some(step) = filter(name).filter(|_| path == "routes[]") {
        return found.help(format!(
            "it is a step of the route: filters = [{{ type = \"{step}\", … }}]"
        ));
    }
    if let Some(meant) = closest(name, here()) {
        return found.help(format!("did you mean `{meant}`?"));
    }
    if let Some(elsewhere) = elsewhere(name) {
        return found.help(format!("`{shown}` is a key of {elsewhere}"));
    }
    let synonym = SYNONYMS
        .iter()
        .find(|(word, meant)| *word == name && here().any(|known| known == *meant));
    if let Some((_, meant)) = synonym {
        return found.help(format!("weir calls this `{meant}`"));
    }
    let known: Vec<_> = here().map(|known| format!("`{known}`")).collect();
    found.help(format!("known here: {}", known.join(", ")))
}

/// Where the key does belong, if there is such a place.
fn elsewhere(name: &str) -> Option<String> {
    let mut places: Vec<String> = KEYS
        .iter()
        .map(|key| schema::split(key.path))
        .filter(|(_, known)| *known == name)
        .map(|(parent, _)| place(parent))
        .collect();
    let last = places.pop()?;
    Some(match places.as_slice() {
        [] => last,
        rest => format!("{} and of {last}", rest.join(", of ")),
    })
}

/// A table as a reader of the file would find it.
fn place(path: &str) -> String {
    match path {
        "" => "the top level, before the first [table]".to_owned(),
        "routes[]" => "[[routes]]".to_owned(),
        "pools.*.backends[]" => "a backend".to_owned(),
        other => format!("[{}]", other.replace('*', "NAME").replace("[]", "")),
    }
}

/// The word that differs least from `word`, if it is close enough to be meant.
pub fn closest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let most = (word.chars().count() / 3).max(1);
    known
        .filter(|known| known.len() <= LONGEST)
        .map(|known| (distance(&word, &known.replace('-', "_")), known))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one word into the other
/// (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, &a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in to.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == to[j - 1] && from[i - 1] == b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

/// Words in quotes, as a sentence lists them: "a", "b" or "c".
pub(super) fn quoted_list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words() {
        let known = ["listeners", "routes", "pools", "log"];
        let meant = |word| closest(word, known.into_iter());
        assert_eq!(meant("listners"), Some("listeners"));
        assert_eq!(meant("ruotes"), Some("routes"));
        assert_eq!(meant("pool"), Some("pools"));
        assert_eq!(meant("frontend"), None);
        assert_eq!(distance("abcd", "acbd"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}

//! Why a route matches a request, or what is passed on, or does not, for people who ask.
//! It must say what `route.rs` does, which answers the same question without reasons; a test holds the two together.
//! The walk goes on in control's `admin/explain.rs`.

use super::facts::Facts;
use super::route::RouteMatch;
use crate::config::model::HeaderMatch;

/// How specific a match is: the greatest is taken, and of equal ones the first in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Bytes of the suffix that the host has; 0: any host, the greatest number: the very name.
    host: usize,
    path: usize,
    conditions: usize,
}

/// The first condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Miss<'r> {
    /// The route does not serve the listener.
    Listener,
    /// The host is none of its hosts.
    Host,
    /// The path does not begin with its path.
    Path,
    /// The method is none of its methods.
    Method,
    /// A header is not there, or has another value.
    Header(&'r HeaderMatch),
    /// The name that the client asks for is none of its names.
    ServerName,
    /// The client offers none of its protocols.
    Protocol,
}

/// How well a route matches a request, or what is passed on.
///
/// # Errors
/// It does not match.
pub fn judge<'r>(rule: &'r RouteMatch, facts: &Facts<'_>) -> Result<Rank, Miss<'r>> {
    if !rule.listeners.contains(&facts.listener) {
        return Err(Miss::Listener);
    }
    let Some(request) = &facts.request else {
        return judge_hello(rule, facts);
    };
    let host = request.head.host().to_ascii_lowercase();
    let rank = Rank {
        host: host_rank(rule, &host).ok_or(Miss::Host)?,
        path: path_rank(&rule.path, request.path).ok_or(Miss::Path)?,
        conditions: usize::from(!rule.methods.is_empty()) + rule.headers.len(),
    };
    let method = request.head.method;
    if !rule.methods.is_empty() && !rule.methods.iter().any(|own| own.as_bytes() == method) {
        return Err(Miss::Method);
    }
    let is_missing = |wanted: &&HeaderMatch| {
        let whole = wanted.value.as_ref().map(String::as_bytes);
        let mut values = request.head.values(&wanted.name);
        !values.any(|value| whole.is_none_or(|whole| whole == value))
    };
    match rule.headers.iter().find(is_missing) {
        Some(header) => Err(Miss::Header(header)),
        None => Ok(rank),
    }
}

/// The same of bytes that are passed on, by what their client says in the clear, if anything.
fn judge_hello<'r>(rule: &'r RouteMatch, facts: &Facts<'_>) -> Result<Rank, Miss<'r>> {
    let name = facts.host().unwrap_or_default().to_ascii_lowercase();
    let hello = facts.hello.as_ref();
    let offers = |wanted: &String| hello.is_some_and(|hello| hello.offers(wanted.as_bytes()));
    let rank = Rank {
        host: host_rank(rule, &name).ok_or(Miss::ServerName)?,
        path: 1,
        conditions: usize::from(!rule.alpn.is_empty()),
    };
    match rule.alpn.is_empty() || rule.alpn.iter().any(offers) {
        true => Ok(rank),
        false => Err(Miss::Protocol),
    }
}

fn host_rank(rule: &RouteMatch, host: &[u8]) -> Option<usize> {
    if rule.hosts.is_empty() {
        return Some(0);
    }
    let ranks = rule.hosts.iter().filter_map(|pattern| {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('*') {
            Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix.as_bytes()))
                .then_some(suffix.len()),
            None => (pattern.as_bytes() == host).then_some(usize::MAX),
        }
    });
    ranks.max()
}

/// A prefix counts on segment boundaries; the root also takes what is no path, such as `*`.
fn path_rank(prefix: &str, path: &[u8]) -> Option<usize> {
    if matches!(prefix, "/" | "") {
        return Some(1);
    }
    let rest = path.strip_prefix(prefix.as_bytes())?;
    (rest.is_empty() || rest[0] == b'/' || prefix.ends_with('/')).then_some(prefix.len())
}

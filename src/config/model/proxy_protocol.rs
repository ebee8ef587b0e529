//! The PROXY protocol as the file speaks of it: what a listener makes of headers, and what a pool is sent.
//! It knows no header from the inside.
//! Here the walk ends; `net/proxy_protocol/` reads and writes them.

/// What a listener makes of PROXY headers. Only those of trusted proxies are ever read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They are bytes like any others.
    Off,
    /// A trusted proxy may send one.
    Accept,
    /// Every connection begins with one; others are closed.
    Require,
}

/// The form of a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with extensions.
    V2,
}

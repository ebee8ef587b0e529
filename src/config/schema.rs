//! What a key of the configuration is: its place, kind, default, effect on reload and one sentence about it.
//! It reads no file and judges no value; it is the one description that the reader, the JSON Schema and the reference share.
//! The walk goes on in `keys.rs`, the table of all keys, and `section.rs`, which reads a file against it.

pub use super::keys::{KEYS, LATER};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands: `timeouts.connect`; `*` is a name that the file chooses, `[]` an entry of an array of tables.
    pub path: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What an absent key means.
    pub default: Default,
    /// What a reload does about a change of it.
    pub reload: Reload,
    /// What it is, in a sentence.
    pub doc: &'static str,
    /// A value as TOML.
    pub example: &'static str,
}

/// What an absent key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// The file is refused.
    Required,
    /// This value, as TOML.
    Is(&'static str),
    /// No single value; the words say what happens.
    Means(&'static str),
}

/// What a reload does about a change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Holds for the next decision.
    Instant,
    /// Holds for connections that are opened after it.
    NewConnections,
    /// Sockets are opened or closed; the others stay.
    Rebind,
    /// Is told in the log and waits for the next start.
    Restart,
}

impl Reload {
    /// As the reference says it.
    pub fn text(self) -> &'static str {
        match self {
            Reload::Instant => "instant",
            Reload::NewConnections => "new connections",
            Reload::Rebind => "rebind",
            Reload::Restart => "restart",
        }
    }
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A table whose keys have rows of their own.
    Table,
    /// A table of tables under names that the file chooses: rows of their own under `.*`.
    Named,
    /// An array of tables: rows of their own under `[]`.
    Tables,
    /// An array whose entries are text for short, or tables: rows of their own under `[]`.
    TextOrTables(&'static Form),
    /// Text for short, or a table whose keys have rows of their own.
    TextOrTable(&'static Form),
    /// `true` for the defaults, or a table whose keys have rows of their own; `false` is as if it were absent.
    FlagOrTable,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds.
    Count {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// A number of at least 0, which may have a fraction.
    Fraction {
        /// The greatest.
        max: u32,
    },
    /// A length of time of at least so many milliseconds, and at most a year.
    Duration {
        /// The least, in milliseconds.
        min: u64,
    },
    /// A number of bytes within bounds.
    Size {
        /// The least, in bytes.
        min: u64,
        /// The greatest, in bytes.
        max: u64,
    },
    /// Text of a form.
    Text(&'static Form),
    /// One of these words.
    Choice(&'static Choice),
    /// An array of text of a form.
    List(&'static Form),
    /// Header names, each with a value or `true`.
    Headers,
    /// Names that the file chooses, each with text.
    Texts(&'static Form),
}

/// The words that a key may have.
#[derive(Debug)]
pub struct Choice {
    /// Those of this version.
    pub words: &'static [&'static str],
    /// How words begin that end in a name of the file's choosing; `words` has each with `NAME`.
    pub open: &'static [&'static str],
}

/// A form that text may have.
#[derive(Debug)]
pub struct Form {
    /// What to call it, with its article.
    pub what: &'static str,
    /// A regular expression that every such text satisfies, for the JSON Schema; what it cannot say, the reader checks.
    pub pattern: &'static str,
}

/// The row of a path.
pub fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The rows directly under `parent` (`""` is the file itself), with the last part of their paths.
pub fn children(parent: &str) -> impl Iterator<Item = (&'static str, &'static Key)> {
    KEYS.iter().filter_map(move |key| {
        let (above, name) = split(key.path);
        (above == parent).then_some((name, key))
    })
}

/// A path as parent and name: `pools.*.health` is `pools.*` and `health`.
pub fn split(path: &'static str) -> (&'static str, &'static str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_unique_and_have_a_parent() {
        for (place, key) in KEYS.iter().enumerate() {
            let known = KEYS[..place].iter().any(|other| other.path == key.path);
            assert!(!known, "{} twice", key.path);
            let (parent, _) = split(key.path);
            let parent = parent.trim_end_matches(".*").trim_end_matches("[]");
            assert!(parent.is_empty() || self::key(parent).is_some(), "{parent}");
        }
    }

    #[test]
    fn every_key_says_what_it_is() {
        for key in KEYS {
            assert!(key.doc.ends_with('.'), "{}: {}", key.path, key.doc);
            assert!(!key.doc.contains('\n'), "{}", key.path);
        }
    }
}

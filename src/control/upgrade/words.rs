//! What the old and the new process of an upgrade say to each other, as JSON over `net/handover.rs`.
//! Either may be older than the other: what one does not know is passed over, and what it must know has a version.
//! The walk goes on in `hand_over.rs` and `take_over.rs`.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::overrides::Document;
use crate::net::handover::Channel;

/// Of what is said here. A change that an old process must not pass over is another version.
pub const VERSION: u32 = 1;

/// What is said, in this order; `Failed` may come in place of any word of the new process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub enum Word {
    /// The old process gives what it has, with the sockets beside it.
    Offer(Offer),
    /// The new one has everything that it needs, and serves nothing yet.
    Ready,
    /// The old one lets it serve; it serves on itself until it is told that it need not.
    Go(Last),
    /// The new one serves.
    Serving,
    /// The new one will not.
    Failed {
        /// Why, for the log and for whoever asked.
        why: String,
    },
}

/// What is known when the new process starts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Offer {
    /// See [`VERSION`].
    pub version: u32,
    /// The old process.
    pub pid: u32,
    /// Whether it has been ready; the new one is then from its beginning, or the virtual IP would flap.
    pub is_ready: bool,
    /// The secret of cookies and tickets, if it is in no file.
    pub secret: Option<String>,
    /// What is known of backends.
    pub backends: Vec<Known>,
}

/// What is known of the server at one address of one pool.
#[derive(Debug, Serialize, Deserialize)]
pub struct Known {
    /// The pool's name.
    pub pool: String,
    /// The address.
    pub address: SocketAddr,
    /// The word of its health.
    pub health: String,
    /// For how long it has been serving, in milliseconds, as far as that matters to its pool.
    pub warm_millis: u64,
}

/// What may change until the last moment.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Last {
    /// The states that operators set.
    pub overrides: Document,
}

/// One end of the talk.
#[derive(Debug)]
pub struct Talk(pub Channel);

impl Talk {
    /// Says a word, and gives copies of descriptors beside it.
    ///
    /// # Errors
    /// When the other side did not take it in time, or is gone.
    pub fn say(
        &self,
        word: &Word,
        descriptors: &[BorrowedFd<'_>],
        wait: Duration,
    ) -> Result<(), String> {
        let text = serde_json::to_vec(word).map_err(|error| error.to_string())?;
        let sent = self.0.send(&text, descriptors, wait);
        sent.map_err(|error| error.to_string())
    }

    /// The next word, and what was given with it; `None` when the other side is gone.
    ///
    /// # Errors
    /// When none came in time, or one that nobody understands.
    pub fn hear(&self, wait: Duration) -> Result<Option<(Word, Vec<OwnedFd>)>, String> {
        let received = self.0.receive(wait).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                format!("nothing was heard of it for {wait:?}")
            }
            _ => error.to_string(),
        })?;
        let Some(parcel) = received else {
            return Ok(None);
        };
        let word = serde_json::from_slice(&parcel.bytes);
        let word = word.map_err(|error| format!("it speaks otherwise: {error}"))?;
        Ok(Some((word, parcel.descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_passed_over() {
        let text =
            r#"{"word":"offer","version":9,"pid":7,"is_ready":true,"backends":[],"flights":{}}"#;
        let word: Word = serde_json::from_str(text).unwrap();
        assert!(matches!(word, Word::Offer(offer) if offer.version == 9 && offer.secret.is_none()));
        let serving = serde_json::to_string(&Word::Serving).unwrap();
        assert_eq!(serving, r#"{"word":"serving"}"#);
    }
}

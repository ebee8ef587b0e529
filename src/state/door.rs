//! A door that asks for a password, as workers see it: what was found out of late, and where to ask for the rest.
//! It keeps no password: what is known is found by a keyed hash that nobody can guess. What it is made of ends with its file of users.
//! The walk goes on in control's `passwords.rs`, which checks.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::table::Table;
use crate::policy::filter::{Claim, Users};
use crate::rng::keyed_hash;

/// Claims of one door that may wait to be checked, over all workers.
pub const QUEUE: usize = 64;

/// Claims that are remembered.
const REMEMBERED: usize = 4096;

/// How long it is remembered that a password fits, and that one does not.
const GOOD_FOR: Duration = Duration::from_secs(300);
const BAD_FOR: Duration = Duration::from_secs(30);

/// A claim that waits to be checked.
#[derive(Debug)]
pub struct Question {
    /// What is claimed.
    pub claim: Claim,
    /// Dropped when nobody waits any more.
    pub reply: oneshot::Sender<bool>,
}

/// A door.
#[derive(Debug)]
pub struct Door {
    /// Who may pass.
    pub users: Arc<Users>,
    /// What was found out.
    pub verdicts: Arc<Verdicts>,
    queue: mpsc::Sender<Question>,
}

/// What was found out about claims of late.
#[derive(Debug)]
pub struct Verdicts {
    table: Table,
    hashes: [RandomState; 2],
    began: Instant,
}

impl Door {
    /// A door, and where its questions come out.
    pub fn new(users: Arc<Users>, now: Instant) -> (Door, mpsc::Receiver<Question>) {
        let (queue, questions) = mpsc::channel(QUEUE);
        let verdicts = Arc::new(Verdicts {
            table: Table::new(REMEMBERED),
            hashes: [keyed_hash(), keyed_hash()],
            began: now,
        });
        let door = Door {
            users,
            verdicts,
            queue,
        };
        (door, questions)
    }

    /// Asks; `None` when too many wait already.
    pub fn ask(&self, claim: Claim) -> Option<oneshot::Receiver<bool>> {
        let (reply, verdict) = oneshot::channel();
        self.queue.try_send(Question { claim, reply }).ok()?;
        Some(verdict)
    }
}

/// A value of the table: half of a fingerprint, when it ends in seconds, and the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    print: u32,
    until: u32,
    fits: bool,
}

impl Entry {
    fn pack(self) -> u64 {
        u64::from(self.print) << 32
            | u64::from(self.until & (u32::MAX >> 1)) << 1
            | u64::from(self.fits)
    }

    fn unpack(value: u64) -> Entry {
        Entry {
            print: (value >> 32) as u32,
            until: (value as u32) >> 1,
            fits: value & 1 == 1,
        }
    }
}

impl Verdicts {
    /// What is known of a claim.
    pub fn look(&self, claim: &Claim, now: Instant) -> Option<bool> {
        let (key, print) = self.prints(claim);
        let entry = Entry::unpack(self.table.get(key)?);
        (entry.print == print && self.seconds(now) < entry.until).then_some(entry.fits)
    }

    /// Remembers what was found out.
    pub fn note(&self, claim: &Claim, fits: bool, now: Instant) {
        let (key, print) = self.prints(claim);
        let stays = if fits { GOOD_FOR } else { BAD_FOR };
        let until = self.seconds(now) + stays.as_secs() as u32;
        let entry = Entry { print, until, fits };
        // What ends first leaves first: many bad ones push out no good one.
        self.table.put(key, entry.pack(), |value| {
            u32::MAX - Entry::unpack(value).until
        });
    }

    fn prints(&self, claim: &Claim) -> (u64, u32) {
        let [key, print] = &self.hashes;
        let said = (&claim.name, &claim.password);
        (key.hash_one(said), print.hash_one(said) as u32)
    }

    fn seconds(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.began).as_secs() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str, password: &str) -> Claim {
        Claim {
            door: 0,
            name: name.to_owned(),
            password: password.into(),
        }
    }

    fn door(now: Instant) -> (Door, mpsc::Receiver<Question>) {
        let hash = "$2y$04$abcdefghijklmnopqrstuuQ0F1EkmzZQ0l9cS6TtAyZeRmhKyvAyW";
        let users = Users::parse(&format!("jane:{hash}")).expect("a user");
        Door::new(Arc::new(users), now)
    }

    #[test]
    fn verdicts_hold_for_a_while() {
        let now = Instant::now();
        let (door, _questions) = door(now);
        let (good, bad) = (claim("jane", "a"), claim("jane", "b"));
        assert_eq!(door.verdicts.look(&good, now), None);
        door.verdicts.note(&good, true, now);
        door.verdicts.note(&bad, false, now);
        assert_eq!(door.verdicts.look(&good, now), Some(true));
        assert_eq!(door.verdicts.look(&bad, now), Some(false));
        assert_eq!(door.verdicts.look(&claim("janea", ""), now), None);
        let later = now + BAD_FOR;
        assert_eq!(door.verdicts.look(&bad, later), None);
        assert_eq!(door.verdicts.look(&good, later), Some(true));
        assert_eq!(door.verdicts.look(&good, now + GOOD_FOR), None);
    }

    #[test]
    fn bad_ones_push_out_no_good_one() {
        let now = Instant::now();
        let (door, _questions) = door(now);
        let good = claim("jane", "secret");
        door.verdicts.note(&good, true, now);
        for number in 0..100_000 {
            door.verdicts
                .note(&claim("jane", &number.to_string()), false, now);
        }
        assert_eq!(door.verdicts.look(&good, now), Some(true));
    }

    #[test]
    fn a_queue_has_an_end() {
        let (door, mut questions) = door(Instant::now());
        let waiting: Vec<_> = (0..QUEUE).map(|_| door.ask(claim("a", "b"))).collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(door.ask(claim("a", "b")).is_none());
        assert!(questions.try_recv().is_ok());
        assert!(door.ask(claim("a", "b")).is_some());
    }
}

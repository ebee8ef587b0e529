//! Checks passwords for the workers, a few at a time on threads of their own: each check takes tens of milliseconds.
//! It believes what was found out a moment ago, checks nothing that nobody waits for any more, and writes no password down.
//! The walk goes back to `state/door.rs`, where workers look and ask.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::Receiver;

use crate::clock;
use crate::policy::filter::Files;
use crate::state::door::{Door, Question};
use crate::state::snapshot::Snapshot;

/// Checks at once in the whole process: for every four cores one, so that workers have the others.
fn at_once() -> Arc<Semaphore> {
    static AT_ONCE: OnceLock<Arc<Semaphore>> = OnceLock::new();
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let permits = AT_ONCE.get_or_init(|| Arc::new(Semaphore::new((cores() / 4).clamp(1, 4))));
    permits.clone()
}

/// Gives each route the doors that its filters ask at: those that were there before, unless their files changed.
pub fn attach(snapshot: &mut Snapshot, previous: Option<&Snapshot>, files: &Files) {
    let mut known: HashMap<PathBuf, Arc<Door>> = HashMap::new();
    for route in previous.map_or(&[][..], |previous| &previous.routes) {
        for (file, door) in route.users_files().zip(&route.doors) {
            let is_same = files
                .users
                .get(file)
                .is_some_and(|users| *users == door.users);
            if is_same {
                known.insert(file.to_owned(), door.clone());
            }
        }
    }
    for route in &mut snapshot.routes {
        let doors = route.users_files().filter_map(|file| {
            let users = files.users.get(file)?;
            let door = known
                .entry(file.to_owned())
                .or_insert_with(|| start(users.clone()));
            Some(door.clone())
        });
        route.doors = doors.collect();
    }
}

fn start(users: Arc<crate::policy::filter::Users>) -> Arc<Door> {
    let (door, questions) = Door::new(users, clock::now());
    let (users, verdicts) = (door.users.clone(), door.verdicts.clone());
    let checker = Checker { users, verdicts };
    tokio::spawn(checker.serve(questions));
    Arc::new(door)
}

/// What a door's questions are answered from, until no generation has the door any more.
struct Checker {
    users: Arc<crate::policy::filter::Users>,
    verdicts: Arc<crate::state::door::Verdicts>,
}

impl Checker {
    async fn serve(self, mut questions: Receiver<Question>) {
        while let Some(question) = questions.recv().await {
            let Ok(permit) = at_once().acquire_owned().await else {
                return;
            };
            let Question { claim, reply } = question;
            if let Some(verdict) = self.verdicts.look(&claim, clock::now()) {
                // Whoever does not wait any more does not mind.
                let _ = reply.send(verdict);
                continue;
            }
            if reply.is_closed() {
                continue;
            }
            let (users, verdicts) = (self.users.clone(), self.verdicts.clone());
            tokio::task::spawn_blocking(move || {
                let fits = users.check(&claim.name, &claim.password);
                verdicts.note(&claim, fits, clock::now());
                let _ = reply.send(fits);
                drop(permit);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::filter::{Claim, Users};

    #[tokio::test]
    async fn a_claim_is_checked_once_and_by_itself() {
        let hash = "$2y$04$a0j2bETjZg/gcVPjaw/tYuhozCBVdrhGO16Ow/.mBbxEvIsq.MeFq";
        let users = Arc::new(Users::parse(&format!("jane:{hash}")).unwrap());
        let door = start(users);
        for (password, fits) in [("secret", true), ("other", false), ("secret", true)] {
            let claim = Claim {
                door: 0,
                name: "jane".to_owned(),
                password: password.into(),
            };
            let verdict = door.ask(claim.clone()).unwrap().await.unwrap();
            assert_eq!(verdict, fits, "{password}");
            assert_eq!(door.verdicts.look(&claim, clock::now()), Some(fits));
        }
    }
}

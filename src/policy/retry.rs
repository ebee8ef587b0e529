//! Whether a failed try may be followed by another, and where.
//! It must never allow a request to be done twice unless doing it twice is the same as doing it once.
//! The walk goes on in `l7/proxy.rs`, which asks this after every failed try.

use crate::config::model::Retry as Rules;

/// Retries of one request, beside its first try, where its route has no rules.
pub const MAX_RETRIES: u8 = 2;

/// Tries that the rules of a route may ask for, the first one too.
pub const MAX_ATTEMPTS: u8 = 6;

/// Requests of a pool that may be tried again at once however few are in flight there.
const FLOOR: u32 = 3;

/// How a try failed; the number is that of its word in [`Failure::CAUSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// No connection came about: refused, timed out, unreachable.
    Connect,
    /// A reused connection was closed or reset before any byte of the answer: most likely the backend had closed it while it was idle.
    ReusedClosed,
    /// A new connection was closed or reset before any byte of the answer.
    NewClosed,
    /// The answer shows that the client's session is over; see [`is_over`].
    SessionOver,
    /// The answer's status says that the backend failed (5xx), and nothing of it was passed on.
    ErrorStatus,
    /// No answer began in time.
    Timeout,
    /// Anything else, such as a broken answer or a closed one.
    Other,
}

impl Failure {
    /// The values of the `cause` label of `weir_retries_total`, in the order of the failures' numbers.
    pub const CAUSES: [&str; 6] = ["connect", "stale", "reset", "session", "5xx", "timeout"];

    /// Its place among the [`CAUSES`](Failure::CAUSES); what is never tried again is counted nowhere.
    pub fn cause(self) -> Option<usize> {
        (self != Failure::Other).then_some(self as usize)
    }
}

/// What is known after a failed try.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// How it failed.
    pub failure: Failure,
    /// Whether the method is idempotent; see [`is_idempotent`].
    pub idempotent: bool,
    /// Whether this try handed any byte of the request to the system.
    pub sent: bool,
    /// Whether the whole request is still at hand: its head, and all of its body that was read.
    pub replayable: bool,
    /// Retries before this try: 0 when it was the first.
    pub retries: u8,
    /// What led to this try; absent when it was the first.
    pub led_by: Option<Retry>,
    /// Whether this was at the client's home, which the request may still be held for.
    pub patient: bool,
    /// Whether the client's session is in the memory of the backend that failed, so that no other can answer for it.
    pub bound: bool,
    /// What the route adds to what is always done.
    pub rules: Option<Rules>,
}

/// What may follow a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Again at the same backend, over a new connection.
    SameBackendFresh,
    /// At another backend that was not tried yet.
    Elsewhere,
    /// The same, if the budget of retries allows it.
    IfAffordable,
    /// At another backend, as a new client.
    Anew,
    /// At the client's home once more, after a pause. It does not count as a retry.
    Later,
    /// Nothing: the failure is the client's answer.
    Never,
}

/// What may follow `failed`.
///
/// A connection that did not come about allows any method another backend. A reused connection that closed before any byte
/// of the answer allows a request that is idempotent, or of which nothing was sent, first a new connection to the same backend, then
/// another backend. At most [`MAX_RETRIES`] in all, or as many as the rules of the route say. Beside these, as long as a request may be
/// held, a connection that did not come about is waited for.
///
/// The rules may add other failures. What a backend has seen of a request goes to another one only if the request is idempotent, if
/// the client's session is not in that backend alone, and if there are not too many such retries already.
pub fn after(failed: Try) -> Retry {
    if failed.patient && failed.replayable && failed.failure == Failure::Connect {
        return Retry::Later;
    }
    if !failed.replayable {
        return Retry::Never;
    }
    match always(failed) {
        Retry::Never => by_rules(failed),
        retry => retry,
    }
}

/// What follows whatever the route says.
fn always(failed: Try) -> Retry {
    let most = match failed.rules {
        Some(rules) if rules.on.connect => rules.attempts.saturating_sub(1).max(MAX_RETRIES),
        _ => MAX_RETRIES,
    };
    if failed.retries >= most {
        return Retry::Never;
    }
    let harmless = failed.idempotent || !failed.sent;
    let was_fresh_retry = failed.led_by == Some(Retry::SameBackendFresh);
    match failed.failure {
        Failure::Connect => Retry::Elsewhere,
        Failure::SessionOver => Retry::Anew,
        Failure::ReusedClosed if harmless => Retry::SameBackendFresh,
        Failure::NewClosed if harmless && was_fresh_retry => Retry::Elsewhere,
        _ => Retry::Never,
    }
}

/// What the route adds.
fn by_rules(failed: Try) -> Retry {
    let Some(rules) = failed.rules else {
        return Retry::Never;
    };
    let harmless = failed.idempotent || !failed.sent;
    let is_listed = match failed.failure {
        Failure::NewClosed => rules.on.reset,
        Failure::ErrorStatus => rules.on.error_status,
        Failure::Timeout => rules.on.timeout,
        _ => false,
    };
    match is_listed && harmless && !failed.bound && failed.retries + 1 < rules.attempts {
        true => Retry::IfAffordable,
        false => Retry::Never,
    }
}

/// How many requests of a pool may be on such a retry at once, of `active` that are in flight.
pub fn affordable(rules: &Rules, active: u32) -> u32 {
    FLOOR.max((rules.budget * f64::from(active)) as u32)
}

/// What the first byte of a draining backend's answer is about, and what is known of the session that its request showed.
#[derive(Clone, Copy, Debug)]
pub struct NewId {
    /// Whether the client may leave: its home drains, another backend can take it, and the request may be tried again.
    pub may_leave: bool,
    /// Whether the request is a GET or HEAD without a body, so that nobody notices that it was made twice.
    pub is_harmless: bool,
    /// Whether anything of the answer, an interim one too, is with the client already.
    pub is_passed_on: bool,
    /// Whether the request showed a session id, and the answer gives the client another one.
    pub is_other: bool,
    /// Whether this backend accepted the id that the request showed, within the idle timeout.
    pub was_accepted: bool,
}

/// Whether an answer shows that its client's session is over, so that the client can begin anew elsewhere instead of holding a
/// drain up. One whose id was accepted here and changes is a login, and stays.
pub fn is_over(answer: NewId) -> bool {
    answer.may_leave
        && answer.is_harmless
        && !answer.is_passed_on
        && answer.is_other
        && !answer.was_accepted
}

/// Whether doing a request twice is the same as doing it once (RFC 9110 section 9.2.2). Unknown methods are not.
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::RetryOn;

    const RULES: Rules = Rules {
        attempts: 4,
        on: RetryOn {
            connect: false,
            reset: true,
            error_status: true,
            timeout: true,
        },
        budget: 0.2,
        idempotency_key: false,
        try_timeout: None,
        total_timeout: None,
    };

    const FIRST: Try = Try {
        failure: Failure::Connect,
        idempotent: false,
        sent: false,
        replayable: true,
        retries: 0,
        led_by: None,
        patient: false,
        bound: false,
        rules: None,
    };

    #[test]
    fn a_failed_connect_goes_elsewhere_with_any_method() {
        assert_eq!(after(FIRST), Retry::Elsewhere);
        assert_eq!(
            after(Try {
                retries: 2,
                ..FIRST
            }),
            Retry::Never
        );
    }

    #[test]
    fn a_home_that_refuses_is_waited_for_whatever_was_tried_before() {
        let held = Try {
            patient: true,
            retries: MAX_RETRIES,
            ..FIRST
        };
        assert_eq!(after(held), Retry::Later);
        let consumed = Try {
            replayable: false,
            ..held
        };
        assert_eq!(after(consumed), Retry::Never);
        let closed = Try {
            failure: Failure::NewClosed,
            ..held
        };
        assert_eq!(after(closed), Retry::Never);
    }

    #[test]
    fn a_stale_connection_is_replaced_then_left() {
        let stale = Try {
            failure: Failure::ReusedClosed,
            idempotent: true,
            sent: true,
            ..FIRST
        };
        assert_eq!(after(stale), Retry::SameBackendFresh);
        let second = Try {
            failure: Failure::NewClosed,
            retries: 1,
            led_by: Some(Retry::SameBackendFresh),
            ..stale
        };
        assert_eq!(after(second), Retry::Elsewhere);
        let third = Try {
            retries: 2,
            led_by: Some(Retry::Elsewhere),
            ..second
        };
        assert_eq!(after(third), Retry::Never);
        let post = Try {
            idempotent: false,
            ..stale
        };
        assert_eq!(after(post), Retry::Never);
        let unsent = Try {
            sent: false,
            ..post
        };
        assert_eq!(after(unsent), Retry::SameBackendFresh);
        let consumed = Try {
            replayable: false,
            ..stale
        };
        assert_eq!(after(consumed), Retry::Never);
    }

    #[test]
    fn a_new_connection_that_closes_is_final() {
        let closed = Try {
            failure: Failure::NewClosed,
            idempotent: true,
            sent: true,
            ..FIRST
        };
        assert_eq!(after(closed), Retry::Never);
    }

    #[test]
    fn a_session_is_over_when_everything_says_so() {
        const OVER: NewId = NewId {
            may_leave: true,
            is_harmless: true,
            is_passed_on: false,
            is_other: true,
            was_accepted: false,
        };
        assert!(is_over(OVER));
        for stays in [
            NewId {
                may_leave: false,
                ..OVER
            },
            NewId {
                is_harmless: false,
                ..OVER
            },
            NewId {
                is_passed_on: true,
                ..OVER
            },
            NewId {
                is_other: false,
                ..OVER
            },
            // A login.
            NewId {
                was_accepted: true,
                ..OVER
            },
        ] {
            assert!(!is_over(stays), "{stays:?}");
        }
        let over = Try {
            failure: Failure::SessionOver,
            idempotent: true,
            sent: true,
            ..FIRST
        };
        assert_eq!(after(over), Retry::Anew);
        let last = Try {
            retries: MAX_RETRIES,
            ..over
        };
        assert_eq!(after(last), Retry::Never);
    }

    #[test]
    fn idempotent_methods() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(method.as_bytes()));
        }
        for method in ["POST", "PATCH", "get", "PROPFIND", ""] {
            assert!(!is_idempotent(method.as_bytes()));
        }
    }

    #[test]
    fn rules_add_failures_that_an_idempotent_request_survives() {
        let kinds = [Failure::NewClosed, Failure::ErrorStatus, Failure::Timeout];
        for failure in kinds {
            let ruled = Try {
                failure,
                idempotent: true,
                sent: true,
                rules: Some(RULES),
                ..FIRST
            };
            assert_eq!(after(ruled), Retry::IfAffordable);
            let third = Try {
                retries: 2,
                ..ruled
            };
            assert_eq!(after(third), Retry::IfAffordable, "attempts = 4");
            let [mut fourth, mut post, mut bound, mut consumed, mut plain] = [ruled; 5];
            fourth.retries = 3;
            post.idempotent = false;
            bound.bound = true;
            consumed.replayable = false;
            plain.rules = None;
            for never in [fourth, post, bound, consumed, plain] {
                assert_eq!(after(never), Retry::Never, "{never:?}");
            }
        }
        let other = Try {
            failure: Failure::Other,
            idempotent: true,
            rules: Some(RULES),
            ..FIRST
        };
        assert_eq!(after(other), Retry::Never);
    }

    #[test]
    fn more_attempts_at_connecting_must_be_asked_for() {
        let third = Try {
            retries: 2,
            rules: Some(RULES),
            ..FIRST
        };
        assert_eq!(after(third), Retry::Never);
        let mut rules = RULES;
        rules.on.connect = true;
        let asked = Try {
            rules: Some(rules),
            ..third
        };
        assert_eq!(after(asked), Retry::Elsewhere);
        // Fewer than always can be had of the others only.
        rules.attempts = 1;
        let second = Try {
            retries: 1,
            rules: Some(rules),
            ..third
        };
        assert_eq!(after(second), Retry::Elsewhere);
        let status = Try {
            failure: Failure::ErrorStatus,
            idempotent: true,
            retries: 0,
            ..second
        };
        assert_eq!(after(status), Retry::Never);
    }

    #[test]
    fn a_budget_has_a_floor() {
        let of = |active| affordable(&RULES, active);
        assert_eq!([of(0), of(15), of(20), of(1000)], [3, 3, 4, 200]);
        let none = Rules {
            budget: 0.0,
            ..RULES
        };
        assert_eq!(affordable(&none, 1000), 3);
    }

    #[test]
    fn causes_stand_where_their_failures_look() {
        for (failure, word) in [
            (Failure::Connect, "connect"),
            (Failure::ReusedClosed, "stale"),
            (Failure::NewClosed, "reset"),
            (Failure::SessionOver, "session"),
            (Failure::ErrorStatus, "5xx"),
            (Failure::Timeout, "timeout"),
        ] {
            assert_eq!(
                failure.cause().map(|cause| Failure::CAUSES[cause]),
                Some(word)
            );
        }
        assert_eq!(Failure::Other.cause(), None);
    }

    fn failures() -> impl Strategy<Value = Failure> {
        prop_oneof![
            Just(Failure::Connect),
            Just(Failure::ReusedClosed),
            Just(Failure::NewClosed),
            Just(Failure::ErrorStatus),
            Just(Failure::Timeout),
            Just(Failure::Other),
        ]
    }

    proptest! {
        /// Whatever fails, a request ends after at most three tries, or as many as its rules say, and one that could be done twice was harmless.
        #[test]
        fn every_story_ends(
            failures in proptest::collection::vec(failures(), 8),
            idempotent in any::<bool>(),
            sent in any::<bool>(),
            attempts in proptest::option::of(1..=MAX_ATTEMPTS),
        ) {
            let rules = attempts.map(|attempts| Rules { attempts, ..RULES });
            let (mut led_by, mut retries) = (None, 0);
            for failure in failures {
                let sent = sent && failure != Failure::Connect;
                match after(Try { failure, idempotent, sent, replayable: true, retries, led_by, patient: false, bound: false, rules }) {
                    Retry::Never => break,
                    retry => {
                        prop_assert!(idempotent || !sent);
                        led_by = Some(retry);
                    }
                }
                retries += 1;
            }
            prop_assert!(retries <= MAX_RETRIES.max(attempts.unwrap_or(0).saturating_sub(1)));
        }
    }
}

//! Whether a failed try may be followed by another, and where.
//! It must never allow a request to be done twice unless doing it twice is the same as doing it once.
//! The walk goes on in `l7/proxy.rs`, which asks this after every failed try.

/// Retries of one request, beside its first try.
pub const MAX_RETRIES: u8 = 2;

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection came about: refused, timed out, unreachable.
    Connect,
    /// A reused connection was closed or reset before any byte of the answer: most likely the backend had closed it while it was idle.
    ReusedClosed,
    /// A new connection was closed or reset before any byte of the answer.
    NewClosed,
    /// The answer shows that the client's session is over; see [`is_over`].
    SessionOver,
    /// Anything else, such as a time-out, a broken answer or a closed one.
    Other,
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
}

/// What may follow a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Again at the same backend, over a new connection.
    SameBackendFresh,
    /// At another backend that was not tried yet.
    Elsewhere,
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
/// another backend. At most [`MAX_RETRIES`] in all. Beside these, as long as a request may be held, a connection that did not come
/// about is waited for.
pub fn after(failed: Try) -> Retry {
    if failed.patient && failed.replayable && failed.failure == Failure::Connect {
        return Retry::Later;
    }
    if failed.retries >= MAX_RETRIES || !failed.replayable {
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

    const FIRST: Try = Try {
        failure: Failure::Connect,
        idempotent: false,
        sent: false,
        replayable: true,
        retries: 0,
        led_by: None,
        patient: false,
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

    fn failures() -> impl Strategy<Value = Failure> {
        prop_oneof![
            Just(Failure::Connect),
            Just(Failure::ReusedClosed),
            Just(Failure::NewClosed),
            Just(Failure::Other),
        ]
    }

    proptest! {
        /// Whatever fails, a request ends after at most three tries, and one that could be done twice was harmless.
        #[test]
        fn every_story_ends(
            failures in proptest::collection::vec(failures(), 8),
            idempotent in any::<bool>(),
            sent in any::<bool>(),
        ) {
            let (mut led_by, mut retries) = (None, 0);
            for failure in failures {
                let sent = sent && failure != Failure::Connect;
                match after(Try { failure, idempotent, sent, replayable: true, retries, led_by, patient: false }) {
                    Retry::Never => break,
                    retry => {
                        prop_assert!(idempotent || !sent);
                        led_by = Some(retry);
                    }
                }
                retries += 1;
            }
            prop_assert!(retries <= MAX_RETRIES);
        }
    }
}

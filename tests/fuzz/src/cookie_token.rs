//! weir's own cookies: no bytes of a stranger open, what was sealed opens again, and what was changed by a bit never does.
//! The first byte says where a bit is changed; all of them are tried as a token, and are the chance that a token is made of.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use weir::config::model::{Cookie, InsertTimes as Times, SameSite, Secure};
use weir::http::edits::Edits;
use weir::http::{answer, request};
use weir::policy::balance::BackendIndex;
use weir::policy::facts::{Facts, RequestFacts};
use weir::policy::persist::token::Secrets;
use weir::policy::persist::{
    Answered, Chosen, CookieHash, Insert, InsertTimes, Means, Persistence, Recall, Stickiness,
};
use weir::policy::rendezvous::Rendezvous;

use super::support::LIMITS;

const NAMES: [&str; 3] = ["was1", "was2", "was3"];

pub fn run(bytes: &[u8]) {
    thread_local! {
        static MODES: OnceCell<(Insert, CookieHash, Rendezvous)> = const { OnceCell::new() };
    }
    MODES.with(|modes| {
        let (insert, hash, ring) = modes.get_or_init(modes_of_one_pool);
        for backend in [0, 2] {
            let backend = BackendIndex(backend);
            check(insert, ring, backend, bytes);
            check(hash, ring, backend, bytes);
        }
    });
}

fn modes_of_one_pool() -> (Insert, CookieHash, Rendezvous) {
    let secrets = Secrets::parse(&Secrets::new_file(|secret| secret.fill(7))).expect("a secret");
    let cookie = Cookie {
        name: "w".to_owned(),
        path: "/".to_owned(),
        domain: None,
        same_site: SameSite::Lax,
        http_only: true,
        secure: Secure::Auto,
        max_age: None,
    };
    let times = Times {
        absolute_timeout: None,
        rehome_after: Duration::from_secs(60),
    };
    let times = InsertTimes::new(Duration::from_secs(1800), &times);
    (
        Insert::new(&cookie, &secrets, "was", NAMES, times),
        CookieHash::new(&cookie, &secrets),
        Rendezvous::new(NAMES.map(|name| (name, 1))),
    )
}

fn check(mode: &impl Persistence, ring: &Rendezvous, backend: BackendIndex, bytes: &[u8]) {
    let stranger = recall(mode, ring, bytes);
    assert!(
        !matches!(stranger, Some(Recall::Keep(_))),
        "it was never sealed"
    );
    let token = sealed(mode, ring, backend, bytes);
    match recall(mode, ring, &token) {
        Some(Recall::Keep(home)) => assert_eq!(home.backend, Some(backend)),
        other => panic!("{other:?}"),
    }
    let at = usize::from(bytes.first().copied().unwrap_or(0));
    let mut changed = token.clone();
    changed[at / 7 % token.len()] ^= 1 << (at % 7);
    let opened = recall(mode, ring, &changed);
    assert!(
        !matches!(opened, Some(Recall::Keep(_))),
        "{}",
        changed.escape_ascii()
    );
    for short in [&token[1..], &token[..token.len() - 1]] {
        assert!(!matches!(recall(mode, ring, short), Some(Recall::Keep(_))));
    }
}

/// What is said of a client that shows these bytes; `None` when they are no field's value.
fn recall(mode: &impl Persistence, ring: &Rendezvous, token: &[u8]) -> Option<Recall> {
    let wire = [
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: w=",
        token,
        b"\r\n\r\n",
    ]
    .concat();
    let mut lines = Vec::new();
    let head = request::parse(&wire, &mut lines, &LIMITS).ok()??.head;
    let request = RequestFacts {
        head: &head,
        path: b"/",
        secure: false,
    };
    Some(mode.recall(&facts(Some(request)), ring, &mut None))
}

fn facts(request: Option<RequestFacts<'_>>) -> Facts<'_> {
    Facts {
        client: [127, 0, 0, 1].into(),
        listener: 0,
        request,
        session: None,
        hello: None,
        now: Instant::now(),
        wall_millis: 1_800_000_000_000,
    }
}

fn sealed(
    mode: &impl Persistence,
    ring: &Rendezvous,
    backend: BackendIndex,
    chance: &[u8],
) -> Vec<u8> {
    let mut chance = chance.iter().copied().chain(0..).cycle();
    let mut fill = |out: &mut [u8]| out.fill_with(|| chance.next().unwrap_or(0));
    let mut means = Means {
        ring,
        facts: &facts(None),
        fill_secure: &mut fill,
    };
    let chosen = Chosen {
        stickiness: Stickiness::New,
        tell: mode.admit(backend, &mut means),
        only_with_session: false,
        for_good: false,
        in_passing: false,
        home: None,
        key: None,
        may_leave: false,
    };
    let mut lines = Vec::new();
    let head = answer::parse(b"HTTP/1.1 200 OK\r\n\r\n", &mut lines, &LIMITS, false);
    let head = head.expect("no fault").expect("a whole head").head;
    let answered = Answered {
        head: &head,
        opens_session: false,
        secure: true,
    };
    let (mut edits, mut out) = (Edits::default(), Vec::new());
    assert!(mode.remember(&chosen, &answered, &mut fill, &mut edits));
    edits.apply(head.bytes, head.lines, &mut out);
    let text = String::from_utf8(out).expect("text");
    let (_, from) = text.split_once("Set-Cookie: w=").expect("a cookie");
    let end = from.find(';').expect("attributes");
    from.as_bytes()[..end].to_vec()
}

//! Tests of the sealed cookie.
//! The clock is an argument here, so that expiry and clocks that differ need no waiting.
//! The walk comes from `insert.rs`.

use proptest::prelude::*;

use super::*;
use crate::config::model::{SameSite, Secure};
use crate::http::Sample;
use crate::policy::balance;
use crate::policy::facts::RequestFacts;
use crate::policy::persist::Stickiness;
use crate::rng::Rng;

const NOW: u32 = 1_700_000_000;
const TIMES: InsertTimes = InsertTimes {
    idle: 1800,
    absolute: None,
    rehome_after: 600,
};
const NAMES: [&str; 3] = ["was1", "was2", "10.0.0.3:8080"];

fn secrets(bytes: &[u8]) -> Secrets {
    let files = bytes
        .iter()
        .map(|&byte| Secrets::new_file(|secret| secret.fill(byte)));
    Secrets::parse(&files.collect::<String>()).unwrap()
}

fn made(name: &str, pool: &str, names: &[&str], secret_bytes: &[u8], times: InsertTimes) -> Insert {
    let cookie = Cookie {
        name: name.to_owned(),
        path: "/".to_owned(),
        domain: None,
        same_site: SameSite::Lax,
        http_only: true,
        secure: Secure::Auto,
        max_age: None,
    };
    let names = names.iter().copied();
    Insert::new(&cookie, &secrets(secret_bytes), pool, names, times)
}

fn mode() -> Insert {
    made("w", "was", &NAMES, &[1], TIMES)
}

fn ring(names: &[&str]) -> Rendezvous {
    Rendezvous::new(names.iter().map(|name| (*name, 1)))
}

fn at(now: u32) -> Facts<'static> {
    Facts {
        wall_millis: u64::from(now) * 1000,
        ..balance::facts()
    }
}

fn fill(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut rng = Rng::from_seed(seed);
    move |bytes| bytes.fill_with(|| rng.next_u64() as u8)
}

fn ticket(home: u16, last: u16, seen: u32) -> Ticket {
    Ticket {
        key: 7_u64.to_be_bytes(),
        home: BackendIndex(home),
        last: BackendIndex(last),
        times: Times {
            issued: seen,
            seen,
            left: if home == last { 0 } else { seen },
        },
    }
}

fn sealed(mode: &Insert, ticket: Ticket) -> String {
    mode.seal(&ticket, &mut fill(u64::from(ticket.times.seen)))
        .unwrap()
}

fn recall_with(
    mode: &Insert,
    cookies: &str,
    now: u32,
    remembered: &mut Option<Remembered>,
) -> Recall {
    let sample = Sample::new("GET / HTTP/1.1", &[("Cookie", cookies)]);
    let head = sample.request();
    let request = RequestFacts {
        head: &head,
        path: b"/",
        secure: false,
    };
    let facts = Facts {
        request: Some(request),
        ..at(now)
    };
    mode.recall(&facts, &ring(&NAMES), remembered)
}

fn recall(mode: &Insert, token: &str, now: u32) -> Recall {
    recall_with(mode, &format!("a=b; w={token}"), now, &mut None)
}

fn kept(recall: Recall) -> Home {
    match recall {
        Recall::Keep(home) => home,
        other => panic!("{other:?}"),
    }
}

fn place(mode: &Insert, home: &Home, to: u16, for_good: bool, now: u32) -> (Option<Ticket>, bool) {
    let mut means = Means {
        ring: &ring(&NAMES),
        facts: &at(now),
        fill_secure: &mut |_| {},
    };
    let placed = mode.place(home, BackendIndex(to), for_good, &mut means);
    let ticket = placed.tell.map(|tell| match tell {
        Tell::Ticket(ticket) => ticket,
        Tell::Id(id) => panic!("{id:?}"),
    });
    (ticket, placed.only_with_session)
}

#[test]
fn what_was_sealed_is_read_wherever_the_secret_is_known() {
    let mine = mode();
    // Another order of the file, another first secret.
    let other = made(
        "w",
        "was",
        &["10.0.0.3:8080", "x", "was1", "was2"],
        &[2, 1],
        TIMES,
    );
    for (own, there) in [(0, 2), (1, 3), (2, 0)] {
        let token = sealed(&mine, ticket(own, own, NOW));
        let home = kept(recall(&mine, &token, NOW));
        assert_eq!(home.backend, Some(BackendIndex(own)));
        assert_eq!((home.key, home.refuge, home.stale), (7, None, false));
        let home = kept(recall(&other, &token, NOW));
        assert_eq!(home.backend, Some(BackendIndex(there)));
        let token = sealed(&other, ticket(there, there, NOW));
        assert_eq!(
            recall(&mine, &token, NOW),
            Recall::Forged,
            "the first seals"
        );
    }
}

#[test]
fn another_name_or_secret_is_a_forgery_and_another_pool_is_not() {
    let token = sealed(&mode(), ticket(0, 0, NOW));
    for (mode, expected) in [
        (made("w", "was", &NAMES, &[2], TIMES), Recall::Forged),
        (made("w", "shop", &NAMES, &[1], TIMES), Recall::New),
    ] {
        assert_eq!(recall(&mode, &token, NOW), expected);
    }
    let renamed = made("v", "was", &NAMES, &[1], TIMES);
    let cookies = format!("v={token}");
    assert_eq!(
        recall_with(&renamed, &cookies, NOW, &mut None),
        Recall::Forged
    );
    assert_eq!(recall_with(&mode(), "a=b", NOW, &mut None), Recall::New);
    let both = format!("w=x; w={token}");
    assert!(matches!(
        recall_with(&mode(), &both, NOW, &mut None),
        Recall::Keep(_)
    ));
}

#[test]
fn a_removed_backend_leaves_a_key() {
    let token = sealed(&mode(), ticket(1, 1, NOW));
    let fewer = made("w", "was", &["was1", "10.0.0.3:8080"], &[1], TIMES);
    let home = kept(recall(&fewer, &token, NOW));
    assert_eq!((home.backend, home.key), (None, 7));
    let (told, only_with_session) = place(&fewer, &home, 1, true, NOW);
    assert_eq!(told.map(|ticket| ticket.home), Some(BackendIndex(1)));
    assert!(!only_with_session);
}

#[test]
fn a_client_is_forgotten_when_its_time_is_over() {
    let mine = mode();
    let token = sealed(&mine, ticket(0, 0, NOW));
    for (later, is_stale) in [
        (0, false),
        (449, false),
        (450, true),
        (1800 + 450 + 60, true),
    ] {
        let home = kept(recall(&mine, &token, NOW + later));
        assert_eq!(home.stale, is_stale, "{later}");
        let (told, _) = place(&mine, &home, 0, false, NOW + later);
        assert_eq!(
            told.map(|ticket| ticket.times.seen),
            is_stale.then_some(NOW + later)
        );
    }
    assert_eq!(
        recall(&mine, &token, NOW + 1800 + 450 + 61),
        Recall::Expired
    );
    let strict = InsertTimes {
        absolute: Some(3600),
        ..TIMES
    };
    let strict = made("w", "was", &NAMES, &[1], strict);
    let mut old = ticket(0, 0, NOW);
    old.times.issued = NOW - 3600;
    let token = sealed(&strict, old);
    assert!(matches!(recall(&strict, &token, NOW + 60), Recall::Keep(_)));
    assert_eq!(recall(&strict, &token, NOW + 61), Recall::Expired);
    assert_eq!(
        recall_with(&strict, &format!("w={token}; w=x"), NOW + 61, &mut None),
        Recall::Expired
    );
}

#[test]
fn clocks_may_differ() {
    let mine = mode();
    let token = sealed(&mine, ticket(0, 0, NOW));
    let home = kept(recall(&mine, &token, NOW - 60));
    assert!(!home.stale, "a minute ahead is nothing");
    let home = kept(recall(&mine, &token, NOW - 86_400));
    assert!(home.stale, "a day ahead is put right");
    let (told, _) = place(&mine, &home, 0, false, NOW - 86_400);
    let times = told.unwrap().times;
    assert_eq!((times.issued, times.seen), (NOW - 86_400, NOW - 86_400));
}

#[test]
fn a_client_that_is_away_keeps_its_home_for_a_while() {
    let mine = mode();
    let home = kept(recall(&mine, &sealed(&mine, ticket(0, 0, NOW)), NOW + 10));
    let (told, only_with_session) = place(&mine, &home, 2, false, NOW + 10);
    let away = told.unwrap();
    assert!(!only_with_session);
    assert_eq!((away.home, away.last), (BackendIndex(0), BackendIndex(2)));
    assert_eq!(away.times.left, NOW + 10);

    let token = sealed(&mine, away);
    let home = kept(recall(&mine, &token, NOW + 100));
    assert_eq!(home.backend, Some(BackendIndex(0)));
    assert_eq!(home.refuge, Some(BackendIndex(2)));
    assert!(!home.settled);
    let (told, only_with_session) = place(&mine, &home, 2, false, NOW + 100);
    assert_eq!(told.unwrap().times.left, NOW + 10);
    assert!(only_with_session, "nothing new but a session would be");
    let (told, only_with_session) = place(&mine, &home, 0, false, NOW + 100);
    assert_eq!(
        told.map(|ticket| (ticket.last, ticket.times.left)),
        Some((BackendIndex(0), 0))
    );
    assert!(!only_with_session, "home again");

    let home = kept(recall(&mine, &token, NOW + 610));
    assert!(home.settled);
    let (told, _) = place(&mine, &home, 2, true, NOW + 610);
    assert_eq!(
        told.map(|ticket| (ticket.home, ticket.last)),
        Some((BackendIndex(2), BackendIndex(2)))
    );

    // The refuge itself may go.
    let fewer = made("w", "was", &["was1", "was2"], &[1], TIMES);
    let home = kept(recall(&fewer, &token, NOW + 100));
    assert_eq!((home.backend, home.refuge), (Some(BackendIndex(0)), None));
    assert!(home.stale);
}

fn answered(
    chosen: Ticket,
    fields: &[(&str, &str)],
    opens_session: bool,
) -> (Option<Home>, String) {
    let sample = Sample::new("HTTP/1.1 200 OK", fields);
    let chosen = Chosen {
        stickiness: Stickiness::New,
        tell: Some(Tell::Ticket(chosen)),
        only_with_session: false,
        for_good: false,
        in_passing: false,
        home: None,
        key: None,
        may_leave: false,
    };
    let answer = Answered {
        head: &sample.answer(),
        opens_session,
        secure: true,
    };
    let mut edits = Edits::default();
    mode().remember(&chosen, &answer, &mut fill(1), &mut edits);
    let text = sample.edited(&mut edits);
    let token = text
        .lines()
        .find_map(|line| line.strip_prefix("Set-Cookie: w=")?.split(';').next());
    (token.map(|token| kept(recall(&mode(), token, NOW))), text)
}

#[test]
fn the_answer_tells() {
    let (home, text) = answered(ticket(0, 0, NOW), &[], false);
    assert_eq!(home.unwrap().backend, Some(BackendIndex(0)));
    assert!(
        text.contains("; Path=/; HttpOnly; SameSite=Lax; Secure\r\n"),
        "{text}"
    );
    assert!(text.contains("Cache-Control: private\r\n"), "{text}");
    let (home, text) = answered(ticket(0, 0, NOW), &[("Cache-Control", "public")], false);
    assert_eq!((home, text.as_str()), (None, "Cache-Control: public\r\n"));
    let (home, _) = answered(ticket(0, 2, NOW), &[], true);
    let home = home.unwrap();
    assert_eq!((home.backend, home.refuge), (Some(BackendIndex(2)), None));
}

#[test]
fn a_connection_remembers_only_under_the_same_scope() {
    let mine = mode();
    let cookies = format!("w={0}; v={0}", sealed(&mine, ticket(0, 0, NOW)));
    let mut remembered = None;
    let first = recall_with(&mine, &cookies, NOW, &mut remembered);
    let known = remembered.clone();
    assert!(known.is_some());
    assert_eq!(recall_with(&mine, &cookies, NOW, &mut remembered), first);
    assert_eq!(
        recall_with(&mine, &cookies, NOW + 9000, &mut remembered),
        Recall::Expired
    );
    for other in [
        made("v", "was", &NAMES, &[1], TIMES),
        made("w", "was", &NAMES, &[2], TIMES),
        made("w", "shop", &NAMES, &[1], TIMES),
    ] {
        let recalled = recall_with(&other, &cookies, NOW, &mut remembered);
        assert!(
            matches!(recalled, Recall::Forged | Recall::New),
            "{recalled:?}"
        );
    }
    let turned = made("w", "was", &["was2", "was1"], &[1], TIMES);
    let home = kept(recall_with(&turned, &cookies, NOW, &mut remembered));
    assert_eq!(home.backend, Some(BackendIndex(1)));
}

#[test]
fn a_token_has_bounds() {
    let long = "x".repeat(128);
    let names = [long.as_str(), &"y".repeat(128)];
    let mine = made("w", &"p".repeat(128), &names, &[1], TIMES);
    let token = sealed(&mine, ticket(0, 1, NOW));
    assert!(token.len() < 700);
    assert_eq!(
        kept(recall(&mine, &token, NOW)).refuge,
        Some(BackendIndex(1))
    );
    let absurd = made("w", "was", &[&"z".repeat(256)], &[1], TIMES);
    assert_eq!(absurd.seal(&ticket(0, 0, NOW), &mut |_| {}), None);
    assert_eq!(recall(&mine, &"A".repeat(5000), NOW), Recall::Forged);
}

proptest! {
    /// One changed character is enough to be a forger.
    #[test]
    fn every_character_counts(
        seen in NOW..NOW + 1000,
        last in 0..3_u16,
        at in any::<proptest::sample::Index>(),
        to in "[ -:<-~]",
    ) {
        let mut token = sealed(&mode(), ticket(0, last, seen));
        let at = at.index(token.len());
        prop_assume!(token[at..=at] != to);
        token.replace_range(at..=at, &to);
        prop_assert_eq!(recall(&mode(), &token, NOW), Recall::Forged);
    }

    #[test]
    fn any_bytes_are_a_forgery(value in "[ -:<-~]{0,300}") {
        prop_assert_eq!(recall(&mode(), &value, NOW), Recall::Forged);
    }

    /// Several weirs whose clocks differ within the tolerance: who comes in time stays, and who does not is forgotten.
    #[test]
    fn expiry_does_not_depend_on_who_asks(
        visits in proptest::collection::vec((0..1800_u32, 0..=60_u32), 1..20),
        beyond in 0..10_000_u32,
    ) {
        // Clocks between half a minute behind and half a minute ahead.
        let mine = mode();
        let shown = |now: u32, ahead: u32| now + ahead - 30;
        let mut now = NOW;
        let mut token = sealed(&mine, ticket(0, 0, NOW));
        let mut issued = NOW;
        for (pause, ahead) in visits {
            now += pause;
            let clock = shown(now, ahead);
            let home = kept(recall(&mine, &token, clock));
            prop_assert_eq!(home.backend, Some(BackendIndex(0)));
            if let (Some(told), _) = place(&mine, &home, 0, false, clock) {
                prop_assert!(told.times.issued <= issued, "no clock makes a client younger");
                issued = told.times.issued;
                token = sealed(&mine, told);
            }
        }
        // Idle time, a quarter more, and what the clocks differ by: then it is over wherever it is shown.
        for ahead in [0, 60] {
            let late = shown(now + 1800 + 450 + 60 + 60 + 1 + beyond, ahead);
            prop_assert_eq!(recall(&mine, &token, late), Recall::Expired);
        }
    }

    /// Nothing that was authenticated, by whatever version of weir, does worse than to be no home.
    #[test]
    fn any_payload_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..100), version in any::<bool>()) {
        let mut bytes = bytes;
        if let (true, Some(first)) = (version, bytes.first_mut()) {
            *first = VERSION;
        }
        mode().read(&bytes);
    }
}

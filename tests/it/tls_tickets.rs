//! Tickets among weirs that share a secret, as time passes: the wall clocks of the processes differ by hours.

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::support::clock;
use crate::support::tls::{Authority, Kind, TlsClient};
use crate::support::{Origin, Weir};

/// How long a key seals, in seconds; its tickets are good until the next window ends.
const WINDOW: i64 = 6 * 60 * 60;

/// The distance from now to the middle of the window that is under way, so that no test runs over its end.
fn to_the_middle() -> i64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    WINDOW / 2 - now.as_secs() as i64 % WINDOW
}

#[test]
fn a_ticket_is_good_at_every_weir_for_a_window_more_and_then_no_longer() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    authority.replace("secrets", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n");
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let text = format!(
        "secrets_file = {:?}\n[listeners.web]\nbind = [\"$web\"]\ntls.certificates = [{{ {} }}]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        authority.directory.join("secrets"),
        authority.pair("shop"),
        origin.address
    );
    let later = |windows: i64| {
        let ahead = to_the_middle() + windows * WINDOW;
        Weir::start_with(&text, |command| clock::shift(command, ahead))
    };
    let (now, next, after) = (later(0), later(1), later(2));
    for version in [&TLS12, &TLS13] {
        // A client of its own for each question: an answer may bring a new ticket.
        let is_resumed = |first: &Weir, second: &Weir| {
            let client = authority.config(&[version], None);
            let kinds = [first, second].map(|weir| {
                let connected = TlsClient::connect(weir.address("web"), &client, "shop.test");
                let mut client = connected.unwrap();
                assert_eq!(client.get("shop.test").unwrap().status(), 200);
                client.stream.conn.handshake_kind().unwrap()
            });
            assert_eq!(kinds[0], HandshakeKind::Full);
            kinds[1] == HandshakeKind::Resumed
        };
        assert!(is_resumed(&now, &now));
        assert!(is_resumed(&now, &next), "one window later");
        assert!(!is_resumed(&now, &after), "two windows later");
        assert!(is_resumed(&next, &now), "a clock that is a little ahead");
        assert!(!is_resumed(&after, &now), "one that is far ahead");
    }
}

//! Upgrades to another protocol: what is offered to the backend, what a 101 leads to, and what holds until both sides have ended.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::message::Fault;
use crate::support::origin::{Visit, ok};
use crate::support::weir::{binary, get, plain};
use crate::support::{Client, Origin, Weir, until, within};

/// A 101 for the protocol that most tests speak.
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n";

fn offer(protocols: &str) -> String {
    with_fields(&format!("Connection: Upgrade\r\nUpgrade: {protocols}\r\n"))
}

fn with_fields(fields: &str) -> String {
    format!("GET /socket HTTP/1.1\r\nHost: shop.example.com\r\n{fields}\r\n")
}

/// Sends everything back until the other side ends.
fn send_back(visit: &mut Visit) {
    let mut chunk = std::mem::take(&mut visit.reader.buffer);
    visit.reader.stream.set_read_timeout(None).unwrap();
    loop {
        if visit.reader.stream.write_all(&chunk).is_err() {
            return;
        }
        chunk.resize(64 * 1024, 0);
        match visit.reader.stream.read(&mut chunk) {
            Ok(count @ 1..) => chunk.truncate(count),
            _ => return,
        }
    }
}

/// Switches for whoever asks and echoes; anyone else gets a 200 that names the server.
fn echo(name: &'static str) -> Origin {
    Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            if request.has("upgrade") {
                visit.send(SWITCH);
                return send_back(visit);
            }
            visit.send(ok(name));
        }
    })
}

/// A client whose connection was switched.
#[track_caller]
fn switched(weir: &Weir) -> Client {
    let mut client = weir.client();
    let answer = client.ask(offer("echo/1"));
    assert_eq!(answer.status(), 101, "{}", answer.first_line());
    client
}

#[track_caller]
fn says_back(client: &mut Client, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    client.send(bytes);
    let back = client.reader.exactly(bytes.len()).expect("an echo");
    assert!(back == bytes, "another echo");
}

fn backend(weir: &Weir, key: &str) -> u64 {
    weir.status()["pools"][0]["backends"][0][key]
        .as_u64()
        .unwrap()
}

#[track_caller]
fn await_upgraded(weir: &Weir, count: u64) {
    until("the count of upgraded connections", || {
        (backend(weir, "upgraded") == count).then_some(())
    });
}

#[test]
fn a_switched_connection_carries_anything_both_ways() {
    let origin = echo("a");
    let weir = Weir::start(&plain(&[&origin], "[forwarding]\nvia = true"));
    let mut client = weir.client();
    let answer = client.ask(offer("echo/1"));
    assert_eq!(answer.first_line(), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(answer.value("connection").as_deref(), Some("Upgrade"));
    assert_eq!(answer.value("upgrade").as_deref(), Some("echo/1"));
    assert_eq!(answer.value("via").as_deref(), Some("1.1 weir"));
    let request = origin.request();
    assert_eq!(request.value("connection").as_deref(), Some("Upgrade"));
    assert_eq!(request.value("upgrade").as_deref(), Some("echo/1"));
    assert_eq!(
        request.value("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );

    says_back(&mut client, "GET / HTTP/1.1\r\n\r\n");
    says_back(&mut client, b"\0\xff\r\n\r\n\r\n");
    let labels = [("pool", "was")];
    assert_eq!(weir.metric("weir_backend_upgraded", &labels), 1.0);
    assert_eq!(weir.metric("weir_backend_in_flight", &labels), 0.0);
    assert_eq!(
        weir.metric("weir_http_requests_total", &[("code", "1xx")]),
        1.0
    );

    client.finish();
    assert_eq!(client.rest(), (Vec::new(), Fault::Closed));
    await_upgraded(&weir, 0);
    let line = weir.access(|line| line["status"] == 101);
    let echoed = 18 + 8;
    let sent = offer("echo/1").len() as u64 + echoed;
    assert_eq!(line["bytes_in"], sent, "{line}");
    let received = answer.head.len() as u64 + echoed;
    assert_eq!(line["bytes_out"], received, "{line}");
    assert_eq!(
        (&line["path"], &line["pool"]),
        (&"/socket".into(), &"was".into())
    );
    assert!(line.get("error").is_none(), "{line}");
    assert!(line["duration"].as_f64() >= line["overhead"].as_f64());
}

/// The example of RFC 6455 section 1.3, and a masked text frame that comes back unmasked.
#[test]
fn a_websocket_handshake_passes() {
    let origin = Origin::start(|visit| {
        let Ok(request) = visit.request() else { return };
        assert_eq!(
            request.value("sec-websocket-key").as_deref(),
            Some("dGhlIHNhbXBsZSBub25jZQ==")
        );
        visit.send(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
        );
        let frame = visit.reader.exactly(2 + 4 + 5).expect("a frame");
        assert_eq!(frame[..2], [0x81, 0x85]);
        let (mask, text) = frame[2..].split_at(4);
        let text: Vec<u8> = (text.iter().zip(mask.iter().cycle()))
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        visit.send([&[0x81, 5], &text[..], &[0x88, 0]].concat());
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let answer = client.ask(with_fields(
        "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nOrigin: http://example.com\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, superchat\r\n",
    ));
    assert_eq!(answer.status(), 101);
    let accept = answer.value("sec-websocket-accept");
    assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(
        answer.value("sec-websocket-protocol").as_deref(),
        Some("chat")
    );
    assert_eq!(answer.value("upgrade").as_deref(), Some("websocket"));
    assert_eq!(
        origin.request().value("upgrade").as_deref(),
        Some("WebSocket")
    );
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let masked: Vec<u8> = (b"Hello".iter().zip(mask.iter().cycle()))
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    client.send([&[0x81, 0x85], &mask[..], &masked].concat());
    let frames = client.reader.exactly(9).expect("two frames");
    assert_eq!(frames, b"\x81\x05Hello\x88\x00");
}

#[test]
fn bytes_that_come_early_on_either_side_arrive() {
    let early = "e".repeat(40_000);
    let greeting = early.clone();
    let origin = Origin::start(move |visit| {
        if visit.request().is_ok() {
            visit.send([SWITCH.as_bytes(), greeting.as_bytes()].concat());
            send_back(visit);
        }
    });
    let weir = Weir::before(&[&origin]);
    for split in [0, 1, 16_000, 40_000] {
        let mut client = weir.client();
        // Some with the request, some before the answer can be there.
        client.send([offer("echo/1").as_bytes(), &early.as_bytes()[..split]].concat());
        client.send(&early[split..]);
        assert_eq!(client.answer().status(), 101);
        let back = client.reader.exactly(80_000).expect("greeting and echo");
        assert!(back.iter().all(|&byte| byte == b'e'));
        says_back(&mut client, "more");
    }
}

#[test]
fn a_refusal_is_an_ordinary_answer_and_what_follows_the_next_request() {
    let origin = Origin::start(|visit| {
        while let Ok(request) = visit.request() {
            visit.send(match request.target().as_str() {
                "/socket" => b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: echo/2\r\nConnection: upgrade\r\nContent-Length: 4\r\n\r\nno 1".to_vec(),
                target => ok(target),
            });
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send([offer("echo/1"), get("/next"), get("/third")].concat());
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (426, "no 1"));
    assert_eq!(client.answer().text(), "/next");
    assert_eq!(client.answer().text(), "/third");
    let requests = origin.requests();
    assert_eq!(requests.len(), 3);
    // As requests of their own, with what weir adds to each.
    assert!(
        requests
            .iter()
            .all(|request| request.has("x-forwarded-for"))
    );
    assert_eq!(origin.connections(), 1, "the connection is used again");
    assert_eq!(backend(&weir, "upgraded"), 0);
}

#[test]
fn a_switch_that_was_not_asked_for_is_a_bad_gateway() {
    let switch = |upgrade: &str| {
        format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{upgrade}\r\n")
    };
    let answers = [
        switch("Upgrade: echo/1\r\n"),
        switch("Upgrade: other\r\n"),
        switch("Upgrade: h2c\r\n"),
        switch("Upgrade: echo/1, other\r\n"),
        switch("Upgrade: echo/1\r\nUpgrade: other\r\n"),
        switch("Upgrade:\r\n"),
        switch(""),
        switch("Upgrade: echo/1\r\n").replace("HTTP/1.1", "HTTP/1.0"),
    ];
    let origin = Origin::start(move |visit| {
        let Ok(request) = visit.request() else { return };
        let ordinal: usize = request.target()[1..].parse().unwrap();
        visit.send(&answers[ordinal]);
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    let asked = "Connection: Upgrade\r\nUpgrade: echo/1, h2c\r\n";
    for (ordinal, fields) in [
        (0, ""),
        (0, "Upgrade: echo/1\r\n"),
        (0, "Connection: Upgrade\r\n"),
        (1, asked),
        (2, asked),
        (3, asked),
        (4, asked),
        (5, asked),
        (6, asked),
        (7, asked),
    ] {
        let answer = weir.client().ask(format!(
            "GET /{ordinal} HTTP/1.1\r\nHost: shop.example.com\r\n{fields}\r\n"
        ));
        assert_eq!(answer.status(), 502, "{ordinal} {fields}");
    }
    let labels = [("reason", "switched_protocols")];
    weir.settles("weir_http_refused_total", &labels, 10.0);
}

/// Offers that weir does not pass on, because the other protocol would be HTTP without weir, or because they are no good offer.
#[test]
fn an_offer_that_is_dangerous_or_ill_formed_is_not_made() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let both = |protocols: &str| format!("Connection: Upgrade\r\nUpgrade: {protocols}\r\n");
    let get = |fields: &str| with_fields(fields);
    let requests = [
        get(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        ),
        get(&both("H2C")),
        get(&both("HTTP/2.0, TLS/1.0, h2")),
        get(&both("websocket h2c")),
        get(&both("")),
        get("Connection: Upgrade\r\n"),
        get("Upgrade: websocket\r\n"),
        get("Connection: close\r\nUpgrade: websocket\r\n"),
        get(&(both("websocket") + "Upgrade: h2c\r\n")),
        get(&(both("websocket") + "Content-Length: 2\r\n")) + "{}",
        get(&(both("websocket") + "Transfer-Encoding: chunked\r\n")) + "2\r\n{}\r\n0\r\n\r\n",
        get(&both("websocket")).replace("GET", "POST"),
        get(&both("websocket")).replace("HTTP/1.1", "HTTP/1.0"),
    ];
    for request in requests {
        let answer = weir.client().ask(&request);
        assert_eq!(answer.status(), 200, "{request}");
        let text = answer.text().to_ascii_lowercase();
        assert!(
            !text.contains("upgrade") && !text.contains("http2"),
            "{text}"
        );
    }
    let mixed = weir.client().ask(get(&both("h2c, websocket, TLS/1.2")));
    assert!(
        mixed.text().contains("Upgrade: websocket\r\n"),
        "{}",
        mixed.text()
    );
}

/// A body is of the old protocol: it arrives before the switch, and no switch comes before its end.
#[test]
fn a_body_ends_before_the_switch() {
    let origin = Origin::start(|visit| {
        let Ok(mut request) = visit.head() else {
            return;
        };
        if request.target() != "/hasty" && visit.body(&mut request).is_err() {
            return;
        }
        visit.send([SWITCH.as_bytes(), &request.body].concat());
        send_back(visit);
    });
    let weir = Weir::before(&[&origin]);
    let post = |target: &str, body: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\nContent-Length: 4\r\n\r\n{body}"
        )
    };
    let mut client = weir.client();
    assert_eq!(client.ask(post("/", "bodyafter")).status(), 101);
    assert_eq!(client.reader.exactly(9).unwrap(), b"bodyafter");
    let answer = weir.client().ask(post("/hasty", "bo"));
    assert_eq!(answer.status(), 502);
}

#[test]
fn each_direction_ends_by_itself() {
    let origin = Origin::start(|visit| {
        let Ok(request) = visit.request() else { return };
        visit.send(SWITCH);
        if request.target() == "/server-first" {
            visit.send("that is all");
            visit.reader.stream.shutdown(Shutdown::Write).unwrap();
            let heard = visit.reader.until_closed().expect("an orderly end");
            assert_eq!(heard, b"and from me too");
        } else {
            let heard = visit.reader.until_closed().expect("an orderly end");
            visit.send(heard.repeat(1000));
        }
        visit.record_end();
    });
    let weir = Weir::before(&[&origin]);
    let mut client = switched(&weir);
    client.send("0123456789").finish();
    let (heard, end) = client.rest();
    assert_eq!((heard.len(), end), (10_000, Fault::Closed));

    let mut client = weir.client();
    let asked = offer("echo/1").replace("/socket", "/server-first");
    assert_eq!(client.ask(asked).status(), 101);
    let (heard, end) = client.rest();
    assert_eq!((&heard[..], end), (&b"that is all"[..], Fault::Closed));
    assert_eq!(backend(&weir, "upgraded"), 1, "half of it is open");
    client.send("and from me too").finish();
    await_upgraded(&weir, 0);
    until("both scripts to end well", || {
        (origin.hits() == 4).then_some(())
    });
}

#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    let origin = Origin::start(|visit| {
        let Ok(request) = visit.request() else { return };
        visit.send(SWITCH);
        if request.target() == "/server" {
            let _ = visit.reader.exactly(1);
            return visit.reset();
        }
        if visit.stall() == Fault::Reset {
            visit.record_end();
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    let asked = offer("echo/1").replace("/socket", "/server");
    assert_eq!(client.ask(asked).status(), 101);
    client.send("x");
    assert_eq!(client.rest().1, Fault::Reset);
    let line = weir.access(|line| line["path"] == "/server");
    assert_eq!(line["error"], "backend_closed", "{line}");

    let client = switched(&weir);
    crate::support::process::reset_on_close(&client.reader.stream);
    drop(client);
    until("the origin to see a reset", || {
        (origin.hits() == 3).then_some(())
    });
    let line = weir.access(|line| line["path"] == "/socket");
    assert_eq!(line["error"], "client_gone", "{line}");
}

#[test]
fn silence_ends_it_after_upgrade_idle_and_traffic_in_one_direction_keeps_it() {
    let origin = echo("a");
    let head = "[timeouts]\nupgrade_idle = \"600ms\"\nresponse_idle = \"100ms\"\nkeep_alive = \"100ms\"\nresponse = \"100ms\"\nbody_idle = \"100ms\"";
    let weir = Weir::start(&plain(&[&origin], head));
    let mut client = switched(&weir);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        says_back(&mut client, "ping");
        assert!(client.is_silent(Duration::from_millis(250)));
    }
    let silent = Instant::now();
    client.expect_end();
    let took = silent.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    await_upgraded(&weir, 0);
    let line = weir.access(|line| line["status"] == 101);
    assert_eq!(line["error"], "upgrade_idle", "{line}");
}

/// Far more than weir or the kernel would hold, toward a reader that does not read for a while: nothing is lost, and memory does not grow.
#[test]
fn a_slow_reader_slows_the_sender_down_in_bounded_memory() {
    let full = std::env::var_os("WEIR_FULL").is_some();
    let total: u64 = if full { 1 << 30 } else { 96 << 20 };
    let sent = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&sent);
    let origin = Origin::start(move |visit| {
        let Ok(request) = visit.request() else { return };
        visit.send(SWITCH);
        if request.target() == "/up" {
            // The other direction: it reads late, and counts.
            let _ = visit.reader.exactly(1);
            thread::sleep(Duration::from_millis(300));
            visit.reader.stream.set_read_timeout(None).unwrap();
            let mut count = visit.reader.buffer.len() as u64 + 1;
            let mut chunk = vec![0; 1 << 20];
            while count < total {
                match visit.reader.stream.read(&mut chunk) {
                    Ok(more @ 1..) => count += more as u64,
                    _ => break,
                }
            }
            visit.send(format!("{count:>12}"));
            return;
        }
        let chunk: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
        while told.load(Ordering::SeqCst) < total && visit.send(&chunk) {
            told.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        }
    });
    let weir = Weir::before(&[&origin]);
    let mut client = switched(&weir);
    let before = weir.resident();
    let stalled = within(Duration::from_secs(20), || {
        let before = sent.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(300));
        (before > 0 && sent.load(Ordering::SeqCst) == before).then_some(before)
    });
    let stalled = stalled.expect("the sender waits for the reader");
    assert!(stalled < total, "{stalled} bytes went nowhere");
    let mut wanted = (0..=255u8).cycle();
    let mut got = 0;
    let mut chunk = vec![0; 1 << 20];
    let stream = &mut client.reader.stream;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let ahead = std::mem::take(&mut client.reader.buffer);
    got += ahead.len() as u64;
    assert!(ahead.iter().all(|&byte| Some(byte) == wanted.next()));
    while got < total {
        let count = stream.read(&mut chunk).expect("more");
        assert!(count > 0, "an end after {got} bytes");
        assert!(
            chunk[..count]
                .iter()
                .all(|&byte| Some(byte) == wanted.next())
        );
        got += count as u64;
    }
    let mut client = weir.client();
    assert_eq!(
        client
            .ask(offer("echo/1").replace("/socket", "/up"))
            .status(),
        101
    );
    let chunk = vec![7; 1 << 20];
    for _ in 0..total >> 20 {
        client.send(&chunk);
    }
    let counted = client.reader.exactly(12).expect("the count");
    assert_eq!(
        String::from_utf8(counted).unwrap().trim(),
        total.to_string()
    );
    let grown = weir.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
}

/// Both ways at once, each faster than the other side reads: neither waits for the other to be done.
#[test]
fn both_directions_move_at_once() {
    let origin = echo("a");
    let weir = Weir::before(&[&origin]);
    let client = switched(&weir);
    let total = 32 << 20;
    let mut sender = client.reader.stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        let chunk: Vec<u8> = (0..=250).cycle().take(251 * 300).collect();
        let mut left = total;
        while left > 0 {
            let count = chunk.len().min(left);
            sender.write_all(&chunk[..count]).expect("taken");
            left -= count;
        }
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut receiver = client.reader.stream.try_clone().unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut wanted = (0..=250u8).cycle();
    let (mut got, mut chunk) = (0, vec![0; 1 << 18]);
    loop {
        let count = receiver.read(&mut chunk).expect("more");
        if count == 0 {
            break;
        }
        assert!(
            chunk[..count]
                .iter()
                .all(|&byte| Some(byte) == wanted.next())
        );
        got += count;
    }
    sending.join().unwrap();
    assert_eq!(got, total);
}

fn sticky(origins: &[&Origin], mode: &str) -> String {
    let backends: Vec<String> = (origins.iter().zip(["a", "b"]))
        .map(|(origin, name)| format!("{{ name = \"{name}\", address = \"{}\" }}", origin.address))
        .collect();
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\nsticky = {{ mode = \"{mode}\" }}\n\
         [pools.was]\nbackends = [{}]\nhealth.type = \"none\"\n",
        backends.join(", ")
    )
}

/// A client may begin with the upgrade: the 101 is the only answer that can carry its cookie.
#[test]
fn a_switch_carries_the_sticky_cookie() {
    let origins = ["a", "b"].map(echo);
    for mode in ["insert", "cookie-hash"] {
        let weir = Weir::start(&sticky(&[&origins[0], &origins[1]], mode));
        let before = origins.each_ref().map(Origin::hits);
        let mut client = weir.client();
        let answer = client.ask(offer("echo/1"));
        let line = answer.value("set-cookie").expect("a cookie");
        let cookie = line.split(';').next().unwrap();
        let home = usize::from(origins[1].hits() > before[1]);
        for _ in 0..8 {
            let again = weir
                .client()
                .ask(with_fields(&format!("Cookie: {cookie}\r\n")));
            assert_eq!(again.text(), ["a", "b"][home]);
            let answer = weir.client().ask(with_fields(&format!(
                "Cookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n"
            )));
            assert_eq!(answer.status(), 101);
            assert!(!answer.has("set-cookie"));
        }
        assert_eq!(origins[1 - home].hits(), before[1 - home]);
        client.finish();
        client.expect_end();
        weir.access(|line| line["status"] == 101 && line["sticky"] == "new");
    }
}

#[test]
fn a_drain_waits_for_upgraded_connections() {
    let [a, b] = ["a", "b"].map(echo);
    let weir = Weir::start(&sticky(&[&a, &b], "insert"));
    // The first backend's.
    let mut client = until("a client at the first backend", || {
        let mut client = switched(&weir);
        // Whoever is answered is counted.
        says_back(&mut client, "x");
        (backend(&weir, "upgraded") == 1).then_some(client)
    });
    let drain = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["drain", "was/a", "--wait"]).args(arguments);
        command.arg("-c").arg(&weir.file).env_remove("WEIR_ADMIN");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let late = drain(&["--deadline", "300ms"]).wait_with_output().unwrap();
    assert_eq!(late.status.code(), Some(1));
    let told = String::from_utf8_lossy(&late.stderr);
    assert!(
        told.contains("not drained by the deadline: 1 upgraded"),
        "{told}"
    );

    let mut waiting = drain(&[]);
    thread::sleep(Duration::from_millis(700));
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "it returned too early"
    );
    says_back(&mut client, "still here");
    // Nothing new, and a reload changes nothing for what is open.
    let generation = weir.generation();
    weir.write(&sticky(&[&a, &b], "cookie-hash"));
    weir.await_generation_after(generation);
    assert_eq!(backend(&weir, "upgraded"), 1);
    says_back(&mut client, "and here");
    client.finish();
    client.expect_end();
    let done = waiting.wait_with_output().unwrap();
    assert!(done.status.success());
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(
        told.contains("was/a drains: 1 upgraded connection"),
        "{told}"
    );
    assert!(told.contains("was/a is drained"), "{told}");
}

/// Maintenance, a removed backend, route and listener: what was switched goes on to its own end.
#[test]
fn what_is_switched_outlives_its_configuration() {
    let [a, b] = ["a", "b"].map(echo);
    let weir = Weir::start(&plain(&[&a], ""));
    let mut client = switched(&weir);
    let path = format!("/api/v1/pools/was/backends/{}/maint", a.address);
    assert_eq!(weir.post(&path).status(), 200);
    says_back(&mut client, "in maintenance");
    let generation = weir.generation();
    let other = plain(&[&b], "")
        .replace("was", "other")
        .replace("web", "else");
    weir.write(&other);
    weir.await_generation_after(generation);
    says_back(&mut client, "removed");
    client.finish();
    client.expect_end();
    let line = weir.access(|line| line["status"] == 101);
    let names = ["listener", "pool", "backend"].map(|key| line[key].as_str().unwrap().to_owned());
    assert_eq!(
        names,
        ["web".to_owned(), "was".to_owned(), a.address.to_string()]
    );
}

#[test]
fn a_stop_waits_for_it_until_the_deadline_and_logs_what_it_cuts_off() {
    let origin = echo("a");
    let weir = Weir::start(&plain(&[&origin], "drain_timeout = \"1s\""));
    let mut client = switched(&weir);
    says_back(&mut client, "one");
    weir.signal(15);
    weir.tells("1 connection open");
    says_back(&mut client, "two");
    weir.await_exit();
    assert!(matches!(client.rest().1, Fault::Closed | Fault::Reset));
    let line = weir.access(|line| line["status"] == 101);
    assert_eq!(line["error"], "cut_off", "{line}");
}

/// A switched connection is work: who weighs connections must see it.
#[test]
fn least_connections_counts_switched_connections() {
    let [a, b] = ["a", "b"].map(echo);
    let config = plain(&[&a, &b], "").replace(
        "[pools.was]\n",
        "[pools.was]\nbalancer = \"least-connections\"\n",
    );
    let weir = Weir::start(&config);
    let mut clients: Vec<Client> = (0..8).map(|_| switched(&weir)).collect();
    // Whoever is answered is counted.
    clients.iter_mut().for_each(|client| says_back(client, "x"));
    let counts: Vec<_> = (0..2)
        .map(|ordinal| weir.status()["pools"][0]["backends"][ordinal]["upgraded"].clone())
        .collect();
    assert_eq!(counts, [4, 4]);
    drop(clients);
}

/// Until the 101 it is a GET like any other: a backend that is not there, or closes a kept connection, costs nothing.
#[test]
fn an_upgrade_request_is_tried_again_like_any_get() {
    let b = echo("b");
    let gone = crate::support::origin::nobody();
    let backends = [gone, b.address];
    let weir = Weir::start(&crate::support::weir::plain_at(&backends, ""));
    for _ in 0..4 {
        let mut client = switched(&weir);
        says_back(&mut client, "here");
    }
    assert!(weir.metric("weir_retries_total", &[]) > 0.0);
}

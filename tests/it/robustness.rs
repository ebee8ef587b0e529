//! What the network and the machine may do to weir: garbage, floods, exhaustion and taken ports. It goes on, or says why not.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::random::Random;
use crate::support::weir::{get, plain, plain_at, post};
use crate::support::{Client, Origin, Weir, process, until, within};

/// Requests from which mutants are made.
fn seeds() -> Vec<Vec<u8>> {
    [
        get("/a/b?c=d"),
        post("/form", "a=b&c=d"),
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-T: 1\r\n\r\n".into(),
        "GET http://a.test:80/x HTTP/1.1\r\nHost: a.test\r\nConnection: close, x\r\nExpect: 100-continue\r\n\r\n".into(),
        "OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nCookie: a=b; weir_was=x\r\n\r\n".into(),
        "HEAD /x;y=z/%41 HTTP/1.1\r\nHost: [::1]:8080\r\nX-Forwarded-For: 1.2.3.4, x\r\nForwarded: for=a\r\n\r\n".into(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// Some of its bytes flipped, removed, doubled or replaced by what matters in HTTP.
fn mutant(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    const SPICE: [&[u8]; 14] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b":",
        b" ",
        b"\t",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"\xff",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"FFFFFFFFFFFFFFFF",
        b"%",
    ];
    let mut bytes = seed.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len().max(1));
        match random.below(5) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => {
                bytes.remove(at);
            }
            2 => {
                let spice = SPICE[random.below(SPICE.len())];
                bytes.splice(at..at, spice.iter().copied());
            }
            3 => bytes.truncate(at),
            _ => {
                let piece: Vec<u8> = bytes[at..].iter().take(random.below(40)).copied().collect();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

#[test]
fn ten_thousand_strings_leave_the_listener_serving() {
    let origin = Origin::echo();
    let sticky = "pool = \"was\"\nsticky = { mode = \"cookie-hash\" }\n";
    let config = plain(&[&origin], "workers = 2").replace("pool = \"was\"\n", sticky);
    let weir = Weir::start(&config);
    let before = weir.descriptors();
    let address = weir.address("web");
    let threads: Vec<_> = (0..4_u64)
        .map(|lane| {
            thread::spawn(move || {
                let mut random = Random(0x5eed + lane);
                let seeds = seeds();
                for round in 0..2_500 {
                    let length = random.below(700);
                    let bytes = match round % 3 {
                        0 => random.bytes(length),
                        _ => {
                            let seed = &seeds[random.below(seeds.len())];
                            mutant(&mut random, seed)
                        }
                    };
                    let mut client = Client::connect(address).patient(Duration::from_secs(20));
                    let _ = client.try_send(&bytes);
                    let _ = client.reader.stream.shutdown(std::net::Shutdown::Write);
                    if round % 5 == 0 {
                        // Half a request and no more: weir must end the connection, not wait for ever.
                        let (rest, fault) = client.rest();
                        assert_ne!(
                            fault,
                            crate::support::message::Fault::Timeout,
                            "{}",
                            crate::support::shown(&bytes)
                        );
                        assert!(
                            rest.is_empty() || rest.starts_with(b"HTTP/1."),
                            "{}",
                            crate::support::shown(&rest)
                        );
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(weir.exited().is_none(), "weir ended:\n{}", weir.stderr());
    assert_eq!(weir.get("/fine").status(), 200);
    until("descriptors to come back", || {
        (weir.descriptors() < before + 60).then_some(())
    });
}

/// What origins say when they say it well.
fn answers() -> Vec<Vec<u8>> {
    [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: x\r\nX: y\r\n\r\n",
        "HTTP/1.0 200 OK\r\nSet-Cookie: a=b\r\nCache-Control: no-cache\r\n\r\nbody",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nKeep-Alive: timeout=9\r\n\r\n",
    ]
    .map(|answer| answer.as_bytes().to_vec())
    .to_vec()
}

#[test]
fn origins_that_talk_nonsense_leave_weir_serving() {
    let origin = Origin::start(|visit| {
        let mut random = Random(visit.number as u64);
        if visit.request().is_err() {
            return;
        }
        let answers = answers();
        let length = random.below(300);
        let bytes = match random.below(5) {
            0 => random.bytes(length),
            _ => {
                let seed = &answers[random.below(answers.len())];
                mutant(&mut random, seed)
            }
        };
        // In pieces, so that every state meets every cut.
        for piece in bytes.chunks(1 + random.below(80)) {
            if !visit.send(piece) {
                return;
            }
            thread::yield_now();
        }
    });
    let sticky = "pool = \"was\"\nsticky = { mode = \"cookie-hash\" }\n";
    let config = plain(
        &[&origin],
        "[timeouts]\nresponse = \"2s\"\nresponse_idle = \"2s\"",
    );
    let weir = Weir::start(&config.replace("pool = \"was\"\n", sticky));
    for round in 0..2_000 {
        let request = match round % 4 {
            0 => post("/", "x"),
            1 => get("/"),
            2 => "POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ => "HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(),
        };
        let mut client = weir.client();
        client.send(request);
        match client.reader.head() {
            Ok(head) => assert!(
                head.starts_with(b"HTTP/1.1 "),
                "round {round}: {}",
                crate::support::shown(&head)
            ),
            Err(fault) => assert_ne!(
                fault,
                crate::support::message::Fault::Timeout,
                "round {round}"
            ),
        }
    }
    assert!(weir.exited().is_none());
}

#[test]
fn running_out_of_descriptors_is_no_end() {
    let origin = Origin::named("fine");
    let weir = Weir::start_with(&plain(&[&origin], ""), |command| {
        process::limit_descriptors(command, 100)
    });
    let mut crowd: Vec<Client> = (0..150).map(|_| weir.client()).collect();
    until("the log to say so", || {
        let log = weir.output().to_lowercase();
        (log.contains("too many open files") || log.contains("descriptor")).then_some(())
    });
    // Backed off, not spinning: less than half a core while nothing can be done.
    let busy = processor_time(weir.id());
    thread::sleep(Duration::from_secs(1));
    let busy = processor_time(weir.id()) - busy;
    assert!(
        busy < Duration::from_millis(500),
        "{busy:?} of processor time in a second"
    );
    let lines = weir
        .output()
        .lines()
        .filter(|line| line.to_lowercase().contains("too many open"))
        .count();
    assert!(lines < 50, "{lines} lines about one thing");
    let mut inside = crowd.swap_remove(0);
    drop(crowd);
    assert!(matches!(inside.ask(get("/")).status(), 200 | 502 | 503));
    until("weir to serve again", || {
        let mut client = Client::try_connect(weir.address("web")).ok()?;
        client.try_send(get("/").as_bytes()).ok()?;
        (client.try_answer().ok()?.text() == "fine").then_some(())
    });
    assert_eq!(weir.admin("/healthz").status(), 200);
}

/// User and system time of a process so far.
pub fn processor_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<u64> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap())
        .collect();
    Duration::from_millis((fields[0] + fields[1]) * 10)
}

#[test]
fn an_idle_weir_is_idle() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&format!("workers = 2\n{}", plain(&[&origin], "")));
    let _crowd: Vec<Client> = (0..200).map(|_| weir.client()).collect();
    assert_eq!(weir.get("/").text(), "fine");
    let busy = processor_time(weir.id());
    thread::sleep(Duration::from_secs(1));
    let busy = processor_time(weir.id()) - busy;
    assert!(
        busy < Duration::from_millis(100),
        "{busy:?} of processor time in an idle second"
    );
}

#[track_caller]
fn fails_to_start(weir: &Weir, words: &[&str]) {
    let status = weir.await_exit();
    assert!(!status.success(), "{status}");
    until("the reason", || {
        let said = weir.output();
        words.iter().all(|word| said.contains(word)).then_some(())
    });
}

#[test]
fn another_process_on_the_port_is_found() {
    let origin = Origin::named("a");
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = squatter.local_addr().unwrap();
    let weir = Weir::launch(
        &plain(&[&origin], "").replace("$web", &taken.to_string()),
        |_| {},
    );
    fails_to_start(&weir, &[&taken.to_string()]);
}

#[test]
fn another_weir_on_the_port_is_found() {
    let origin = Origin::named("a");
    let first = Weir::start(&format!("workers = 2\n{}", plain(&[&origin], "")));
    let taken = first.address("web").to_string();
    let second = Weir::launch(&plain(&[&origin], "").replace("$web", &taken), |_| {});
    fails_to_start(&second, &[&taken]);
    for _ in 0..20 {
        assert_eq!(first.get("/").text(), "a", "the first goes on");
    }
    let third = Weir::launch(
        &plain(&[&origin], "")
            .replace("[pools", "[admin]\nbind = \"$admin\"\n[pools")
            .replace("$admin", &first.address("admin").to_string()),
        |_| {},
    );
    fails_to_start(&third, &[&first.address("admin").to_string()]);
}

#[test]
fn an_address_that_is_not_here_yet_may_be_bound() {
    let origin = Origin::named("a");
    for missing in ["192.0.2.77", "[2001:db8::77]"] {
        let config = plain(&[&origin], "").replace(
            "[\"$web\"]",
            &format!("[\"$web\", \"{missing}:$web_port\"]"),
        );
        let weir = Weir::start(&config);
        assert_eq!(weir.get("/").text(), "a");
    }
    let config = plain(&[&origin], "").replace("\"$web\"", "\"127.0.0.2:$web_port\"");
    let weir = Weir::start(&config);
    let other = SocketAddr::new("127.0.0.2".parse().unwrap(), weir.address("web").port());
    assert_eq!(Client::connect(other).ask(get("/")).text(), "a");
    assert!(
        Client::try_connect(weir.address("web")).is_err(),
        "only where it was told to"
    );
}

#[test]
fn a_bad_configuration_does_not_start() {
    let weir = Weir::launch("workerz = 2\n[listeners.web]\nbind = [\"$web\"]\n", |_| {});
    fails_to_start(&weir, &["workerz"]);
    assert_eq!(weir.await_exit().code(), Some(1));
    let weir = Weir::launch("", |command| {
        let file = command.get_args().last().unwrap().to_owned();
        std::fs::remove_file(file).unwrap();
    });
    fails_to_start(&weir, &["weir.toml"]);
}

#[test]
fn slow_clients_hold_nobody_up() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    let mut crowd: Vec<Client> = (0..500).map(|_| weir.client()).collect();
    for client in &mut crowd {
        client.send("GET / HTTP/1.1\r\nX-Slow: ");
    }
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(weir.get("/").text(), "fine");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn connections_that_reset_at_once() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    let before = weir.descriptors();
    for round in 0..1_000 {
        let mut client = weir.client();
        if round % 2 == 0 {
            let _ = client.try_send(get("/").as_bytes());
        }
        process::reset_on_close(&client.reader.stream);
    }
    assert_eq!(weir.get("/").text(), "fine");
    until("descriptors to come back", || {
        (weir.descriptors() < before + 30).then_some(())
    });
}

#[test]
fn a_burst_of_connections_is_served() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&format!("workers = 2\n{}", plain(&[&origin], "")));
    let mut burst: Vec<Client> = (0..300).map(|_| weir.client()).collect();
    for client in &mut burst {
        client.send(get("/"));
    }
    for client in &mut burst {
        assert_eq!(client.answer().text(), "fine");
    }
}

#[test]
fn every_worker_serves() {
    let origin = Origin::named("fine");
    let weir = Weir::start(&format!("workers = 4\n{}", plain(&[&origin], "")));
    for _ in 0..100 {
        assert_eq!(weir.get("/").text(), "fine");
    }
    // Each worker has its own pool of upstream connections: four workers, four connections at most here.
    assert!(
        (2..=4).contains(&origin.connections()),
        "{} upstream connections",
        origin.connections()
    );
}

#[test]
fn a_backend_that_vanishes_under_load_costs_no_more_than_what_it_had() {
    let [stays, goes] = ["stays", "goes"].map(Origin::named);
    let config = plain_at(&[stays.address, goes.address], "").replace(
        "health.type = \"none\"\n",
        &format!(
            "[pools.was.health]\ntype = \"tcp\"\n{}",
            crate::balancing::PROBES
        ),
    );
    let weir = Weir::start(&config);
    let mut client = weir.client();
    for _ in 0..20 {
        client.ask(get("/"));
    }
    drop(goes);
    for count in 0..100 {
        assert_eq!(
            client.ask(get("/")).status(),
            200,
            "request {count} after the loss"
        );
    }
    assert!(
        within(Duration::from_secs(5), || (weir
            .metric("weir_backend_up", &[])
            == 1.0)
            .then_some(()))
        .is_some()
    );
}

#[test]
fn an_unwritable_state_directory_is_a_warning() {
    let origin = Origin::named("fine");
    let config = plain(&[&origin], "state_dir = \"/proc/nowhere\"").replace(
        "pool = \"was\"\n",
        "pool = \"was\"\nsticky = { mode = \"cookie-hash\" }\n",
    );
    let weir = Weir::start(&config);
    let answer = weir.get("/");
    assert!(answer.has("set-cookie"));
    weir.tells("/proc/nowhere");
}

/// Processor time of a debug build is several times that of a release; these heads cost a good server a few milliseconds at most.
#[test]
fn heads_that_are_made_to_be_slow() {
    let origin = Origin::named("fine");
    let config = plain(&[&origin], "trusted_proxies = [\"127.0.0.0/8\"]").replace(
        "pool = \"was\"\n",
        "pool = \"was\"\nsticky = { mode = \"cookie-hash\" }\n",
    );
    let weir = Weir::start(&config);
    let head = |lines: String| format!("GET / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n");
    let cases = [
        ("ordinary", head("X-A: b\r\n".repeat(100))),
        (
            "cookies",
            head(format!("Cookie: {}a=b\r\n", "weir_was=x; ".repeat(5_000))),
        ),
        (
            "commas",
            head(format!(
                "Connection: {}\r\n{}",
                ",".repeat(60_000),
                "X-A: b\r\n".repeat(100)
            )),
        ),
        (
            "options",
            head(format!(
                "Connection: {}\r\n{}",
                "a,".repeat(30_000),
                "b: b\r\n".repeat(120)
            )),
        ),
        (
            "forwarded for",
            head(format!(
                "X-Forwarded-For: {}\r\n",
                "127.0.0.1, ".repeat(5_500)
            )),
        ),
        (
            "path",
            format!(
                "GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n",
                "%41;x/".repeat(10_000)
            ),
        ),
        (
            "host",
            format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a.".repeat(30_000)),
        ),
    ];
    for (name, request) in cases {
        let begun = processor_time(weir.id());
        // More options than anybody needs are refused, which is the fastest way of all.
        let status = if name == "options" { 400 } else { 200 };
        for _ in 0..10 {
            assert_eq!(weir.client().ask(&request).status(), status, "{name}");
        }
        let each = (processor_time(weir.id()) - begun) / 10;
        assert!(
            each < Duration::from_millis(60),
            "{name}: {each:?} of processor time for one head"
        );
    }
}

#[test]
fn nobody_reads_what_weir_prints() {
    let origin = Origin::named("fine");
    let (reader, writer) = std::io::pipe().unwrap();
    let errors = writer.try_clone().unwrap();
    let weir = Weir::launch(&plain(&[&origin], ""), |command| {
        command.stdout(writer).stderr(errors);
    });
    // The other end goes away while weir runs, as when a log collector crashes.
    until("weir to serve", || {
        Client::try_connect(weir.address("web")).ok()
    });
    assert_eq!(weir.get("/").text(), "fine");
    drop(reader);
    for _ in 0..20 {
        assert_eq!(weir.get("/").text(), "fine");
    }
    weir.write("nonsense = ");
    weir.signal(libc::SIGHUP);
    until("the complaint, at least in a metric", || {
        (weir.metric("weir_config_last_reload_successful", &[]) == 0.0).then_some(())
    });
    assert_eq!(weir.get("/").text(), "fine");
    weir.signal(libc::SIGTERM);
    assert!(weir.await_exit().success());
}

#[test]
fn backends_of_ip_version_6() {
    let port = process::free_address().port();
    let origin = Origin::at(SocketAddr::new("::1".parse().unwrap(), port), |visit| {
        while visit.request().is_ok() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nsix");
        }
    });
    let weir = Weir::before(&[&origin]);
    assert_eq!(weir.get("/").text(), "six");
}

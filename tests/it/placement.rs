//! Where new clients go: the least sessions, the bound on what one server holds, the slow start of a server that comes up, and the
//! parallel first requests of one browser.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sessions::{NAMES, READY, addresses, pool, up};
use crate::support::origin::{Visit, nobody, ok};
use crate::support::{Client, Message, Origin, Weir, until};

/// Opens a session for whoever shows none, and says its name.
fn application(name: &'static str) -> impl Fn(&mut Visit) + Send + Sync {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    move |visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/hold" {
                visit.stall();
                return;
            }
            let shown = request.value("cookie").unwrap_or_default();
            let serial = SERIAL.fetch_add(1, Ordering::SeqCst);
            let opens = format!("Set-Cookie: JSESSIONID={serial:08X}; Path=/\r\n");
            let head = if shown.contains("JSESSIONID=") {
                ""
            } else {
                &opens
            };
            let length = name.len();
            visit.send(format!(
                "HTTP/1.1 200 OK\r\n{head}Content-Length: {length}\r\n\r\n{name}"
            ));
        }
    }
}

fn fleet() -> Vec<Option<Origin>> {
    let start = |name| Some(Origin::start(application(name)));
    NAMES.map(start).into()
}

fn config(pool: &str, sticky: &str, head: &str) -> String {
    format!(
        "{head}\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\nsticky = {{ {sticky} }}\n{pool}"
    )
}

/// The pool `was` with more keys.
fn pool_with(backends: &[SocketAddr], keys: &str) -> String {
    let pool = pool("was", backends, READY);
    pool.replace("[pools.was]\n", &format!("[pools.was]\n{keys}\n"))
}

/// A GET with what a browser's jar holds.
fn request(cookies: &[String], more: &str) -> String {
    let jar = match cookies.is_empty() {
        true => String::new(),
        false => format!("Cookie: {}\r\n", cookies.join("; ")),
    };
    format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\n{jar}{more}\r\n")
}

fn cookies(answer: &Message) -> Vec<String> {
    let lines = answer.values("set-cookie").into_iter();
    lines
        .map(|line| line.split(';').next().unwrap().to_owned())
        .collect()
}

/// So many new clients, one after another: where each went, and its cookies.
fn newcomers(weir: &Weir, count: usize) -> Vec<(String, Vec<String>)> {
    let come = |_| {
        let answer = weir.client().ask(request(&[], ""));
        assert_eq!(answer.status(), 200);
        (answer.text(), cookies(&answer))
    };
    (0..count).map(come).collect()
}

fn tally(clients: &[(String, Vec<String>)]) -> BTreeMap<&str, usize> {
    let mut tally = BTreeMap::new();
    for (backend, _) in clients {
        *tally.entry(backend.as_str()).or_insert(0) += 1;
    }
    tally
}

fn sessions(weir: &Weir, backend: &str) -> usize {
    let labels = [("pool", "was"), ("backend", backend)];
    weir.metric("weir_backend_sessions", &labels) as usize
}

#[test]
fn least_sessions_evens_out_after_a_backend_returns() {
    let fleet = fleet();
    let pool = pool_with(&addresses(&fleet), "balancer = \"least-sessions\"");
    let weir = Weir::start(&config(&pool, "mode = \"insert\"", ""));
    up(&weir, 3.0);
    let clients = newcomers(&weir, 30);
    assert_eq!(
        tally(&clients),
        [("was1", 10), ("was2", 10), ("was3", 10)].into()
    );

    // Its clients go elsewhere and stay away, so that it comes back empty.
    weir.post("/api/v1/pools/was/backends/was1/maint");
    for (_, jar) in clients.iter().filter(|(backend, _)| backend == "was1") {
        assert_ne!(weir.client().ask(request(jar, "")).text(), "was1");
    }
    until("the sessions to have moved", || {
        (sessions(&weir, "was1") == 0).then_some(())
    });
    weir.post("/api/v1/pools/was/backends/was1/ready");
    let others = ["was2", "was3"].map(|name| sessions(&weir, name));
    let (least, most) = (others[0].min(others[1]), others[0].max(others[1]));
    assert_eq!(least + most, 30);
    assert_eq!(tally(&newcomers(&weir, least)), [("was1", least)].into());
    newcomers(&weir, 2 * (most - least));
    assert_eq!(NAMES.map(|name| sessions(&weir, name)), [most; 3]);
}

#[test]
fn no_new_client_goes_to_a_backend_above_the_bound() {
    for mode in ["insert", "cookie-hash", "route"] {
        let fleet = fleet();
        let pool = pool_with(&addresses(&fleet), "balancer = \"round-robin\"");
        let weir = Weir::start(&config(&pool, &format!("mode = \"{mode}\""), "workers = 2"));
        up(&weir, 3.0);
        for name in ["was2", "was3"] {
            weir.post(&format!("/api/v1/pools/was/backends/{name}/maint"));
        }
        assert_eq!(tally(&newcomers(&weir, 20)), [("was1", 20)].into());
        for name in ["was2", "was3"] {
            weir.post(&format!("/api/v1/pools/was/backends/{name}/ready"));
        }
        // 20 is less than 1.25 * (total + 1) / 3 from the forty-ninth client on.
        let next = newcomers(&weir, 27);
        assert!(
            !tally(&next).contains_key("was1"),
            "{mode}: {:?}",
            tally(&next)
        );
        let later = newcomers(&weir, 40);
        let later = tally(&later);
        assert!((6..=20).contains(&later["was1"]), "{mode}: {later:?}");
    }
}

#[test]
fn a_backend_that_comes_up_starts_slowly_and_ends_with_its_full_share() {
    let first = Origin::named("first");
    let late = nobody();
    let weir = Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nslow_start = \"4s\"\n\
         backends = [\"{}\", \"{late}\"]\n[pools.was.health]\ntype = \"tcp\"\n{}",
        first.address,
        crate::balancing::PROBES
    ));
    let share = |backend: usize| {
        let status = weir.status();
        status["pools"][0]["backends"][backend]["share"]
            .as_f64()
            .unwrap()
    };
    until("the first to be warm", || (share(0) == 1.0).then_some(()));
    let _second = Origin::at(late, |visit| {
        while visit.request().is_ok() {
            visit.send(ok("second"));
        }
    });
    up(&weir, 2.0);
    let come = |count: usize| {
        let mut client = weir.client();
        let answers = (0..count).map(|_| client.ask(request(&[], "")).text());
        answers.filter(|text| text == "second").count()
    };
    // A tenth at first, which is one of eleven; a machine that is slow may take a second for this.
    let few = come(66);
    let by_then = share(1);
    let most = 66.0 * by_then / (1.0 + by_then) + 2.0;
    assert!(
        few >= 3 && few as f64 <= most,
        "{few} of 66 at a share of {by_then}"
    );
    until("the second to be warm", || (share(1) == 1.0).then_some(()));
    assert_eq!(come(40), 20);
}

#[test]
fn nobody_waits_for_anybody_at_the_start() {
    let [one, two] = ["one", "two"].map(Origin::named);
    let weir = Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nslow_start = \"1h\"\n\
         backends = [\"{}\", \"{}\"]\nhealth.type = \"none\"\n",
        one.address, two.address
    ));
    let mut client = weir.client();
    let answers: Vec<_> = (0..20)
        .map(|_| client.ask(request(&[], "")).text())
        .collect();
    assert_eq!(answers.iter().filter(|text| *text == "one").count(), 10);
}

/// Requests on connections of their own, all of which are at servers before one is answered.
fn at_once(weir: &Weir, origins: &[Option<Origin>], requests: &[String]) -> Vec<Client> {
    let hits = || origins.iter().flatten().map(Origin::hits).sum::<usize>();
    let before = hits();
    let ask = |request: &String| {
        let mut client = weir.client();
        client.send(request);
        client
    };
    let clients: Vec<_> = requests.iter().map(ask).collect();
    until("all of them to be at servers", || {
        (hits() == before + requests.len()).then_some(())
    });
    clients
}

/// How many requests each server has had.
fn hits(origins: &[Option<Origin>]) -> Vec<usize> {
    origins.iter().flatten().map(Origin::hits).collect()
}

#[test]
fn a_first_flight_over_six_connections_goes_to_one_backend() {
    for (wanted, backends) in [(true, 1), (false, 3)] {
        let fleet = fleet();
        let pool =
            pool("was", &addresses(&fleet), READY).replace("type = \"tcp\"", "type = \"none\"");
        let sticky = format!("mode = \"insert\", first_flight = {wanted}");
        let weir = Weir::start(&config(&pool, &sticky, "workers = 2"));
        let hold = |agent: &str| {
            request(&[], &format!("User-Agent: {agent}\r\n")).replace("GET / ", "GET /hold ")
        };
        let held = at_once(&weir, &fleet, &vec![hold("browser"); 6]);
        let busy = hits(&fleet).iter().filter(|&&count| count > 0).count();
        assert_eq!(busy, backends, "{:?}", hits(&fleet));
        // Another browser at the same address goes its own way, as does the seventh that has none.
        let other = at_once(&weir, &fleet, &vec![hold("another"); 3]);
        if wanted {
            let mut counts = hits(&fleet);
            counts.sort_unstable();
            assert_eq!(counts, [0, 3, 6]);
        }
        drop((held, other));
    }
}

#[test]
fn a_flight_ends_with_its_first_answer_and_takes_no_more_than_a_browser_sends() {
    let fleet = fleet();
    let pool = pool("was", &addresses(&fleet), READY).replace("type = \"tcp\"", "type = \"none\"");
    let sticky = "mode = \"route\", first_flight = true";
    let weir = Weir::start(&config(&pool, sticky, ""));
    let hold = request(&[], "").replace("GET / ", "GET /hold ");
    let held = at_once(&weir, &fleet, &vec![hold.clone(); 24]);
    assert_eq!(hits(&fleet), [8, 8, 8], "eight of each are together");
    drop(held);
    until("the requests to end", || {
        (weir.metric("weir_backend_in_flight", &[]) == 0.0).then_some(())
    });
    // Answered one after the other, they are spread as ever.
    let spread = newcomers(&weir, 9);
    assert_eq!(tally(&spread).len(), 3);
}

#[test]
fn pipelined_first_requests_go_to_one_backend_and_get_one_cookie() {
    for mode in ["insert", "cookie-hash"] {
        let fleet = fleet();
        let pool =
            pool("was", &addresses(&fleet), READY).replace("type = \"tcp\"", "type = \"none\"");
        let weir = Weir::start(&config(&pool, &format!("mode = \"{mode}\""), ""));
        let mut client = weir.client();
        client.send(request(&[], "").repeat(3));
        let answers = [client.answer(), client.answer(), client.answer()];
        let told = |answer: &Message| {
            let mut jar = cookies(answer);
            jar.retain(|cookie| cookie.starts_with("weir_"));
            jar
        };
        assert_eq!(told(&answers[0]).len(), 1, "{mode}");
        assert!(told(&answers[1]).is_empty() && told(&answers[2]).is_empty());
        assert!(
            answers
                .iter()
                .all(|answer| answer.text() == answers[0].text())
        );
        // Whoever comes later on the connection could have shown it, so it is somebody else.
        let later = client.ask(request(&[], ""));
        assert_eq!(told(&later).len(), 1, "{mode}");
        assert_ne!(told(&later), told(&answers[0]));
        assert_ne!(later.text(), answers[0].text(), "the next in turn");
    }
}

#[test]
fn pipelined_requests_go_together_without_a_cookie_too() {
    let fleet = fleet();
    let pool = pool("was", &addresses(&fleet), READY).replace("type = \"tcp\"", "type = \"none\"");
    let weir = Weir::start(&config(&pool, "mode = \"route\"", ""));
    let mut client = weir.client();
    client.send(request(&[], "").repeat(3));
    let names = [(); 3].map(|()| client.answer().text());
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    assert_ne!(client.ask(request(&[], "")).text(), names[0]);
}

#[test]
fn with_shared_sessions_a_busy_home_is_spared() {
    for (sessions, spared) in [("shared", true), ("replicated", false)] {
        let fleet = fleet();
        let pool = pool("was", &addresses(&fleet), READY);
        let sticky = format!("mode = \"insert\", sessions = \"{sessions}\"");
        let weir = Weir::start(&config(&pool, &sticky, ""));
        up(&weir, 3.0);
        let (home, jar) = newcomers(&weir, 1).remove(0);
        let hold = request(&jar, "").replace("GET / ", "GET /hold ");
        let mut held = at_once(&weir, &fleet, &vec![hold.clone(); 8]);
        let answer = weir.client().ask(request(&jar, ""));
        assert_eq!(answer.text() != home, spared, "{sessions}");
        assert!(cookies(&answer).is_empty(), "its home stays");
        held.clear();
        until("the requests to end", || {
            (weir.metric("weir_backend_in_flight", &[]) == 0.0).then_some(())
        });
        assert_eq!(weir.client().ask(request(&jar, "")).text(), home);
    }
}

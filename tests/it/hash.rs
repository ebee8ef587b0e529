//! `hash ...`: equal values meet at one backend, whoever sends them and whichever worker reads them; `peak-ewma`: the quick get more.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::support::origin::ok;
use crate::support::weir::{get, plain};
use crate::support::{Client, Origin, Weir, until};
use crate::tcp;

fn with_balancer(origins: &[&Origin], balancer: &str) -> String {
    let pool = format!("[pools.was]\nbalancer = \"{balancer}\"\n");
    plain(origins, "workers = 3").replace("[pools.was]\n", &pool)
}

/// A GET with one more line.
fn get_with(target: &str, line: &str) -> String {
    get(target).replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
}

/// Where each of these requests goes, each asked often and on connections of its own.
#[track_caller]
fn homes(weir: &Weir, requests: &[String]) -> Vec<String> {
    let home = |request: &String| {
        let answers: Vec<String> = (0..5).map(|_| weir.client().ask(request).text()).collect();
        assert!(
            answers.windows(2).all(|two| two[0] == two[1]),
            "{request}: {answers:?}"
        );
        answers[0].clone()
    };
    requests.iter().map(home).collect()
}

fn spread(homes: &[String]) -> usize {
    let counts = homes.iter().map(|home| (home.clone(), ()));
    counts.collect::<BTreeMap<_, _>>().len()
}

#[test]
fn equal_values_meet() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let origins = [&a, &b, &c];
    let weir = Weir::start(&with_balancer(&origins, "hash uri"));
    let uris: Vec<String> = (0..16).map(|n| get(&format!("/page?n={n}"))).collect();
    assert_eq!(spread(&homes(&weir, &uris)), 3);

    let headers = |name: &str| -> Vec<String> {
        let line = |n| format!("{name}: user-{n}");
        (0..16).map(|n| get_with("/", &line(n))).collect()
    };
    let before = weir.generation();
    weir.write(&with_balancer(&origins, "hash header:X-User"));
    weir.await_generation_after(before);
    assert_eq!(spread(&homes(&weir, &headers("x-user"))), 3);

    let before = weir.generation();
    weir.write(&with_balancer(&origins, "hash cookie:cart"));
    weir.await_generation_after(before);
    let cookies: Vec<String> = (0..16)
        .map(|n| get_with("/", &format!("Cookie: other=1; cart={n}")))
        .collect();
    let homes = homes(&weir, &cookies);
    assert_eq!(spread(&homes), 3);

    // A backend that leaves takes only its own values along.
    let before = weir.generation();
    weir.write(&with_balancer(&[&a, &b], "hash cookie:cart"));
    weir.await_generation_after(before);
    for (cookie, home) in cookies.iter().zip(&homes).filter(|(_, home)| *home != "c") {
        assert_eq!(weir.client().ask(cookie).text(), *home);
    }
}

#[test]
fn one_address_has_one_backend_for_bytes_too() {
    let greeting = |name: &'static str| {
        Origin::start(move |visit| {
            visit.send(name);
        })
    };
    let [a, b, c] = ["a", "b", "c"].map(greeting);
    let config = tcp::relay(&[a.address, b.address, c.address], "workers = 3")
        .replace("[pools.pg]\n", "[pools.pg]\nbalancer = \"hash source\"\n");
    let weir = Weir::start(&config);
    let names: Vec<Vec<u8>> = (0..20)
        .map(|_| tcp::client(&weir).reader.exactly(1).expect("a greeting"))
        .collect();
    assert!(names.windows(2).all(|two| two[0] == two[1]), "{names:?}");
}

#[test]
fn a_hot_value_spreads_when_its_backend_has_more_than_its_part() {
    let slow = |name: &'static str| {
        Origin::start(move |visit| {
            while visit.request().is_ok() {
                visit.hold();
                visit.send(ok(name));
            }
        })
    };
    let [a, b] = ["a", "b"].map(slow);
    let weir = Weir::start(&with_balancer(&[&a, &b], "hash uri"));
    let mut clients: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = weir.client();
            client.send(get("/hot"));
            client
        })
        .collect();
    until("all of them to be under way", || {
        (weir.metric("weir_backend_in_flight", &[]) == 20.0).then_some(())
    });
    let hits = || [a.hits(), b.hits()];
    until("all of them to arrive", || {
        (hits().iter().sum::<usize>() == 20).then_some(())
    });
    let mut hits = hits();
    hits.sort_unstable();
    // Half of the 20 and a quarter of that, at most; up to seven it would have kept all of them.
    assert!((8..=13).contains(&hits[1]), "{hits:?}");
    clients.clear();
}

#[test]
fn the_quick_backend_gets_more() {
    let quick = Origin::named("quick");
    let slow = Origin::start(|visit| {
        while visit.request().is_ok() {
            // Far longer than a busy machine lets the quick one wait.
            thread::sleep(Duration::from_secs(1));
            visit.send(ok("slow"));
        }
    });
    let weir = Weir::start(&with_balancer(&[&quick, &slow], "peak-ewma"));
    let mut client = weir.client();
    for _ in 0..100 {
        assert_eq!(client.ask(get("/")).status(), 200);
    }
    assert!(slow.hits() >= 1, "everyone is tried");
    assert!(
        slow.hits() <= 5,
        "{} of 100 went to the slow one",
        slow.hits()
    );
    // One that fails at once is not quick.
    let failing =
        Origin::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let before = weir.generation();
    weir.write(&with_balancer(&[&failing, &quick], "peak-ewma"));
    weir.await_generation_after(before);
    let mut client = weir.client();
    (0..100).for_each(|_| drop(client.ask(get("/"))));
    assert!((1..=5).contains(&failing.hits()), "{}", failing.hits());
}

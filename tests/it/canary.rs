//! `canary`: a part of a route's clients goes to another pool, and whoever is known somewhere stays there.

use std::collections::BTreeMap;

use crate::support::weir::get;
use crate::support::{Message, Origin, Weir};
use crate::tcp;

fn config(own: &Origin, next: &Origin, weight: &str, sticky: &str) -> String {
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nname = \"shop\"\npool = \"was\"\ncanary = {{ pool = \"next\", weight = {weight} }}\n{sticky}\n\
         [pools.was]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n[pools.next]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        own.address, next.address
    )
}

fn reload(weir: &Weir, config: &str) {
    let before = weir.generation();
    weir.write(config);
    weir.await_generation_after(before);
}

/// What to show to be known again.
fn cookie(answer: &Message) -> String {
    let set = answer.value("set-cookie").expect("a cookie");
    set.split(';').next().unwrap().to_owned()
}

fn with_cookie(cookie: &str) -> String {
    get("/").replace("\r\n\r\n", &format!("\r\nCookie: {cookie}\r\n\r\n"))
}

#[test]
fn a_part_of_the_requests_goes_there() {
    let [own, next] = ["own", "next"].map(Origin::named);
    let weir = Weir::start(&config(&own, &next, "20", ""));
    let mut client = weir.client();
    let mut counts = BTreeMap::new();
    for _ in 0..1000 {
        *counts.entry(client.ask(get("/")).text()).or_insert(0) += 1;
    }
    // Six standard deviations.
    assert!((124..=276).contains(&counts["next"]), "{counts:?}");
    let served = |pool| {
        weir.metric(
            "weir_http_requests_total",
            &[("route", "shop"), ("pool", pool)],
        )
    };
    weir.settles("weir_http_requests_total", &[("route", "shop")], 1000.0);
    assert_eq!(served("next"), f64::from(counts["next"]));
    assert_eq!(weir.status()["routes"][0]["canary"]["weight"], 20.0);

    reload(&weir, &config(&own, &next, "0", ""));
    assert!((0..50).all(|_| weir.get("/").text() == "own"));
    reload(&weir, &config(&own, &next, "100", ""));
    assert!((0..50).all(|_| weir.get("/").text() == "next"));
    assert_eq!(weir.access(|line| line["pool"] == "next")["route"], "shop");
}

#[test]
fn a_client_stays_on_the_side_that_it_is_on() {
    for mode in ["insert", "cookie-hash"] {
        let [own, next] = ["own", "next"].map(Origin::named);
        let sticky = format!("sticky = {{ mode = \"{mode}\" }}");
        let config = |weight: &str| config(&own, &next, weight, &sticky);
        let weir = Weir::start(&config("100"));
        let there = weir.get("/");
        assert_eq!(there.text(), "next");
        let canary = cookie(&there);
        assert!(canary.starts_with("weir_next="), "{canary}");
        // The canary ends for new clients; who is there stays.
        reload(&weir, &config("0"));
        let here = weir.get("/");
        assert_eq!(here.text(), "own");
        assert!(cookie(&here).starts_with("weir_was="));
        for _ in 0..20 {
            assert_eq!(weir.client().ask(with_cookie(&canary)).text(), "next");
        }
        // It begins again; who is elsewhere stays there.
        reload(&weir, &config("100"));
        for _ in 0..20 {
            assert_eq!(weir.client().ask(with_cookie(&cookie(&here))).text(), "own");
        }
        weir.settles("weir_sticky_total", &[("result", "kept")], 40.0);
        // Neither side sees what is between the client and weir.
        let both = format!("a=b; {canary}; {}; c=d", cookie(&here));
        for cookie in [&both, &canary, &cookie(&here)] {
            weir.client().ask(with_cookie(cookie));
        }
        for origin in [&own, &next] {
            for request in origin.requests() {
                let seen = request.value("cookie").unwrap_or_default();
                assert!(!seen.contains("weir_"), "{seen}");
            }
        }
        let told = |cookie: &str| {
            let header = format!("Cookie:%20{cookie}").replace('=', "%3D");
            weir.admin(&format!(
                "/api/v1/explain?url=http://shop.example.com/&header={header}"
            ))
            .text()
        };
        assert!(
            told(&canary).contains("on the side of the canary next"),
            "{}",
            told(&canary)
        );
        assert!(told(&cookie(&here)).contains("not on the side of the canary"));
        assert!(told("other=1").contains("takes 100 % of such requests"));
        // Without it there is one side left.
        let ended = config("100")
            .replace("canary = { pool = \"next\", weight = 100 }\n", "")
            .replace("[pools.next]\n", "[pools.next]\nmax_idle = 3\n");
        reload(&weir, &ended);
        assert_eq!(weir.client().ask(with_cookie(&canary)).text(), "own");
    }
}

#[test]
fn an_address_or_a_header_is_on_one_side_and_a_canary_that_grows_moves_nobody_back() {
    let [own, next] = ["own", "next"].map(Origin::named);
    let sticky = "sticky = { mode = \"header\", header = \"x-user\" }";
    let sides = |weir: &Weir| -> Vec<String> {
        let side = |user: u32| {
            let asked = get("/").replace("\r\n\r\n", &format!("\r\nX-User: {user}\r\n\r\n"));
            weir.client().ask(asked).text()
        };
        (0..200).map(side).collect()
    };
    let weir = Weir::start(&config(&own, &next, "20", sticky));
    let few = sides(&weir);
    assert_eq!(few, sides(&weir));
    let count = |sides: &[String]| sides.iter().filter(|side| *side == "next").count();
    assert!((15..=70).contains(&count(&few)), "{}", count(&few));
    reload(&weir, &config(&own, &next, "60", sticky));
    let more = sides(&weir);
    assert!(count(&more) > count(&few));
    assert!(
        few.iter()
            .zip(&more)
            .all(|(few, more)| few != "next" || more == "next")
    );
}

#[test]
fn a_canary_may_fall_back_to_the_pool_that_it_is_of() {
    let [own, next] = ["own", "next"].map(Origin::named);
    let maint = config(&own, &next, "100", "")
        .replace(
            &format!("[\"{}\"]", next.address),
            &format!("[{{ address = \"{}\", state = \"maint\" }}]", next.address),
        )
        .replace("[pools.next]\n", "[pools.next]\nfallback = \"was\"\n");
    let weir = Weir::start(&maint);
    assert!((0..10).all(|_| weir.get("/").text() == "own"));
}

#[test]
fn connections_split_too() {
    let greeting = |name: &'static str| {
        Origin::start(move |visit| {
            visit.send(name);
        })
    };
    let [own, next] = ["o", "n"].map(greeting);
    let config = tcp::relay(&[own.address], "").replace(
        "pool = \"pg\"\n",
        "pool = \"pg\"\ncanary = { pool = \"next\", weight = 50 }\n",
    );
    let config = format!(
        "{config}[pools.next]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        next.address
    );
    let weir = Weir::start(&config);
    let greeted = |_| tcp::client(&weir).reader.exactly(1).expect("a greeting");
    let there = (0..100).map(greeted).filter(|name| name == b"n").count();
    assert!((20..=80).contains(&there), "{there}");
}

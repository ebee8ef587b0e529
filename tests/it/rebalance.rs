//! `rebalance = "idle"`: after a scale-out idle clients move to the new server until the numbers are even, and active ones stay.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::sessions::{Browser, NAMES, addresses, application, up};
use crate::support::{Origin, Weir, until};

fn config(backends: &[SocketAddr]) -> String {
    let entries: Vec<String> = backends
        .iter()
        .zip(NAMES)
        .map(|(address, name)| format!("{{ name = \"{name}\", address = \"{address}\" }}"))
        .collect();
    format!(
        "watch = \"off\"\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n\
         sticky = {{ mode = \"insert\", sessions = \"replicated\", idle_timeout = \"2m\", rebalance = \"idle\", rebalance_idle = \"1s\", rebalance_rate = 1000 }}\n\
         [pools.was]\nbackends = [{}]\n[pools.was.health]\ntype = \"tcp\"\n{}",
        entries.join(", "),
        crate::balancing::PROBES
    )
}

fn sessions(weir: &Weir) -> Vec<u64> {
    let status = weir.status();
    let backends = status["pools"][0]["backends"].as_array().unwrap();
    let counts = backends
        .iter()
        .map(|backend| backend["sessions"].as_u64().unwrap());
    counts.collect()
}

#[test]
fn idle_clients_fill_a_new_server_and_active_ones_stay() {
    let fleet: Vec<Option<Origin>> = NAMES
        .map(|name| Some(Origin::start(application(name))))
        .into();
    let addresses = addresses(&fleet);
    let weir = Weir::start(&config(&addresses[..2]));
    up(&weir, 2.0);
    let mut clients: Vec<(Browser, String)> = (0..24)
        .map(|number| {
            let mut browser = Browser::default();
            let home = browser.ask(&weir, "/", "X-Login: 1\r\n").text();
            // Sessions of the application differ, as those of real clients do.
            let session = format!("{number}.{home}");
            browser.jar.insert("JSESSIONID".to_owned(), session);
            assert_eq!(browser.text(&weir), home);
            (browser, home)
        })
        .collect();
    let generation = weir.generation();
    weir.write(&config(&addresses));
    weir.signal(libc::SIGHUP);
    weir.await_generation_after(generation);
    up(&weir, 3.0);
    let (active, idle) = clients.split_at_mut(4);
    // A session's age is known in whole seconds, and written down once a second.
    let end = std::time::Instant::now() + Duration::from_millis(3500);
    while std::time::Instant::now() < end {
        for (browser, home) in active.iter_mut() {
            assert_eq!(browser.text(&weir), *home, "active");
        }
        thread::sleep(Duration::from_millis(100));
    }
    let told = |browser: &Browser| {
        let jar = browser.jar.iter().map(|(k, v)| format!("{k}%3D{v}"));
        let cookies = jar.collect::<Vec<_>>().join(";%20");
        let query = format!("url=/&header=Cookie:%20{cookies}");
        weir.admin(&format!("/api/v1/explain?{query}")).text()
    };
    let foreseen = told(&idle[0].0);
    assert!(
        foreseen.contains("if `rebalance_rate` allows"),
        "{foreseen}"
    );
    for (browser, home) in idle.iter_mut() {
        let there = browser.text(&weir);
        if there != *home {
            assert_eq!(there, NAMES[2], "it was the least");
        }
        assert_eq!(browser.text(&weir), there, "for good");
    }
    let counts = until("all sessions", || {
        let counts = sessions(&weir);
        (counts.iter().sum::<u64>() >= 24).then_some(counts)
    });
    // A few were counted for a first answer without a session of its own.
    assert!(counts[2] >= 3, "{counts:?}");
    assert!(counts[..2].iter().all(|count| *count <= 11), "{counts:?}");
    let moved = weir.metric("weir_sticky_total", &[("result", "moved")]);
    assert!((3.0..=12.0).contains(&moved), "{moved}");
}

//! `learn` before real servers: the ids are Tomcat's own, and two weirs share in a real Redis what they learned.
//! It must leave the servers as it found them.
//! Read `scenarios.rs` for the other claims.

use std::time::{Duration, Instant};

use crate::client::Line;
use crate::crowd::Crowd;
use crate::process::wait;
use crate::redis::Redis;
use crate::scenarios::{Stage, assert_grown};
use crate::tomcat::NAME;
use crate::weir::{Setup, Weir, sum};

const SOON: Duration = Duration::from_secs(10);
/// What a request may take beside the 50 ms that it waits for the store, on a busy machine.
const SLACK: Duration = Duration::from_millis(450);
const CLIENTS: usize = 60;

/// What one weir learned the other knows; a Redis that stands still or is gone costs nobody a session and hardly any time.
pub fn learn(stage: &mut Stage) {
    let mut redis = Redis::start(&stage.directory.join("redis"));
    let secrets = stage.directory.join("secrets");
    let secret = "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80=\n";
    std::fs::write(&secrets, secret).expect("a file can be written");
    let setup = || {
        let mut setup = Setup::new(stage.three());
        setup.head = format!("secrets_file = \"{}\"\n", secrets.display());
        setup.sticky = format!("{{ mode = \"learn\", store = \"{}\" }}", redis.url());
        setup
    };
    let [one, two, three] = [setup(), setup(), setup()];
    let one = stage.weir("learn-one", &one);
    let two = stage.weir("learn-two", &two);
    for weir in [&one, &two] {
        stands(weir, 1.0);
    }
    let mut crowd = Crowd::new(one.web, CLIENTS, 4);
    let mut before = crowd.round();
    wait("all sessions in the store", SOON, || {
        (results(&one, "written") >= CLIENTS as f64).then_some(())
    });
    let third = stage.weir("learn-three", &three);
    for weir in [&two, &one, &third] {
        crowd.turn_to(weir.web);
        let now = crowd.round();
        assert_grown(&before, &now);
        before = now;
    }
    let found = [&two, &third].map(|weir| results(weir, "found"));
    assert_eq!(found, [CLIENTS as f64; 2]);
    println!("  {CLIENTS} clients learned by one weir, kept by two others that asked once each");

    redis.freeze();
    let worst = (0..4).map(|id| strange(&two, id)).max().unwrap_or_default();
    assert!(worst < Duration::from_millis(50) + SLACK, "{worst:?}");
    stands(&two, 0.0);
    let began = Instant::now();
    let mean = (0..100).map(|id| strange(&two, id)).sum::<Duration>() / 100;
    assert!(mean < Duration::from_millis(30), "{mean:?} each");
    crowd.turn_to(two.web);
    let now = crowd.round();
    assert_grown(&before, &now);
    println!(
        "  Redis stopped: the first unknown clients took {worst:.1?} at most, the next 100 {mean:.1?} each; nobody lost a session in {:.1?}",
        began.elapsed()
    );
    redis.thaw();
    stands(&two, 1.0);

    redis.restart();
    stands(&one, 1.0);
    stands(&two, 1.0);
    let again = crowd.round();
    assert_grown(&now, &again);
    println!("  Redis killed and started anew, empty: up again, nobody lost a session");
    for weir in [one, two, third] {
        weir.stop();
    }
}

/// How long a client takes whose session no weir knows.
fn strange(weir: &Weir, id: usize) -> Duration {
    let began = Instant::now();
    let cookie = format!("Cookie: JSESSIONID=strange{id}\r\n");
    let answer = Line::new(weir.web).get(NAME, &cookie);
    assert!(answer.is_ok_and(|answer| answer.status == 200));
    began.elapsed()
}

/// Waits until the weir says of the store that it is so.
fn stands(weir: &Weir, up: f64) {
    wait("the store's standing", SOON, || {
        (sum(&weir.metrics(), "weir_sticky_store_up", "") == Some(up)).then_some(())
    });
}

fn results(weir: &Weir, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    let counted = sum(&weir.metrics(), "weir_sticky_store_requests_total", &label);
    counted.unwrap_or(0.0)
}

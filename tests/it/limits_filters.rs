//! Rate limits and access lists as filters of a route.

use crate::support::origin::{nobody, ok};
use crate::support::weir::{get, plain, plain_at};
use crate::support::{Origin, Weir, until};

/// One route with these filters.
fn filtered(config: &str, filters: &str) -> String {
    config.replace(
        "[[routes]]\n",
        &format!("[[routes]]\nname = \"shop\"\nfilters = [{filters}]\n"),
    )
}

fn statuses(weir: &Weir, fields: &str, count: usize) -> Vec<u16> {
    let request = format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\n{fields}\r\n");
    (0..count)
        .map(|_| weir.client().ask(&request).status())
        .collect()
}

#[test]
fn a_limit_counts_by_what_its_key_says() {
    let origin = Origin::named("fine");
    for (key, one, other) in [
        ("header:X-Key", "x-key: a\r\n", "X-Key: b\r\n"),
        ("cookie:S", "Cookie: t=1; S=a\r\n", "Cookie: S=b; t=1\r\n"),
    ] {
        let limit =
            format!("{{ type = \"rate-limit\", rate = \"10/h\", burst = 2, key = \"{key}\" }}");
        let weir = Weir::start(&filtered(&plain(&[&origin], ""), &limit));
        assert_eq!(statuses(&weir, one, 3), [200, 200, 429], "{key}");
        assert_eq!(statuses(&weir, other, 3), [200, 200, 429], "{key}");
        assert_eq!(statuses(&weir, "", 2), [200, 200], "{key}");
        assert_eq!(
            statuses(&weir, "X-Other: 1\r\n", 1),
            [429],
            "those without share one"
        );
        let labels = [("route", "shop"), ("listener", "none")];
        weir.settles("weir_limited_total", &labels, 3.0);
    }
    let limit = "{ type = \"rate-limit\", rate = \"10/h\", burst = 2, key = \"route\" }";
    let weir = Weir::start(&filtered(&plain(&[&origin], ""), limit));
    assert_eq!(statuses(&weir, "", 3), [200, 200, 429]);
    let answer = weir.get("/");
    assert_eq!(
        answer.value("ratelimit-policy").as_deref(),
        Some("\"route\";q=2;w=720")
    );
    assert!(
        answer
            .value("ratelimit")
            .unwrap()
            .starts_with("\"route\";r=0;t=")
    );
    assert!(answer.has("retry-after"));
    until("a line of the log", || {
        let line = "route shop: 127.0.0.1 is over the limit of 10/h route";
        weir.stderr().contains(line).then_some(())
    });
}

#[test]
fn several_limits_hold_each_for_itself_and_outlive_a_reload() {
    let origin = Origin::named("fine");
    let limits = "{ type = \"rate-limit\", rate = \"100/h\", burst = 4 }, \
        { type = \"rate-limit\", rate = \"10/h\", burst = 2, key = \"header:x-key\" }";
    let config = filtered(&plain(&[&origin], ""), limits);
    let weir = Weir::start(&config);
    assert_eq!(statuses(&weir, "X-Key: a\r\n", 3), [200, 200, 429]);
    let generation = weir.generation();
    weir.write(&config.replace(
        "filters = [",
        "filters = [{ type = \"request-headers\", set = { X-New = \"1\" } }, ",
    ));
    weir.await_generation_after(generation);
    assert_eq!(
        statuses(&weir, "X-Key: b\r\n", 2),
        [200, 429],
        "four in all"
    );
    let label = |limit| [("route", "shop"), ("limit", limit)];
    weir.settles("weir_limited_total", &label("100/h source"), 1.0);
    weir.settles("weir_limited_total", &label("10/h header:x-key"), 1.0);
}

#[test]
fn a_request_that_is_tried_again_counts_once() {
    let origin = Origin::answering(ok("fine"));
    let limit = "{ type = \"rate-limit\", rate = \"10/h\", burst = 4 }";
    // One of the two refuses every connection.
    let config = filtered(&plain_at(&[nobody(), origin.address], ""), limit);
    let weir = Weir::start(&config);
    assert_eq!(statuses(&weir, "", 5), [200, 200, 200, 200, 429]);
    assert!(weir.metric("weir_retries_total", &[]) > 0.0);
}

#[test]
fn a_list_of_a_route_answers_403() {
    let origin = Origin::named("fine");
    let list = "{ type = \"access\", allow = [\"192.0.2.0/24\", \"2001:db8::/32\"], deny = [\"192.0.2.9\"] }";
    let config = filtered(&plain(&[&origin], ""), list);
    let weir = Weir::start(&format!("trusted_proxies = [\"127.0.0.1\"]\n{config}"));
    for (client, expected) in [
        ("192.0.2.1", 200),
        ("192.0.2.9", 403),
        ("198.51.100.1", 403),
        ("2001:db8::9", 200),
        ("::ffff:192.0.2.1", 200),
    ] {
        let field = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(statuses(&weir, &field, 1), [expected], "{client}");
    }
    assert_eq!(
        weir.client().ask(get("/")).status(),
        403,
        "the proxy itself"
    );
    weir.settles(
        "weir_limited_total",
        &[("route", "shop"), ("limit", "access")],
        3.0,
    );
    let line = weir.access(|line| line["status"] == 403);
    assert_eq!(
        (&line["error"], &line["route"]),
        (&"denied".into(), &"shop".into())
    );
}

#[test]
fn ten_thousand_networks_are_a_list_like_any_other() {
    let origin = Origin::named("fine");
    let networks: Vec<String> = (0..10_000)
        .map(|number| format!("\"10.{}.{}.0/25\"", number / 256, number % 256))
        .collect();
    let list = format!("{{ type = \"access\", deny = [{}] }}", networks.join(", "));
    let config = filtered(&plain(&[&origin], ""), &list);
    let weir = Weir::start(&format!("trusted_proxies = [\"127.0.0.1\"]\n{config}"));
    for (client, expected) in [
        ("10.0.0.1", 403),
        ("10.39.15.127", 403),
        ("10.39.15.128", 200),
        ("10.39.16.1", 200),
    ] {
        let field = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(statuses(&weir, &field, 1), [expected], "{client}");
    }
}

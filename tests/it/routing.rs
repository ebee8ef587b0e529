//! Which route takes a request, and that no spelling of a path gets past the route that was meant for it.

use crate::support::{Origin, Weir};

/// A pool section for an origin, without probes.
fn pool(name: &str, origin: &Origin) -> String {
    format!(
        "[pools.{name}]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        origin.address
    )
}

const LISTENER: &str = "[listeners.web]\nbind = [\"$web\"]\n";

/// The body of the answer, or its status if weir refused.
fn served(weir: &Weir, method: &str, host: &str, target: &str, lines: &str) -> String {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
    let answer = weir.client().ask(request);
    match answer.status() {
        200 => answer.text(),
        status => status.to_string(),
    }
}

#[test]
fn hosts_from_exact_to_any() {
    let [exact, near, far, any] = ["exact", "near", "far", "any"].map(Origin::named);
    let weir = Weir::start(&format!(
        "{LISTENER}
        [[routes]]
        pool = \"any\"
        [[routes]]
        hosts = [\"*.example.com\"]
        pool = \"far\"
        [[routes]]
        hosts = [\"*.shop.example.com\"]
        pool = \"near\"
        [[routes]]
        hosts = [\"www.shop.example.com\", \"shop.example.com\"]
        pool = \"exact\"
        {}{}{}{}",
        pool("exact", &exact),
        pool("near", &near),
        pool("far", &far),
        pool("any", &any)
    ));
    for (host, expected) in [
        ("shop.example.com", "exact"),
        ("www.shop.example.com", "exact"),
        ("WWW.Shop.Example.COM", "exact"),
        ("shop.example.com:8080", "exact"),
        ("shop.example.com.", "exact"),
        ("a.shop.example.com", "near"),
        ("a.b.shop.example.com", "near"),
        ("a.example.com", "far"),
        ("a.b.c.example.com", "far"),
        ("xshop.example.com", "far"),
        ("example.com", "any"),
        ("badexample.com", "any"),
        ("example.com.evil.test", "any"),
        ("127.0.0.1", "any"),
        ("[::1]:80", "any"),
    ] {
        assert_eq!(served(&weir, "GET", host, "/", ""), expected, "{host}");
        let absolute = format!("http://{host}/");
        assert_eq!(
            served(&weir, "GET", "other.test", &absolute, ""),
            expected,
            "{absolute}"
        );
    }
    assert_eq!(
        weir.client().ask("GET / HTTP/1.0\r\n\r\n").text(),
        "any",
        "no host at all"
    );
}

#[test]
fn paths_on_segment_boundaries() {
    let [root, cart, deep] = ["root", "cart", "deep"].map(Origin::named);
    let weir = Weir::start(&format!(
        "{LISTENER}
        [[routes]]
        path = \"/cart\"
        pool = \"cart\"
        [[routes]]
        pool = \"root\"
        [[routes]]
        path = \"/cart/checkout/now\"
        pool = \"deep\"
        {}{}{}",
        pool("root", &root),
        pool("cart", &cart),
        pool("deep", &deep)
    ));
    for (target, expected) in [
        ("/", "root"),
        ("/cart", "cart"),
        ("/cart/", "cart"),
        ("/cart/x", "cart"),
        ("/cart?x=y", "cart"),
        ("/cart;jsessionid=1", "cart"),
        ("/cart;jsessionid=1/checkout", "cart"),
        ("/cart/checkout", "cart"),
        ("/cart/checkout/nowhere", "cart"),
        ("/cart/checkout/now", "deep"),
        ("/cart;a=b/checkout;c/now;d?e", "deep"),
        ("/%63art", "cart"),
        ("/c%61rt/%63heckout/now", "deep"),
        ("/cartoon", "root"),
        ("/Cart", "root"),
        ("/ca", "root"),
        ("/x/cart", "root"),
        ("/?/cart", "root"),
        ("/cart%20", "root"),
    ] {
        assert_eq!(
            served(&weir, "GET", "a.test", target, ""),
            expected,
            "{target}"
        );
    }
}

#[test]
fn more_conditions_win_then_the_order_of_the_file() {
    let [plain, post, header, both, first] =
        ["plain", "post", "header", "both", "first"].map(Origin::named);
    let weir = Weir::start(&format!(
        "{LISTENER}
        [[routes]]
        path = \"/a\"
        pool = \"plain\"
        [[routes]]
        path = \"/a\"
        methods = [\"POST\", \"PUT\"]
        pool = \"post\"
        [[routes]]
        path = \"/a\"
        headers = {{ X-Beta = \"yes\" }}
        pool = \"header\"
        [[routes]]
        path = \"/a\"
        methods = [\"POST\"]
        headers = {{ X-Beta = true, X-Other = true }}
        pool = \"both\"
        [[routes]]
        path = \"/b\"
        headers = {{ X-One = true }}
        pool = \"first\"
        [[routes]]
        path = \"/b\"
        headers = {{ X-Two = true }}
        pool = \"plain\"
        {}{}{}{}{}",
        pool("plain", &plain),
        pool("post", &post),
        pool("header", &header),
        pool("both", &both),
        pool("first", &first)
    ));
    for (method, lines, expected) in [
        ("GET", "", "plain"),
        ("POST", "", "post"),
        ("PUT", "", "post"),
        ("GET", "X-Beta: no\r\n", "plain"),
        ("GET", "x-beta: yes\r\n", "header"),
        ("GET", "X-Beta: no\r\nX-Beta: yes\r\n", "header"),
        ("POST", "X-Beta: a\r\nX-Other:\r\n", "both"),
    ] {
        assert_eq!(
            served(&weir, method, "a.test", "/a", lines),
            expected,
            "{method} {lines}"
        );
    }
    assert_eq!(
        served(&weir, "GET", "a.test", "/b", "X-Two: 1\r\nX-One: 1\r\n"),
        "first"
    );
}

#[test]
fn a_host_without_a_fitting_path_falls_through() {
    let [one, wide, any] = ["one", "wide", "any"].map(Origin::named);
    let weir = Weir::start(&format!(
        "{LISTENER}
        [[routes]]
        hosts = [\"shop.example.com\"]
        path = \"/only\"
        pool = \"one\"
        [[routes]]
        hosts = [\"*.example.com\"]
        path = \"/wide\"
        pool = \"wide\"
        [[routes]]
        path = \"/any\"
        pool = \"any\"
        {}{}{}",
        pool("one", &one),
        pool("wide", &wide),
        pool("any", &any)
    ));
    for (target, expected) in [
        ("/only/x", "one"),
        ("/wide/x", "wide"),
        ("/any/x", "any"),
        ("/none", "404"),
        ("/", "404"),
    ] {
        assert_eq!(
            served(&weir, "GET", "shop.example.com", target, ""),
            expected,
            "{target}"
        );
    }
}

#[test]
fn no_route_is_404_and_keeps_the_connection() {
    let origin = Origin::named("shop");
    let weir = Weir::start(&format!(
        "{LISTENER}[[routes]]\nhosts = [\"shop.example.com\"]\npool = \"was\"\n{}",
        pool("was", &origin)
    ));
    let mut client = weir.client();
    let answer = client.ask("POST / HTTP/1.1\r\nHost: other.test\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(answer.status(), 404);
    if answer.value("connection").as_deref() != Some("close") {
        assert_eq!(
            client
                .ask("GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
                .text(),
            "shop"
        );
    }
    client = weir.client();
    assert_eq!(
        client
            .ask("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n")
            .status(),
        404
    );
    assert_eq!(
        client
            .ask("GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
            .text(),
        "shop"
    );
    assert_eq!(origin.hits(), if answer.has("connection") { 1 } else { 2 });
}

#[test]
fn a_route_belongs_to_its_listeners() {
    let [open, inside] = ["open", "inside"].map(Origin::named);
    let weir = Weir::start(&format!(
        "{LISTENER}[listeners.inside]\nbind = [\"$inside\"]
        [[routes]]
        listeners = [\"inside\"]
        path = \"/admin\"
        pool = \"inside\"
        [[routes]]
        path = \"/shop\"
        pool = \"open\"
        {}{}",
        pool("open", &open),
        pool("inside", &inside)
    ));
    let ask = |listener: &str, target: &str| {
        let mut client = crate::support::Client::connect(weir.address(listener));
        let answer = client.ask(crate::support::weir::get(target));
        if answer.status() == 200 {
            answer.text()
        } else {
            answer.status().to_string()
        }
    };
    assert_eq!(ask("web", "/admin"), "404");
    assert_eq!(ask("inside", "/admin"), "inside");
    assert_eq!(ask("web", "/shop"), "open");
    assert_eq!(ask("inside", "/shop"), "open");
}

/// Spellings that some server takes for a path below `/manager`.
const DISGUISES: &[&str] = &[
    "/manager",
    "/manager/html",
    "//manager",
    "///manager/html",
    "/manager//html",
    "/manager;a=b",
    "/manager;a=b/html",
    "/manager;",
    "/;/manager",
    "/;x/manager",
    "/;x=y;z/;/manager",
    "/%6danager",
    "/%6Danager",
    "/m%61n%61ger/html",
    "/%6d%61%6e%61%67%65%72",
    "/./manager",
    "/.;x/manager",
    "/%2e/manager",
    "/%2E;x/manager",
    "/public/../manager",
    "/public/..;/manager",
    "/public/..;a=b/manager",
    "/public/%2e%2e/manager",
    "/public/%2E%2e/manager",
    "/public/.%2e/manager",
    "/public/%2e./manager",
    "/public/%2e%2e;x/manager",
    "/public;x/../manager",
    "/public/x/../../manager",
    "/../manager",
    "/..//manager",
    "/public/..",
    "/%2fmanager",
    "/%2Fmanager",
    "/public%2f..%2fmanager",
    "/public/..%2fmanager",
    "/manager%2fhtml",
    "/%5cmanager",
    "/\\manager",
    "/public\\..\\manager",
    "/public/..\\manager",
    "/public%5c..%5cmanager",
    "/manager%5chtml",
    "/manager\\html",
    "/manager%00",
    "/%00/manager",
    "/public/%00/../manager",
    "/%zz/manager",
    "/manager%",
    "/manager%2",
    "/manager%u002f",
    "/manager/.",
    "/manager/..",
    "/public/;x=/../manager",
    "/public;/..;/manager",
    "/;x=%2e%2e/manager",
    "/public;a=%2f..%2fmanager",
    "/public/..%3b/manager",
    "/public/..%00/manager",
];

#[test]
fn no_disguise_reaches_what_its_normal_form_may_not() {
    let [denied, open] = ["denied", "open"].map(Origin::named);
    let weir = Weir::start(&format!(
        "{LISTENER}
        [[routes]]
        path = \"/manager\"
        pool = \"denied\"
        [[routes]]
        pool = \"open\"
        {}{}",
        pool("denied", &denied),
        pool("open", &open)
    ));
    let mut complaints = Vec::new();
    for target in DISGUISES {
        for target in [
            (*target).to_owned(),
            format!("http://a.test{target}"),
            format!("{target}?x=y"),
        ] {
            let by = served(&weir, "GET", "a.test", &target, "");
            // A path that has no `manager` left once parameters and dots are gone may go anywhere.
            let harmless =
                target.contains("public") && !target.contains("/manager") && !target.contains("..");
            if by != "denied" && by != "400" && !harmless {
                complaints.push(format!("{target} was served by {by}"));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    for harmless in [
        "/",
        "/a.b",
        "/a..b",
        "/..a",
        "/a/...",
        "/.well-known/x",
        "/%41",
        "/a%20b",
        "/a%2Bb",
        "/managers",
        "/a;b=..",
        "/~me",
    ] {
        assert_eq!(
            served(&weir, "GET", "a.test", harmless, ""),
            "open",
            "{harmless}"
        );
    }
}

#[test]
fn the_backend_gets_the_path_as_it_came() {
    let origin = Origin::named("fine");
    let weir = Weir::before(&[&origin]);
    for target in [
        "/%63art;jsessionid=x/%7Eme?a=%2F..%2f&b=;",
        "//a//b",
        "/a;x=1;y/b;z",
        "/a%20b%2B%c3%a4",
    ] {
        assert_eq!(served(&weir, "GET", "a.test", target, ""), "fine");
        assert_eq!(origin.requests().pop().unwrap().target(), target);
    }
}

#[test]
fn path_checks_may_be_off() {
    let origin = Origin::named("fine");
    let config = crate::support::weir::plain(&[&origin], "");
    let weir = Weir::start(&config.replace(
        "[listeners.web]\n",
        "[listeners.web]\npath_checks = \"off\"\n",
    ));
    for target in ["/a/../b", "/a%2fb", "/a%5cb", "/%zz", "/a\\b", "/..;/x"] {
        assert_eq!(
            served(&weir, "GET", "a.test", target, ""),
            "fine",
            "{target}"
        );
        assert_eq!(origin.requests().pop().unwrap().target(), target);
    }
}

#[test]
fn a_hundred_routes() {
    let [odd, even, rest] = ["odd", "even", "rest"].map(Origin::named);
    let mut config = LISTENER.to_owned();
    for number in 0..100 {
        let name = if number % 2 == 0 { "even" } else { "odd" };
        config.push_str(&format!(
            "[[routes]]\nhosts = [\"h{}.test\"]\npath = \"/p{number}\"\npool = \"{name}\"\n",
            number % 10
        ));
    }
    config.push_str("[[routes]]\npool = \"rest\"\n");
    config.push_str(&[pool("odd", &odd), pool("even", &even), pool("rest", &rest)].concat());
    let weir = Weir::start(&config);
    for number in 0..100 {
        let expected = if number % 2 == 0 { "even" } else { "odd" };
        let (host, target) = (format!("h{}.test", number % 10), format!("/p{number}/x"));
        assert_eq!(
            served(&weir, "GET", &host, &target, ""),
            expected,
            "{host}{target}"
        );
        assert_eq!(served(&weir, "GET", "h11.test", &target, ""), "rest");
    }
}

//! `weir explain` and `/api/v1/explain`: what is told of a request is what then happens to it, and asking changes nothing.

use std::process::Command;

use serde_json::Value;

use crate::sessions::{NAMES, addresses, at_home, config, fleet, pool, up};
use crate::support::datagrams::{Answerer, Caller};
use crate::support::weir::list;
use crate::support::weir::{binary, get};
use crate::support::{Origin, Weir};

/// What the API tells; values of the query are percent-encoded as far as these tests need it.
#[track_caller]
fn told(weir: &Weir, pairs: &[(&str, &str)]) -> Value {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| {
            let value = value.replace('%', "%25").replace(' ', "%20");
            format!("{key}={}", value.replace('&', "%26").replace('=', "%3D"))
        })
        .collect();
    let answer = weir.admin(&format!("/api/v1/explain?{}", pairs.join("&")));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn a_client_is_told_where_it_goes_in_every_state_of_its_home() {
    let mut fleet = fleet();
    let sticky = "mode = \"insert\", on_failure = \"wait\"";
    let weir = Weir::start(&config(&addresses(&fleet), sticky, ""));
    up(&weir, 3.0);
    let mut browser = at_home(&weir);
    let cookie = format!("Cookie: weir_was={}", browser.jar["weir_was"]);
    let ask = || {
        told(
            &weir,
            &[("url", "http://shop.example.com/a"), ("header", &cookie)],
        )
    };

    let kept = ask();
    assert_eq!(kept["client"]["known"], "home", "{kept:#}");
    assert_eq!(kept["client"]["home"], NAMES[0]);
    assert_eq!(kept["client"]["mode"], "insert");
    assert!(kept["client"]["issued"].as_str().unwrap().ends_with('Z'));
    assert_eq!(kept["outcome"]["backend"], NAMES[0]);
    assert_eq!(kept["outcome"]["result"], "kept");
    assert_eq!(kept["pool"]["backends"][0]["takes_new"], true);

    weir.post("/api/v1/pools/was/backends/was1/drain");
    let draining = ask();
    assert_eq!(draining["outcome"]["backend"], NAMES[0]);
    assert_eq!(draining["client"]["home_state"], "drain");
    assert_eq!(draining["pool"]["backends"][0]["takes_new"], false);

    weir.post("/api/v1/pools/was/backends/was1/maint");
    let away = ask();
    let refuge = away["outcome"]["backend"].as_str().unwrap().to_owned();
    assert_ne!(refuge, NAMES[0]);
    assert_eq!(away["outcome"]["result"], "moved");
    assert_eq!(browser.text(&weir), refuge, "as it was told");

    weir.post("/api/v1/pools/was/backends/was1/ready");
    fleet[0] = None;
    up(&weir, 2.0);
    let held = ask();
    let because = held["outcome"]["because"].as_str().unwrap();
    assert!(because.contains("held up to 2s"), "{held:#}");
    assert!(held["outcome"].get("backend").is_none());
}

#[test]
fn new_expired_and_forged_clients_are_the_balancers() {
    let fleet = fleet();
    let weir = Weir::start(&config(&addresses(&fleet), "mode = \"insert\"", ""));
    up(&weir, 3.0);
    let new = told(&weir, &[("url", "/")]);
    assert_eq!(new["client"]["known"], "new");
    assert_eq!(new["outcome"]["result"], "new");
    assert_eq!(new["outcome"]["candidates"], serde_json::json!(NAMES));
    let forged = told(&weir, &[("url", "/"), ("header", "cookie: weir_was=abc")]);
    assert_eq!(forged["client"]["known"], "forged");
    for name in &NAMES[1..] {
        weir.post(&format!("/api/v1/pools/was/backends/{name}/drain"));
    }
    let sure = told(&weir, &[("url", "/")]);
    assert_eq!(sure["outcome"]["backend"], NAMES[0], "nobody else is left");
    assert_eq!(weir.get("/").text(), NAMES[0]);
    weir.post("/api/v1/pools/was/backends/was1/drain");
    assert_eq!(told(&weir, &[("url", "/")])["outcome"]["status"], 503);
    let sticky_total = weir.metric("weir_sticky_total", &[]);
    assert_eq!(sticky_total, 1.0, "asking counts nothing");
}

#[test]
fn routes_are_told_with_reasons() {
    let [shop, files] = [fleet(), fleet()];
    let text = format!(
        "[listeners.web]\nbind = [\"$web\"]\ndeny = [\"192.0.2.66\"]\n[listeners.other]\nbind = [\"$other\"]\n\
         [[routes]]\nname = \"cart\"\nhosts = [\"shop.example.com\"]\npath = \"/cart\"\npool = \"shop\"\n\
         [[routes]]\nname = \"post\"\npath = \"/cart\"\nmethods = [\"POST\"]\npool = \"files\"\n\
         [[routes]]\nname = \"beta\"\nheaders = {{ x-beta = \"1\" }}\npool = \"files\"\n\
         [[routes]]\nname = \"far\"\nlisteners = [\"other\"]\nhosts = [\"far.example.com\"]\npool = \"files\"\n{}{}",
        pool("shop", &addresses(&shop), ["ready"; 3]),
        pool("files", &addresses(&files), ["ready"; 3])
    );
    let weir = Weir::start(&text);
    let cart = told(&weir, &[("url", "http://shop.example.com/cart;x=y/1?q")]);
    assert_eq!(cart["route"]["name"], "cart", "{cart:#}");
    assert_eq!(cart["request"]["path"], "/cart/1");
    assert_eq!(cart["request"]["listener"], "web");
    assert!(cart.get("client").is_none(), "not a sticky route");
    let reasons: Vec<&str> = cart["other_routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["because"].as_str().unwrap())
        .collect();
    assert_eq!(
        reasons,
        [
            "the method is not POST",
            "no header x-beta is \"1\"",
            "it does not serve the listener web"
        ]
    );
    let beta = [("url", "/"), ("header", "x-beta: 1")];
    assert_eq!(told(&weir, &beta)["route"]["name"], "beta");
    let far = [("url", "http://far.example.com/"), ("listener", "other")];
    assert_eq!(told(&weir, &far)["route"]["name"], "far");
    let none = told(&weir, &[("url", "/nothing")]);
    assert_eq!(none["outcome"]["status"], 404);
    assert_eq!(none["other_routes"].as_array().unwrap().len(), 4);
    let bad = told(&weir, &[("url", "/a/../b")]);
    assert_eq!(bad["outcome"]["status"], 400);
    assert!(bad["outcome"]["because"].as_str().unwrap().contains("path"));
    let denied = told(&weir, &[("url", "/cart"), ("client", "192.0.2.66")]);
    assert_eq!(denied["outcome"]["status"], 403);
    assert_eq!(denied["request"]["client"], "192.0.2.66");
    assert!(denied.get("route").is_none(), "it meets none");
    for query in ["", "?url=/&what=x", "?url=ftp://a/"] {
        let target = format!("/api/v1/explain{query}");
        assert_eq!(weir.admin(&target).status(), 400, "{query}");
    }
    for query in ["?url=/&listener=wbe", "?listener=wbe"] {
        let answer = weir.admin(&format!("/api/v1/explain{query}"));
        assert_eq!(answer.status(), 404, "{query}");
        let wanted = "did you mean web? there are: web, other";
        assert!(answer.text().contains(wanted), "{}", answer.text());
    }
}

#[test]
fn the_command_prints_a_page_or_the_document_and_no_cookie() {
    let fleet = fleet();
    let weir = Weir::start(&config(&addresses(&fleet), "mode = \"insert\"", ""));
    up(&weir, 3.0);
    let browser = at_home(&weir);
    let run = |more: &[&str]| {
        let mut command = Command::new(binary());
        let cookie = format!("weir_was={}", browser.jar["weir_was"]);
        command.args([
            "explain",
            "http://shop.example.com/",
            "--cookie",
            &cookie,
            "-H",
            "X: y",
        ]);
        command
            .args(["--admin", &weir.address("admin").to_string()])
            .args(more);
        let output = command.env_remove("WEIR_ADMIN").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let page = run(&[]);
    assert!(
        page.contains("outcome  to was1 (kept): its home was1 is up"),
        "{page}"
    );
    let document = run(&["--json", "--client", "192.0.2.7", "-X", "POST"]);
    let told: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(told["request"]["client"], "192.0.2.7");
    assert_eq!(told["request"]["method"], "POST");
    for text in [&page, &document, &weir.stderr()] {
        assert!(!text.contains(&browser.jar["weir_was"]), "{text}");
    }
}

#[test]
fn a_session_is_told_with_its_age() {
    let origin = Origin::named("a");
    let backends = [origin.address];
    let weir = Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\nsticky = {{ mode = \"route\" }}\n\
         [pools.was]\nbackends = [{{ name = \"one\", address = \"{}\" }}]\nhealth.type = \"none\"\n",
        backends[0]
    ));
    let line = ("header", "Cookie: JSESSIONID=12.one");
    let unknown = told(&weir, &[("url", "/"), line]);
    assert_eq!(unknown["client"]["session"]["live"], false);
    assert_eq!(unknown["client"]["home"], "one");
    let request = get("/").replace("\r\n\r\n", &format!("\r\n{}\r\n\r\n", line.1));
    assert_eq!(weir.client().ask(request).status(), 200);
    let known = told(&weir, &[("url", "/"), line]);
    assert_eq!(known["client"]["session"]["live"], true);
    assert_eq!(known["client"]["session"]["backend"], "one");
    assert_eq!(known["pool"]["backends"][0]["sessions"], 1);
}

/// A udp listener `dns` and a tcp listener `db`, with these keys each, before one pool.
fn passing(backends: &[std::net::SocketAddr], listener: &str, route: &str, pool: &str) -> String {
    let part = |name: &str, protocol: &str| {
        format!(
            "[listeners.{name}]\nbind = [\"${name}\"]\nprotocol = \"{protocol}\"\n{listener}\n\
             [[routes]]\nname = \"to-{name}\"\nlisteners = [\"{name}\"]\npool = \"ns\"\n{route}\n"
        )
    };
    let backends = list(backends);
    format!(
        "{}{}[pools.ns]\nbackends = [{backends}]\nhealth.type = \"none\"\n{pool}\n",
        part("dns", "udp"),
        part("db", "tcp")
    )
}

#[test]
fn a_client_of_datagrams_goes_where_it_was_told() {
    let backends = ["a", "b", "c"].map(Answerer::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let hash = "balancer = \"hash source\"";
    let sticky = "sticky = { mode = \"source\" }";
    for (route, pool) in [("", "balancer = \"maglev\""), ("", hash), (sticky, "")] {
        let weir = Weir::start(&passing(&addresses, "", route, pool));
        for last in 1..15 {
            let client = format!("127.0.5.{last}");
            let told = told(&weir, &[("listener", "dns"), ("client", &client)]);
            assert_eq!(told["connection"]["protocol"], "udp", "{told:#}");
            assert_eq!(told["route"]["name"], "to-dns");
            assert_eq!(told["pool"]["name"], "ns");
            let caller = Caller::from_address([127, 0, 5, last], weir.address("dns"));
            let (name, _) = caller.flow();
            let at = ["a", "b", "c"].iter().position(|own| *own == name).unwrap();
            let because = told["outcome"]["because"].as_str().unwrap();
            assert_eq!(
                told["outcome"]["backend"],
                addresses[at].to_string(),
                "{because}"
            );
            let wanted = if route.is_empty() {
                "leads it to"
            } else {
                "its home"
            };
            assert!(because.contains(wanted), "{because}");
        }
        // It is the same for connections.
        let datagram = told(&weir, &[("listener", "dns"), ("client", "192.0.2.7")]);
        let connection = told(&weir, &[("listener", "db"), ("client", "192.0.2.7")]);
        assert_eq!(
            datagram["outcome"]["backend"],
            connection["outcome"]["backend"]
        );
    }
}

#[test]
fn who_may_not_come_in_or_finds_nobody_is_told_so() {
    let backend = Answerer::named("a");
    let weir = Weir::start(&passing(
        &[backend.address],
        "deny = [\"192.0.2.66\"]",
        "",
        "",
    ));
    let ask = |listener: &str, client: &str| {
        let told = told(&weir, &[("listener", listener), ("client", client)]);
        let outcome = &told["outcome"];
        assert!(outcome.get("status").is_none(), "{told:#}");
        outcome["refused"].as_str().map(str::to_owned)
    };
    assert_eq!(ask("dns", "192.0.2.66").as_deref(), Some("dropped"));
    assert_eq!(ask("db", "192.0.2.66").as_deref(), Some("closed"));
    assert_eq!(ask("dns", "192.0.2.7"), None);
    weir.post(&format!(
        "/api/v1/pools/ns/backends/{}/maint",
        backend.address
    ));
    assert_eq!(ask("dns", "192.0.2.7").as_deref(), Some("dropped"));
    assert_eq!(ask("db", "192.0.2.7").as_deref(), Some("closed"));
}

#[test]
fn a_connection_is_told_by_what_its_client_would_ask_for() {
    let [one, two] = [Answerer::named("a"), Answerer::named("b")];
    let text = format!(
        "[listeners.web]\nbind = [\"$web\"]\n[listeners.db]\nbind = [\"$db\"]\nprotocol = \"tcp\"\n\
         [listeners.dns]\nbind = [\"$dns\"]\nprotocol = \"udp\"\n\
         [[routes]]\nname = \"web\"\npool = \"web\"\n\
         [[routes]]\nname = \"shop\"\nlisteners = [\"db\"]\nsni = [\"*.shop.test\"]\npool = \"one\"\n\
         [[routes]]\nname = \"pg\"\nlisteners = [\"db\"]\nalpn = [\"postgresql\"]\npool = \"two\"\n\
         [[routes]]\nname = \"dns\"\nlisteners = [\"dns\"]\npool = \"one\"\n\
         [pools.one]\nbackends = [\"{0}\"]\nhealth.type = \"none\"\n[pools.two]\nbackends = [\"{1}\"]\nhealth.type = \"none\"\n\
         [pools.web]\nbackends = [\"{0}\"]\nhealth.type = \"none\"\n",
        one.address, two.address
    );
    let weir = Weir::start(&text);
    let shop = told(&weir, &[("listener", "db"), ("sni", "EU.Shop.test.")]);
    assert_eq!(shop["route"]["name"], "shop", "{shop:#}");
    assert_eq!(shop["route"]["matches"], "sni *.shop.test");
    assert_eq!(shop["connection"]["server_name"], "EU.Shop.test");
    assert_eq!(shop["outcome"]["backend"], one.address.to_string());
    let others: Vec<&str> = (shop["other_routes"].as_array().unwrap().iter())
        .map(|route| route["because"].as_str().unwrap())
        .collect();
    let elsewhere = "it does not serve the listener db";
    let wanted = [elsewhere, "the client does not offer postgresql", elsewhere];
    assert_eq!(others, wanted);
    let pairs = [("listener", "db"), ("alpn", "h2"), ("alpn", "postgresql")];
    let pg = told(&weir, &pairs);
    assert_eq!(pg["route"]["name"], "pg");
    assert_eq!(pg["outcome"]["backend"], two.address.to_string());
    let none = told(&weir, &[("listener", "db")]);
    assert!(none.get("route").is_none(), "{none:#}");
    assert_eq!(none["outcome"]["refused"], "closed");
    let refused = [
        ("listener=db&url=/", "has no requests"),
        ("listener=dns&url=/", "has no requests"),
        ("listener=web", "has a `url`"),
        ("listener=web&sni=a.test", "has a `url`"),
        ("listener=dns&sni=a.test", "reads no datagrams"),
        ("listener=db&method=GET", "of a request"),
    ];
    for (query, why) in refused {
        let answer = weir.admin(&format!("/api/v1/explain?{query}"));
        assert_eq!(answer.status(), 400, "{query}");
        assert!(answer.text().contains(why), "{query}: {}", answer.text());
    }
    let mut command = Command::new(binary());
    command.args(["explain", "--listener", "db", "--sni", "eu.shop.test"]);
    command.args(["--client", "192.0.2.7", "--alpn", "h2"]);
    command.args(["--admin", &weir.address("admin").to_string()]);
    let output = command.env_remove("WEIR_ADMIN").output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(
        page.starts_with(
            "tcp      from 192.0.2.7 on listener db, asks for eu.shop.test, offers h2\nroute    shop (sni *.shop.test): "
        ),
        "{page}"
    );
}

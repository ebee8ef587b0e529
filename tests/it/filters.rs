//! The filters of a route: what backend and client get when steps change requests and answers, or answer themselves.

use crate::support::message::Message;
use crate::support::weir::get;
use crate::support::{Origin, Weir};

/// One origin behind a route with these filters; `more` stands before the listeners.
fn filtered(origin: &Origin, filters: &str, more: &str) -> Weir {
    Weir::start(&format!(
        "{more}\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nname = \"all\"\npool = \"was\"\nfilters = [\n{filters}\n]\n\
         [pools.was]\nbackends = [{{ name = \"was1\", address = \"{}\" }}]\nhealth.type = \"none\"\n",
        origin.address
    ))
}

/// What the origin got and what the client got for a request.
fn exchange(weir: &Weir, origin: &Origin, request: impl AsRef<[u8]>) -> (Message, Message) {
    let answer = weir.client().ask(request);
    (origin.requests().pop().expect("it got there"), answer)
}

#[test]
fn headers_are_changed_in_both_directions() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nX-Powered-By: x\r\nContent-Length: 4\r\n\r\nfine",
    );
    let weir = filtered(
        &origin,
        r#"{ type = "request-headers", set = { X-User = "nobody", X-From = "{client_ip} {host} {listener} {route} {pool}" }, add = { X-Many = "2" }, remove = ["X-Debug"] },
           { type = "response-headers", remove = ["Server", "X-Powered-By"], set = { X-Served-By = "{backend}", X-For = "{method} {path}" } }"#,
        "",
    );
    let (request, answer) = exchange(
        &weir,
        &origin,
        "GET /a?b HTTP/1.1\r\nHost: shop.example.com\r\nX-User: root\r\nx_user: root\r\nX-Many: 1\r\nx-debug: 1\r\n\r\n",
    );
    assert_eq!(request.value("x-user").as_deref(), Some("nobody"));
    assert!(!request.has("x_user") && !request.has("x-debug"));
    assert_eq!(request.values("x-many"), ["1", "2"]);
    let from = request.value("x-from");
    assert_eq!(
        from.as_deref(),
        Some("127.0.0.1 shop.example.com web all was")
    );
    assert!(!answer.has("server") && !answer.has("x-powered-by"));
    assert_eq!(answer.value("x-served-by").as_deref(), Some("was1"));
    assert_eq!(answer.value("x-for").as_deref(), Some("GET /a"));
    assert_eq!(answer.text(), "fine");
}

#[test]
fn paths_are_rewritten_and_the_route_stays() {
    let origin = Origin::named("fine");
    let weir = filtered(
        &origin,
        r#"{ type = "rewrite-path", prefix = "/shop", to = "/" }, { type = "rewrite-path", regex = "^/old/(.*)$", to = "/new/$1" }"#,
        "",
    );
    for (asked, got) in [
        ("/shop/cart?x=1", "/cart?x=1"),
        ("/shop", "/"),
        ("/sh%6fp/cart", "/cart"),
        ("/shop/old/a%20b", "/new/a%20b"),
        ("/other", "/other"),
        ("http://shop.example.com/shop/x", "/x"),
    ] {
        let (request, answer) = exchange(&weir, &origin, get(asked));
        assert_eq!(answer.status(), 200);
        assert_eq!(request.target(), got, "{asked}");
    }
    // The log has what the client asked for.
    weir.access(|line| line["path"] == "/shop/cart?x=1" && line["status"] == 200);
}

#[test]
fn a_request_tried_again_is_rewritten_again() {
    let origin = Origin::answering_once("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
    let weir = filtered(
        &origin,
        r#"{ type = "rewrite-path", prefix = "/shop", to = "/" }, { type = "request-id" }"#,
        "",
    );
    let (first, _) = exchange(&weir, &origin, get("/shop/a"));
    let (second, answer) = exchange(&weir, &origin, get("/shop/b"));
    assert_eq!(answer.status(), 200);
    assert_eq!(
        (first.target(), second.target()),
        ("/a".to_owned(), "/b".to_owned())
    );
}

#[test]
fn clients_are_sent_elsewhere_without_a_backend() {
    let weir = Weir::start(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nname = \"secure\"\nfilters = [{ type = \"redirect\", scheme = \"https\" }, { type = \"response-headers\", set = { X-Too = \"{pool}\" } }]\n\
         [[routes]]\npath = \"/closed\"\nfilters = [{ type = \"respond\", status = 503, body = \"closed\\n\" }]\n\
         [[routes]]\npath = \"/nothing\"\nfilters = [{ type = \"respond\", status = 204 }]\n",
    );
    let mut client = weir.client();
    let answer = client.ask(get("/a?b=c"));
    assert_eq!(answer.status(), 308);
    assert_eq!(
        answer.value("location").as_deref(),
        Some("https://shop.example.com/a?b=c")
    );
    assert_eq!(answer.value("x-too").as_deref(), Some("none"));
    assert_eq!(answer.text(), "");
    let answer = client.ask(get("/closed"));
    assert_eq!(
        (answer.status(), answer.text()),
        (503, "closed\n".to_owned())
    );
    assert_eq!(
        answer.value("content-type").as_deref(),
        Some("text/plain; charset=utf-8")
    );
    client.send("HEAD /closed HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer_to_head();
    assert_eq!(answer.value("content-length").as_deref(), Some("7"));
    let answer = client.ask(get("/nothing"));
    assert_eq!(answer.status(), 204);
    assert!(!answer.has("content-length"));
    weir.access(|line| {
        line["route"] == "secure"
            && line["status"] == 308
            && line.get("error").is_none()
            && line.get("pool").is_none_or(|pool| pool == "")
    });
    let metrics = weir.admin("/metrics").text();
    let row = "weir_http_requests_total{listener=\"web\",route=\"secure\",pool=\"none\",backend=\"none\",code=\"3xx\"} 1";
    assert!(metrics.contains(row), "{metrics}");
}

#[test]
fn a_redirect_that_leads_here_lets_the_request_pass() {
    let origin = Origin::named("fine");
    let weir = filtered(
        &origin,
        r#"{ type = "redirect", scheme = "https" }"#,
        "trusted_proxies = [\"127.0.0.0/8\"]",
    );
    let answer = weir.client().ask(get("/"));
    assert_eq!(answer.status(), 308);
    let (_, answer) = exchange(
        &weir,
        &origin,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n",
    );
    assert_eq!(answer.text(), "fine");
}

#[test]
fn requests_have_an_id() {
    let origin = Origin::named("fine");
    let weir = filtered(&origin, r#"{ type = "request-id" }"#, "");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (request, answer) = exchange(
            &weir,
            &origin,
            "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: forged\r\n\r\n",
        );
        let id = request.value("x-request-id").expect("an id");
        assert_eq!(answer.value("x-request-id").as_deref(), Some(&*id));
        assert!(
            id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
        weir.access(|line| {
            line["request_id"] == id && id.starts_with(line["id"].as_str().unwrap())
        });
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

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

#[test]
fn a_browser_that_asks_before_is_answered_without_the_backend() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 4\r\n\r\nfine",
    );
    let weir = filtered(
        &origin,
        r#"{ type = "cors", origins = ["https://*.example.com"], methods = ["PUT"], credentials = true }"#,
        "",
    );
    let mut client = weir.client();
    let asks = "OPTIONS /x HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example.com\r\nAccess-Control-Request-Method: PUT\r\n\r\n";
    let answer = client.ask(asks);
    assert_eq!((answer.status(), origin.hits()), (204, 0));
    let allowed = answer.value("access-control-allow-origin");
    assert_eq!(allowed.as_deref(), Some("https://app.example.com"));
    assert_eq!(
        answer.value("access-control-allow-methods").as_deref(),
        Some("PUT")
    );
    assert_eq!(answer.value("vary").as_deref(), Some("Origin"));
    for (from, allowed) in [
        ("https://app.example.com", true),
        ("https://evil.test", false),
    ] {
        let request = format!("GET /x HTTP/1.1\r\nHost: a\r\nOrigin: {from}\r\n\r\n");
        let answer = client.ask(request);
        assert_eq!(answer.text(), "fine");
        let origin = answer.value("access-control-allow-origin");
        assert_eq!(origin.as_deref(), allowed.then_some(from), "{from}");
        assert_eq!(answer.has("access-control-allow-credentials"), allowed);
    }
}

#[test]
fn errors_of_weir_have_pages_that_a_reload_reads_again() {
    let config = "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n\
        filters = [{ type = \"security-headers\" }, { type = \"error-pages\", pages = { \"502\" = \"$dir/502.html\" } }]\n\
        [[routes]]\npath = \"/closed\"\nfilters = [{ type = \"respond\", status = 502 }, { type = \"error-pages\", pages = { \"5xx\" = \"$dir/502.html\" } }]\n\
        [pools.was]\nbackends = [\"$dead\"]\nhealth.type = \"none\"\n";
    let weir = Weir::start(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"$dead\"]\nhealth.type = \"none\"\n",
    );
    let page = weir.directory.join("502.html");
    // Without its file the configuration is refused, and what was served goes on.
    let generation = weir.generation();
    weir.write(config);
    let refused = weir.post("/api/v1/reload");
    assert_eq!(refused.status(), 422, "{}", refused.text());
    assert!(refused.text().contains("502.html"), "{}", refused.text());
    assert_eq!(weir.generation(), generation);

    std::fs::write(&page, "<h1>sorry</h1> {request_id}").unwrap();
    assert_eq!(weir.post("/api/v1/reload").status(), 200);
    for target in ["/", "/closed"] {
        let answer = weir.get(target);
        assert_eq!(answer.status(), 502);
        assert!(
            answer.text().starts_with("<h1>sorry</h1> "),
            "{}",
            answer.text()
        );
        assert_eq!(
            answer.value("content-type").as_deref(),
            Some("text/html; charset=utf-8")
        );
    }
    let answer = weir.get("/");
    assert_eq!(
        answer.value("x-content-type-options").as_deref(),
        Some("nosniff")
    );
    let id = answer.text()["<h1>sorry</h1> ".len()..].to_owned();
    weir.access(|line| id.starts_with(line["id"].as_str().unwrap()));

    std::fs::write(&page, "again").unwrap();
    assert_eq!(weir.post("/api/v1/reload").status(), 200);
    assert_eq!(weir.get("/").text(), "again");
}

#[test]
fn explain_tells_the_filters_of_a_route() {
    let weir = Weir::start(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\nfilters = [{ type = \"request-id\" }, { type = \"redirect\", scheme = \"https\" }]\n",
    );
    let told = weir.admin("/api/v1/explain?url=http://a.example/");
    let told: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
    let filters = serde_json::json!(["request-id", "redirect"]);
    assert_eq!(told["route"]["filters"], filters, "{told}");
    assert_eq!(told["outcome"]["answered"], true, "{told}");
}

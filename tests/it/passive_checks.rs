//! What an http check may say beside up and down: that its server is to be drained, and that the body is not the one of a healthy one.

use std::sync::Arc;
use std::sync::Mutex;

use crate::support::origin::ok;
use crate::support::{Client, Origin, Weir, until};

/// Answers checks as it is told, and everything else with its name.
fn server(name: &str, check: &Arc<Mutex<String>>) -> Origin {
    let (check, name) = (Arc::clone(check), name.to_owned());
    Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            match request.target().as_str() {
                "/healthz" => visit.send(check.lock().unwrap().as_bytes()),
                _ => visit.send(ok(name.as_str())),
            };
        }
    })
}

fn says(check: &Arc<Mutex<String>>, status: &str, body: &str) {
    let length = body.len();
    *check.lock().unwrap() = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
}

fn start(origins: &[&Origin; 2], keys: &str) -> Weir {
    Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\nsticky = {{ mode = \"insert\" }}\n[pools.was]\n\
         backends = [{{ name = \"b0\", address = \"{}\" }}, {{ name = \"b1\", address = \"{}\" }}]\n\
         [pools.was.health]\ntype = \"http\"\npath = \"/healthz\"\ninterval = \"30ms\"\nfall = 2\nrise = 2\n{keys}\n",
        origins[0].address, origins[1].address
    ))
}

fn await_state(weir: &Weir, backend: usize, wanted: &str) {
    until(&format!("b{backend} to be {wanted}"), || {
        let status = weir.status();
        let effective = &status["pools"][0]["backends"][backend]["effective"];
        (effective == wanted).then_some(())
    });
}

#[test]
fn a_server_drains_itself_by_the_status_of_its_check() {
    let check = [Arc::default(), Arc::default()];
    check.iter().for_each(|check| says(check, "200 OK", ""));
    let origins = [server("x", &check[0]), server("y", &check[1])];
    let weir = start(&[&origins[0], &origins[1]], "drain_on_status = \"404,410\"");
    let cookie = until("a client of the first", || {
        let answer = weir.get("/");
        let cookie = answer.value("set-cookie").unwrap();
        (answer.text() == "x").then(|| cookie.split(';').next().unwrap().to_owned())
    });
    let at_home = |client: &mut Client| {
        client
            .ask(format!(
                "GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"
            ))
            .text()
    };
    says(&check[0], "410 Gone", "");
    await_state(&weir, 0, "drain");
    let status = weir.status();
    let backend = &status["pools"][0]["backends"][0];
    assert_eq!(
        (&backend["health"], &backend["set_by"]),
        (&"up".into(), &"check".into())
    );
    let mut client = weir.client();
    for _ in 0..10 {
        assert_eq!(
            at_home(&mut client),
            "x",
            "it keeps the clients that it has"
        );
        assert_eq!(weir.get("/").text(), "y", "and gets no new ones");
    }
    assert!(
        weir.metric(
            "weir_probe_total",
            &[("backend", "b0"), ("result", "drain")]
        ) > 0.0
    );
    weir.tells("health: was/b0 asks to be drained: status 410");
    says(&check[0], "503 No", "");
    await_state(&weir, 0, "down");
    says(&check[0], "404 Not Found", "");
    await_state(&weir, 0, "drain");
    says(&check[0], "200 OK", "");
    await_state(&weir, 0, "up");
    until("new clients to come again", || {
        (weir.get("/").text() == "x").then_some(())
    });
    // An operator's word stands over it, and a reload without the key ends it.
    says(&check[0], "404 Not Found", "");
    await_state(&weir, 0, "drain");
    weir.post("/api/v1/pools/was/backends/b0/maint");
    await_state(&weir, 0, "maint");
}

#[test]
fn a_body_must_have_its_text() {
    let check = [Arc::default(), Arc::default()];
    check
        .iter()
        .for_each(|check| says(check, "200 OK", "{\"status\": \"ok\"}"));
    let origins = [server("x", &check[0]), server("y", &check[1])];
    let weir = start(
        &[&origins[0], &origins[1]],
        "expect_body = 'status\": \"ok'",
    );
    await_state(&weir, 0, "up");
    says(&check[0], "200 OK", "{\"status\": \"sick\"}");
    await_state(&weir, 0, "down");
    weir.tells("health: was/b0 is down: the body has no");
    assert!(weir.metric("weir_probe_total", &[("backend", "b0"), ("result", "body")]) >= 2.0);
    (0..6).for_each(|_| assert_eq!(weir.get("/").text(), "y"));
    says(&check[0], "200 OK", "{\"status\": \"ok\"}");
    await_state(&weir, 0, "up");
}

//! Why a backend is not up, and since when: told by `weir status`, by its document and by `weir explain`.

use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::origin::{nobody, ok};
use crate::support::weir::{binary, get};
use crate::support::{Origin, Weir, until};

/// Answers with what it is told.
fn server(answer: &Arc<Mutex<&'static [u8]>>) -> Origin {
    let answer = Arc::clone(answer);
    Origin::start(move |visit| {
        while visit.request().is_ok() {
            visit.send(*answer.lock().unwrap());
        }
    })
}

fn config(origin: &Origin, pool: &str) -> String {
    format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\n\
         backends = [{{ name = \"b0\", address = \"{}\" }}, {{ name = \"b1\", address = \"{}\" }}]\n{pool}\n",
        origin.address,
        nobody(),
    )
}

/// What is told of a backend: its effective state, why, and since when.
fn told(weir: &Weir, backend: usize) -> (String, String, Option<String>) {
    let status = weir.status();
    let backend = &status["pools"][0]["backends"][backend];
    let text = |key: &str| backend[key].as_str().map(str::to_owned);
    (
        text("effective").unwrap(),
        text("because").unwrap(),
        text("since"),
    )
}

/// Waits until a backend is this because of this; since when.
#[track_caller]
fn await_told(weir: &Weir, backend: usize, state: &str, because: &str) -> String {
    let mut last = None;
    let since = crate::support::within(std::time::Duration::from_secs(20), || {
        let (is, why, since) = told(weir, backend);
        let found = (is == state && why == because).then(|| since.clone());
        last = Some((is, why, since));
        found
    });
    let since = since.unwrap_or_else(|| panic!("{state}: {because}: {last:?}"));
    since.expect("a time")
}

fn run(weir: &Weir, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    let command = command
        .args(arguments)
        .args(["--admin", &weir.address("admin").to_string()]);
    let output = command.env_remove("WEIR_ADMIN").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

const CHECK: &str = "[pools.was.health]\ntype = \"http\"\npath = \"/healthz\"\nexpect_body = \"fine\"\ninterval = \"30ms\"\nfall = 2\nrise = 2\n";

#[test]
fn what_is_down_says_why_and_since_when() {
    let answer: Arc<Mutex<&'static [u8]>> = Arc::default();
    *answer.lock().unwrap() = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
    let origin = server(&answer);
    let weir = Weir::start(&config(&origin, CHECK));
    let up = await_told(&weir, 0, "up", "the check passes");
    let down = await_told(&weir, 1, "down", "connection refused");
    let year = |since: &str| since.starts_with("20") && since.ends_with('Z');
    assert!(year(&up) && year(&down), "{up} {down}");

    *answer.lock().unwrap() = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let first = await_told(&weir, 0, "down", "status 404");
    assert!(first > up, "{first} {up}");
    // Another reason for the same state.
    *answer.lock().unwrap() = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nill";
    let later = await_told(&weir, 0, "down", "the body has no \"fine\"");
    assert_eq!(later, first, "it has been down all the time");

    let page = run(&weir, &["status"]);
    let line = format!("  b0: down since {first}: the body has no \"fine\"\n");
    assert!(page.contains(&line), "{page}");
    assert!(page.contains(&format!("  b1: down since {down}: connection refused\n")));
    assert!(!page.contains("not checked"), "{page}");
    let explained = run(&weir, &["explain", "http://a/"]);
    assert!(
        explained.contains(") down (the body has no \"fine\"), weight 1"),
        "{explained}"
    );

    *answer.lock().unwrap() = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
    let again = await_told(&weir, 0, "up", "the check passes");
    assert!(again > first, "{again} {first}");
    assert!(!run(&weir, &["status"]).contains("b0: "));
}

#[test]
fn what_an_operator_or_the_file_set_says_so() {
    let origin = Origin::start(|visit| {
        while visit.request().is_ok() {
            visit.send(ok("fine"));
        }
    });
    let config = config(&origin, CHECK);
    let weir = Weir::start(&config);
    await_told(&weir, 0, "up", "the check passes");
    assert_eq!(
        weir.post("/api/v1/pools/was/backends/b0/drain").status(),
        200
    );
    let (state, because, since) = told(&weir, 0);
    assert!(because.starts_with("set by api"), "{because}");
    let status = weir.status();
    let backend: &Value = &status["pools"][0]["backends"][0];
    assert_eq!(
        (state.as_str(), since.as_deref()),
        ("drain", backend["set_at"].as_str())
    );
    // Who set it is told once.
    let page = run(&weir, &["status"]);
    assert_eq!(page.matches("b0: ").count(), 1, "{page}");

    weir.post("/api/v1/pools/was/backends/b0/ready");
    let generation = weir.generation();
    weir.write(&config.replace("{ name = \"b0\",", "{ name = \"b0\", state = \"maint\","));
    weir.await_generation_after(generation);
    let (state, because, since) = told(&weir, 0);
    assert_eq!(
        (state.as_str(), because.as_str(), since),
        ("maint", "the file says state = \"maint\"", None)
    );
    let page = run(&weir, &["status"]);
    assert!(
        page.contains("  b0: maint: the file says state = \"maint\"\n"),
        "{page}"
    );
}

#[test]
fn what_nobody_checks_is_up_and_says_that() {
    let origin = Origin::named("a");
    let weir = Weir::start(&config(&origin, "health = { type = \"none\" }"));
    let (state, because, since) = told(&weir, 1);
    assert_eq!((state.as_str(), because.as_str()), ("up", "not checked"));
    assert!(since.is_some());
    assert_eq!(weir.status()["pools"][0]["checked"], false);
    assert_eq!(weir.metric("weir_backend_up", &[("backend", "b1")]), 1.0);
    let page = run(&weir, &["status"]);
    assert!(
        page.contains("\npool was (round-robin, not checked)\n"),
        "{page}"
    );

    let generation = weir.generation();
    weir.write(&config(&origin, CHECK));
    weir.await_generation_after(generation);
    await_told(&weir, 1, "down", "connection refused");
    assert_eq!(weir.status()["pools"][0]["checked"], true);
}

#[test]
fn what_is_ejected_says_by_what() {
    let origin = Origin::named("well");
    let rules =
        "health.type = \"none\"\n[pools.was.passive]\nconsecutive_errors = 3\nejection = \"1m\"\n";
    let weir = Weir::start(&config(&origin, rules));
    let mut client = weir.client();
    until("an ejection", || {
        client.ask(get("/"));
        (told(&weir, 1).0 == "ejected").then_some(())
    });
    let why = "3 errors in a row, the last failure: no connection";
    let since = await_told(&weir, 1, "ejected", why);
    let page = run(&weir, &["status"]);
    assert!(
        page.contains("  b1: ejected since ") && page.contains(why) && since.ends_with('Z'),
        "{page}"
    );
    assert!(page.contains("  b1: ejected for "), "{page}");
}

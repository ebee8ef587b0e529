//! The access log: one line a request with what an operator asks for, nothing that is secret, and no power over the data path.

use std::ffi::CString;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::weir::{get, plain, plain_at, post};
use crate::support::{Origin, Weir, until};

#[test]
fn every_field_of_a_request() {
    let origin = Origin::named("hello");
    let config = plain(&[&origin], "").replace("[[routes]]\n", "[[routes]]\nname = \"shop\"\n");
    let weir = Weir::start(&config);
    let mut client = weir.client();
    client.ask(post("/cart?x=y", "four"));
    client.ask(get("/again"));
    let line = weir.access(|line| line["path"] == "/cart?x=y");
    for (field, expected) in [
        ("listener", "web"),
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", "shop.example.com"),
        ("version", "HTTP/1.1"),
        ("route", "shop"),
        ("pool", "was"),
        ("backend", &origin.address.to_string()),
    ] {
        assert_eq!(line[field], expected, "{field} of {line}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(line["tries"], 1);
    assert_eq!(line["reused"], false);
    assert!(line["bytes_in"].as_u64().unwrap() >= 4, "{line}");
    assert!(line["bytes_out"].as_u64().unwrap() >= 5, "{line}");
    let duration = line["duration"].as_f64().unwrap();
    assert!(duration > 0.0 && duration < 10.0, "seconds: {line}");
    let overhead = line["overhead"].as_f64().unwrap();
    assert!(overhead >= 0.0 && overhead <= duration, "{line}");
    let time = line["time"].as_str().expect("a time as text");
    assert!(
        time.len() >= 20 && time.contains('T') && time.ends_with('Z'),
        "RFC 3339: {time}"
    );
    let second = weir.access(|line| line["path"] == "/again");
    assert_eq!(second["reused"], true);
    assert!(!second["id"].is_null() && second["id"] != line["id"]);
    assert!(
        line.get("error")
            .is_none_or(|error| error.is_null() || error == ""),
        "{line}"
    );
}

#[test]
fn what_weir_answers_itself_is_logged_too() {
    let origin = Origin::named("a");
    let config =
        plain(&[&origin], "").replace("[[routes]]\n", "[[routes]]\nhosts = [\"a.test\"]\n");
    let weir = Weir::start(&config);
    weir.get("/lost");
    weir.client()
        .ask("GET /bad HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n");
    let lost = weir.access(|line| line["status"] == 404);
    assert_eq!(lost["path"], "/lost");
    assert_eq!(lost["tries"], 0);
    let bad = weir.access(|line| line["status"] == 400);
    assert!(
        bad["error"].as_str().is_some_and(|error| !error.is_empty()),
        "{bad}"
    );
}

#[test]
fn errors_say_who_failed() {
    let weir = Weir::start(&plain_at(&[crate::support::origin::nobody()], ""));
    weir.get("/");
    let line = weir.access(|line| line["status"].as_u64() >= Some(502));
    assert!(
        line["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty()),
        "{line}"
    );
    assert!(line["tries"].as_u64() >= Some(1));
}

#[test]
fn a_client_that_went_away_is_499() {
    let origin = Origin::start(|visit| {
        visit.request().ok();
        visit.stall();
    });
    let weir = Weir::before(&[&origin]);
    let mut client = weir.client();
    client.send(get("/gone"));
    until("the request at the origin", || {
        (origin.hits() == 1).then_some(())
    });
    drop(client);
    assert_eq!(weir.access(|line| line["path"] == "/gone")["status"], 499);
}

#[test]
fn secrets_are_masked() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=SECRET1\r\nContent-Length: 0\r\n\r\n",
    );
    let config = plain(&[&origin], "").replace(
        "pool = \"was\"\n",
        "pool = \"was\"\nsticky = { mode = \"cookie-hash\" }\n",
    );
    for format in ["json", "combined"] {
        let weir =
            Weir::start(&(config.clone() + &format!("[log]\naccess_format = \"{format}\"\n")));
        let request = "GET /cart;jsessionid=SECRET2.jvm1/x;JSESSIONID=SECRET3?jsessionid=SECRET4&a=b HTTP/1.1\r\nHost: a.test\r\n\
                       Cookie: JSESSIONID=SECRET5; weir_was=SECRET6\r\nReferer: http://a.test/x;jsessionid=SECRET7?y\r\nAuthorization: Basic SECRET8\r\n\r\n";
        assert_eq!(weir.client().ask(request).status(), 200);
        weir.get("/end");
        weir.tells("/end");
        let output = weir.output();
        assert!(output.contains("/cart"), "{output}");
        assert!(!output.contains("SECRET"), "{output}");
    }
}

#[test]
fn a_line_cannot_be_forged() {
    let origin = Origin::named("a");
    for format in ["json", "combined"] {
        let weir = Weir::start(
            &(plain(&[&origin], "") + &format!("[log]\naccess_format = \"{format}\"\n")),
        );
        let nasty = "GET /\"x\\y\"?\"}{ HTTP/1.1\r\nHost: a.test\r\nUser-Agent: a\"b\\c\t\u{ff}{}\r\nReferer: \" - \"\r\n\r\n";
        let bytes: Vec<u8> = nasty.chars().map(|c| c as u8).collect();
        weir.client().ask(bytes);
        weir.client()
            .ask("GET /ctrl\x1b[31m HTTP/1.1\r\nHost: a.test\r\n\r\n");
        weir.get("/end");
        until("the lines", || {
            weir.stdout()
                .iter()
                .any(|line| line.contains("/end"))
                .then_some(())
        });
        for line in weir.stdout() {
            assert!(line.bytes().all(|byte| byte >= 0x20), "{line:?}");
            if format == "json" {
                assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
            } else if line.contains("HTTP/1.1") {
                let quotes = line
                    .replace("\\\\", "")
                    .replace("\\\"", "")
                    .matches('"')
                    .count();
                assert_eq!(quotes, 6, "{line}");
            }
        }
    }
}

#[test]
fn the_combined_format() {
    let origin = Origin::named("hello");
    let weir = Weir::start(&(plain(&[&origin], "") + "[log]\naccess_format = \"combined\"\n"));
    weir.client().ask("GET /a?b HTTP/1.1\r\nHost: a.test\r\nUser-Agent: tester/1\r\nReferer: http://b.test/\r\n\r\n");
    let line = until("a line", || {
        weir.stdout().into_iter().find(|line| line.contains("/a?b"))
    });
    let (start, rest) = line.split_once(" [").unwrap();
    assert_eq!(start, "127.0.0.1 - -");
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!(time.len(), "21/Nov/2026:00:00:00 +0000".len(), "{time}");
    assert!(rest.starts_with("\"GET /a?b HTTP/1.1\" 200 "), "{rest}");
    assert!(rest.contains("\"http://b.test/\" \"tester/1\""), "{rest}");
}

#[test]
fn a_file_is_reopened_on_sighup() {
    let origin = Origin::named("a");
    let weir = Weir::start(&(plain(&[&origin], "") + "[log]\naccess = \"$dir/access.log\"\n"));
    let file = weir.directory.join("access.log");
    let old = weir.directory.join("access.log.1");
    weir.get("/before");
    let holds = |path: &std::path::Path, part: &str| {
        fs::read_to_string(path).is_ok_and(|text| text.contains(part))
    };
    until("the first line", || holds(&file, "/before").then_some(()));
    fs::rename(&file, &old).unwrap();
    weir.signal(libc::SIGHUP);
    until("a new file", || file.exists().then_some(()));
    weir.get("/after");
    until("the second line", || holds(&file, "/after").then_some(()));
    assert!(!holds(&old, "/after"));
    assert!(!weir.output().contains("/before"));
}

#[test]
fn the_log_may_be_off() {
    let origin = Origin::named("a");
    let weir = Weir::start(&(plain(&[&origin], "") + "[log]\naccess = \"off\"\n"));
    for _ in 0..5 {
        weir.get("/quiet");
    }
    weir.signal(libc::SIGTERM);
    weir.await_exit();
    assert!(!weir.output().contains("/quiet"));
}

#[test]
fn every_line_is_there_at_the_end() {
    let origin = Origin::named("a");
    let weir = Weir::start(&(plain(&[&origin], "") + "[log]\naccess = \"$dir/access.log\"\n"));
    let mut client = weir.client();
    for number in 0..200 {
        client.ask(get(&format!("/n{number}")));
    }
    weir.signal(libc::SIGTERM);
    weir.await_exit();
    let text = fs::read_to_string(weir.directory.join("access.log")).unwrap();
    assert_eq!(text.lines().count(), 200);
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let origin = Origin::named("a");
    let pipe = std::env::temp_dir().join(format!("weir-it-pipe-{}", std::process::id()));
    let name = CString::new(pipe.to_str().unwrap()).unwrap();
    let _ = fs::remove_file(&pipe);
    // SAFETY: the name is a string that ends in NUL and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let _reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let config = plain(&[&origin], "") + &format!("[log]\naccess = \"{}\"\n", pipe.display());
    let weir = Weir::start(&config);
    let before = weir.resident();
    let mut client = weir.client().patient(Duration::from_secs(5));
    let long = "x".repeat(1000);
    for _ in 0..5000 {
        assert_eq!(client.ask(get(&format!("/{long}"))).text(), "a");
    }
    let grown = weir.resident().saturating_sub(before);
    assert!(
        grown < 64 * 1024,
        "the queue is bounded, but weir grew by {grown} KiB"
    );
    assert_eq!(weir.admin("/healthz").status(), 200);
    fs::remove_file(&pipe).unwrap();
}

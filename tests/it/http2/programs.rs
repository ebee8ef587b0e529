//! Programs that others wrote, over HTTP/2 through weir: curl, nghttp and h2load. `tests/run` installs them.

use std::process::Command;

use super::multiplexer;
use crate::support::origin::ok;
use crate::support::weir::plain;
use crate::support::{Origin, Weir};

/// What a program said; it must have ended well.
#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[test]
fn curl() {
    let origin = Origin::echo();
    let weir = Weir::before(&[&origin]);
    let url = format!("http://{}/a?b=c", weir.address("web"));
    let quiet = [
        "-sS",
        "--http2-prior-knowledge",
        "-w",
        " over %{http_version}",
    ];
    let said = run("curl", &[&quiet[..], &["-H", "X-One: 1", &url]].concat());
    assert!(said.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{said}");
    assert!(said.ends_with("\r\n\r\n over 2"), "{said}");
    let said = run("curl", &[&quiet[..], &["-d", "hello", &url]].concat());
    assert!(said.ends_with("\r\n\r\nhello over 2"), "{said}");
}

#[test]
fn nghttp() {
    let origin = Origin::answering(ok(vec![b'x'; 100_000]));
    let weir = Weir::before(&[&origin]);
    let url = format!("http://{}/", weir.address("web"));
    let said = run("nghttp", &["-nv", "-m", "20", &url]);
    let answers = said
        .lines()
        .filter(|line| line.contains(":status: 200"))
        .count();
    assert_eq!(answers, 20, "{said}");
    assert!(!said.contains("RST_STREAM"), "{said}");
    assert_eq!(origin.hits(), 20);
}

#[test]
fn h2load() {
    let origin = Origin::answering(ok(vec![b'x'; 128]));
    let weir = Weir::start(&plain(&[&origin], "[log]\naccess = \"off\"\n"));
    let url = format!("http://{}/", weir.address("web"));
    let said = run("h2load", &["-n", "10000", "-c", "8", "-m", "16", &url]);
    assert!(
        said.contains("10000 succeeded, 0 failed, 0 errored"),
        "{said}"
    );
    assert!(said.contains("status codes: 10000 2xx"), "{said}");
    assert_eq!(multiplexer(&weir).get("/").status(), 200);
}

/// HTTP/2 by ALPN, and HTTP/1.1 for who asks for that.
#[test]
fn curl_within_tls() {
    let origin = Origin::named("a");
    let config = plain(&[&origin], "").replace(
        "bind = [\"$web\"]",
        "bind = [\"$web\"]\ntls.certificates = [{ cert = \"$dir/a.pem\", key = \"$dir/a.key\" }]",
    );
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let weir = Weir::start_with(&config, |command| {
        // The file's directory is what the command was given.
        let file = command.get_args().last().unwrap();
        let directory = std::path::Path::new(file).parent().unwrap();
        std::fs::write(directory.join("a.pem"), made.cert.pem()).unwrap();
        std::fs::write(directory.join("a.key"), made.signing_key.serialize_pem()).unwrap();
    });
    let address = weir.address("web");
    let url = format!("https://localhost:{}/", address.port());
    for (wish, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let form = ["-sSk", "-w", " over %{http_version}", wish, &url];
        assert_eq!(run("curl", &form), format!("a over {version}"));
    }
    let line = weir.access(|line| line["version"] == "HTTP/2.0");
    assert_eq!(line["status"], 200, "{line}");
}

//! TLS as another implementation sees it: OpenSSL's client, for versions, groups, tickets and client certificates.
//! Without the program nothing is shown, and a line says so.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::tls::{Authority, Kind};
use crate::support::{Origin, Weir};

/// What `openssl s_client` says about a connection on which it asked for `/`.
fn openssl(weir: &Weir, authority: &Authority, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["9", "openssl", "s_client", "-connect"]);
    command.arg(weir.address("web").to_string());
    command.args(["-servername", "shop.test", "-CAfile", &authority.ca()]);
    // The end of its input is not the end of the connection: weir's is.
    command.args(["-verify_return_error", "-ign_eof"]);
    command.args(arguments);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let mut input = child.stdin.take().unwrap();
    // A connection that is refused takes none.
    let _ = input.write_all(request);
    drop(input);
    let output = child.wait_with_output().unwrap();
    let (said, wrong) = (&output.stdout, &output.stderr);
    [said, wrong]
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .concat()
}

#[test]
fn openssl_agrees() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: openssl is not installed");
        return;
    }
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"], Kind::default());
    authority.issue("alice", &[], Kind::default());
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (pair, ca) = (authority.pair("shop"), authority.ca());
    let weir = Weir::start(&format!(
        "[listeners.web]\nbind = [\"$web\"]\n[listeners.web.tls]\nclient_auth = \"request\"\nclient_ca = \"{ca}\"\ncertificates = [{{ {pair} }}]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\"]\nhealth.type = \"none\"\n",
        origin.address
    ));
    let path = |name: &str| authority.directory.join(name).display().to_string();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let session = path(name);
        let first = openssl(&weir, &authority, &[version, "-sess_out", &session]);
        assert!(first.contains(&format!("New, {name}")), "{first}");
        assert!(first.contains("Verify return code: 0 (ok)"), "{first}");
        assert!(first.contains("HTTP/1.1 200 OK"), "{first}");
        let second = openssl(&weir, &authority, &[version, "-sess_in", &session]);
        assert!(second.contains(&format!("Reused, {name}")), "{second}");
        assert!(second.contains("HTTP/1.1 200 OK"), "{second}");
    }
    let (cert, key) = (path("alice.pem"), path("alice.key"));
    let shown = openssl(&weir, &authority, &["-cert", &cert, "-key", &key]);
    assert!(shown.contains("HTTP/1.1 200 OK"), "{shown}");
    let subject = origin
        .requests()
        .pop()
        .and_then(|request| request.value("x-client-cert-subject"));
    assert!(subject.is_some_and(|subject| subject.contains("CN=alice")));
    let agreed = openssl(&weir, &authority, &["-alpn", "http/1.1"]);
    assert!(agreed.contains("ALPN protocol: http/1.1"), "{agreed}");
    let old = openssl(
        &weir,
        &authority,
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
    );
    assert!(old.contains("SSL alert number"), "{old}");
    weir.settles(
        "weir_tls_handshake_errors_total",
        &[("reason", "version")],
        1.0,
    );
}

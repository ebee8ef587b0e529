//! haproxy reads the PROXY headers that weir writes, and writes those that it reads.

use std::net::{SocketAddr, TcpStream};

use super::{client_from, config, forwarded_for, requiring};
use crate::support::weir::get;
use crate::support::{Origin, Weir, until};

/// A running haproxy, which dies with the test.
struct Haproxy(std::process::Child, std::path::PathBuf);

impl Haproxy {
    fn start(text: &str, address: SocketAddr) -> Haproxy {
        let file = std::env::temp_dir().join(format!(
            "weir-haproxy-{}-{}",
            std::process::id(),
            address.port()
        ));
        std::fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new("haproxy");
        command.arg("-f").arg(&file).arg("-db");
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        crate::support::process::die_with_parent(&mut command);
        let child = command.spawn().unwrap();
        until("haproxy to listen", || {
            TcpStream::connect(address).ok().map(drop)
        });
        Haproxy(child, file)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

#[test]
fn haproxy_agrees() {
    if std::process::Command::new("haproxy")
        .arg("-v")
        .output()
        .is_err()
    {
        println!("skipped: haproxy is not installed");
        return;
    }
    let head = "global\n maxconn 100\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n";
    let origin = Origin::named("was");
    let weir = Weir::start(&requiring(&origin, ""));
    for send in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl,authority",
    ] {
        let address = crate::support::process::free_address();
        let web = weir.address("web");
        let text = format!(
            "{head}frontend f\n bind {address}\n unique-id-format %ci:%cp\n default_backend b\nbackend b\n server s {web} {send} check\n"
        );
        let _haproxy = Haproxy::start(&text, address);
        let mut client = until("a check of haproxy's", || {
            let mut client = client_from("127.0.0.5", address);
            client.try_send(get("/").as_bytes()).ok()?;
            (client.try_answer().ok()?.status() == 200).then_some(client)
        });
        assert_eq!(client.ask(get("/")).text(), "was");
        assert_eq!(
            forwarded_for(&origin).as_deref(),
            Some("127.0.0.5"),
            "{send}"
        );
    }
    assert_eq!(weir.metric("weir_proxy_protocol_errors_total", &[]), 0.0);
    for version in ["v1", "v2"] {
        let (address, echo) = (crate::support::process::free_address(), Origin::echo());
        let text = format!(
            "{}frontend f\n bind {address} accept-proxy\n http-request set-header X-Seen %[src]:%[src_port]-%[dst]:%[dst_port]\n default_backend b\nbackend b\n server s {}\n",
            head.replace("mode tcp", "mode http"),
            echo.address
        );
        let _haproxy = Haproxy::start(&text, address);
        let pool = format!("proxy_protocol = \"{version}\"");
        let checked = config("", "", &pool, &[address]).replace("\"none\"", "\"http\"");
        let weir = Weir::start(&checked);
        let mut client = weir.client();
        let (own, web) = (
            client.reader.stream.local_addr().unwrap(),
            weir.address("web"),
        );
        let answer = client.ask(get("/"));
        assert!(
            answer.text().contains(&format!("{own}-{web}")),
            "{}",
            answer.text()
        );
        weir.settles("weir_backend_up", &[("pool", "was")], 1.0);
    }
}

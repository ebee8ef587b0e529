//! Tomcat's own examples behind weir's TLS listener, for curl, nghttp, h2load, a WebSocket client and a browser.
//! Two Tomcats with sessions of their own stand behind it, so that a client that strays loses its session.
//! Read `page.html` and `websocket.py` for the clients that are programs of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

use crate::ports;
use crate::process::{Process, wait};
use crate::stage::{PATIENCE, Stage, Talk, missing_module, python, script};

const HOME: &str = "/usr/share/tomcat10";
const EXAMPLES: &str = "/usr/share/tomcat10-examples/examples";
const HOST: &str = "shop.example.com";
const NAMES: [&str; 2] = ["a", "b"];

fn missing_tomcat() -> Option<String> {
    if !Path::new(EXAMPLES).exists() {
        return Some("Debian's package tomcat10-examples is not installed".to_owned());
    }
    missing_program("java", "-version")
}

fn missing_program(name: &str, version: &str) -> Option<String> {
    let works = Command::new(name).arg(version).output();
    let is_there = works.is_ok_and(|output| output.status.success());
    (!is_there).then(|| format!("no {name} on the PATH"))
}

/// What is not here for curl, nghttp and h2load, if anything.
pub fn missing_tools() -> Option<String> {
    ["curl", "nghttp", "h2load"]
        .into_iter()
        .find_map(|name| missing_program(name, "--version"))
        .or_else(missing_tomcat)
}

/// What is not here for the WebSocket client, if anything.
pub fn missing_websockets() -> Option<String> {
    missing_tomcat().or_else(|| missing_module("websockets"))
}

/// What is not here for the browser, if anything.
pub fn missing_browser() -> Option<String> {
    missing_tomcat().or_else(|| missing_program("chromium", "--version"))
}

/// Two Tomcats and a weir that speaks TLS before them.
struct Shop {
    stage: Stage,
    certificate: String,
    /// The hash of its public key, by which a browser may be told to trust it.
    pin: String,
    directory: PathBuf,
    _tomcats: Vec<Process>,
}

impl Shop {
    fn start(directory: &Path) -> Self {
        let servers = NAMES.map(|name| (name, ports::free()));
        let mut tomcats: Vec<Process> = (servers.iter())
            .map(|(name, address)| tomcat(&directory.join(name), name, address.port()))
            .collect();
        let key = KeyPair::generate().expect("a key");
        let names = [HOST, "localhost"].map(str::to_owned);
        let params = CertificateParams::new(names).expect("names");
        let own = params.self_signed(&key).expect("a certificate");
        let certificate = directory.join("shop.pem");
        fs::write(&certificate, own.pem()).expect("a file");
        fs::write(directory.join("shop.key"), key.serialize_pem()).expect("a file");
        let [a, b] = servers
            .map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }}"));
        let text = format!(
            "tls.certificates = [{{ cert = \"{}\", key = \"{}\" }}]\n\
             [[routes]]\npool = \"was\"\nsticky = {{ mode = \"insert\" }}\n\
             [pools.was]\nbackends = [{a}, {b}]\n\
             health = {{ type = \"http\", path = \"/examples/servlets/servlet/HelloWorldExample\", timeout = \"1s\" }}\n",
            certificate.display(),
            directory.join("shop.key").display(),
        );
        let ended =
            || (tomcats.iter_mut()).find_map(|tomcat| tomcat.ended().map(|_| tomcat.tail(40)));
        let stage = Stage::start_watching(directory, &text, 2, ended);
        Shop {
            stage,
            certificate: certificate.display().to_string(),
            pin: STANDARD.encode(digest(&SHA256, &key.subject_public_key_info())),
            directory: directory.to_path_buf(),
            _tomcats: tomcats,
        }
    }

    fn url(&self, host: &str, target: &str) -> String {
        format!("https://{host}:{}{target}", self.stage.web.port())
    }

    /// What curl prints of a page; `jar` holds its cookies.
    fn curl(&self, version: &str, jar: &str, target: &str) -> String {
        let jar = self.directory.join(jar).display().to_string();
        let resolve = format!("{HOST}:{}:127.0.0.1", self.stage.web.port());
        let url = self.url(HOST, target);
        run(
            "curl",
            &[
                "-sSf",
                "--max-time",
                "20",
                "-w",
                "over %{http_version}",
                version,
                "--cacert",
                &self.certificate,
                "--resolve",
                &resolve,
                "-b",
                &jar,
                "-c",
                &jar,
                &url,
            ],
        )
    }
}

/// Starts a Tomcat that serves the examples and one page more.
fn tomcat(base: &Path, name: &str, port: u16) -> Process {
    for directory in [
        "conf/Catalina/localhost",
        "logs",
        "temp",
        "work",
        "webapps/ROOT",
    ] {
        fs::create_dir_all(base.join(directory)).expect("a directory can be made");
    }
    let write = |path: &str, text: &str| fs::write(base.join(path), text).expect("a file");
    write(
        "conf/server.xml",
        &format!(
            r#"<Server port="-1">
  <Service name="Catalina">
    <Connector port="{port}" address="127.0.0.1" protocol="HTTP/1.1"/>
    <Engine name="Catalina" defaultHost="localhost" jvmRoute="{name}">
      <Host name="localhost" appBase="webapps" autoDeploy="false" unpackWARs="false"/>
    </Engine>
  </Service>
</Server>
"#
        ),
    );
    write("conf/context.xml", "<Context reloadable=\"false\"/>\n");
    write(
        "conf/Catalina/localhost/examples.xml",
        &format!("<Context docBase=\"{EXAMPLES}\"/>\n"),
    );
    for file in ["web.xml", "catalina.properties"] {
        let from = Path::new(HOME).join("etc").join(file);
        fs::copy(from, base.join("conf").join(file)).expect("a file of the package tomcat10");
    }
    fs::copy(script("page.html"), base.join("webapps/ROOT/page.html")).expect("a file");
    fs::write(base.join("webapps/ROOT/text"), "x".repeat(5000)).expect("a file");
    let base = base.display();
    let arguments = [
        "-Xmx128m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        &format!("-Dcatalina.home={HOME}"),
        &format!("-Dcatalina.base={base}"),
        &format!("-Djava.io.tmpdir={base}/temp"),
        "-classpath",
        &format!("{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar"),
        "org.apache.catalina.startup.Bootstrap",
        "start",
    ];
    let log = PathBuf::from(format!("{base}/out.log"));
    Process::start("java", &arguments.map(str::to_owned), &log)
}

/// What a program said; it must have ended well.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.expect("the program can be run");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

/// The servlet examples: a client's session stays with it, over both versions.
pub fn servlets(directory: &Path) {
    let shop = Shop::start(directory);
    let mut homes = [0; 2];
    for (version, shown) in [("--http1.1", "over 1.1"), ("--http2", "over 2")] {
        let hello = shop.curl(
            version,
            "hello",
            "/examples/servlets/servlet/HelloWorldExample",
        );
        assert!(
            hello.contains("Hello World!") && hello.ends_with(shown),
            "{hello}"
        );
        for client in 0..6 {
            let jar = format!("jar{version}{client}");
            let session = "/examples/servlets/servlet/SessionExample";
            let first = shop.curl(version, &jar, session);
            let id = session_id(&first);
            homes[usize::from(id.ends_with(".b"))] += 1;
            let set = format!("{session}?dataname=color&datavalue=c{client}");
            assert_eq!(session_id(&shop.curl(version, &jar, &set)), id);
            for _ in 0..3 {
                let page = shop.curl(version, &jar, session);
                assert_eq!(session_id(&page), id, "the session is another");
                assert!(page.contains(&format!("color = c{client}")), "{page}");
                assert!(page.ends_with(shown), "{page}");
            }
        }
    }
    println!("  12 sessions over HTTP/1.1 and HTTP/2, at their servers: {homes:?}");
    assert!(homes.iter().all(|&count| count > 0), "{homes:?}");
    assert_eq!(
        shop.stage.metric("weir_sticky_total", "result=\"lost\""),
        0.0
    );
}

/// The id that the example prints, with the name of its server at the end.
fn session_id(page: &str) -> String {
    let id = page.lines().find_map(|line| {
        let (_, id) = line.split_once("Session ID:")?;
        id.split(['<', ' ']).find(|word| !word.is_empty())
    });
    id.unwrap_or_else(|| panic!("no session: {page}"))
        .to_owned()
}

/// nghttp and h2load over TLS.
pub fn tools(directory: &Path) {
    let shop = Shop::start(directory);
    let url = shop.url("localhost", "/text");
    let said = run("nghttp", &["-nv", "-m", "20", &url]);
    assert!(said.contains("The negotiated protocol: h2"), "{said}");
    let good = said.lines().filter(|line| line.contains(":status: 200"));
    assert_eq!(good.count(), 20, "{said}");
    let said = run("h2load", &["-n", "5000", "-c", "8", "-m", "16", &url]);
    assert!(said.contains("Application protocol: h2"), "{said}");
    assert!(
        said.contains("5000 succeeded, 0 failed, 0 errored"),
        "{said}"
    );
    let line = said.lines().find(|line| line.starts_with("finished in"));
    println!(
        "  h2load over TLS, a debug build: {}",
        line.unwrap_or_default()
    );
}

/// Tomcat's echo example, for a client that speaks WebSocket over HTTP/1.1 within TLS.
pub fn websocket(directory: &Path) {
    let shop = Shop::start(directory);
    for endpoint in ["echoProgrammatic", "echoAnnotation"] {
        let url = shop.url("localhost", &format!("/examples/websocket/{endpoint}"));
        let url = url.replace("https:", "wss:");
        let words = [script("websocket.py"), url, shop.certificate.clone()];
        let mut client = Talk::start(&python(), &words);
        client.hear("holding");
        assert_eq!(shop.stage.metric("weir_backend_upgraded", ""), 1.0);
        client.go_on();
        let told = client.end();
        assert_eq!(told["wrong"].as_array().map(Vec::len), Some(0), "{told}");
        wait("the connection has ended", PATIENCE, || {
            (shop.stage.metric("weir_backend_upgraded", "") == 0.0).then_some(())
        });
    }
}

/// A browser loads a page over HTTP/2 and holds a WebSocket.
pub fn browser(directory: &Path) {
    let shop = Shop::start(directory);
    let profile = directory.join("profile").display().to_string();
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        &format!("--user-data-dir={profile}"),
        &format!("--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND"),
        &format!("--ignore-certificate-errors-spki-list={}", shop.pin),
        // Without it the browser ends once the page is loaded.
        "--remote-debugging-port=0",
        &shop.url(HOST, "/page.html"),
    ];
    let log = directory.join("browser.log");
    let mut browser = Process::start("chromium", &arguments.map(str::to_owned), &log);
    let lines = wait("the page tells what it saw", PATIENCE * 2, || {
        if let Some(status) = browser.ended() {
            panic!("the browser ended, {status}:\n{}", browser.tail(40));
        }
        let lines = shop.stage.access();
        lines.contains("\"path\":\"/told/").then_some(lines)
    });
    assert!(
        lines.contains("\"path\":\"/told/h2/one/two/three\""),
        "{lines}"
    );
    let upgraded = shop.stage.metric("weir_backend_upgraded", "");
    assert_eq!(upgraded, 1.0, "it holds its WebSocket");
    let status = browser.terminate(PATIENCE);
    assert!(status.is_some(), "the browser does not end");
    let line = wait("the WebSocket has ended", PATIENCE, || {
        let lines = shop.stage.access();
        let line = lines
            .lines()
            .find(|line| line.contains("/echoProgrammatic"));
        line.map(str::to_owned)
    });
    let version = line.split("\"version\":\"").nth(1).unwrap_or_default();
    let version = version.split('"').next().unwrap_or_default();
    println!("  Chromium: its page over h2, its WebSocket over {version}");
}

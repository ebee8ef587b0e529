//! The image, built by the Dockerfile around the binary of this run, and run as the documents say.
//! It must need no network: the base image is imported under the name that the Dockerfile asks for.
//! Read `compiled.rs` for the image whose program the Dockerfile compiles, `site.rs` for the compose file.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::bases::{base, suite};
use crate::engine::Engine;
use crate::process::wait;
use crate::process::{run, said, there};
use crate::{engine, root};

/// How long a container may take to be found well or ill.
pub const VERDICT: Duration = Duration::from_secs(60);
/// CAP_NET_BIND_SERVICE as a mask.
const LOW_PORTS: &str = "0000000000000400";

/// As `docker/README.md` tells to run it.
const HARDENED: [&str; 7] = [
    "--network=host",
    "--read-only",
    "--cap-drop=ALL",
    "--cap-add=NET_BIND_SERVICE",
    "--volume=weir-state:/var/lib/weir",
    "--detach",
    "--name",
];

pub fn missing() -> Option<String> {
    if !there("strip") {
        return Some("Debian's package binutils is not installed".to_owned());
    }
    engine().err().or_else(|| base().err())
}

/// The engine with the image in it, `weir:latest`.
pub fn stage() -> &'static Engine {
    static BUILT: OnceLock<()> = OnceLock::new();
    let engine = engine().expect("it was asked for before");
    BUILT.get_or_init(|| {
        let base = base().expect("it was asked for before");
        let suite = suite(&base);
        let tag = format!("debian:{suite}-slim");
        let file = fs::read_to_string(root().join("docker/Dockerfile")).expect("it is there");
        assert!(
            file.contains("FROM debian:${DEBIAN}-slim"),
            "the Dockerfile wants another base"
        );
        run(engine.docker().arg("import").arg(&base).arg(&tag));
        // Without what debuggers read it is a tenth as large.
        let given = root().join("target/container/weir");
        run(Command::new("strip")
            .arg("-o")
            .arg(&given)
            .arg(env!("CARGO_BIN_EXE_weir")));
        run(engine
            .docker()
            .args([
                "build",
                "--network=host",
                "--file=docker/Dockerfile",
                "--tag=weir",
            ])
            .args([
                "--build-arg=BINARY=given",
                "--build-arg=GIVEN=target/container/weir",
            ])
            .arg(format!("--build-arg=DEBIAN={suite}"))
            .arg(".")
            .current_dir(root()));
        fs::remove_file(given).expect("it is there");
    });
    engine
}

/// The image around the binary of this run.
pub fn image(directory: &Path) {
    serves(stage(), "weir", directory);
}

/// weir serves on port 80 without being root, its root stays as it is, and it ends well.
pub fn serves(engine: &Engine, image: &str, directory: &Path) {
    let pages = directory.join("pages");
    fs::create_dir_all(&pages).expect("a directory can be made");
    fs::write(pages.join("index.html"), "from the backend").expect("a file can be written");
    let port = "8081";
    let served = [
        "-m",
        "http.server",
        port,
        "--bind",
        "127.0.0.1",
        "--directory",
    ];
    let served: Vec<&str> = served.into_iter().chain(pages.to_str()).collect();
    let _backend = engine.start_inside("python3", &served, &directory.join("backend.log"));

    let config = folder(directory, &configuration("sticky = { mode = \"insert\" }"));
    run(engine
        .docker()
        .arg("run")
        .args(HARDENED)
        .args(["one", "--health-interval=1s"])
        .arg(&config)
        .arg(image));
    becomes(engine, "one", "healthy");
    let page = || {
        run(engine
            .inside("curl")
            .args(["-s", "-i", "http://127.0.0.1/"]))
    };
    wait("the backend's page through weir", VERDICT, || {
        page().contains("from the backend").then_some(())
    });

    assert_is_confined(engine, "one");
    let metrics = run(engine
        .inside("curl")
        .args(["-s", "http://127.0.0.1:9900/metrics"]));
    assert!(
        metrics.contains("weir_sticky_secret_ephemeral 0"),
        "the volume is not written to:\n{metrics}"
    );

    // A new file in the mounted folder's place of the old one.
    let file = directory.join("etc/weir.toml");
    fs::write(directory.join("etc/next"), configuration("")).expect("a file can be written");
    fs::rename(directory.join("etc/next"), file).expect("a file can be renamed");
    wait("weir takes the new file", VERDICT, || {
        let output = engine
            .docker()
            .args(["exec", "one", "/usr/bin/weir", "status"])
            .output();
        output
            .is_ok_and(|output| said(&output).contains("generation 2"))
            .then_some(())
    });

    run(engine.docker().args(["stop", "--time=30", "one"]));
    let code = run(engine
        .docker()
        .args(["inspect", "--format={{.State.ExitCode}}", "one"]));
    let log = run(engine.docker().args(["logs", "one"]));
    assert_eq!(code.trim(), "0", "{log}");
    run(engine.docker().args(["rm", "one"]));
}

/// Neither root nor anything of it: one capability, a root that cannot be written to, no shell.
pub fn assert_is_confined(engine: &Engine, container: &str) {
    let status = status_of(engine, container);
    let field = |key: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default()
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(field("Uid"), "65532");
    assert_eq!(field("Gid"), "65532");
    assert_eq!(field("CapEff"), LOW_PORTS);
    assert_eq!(field("CapBnd"), LOW_PORTS);
    let process = field("Pid");
    let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).expect("it runs");
    let top = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"));
    let options = top
        .and_then(|line| line.split(' ').nth(5))
        .expect("it has a root");
    assert!(options.split(',').any(|option| option == "ro"), "{options}");
    for shell in ["/bin/sh", "/bin/bash", "/usr/bin/dpkg"] {
        let output = engine
            .docker()
            .args(["exec", container, shell, "-c", "true"])
            .output();
        assert!(
            output.is_ok_and(|output| !output.status.success()),
            "there is {shell}"
        );
    }
}

/// `/proc/PID/status` of a container's first process. The engine knows it by its number in the engine's namespace only.
fn status_of(engine: &Engine, container: &str) -> String {
    let known = run(engine
        .docker()
        .args(["inspect", "--format={{.State.Pid}}", container]));
    let known = known.trim();
    let entries = fs::read_dir("/proc").expect("it is there").flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    let is_it = |text: &String| {
        let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let mut numbers = line.unwrap_or_default().split_whitespace().skip(1);
        text.starts_with("Name:\tweir\n")
            && numbers.next() == Some(known)
            && numbers.next() == Some("1")
    };
    texts
        .into_iter()
        .find(is_it)
        .expect("a process of the container")
}

/// The health check is one: a weir that cannot be asked is not well.
pub fn unhealthy(directory: &Path) {
    let engine = stage();
    let config = folder(directory, &configuration(""));
    run(engine
        .docker()
        .arg("run")
        .args(HARDENED)
        .args([
            "two",
            "--env=WEIR_ADMIN=127.0.0.1:1",
            "--health-interval=1s",
            "--health-retries=1",
        ])
        .args(["--health-start-period=0s"])
        .arg(&config)
        .arg("weir"));
    becomes(engine, "two", "unhealthy");
    run(engine.docker().args(["rm", "--force", "two"]));
}

/// A route to the backend at port 8081, with more on it.
fn configuration(sticky: &str) -> String {
    format!(
        "[listeners.web]\nbind = [\"127.0.0.1:80\"]\n[[routes]]\npool = \"was\"\n{sticky}\n\
         [pools.was]\nbackends = [\"127.0.0.1:8081\"]\n"
    )
}

/// Writes the configuration to a folder of its own; how to mount that.
fn folder(directory: &Path, text: &str) -> String {
    let folder = directory.join("etc");
    fs::create_dir_all(&folder).expect("a directory can be made");
    fs::write(folder.join("weir.toml"), text).expect("a file can be written");
    format!("--volume={}:/etc/weir:ro", folder.display())
}

pub fn becomes(engine: &Engine, container: &str, health: &str) {
    wait(&format!("{container} is {health}"), VERDICT, || {
        let state = run(engine.docker().args([
            "inspect",
            "--format={{.State.Status}} {{.State.Health.Status}}",
            container,
        ]));
        let log = || run(engine.docker().args(["logs", container]));
        assert!(
            !state.starts_with("exited"),
            "{container} ended:\n{}",
            log()
        );
        (state.trim() == format!("running {health}")).then_some(())
    });
}

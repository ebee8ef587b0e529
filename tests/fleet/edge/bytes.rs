//! Protocols that weir does not know, through its tcp listeners: PostgreSQL with its own programs, Redis with its own.
//! What a client gets through weir is what it gets without it; nothing here is written in either protocol.
//! Read `stage.rs` for weir.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::ports;
use crate::process::{Process, wait};
use crate::stage::{PATIENCE, Stage, Talk};

/// What `postgresql` needs.
pub fn missing_postgres() -> Option<String> {
    let missing = || "Debian's package postgresql is not installed".to_owned();
    postgres_programs().is_none().then(missing)
}

/// What `redis` needs.
pub fn missing_redis() -> Option<String> {
    let runs = Command::new("redis-benchmark").arg("--version").output();
    let missing = || "Debian's package redis-server is not installed".to_owned();
    (!runs.is_ok_and(|output| output.status.success())).then(missing)
}

/// A tcp listener before this server.
fn stage(directory: &Path, server: SocketAddr) -> (Stage, SocketAddr) {
    let listener = ports::free();
    let text = text(listener, &[server]);
    (Stage::start(directory, &text, 1), listener)
}

/// What the file says of these servers.
fn text(listener: SocketAddr, servers: &[SocketAddr]) -> String {
    let servers: Vec<String> = servers.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "[listeners.db]\nbind = [\"{listener}\"]\nprotocol = \"tcp\"\n[[routes]]\nlisteners = [\"db\"]\npool = \"db\"\n\
         [pools.db]\nbackends = [{}]\nhealth.interval = \"200ms\"\n",
        servers.join(", ")
    )
}

/// A server comes and goes again beside the one that is there.
fn reload_twice(stage: &Stage, listener: SocketAddr, server: SocketAddr) {
    stage.reload(&text(listener, &[server, ports::free()]));
    stage.reload(&text(listener, &[server]));
}

/// A session that outlasts reloads, transactions by the thousand, and tables in and out, are the same through weir.
pub fn postgresql(directory: &Path) {
    let programs = postgres_programs().expect("PostgreSQL is installed");
    let program = |name: &str| programs.join(name).display().to_string();
    let address = ports::free();
    let data = directory.join("data");
    fs::create_dir_all(&data).expect("a directory can be made");
    own(&data);
    let path = data.display().to_string();
    let make = [
        &program("initdb"),
        "-D",
        &path,
        "-U",
        "weir",
        "--auth=trust",
        "--no-sync",
    ];
    let mut make = as_postgres(&make, &directory.join("initdb.log"));
    let made = wait("initdb ends", PATIENCE, || make.ended());
    assert!(made.success(), "{}", make.tail(20));
    let port = address.port().to_string();
    let serve = [
        &program("postgres"),
        "-D",
        &path,
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-k",
        "",
        "-c",
        "fsync=off",
    ];
    let _server = as_postgres(&serve, &directory.join("postgres.log"));
    let (stage, through) = stage(directory, address);

    let run = |name: &str, at: SocketAddr, more: &[&str]| {
        let port = at.port().to_string();
        let place = ["-h", "127.0.0.1", "-p", &port, "-U", "weir"];
        let mut command = Command::new(program(name));
        done(command.args(place).args(more).arg("postgres"))
    };
    // A table that only this session sees.
    let port = through.port().to_string();
    let place = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "weir",
        "-qAt",
        "postgres",
    ];
    let mut session = Talk::start(&program("psql"), &place.map(str::to_owned));
    session.say("create temp table own as select 7 as number; select number from own;");
    session.hear("7");
    let psql = |at, query| run("psql", at, &["-qAt", "-c", query]);
    psql(
        through,
        "create table big as select i, md5(i::text) as word from generate_series(1, 400000) i",
    );
    let query = "copy big to stdout";
    let (direct, passed) = (psql(address, query), psql(through, query));
    assert!(
        direct.len() > 15_000_000 && direct == passed,
        "another table"
    );
    reload_twice(&stage, through, address);
    run("pgbench", through, &["-i", "-q", "-s", "1"]);
    let told = run("pgbench", through, &["-c", "8", "-j", "2", "-t", "250"]);
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(
        told.contains("number of transactions actually processed: 2000/2000"),
        "{told}"
    );
    // A new connection for every transaction.
    let told = run("pgbench", through, &["-C", "-S", "-c", "4", "-t", "100"]);
    assert!(String::from_utf8_lossy(&told).contains("400/400"));
    session.say("update own set number = number + 1; select number from own;");
    session.hear("8");
    assert!(stage.metric("weir_tcp_connections_total", "pool=\"db\"") >= 400.0);
    assert_eq!(stage.metric("weir_tcp_connections_total", "_reset"), 0.0);
}

/// Pipelines, a value of many megabytes and a subscriber that waits are the same through weir, reloads or not.
pub fn redis(directory: &Path) {
    let address = ports::free();
    let port = address.port().to_string();
    let serve = [
        "--bind",
        "127.0.0.1",
        "--port",
        &port,
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    let serve = serve.map(str::to_owned);
    let _server = Process::start("redis-server", &serve, &directory.join("redis.log"));
    let (stage, through) = stage(directory, address);
    let port = through.port().to_string();
    let redis = |program: &str, more: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &port]).args(more);
        command
    };

    let value = directory.join("value");
    let bytes: Vec<u8> = (0..32 << 20)
        .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(&value, &bytes).expect("a file can be written");
    let input = fs::File::open(&value).expect("it can be read");
    done(redis("redis-cli", &["-x", "set", "big"]).stdin(input));
    let got = done(&mut redis("redis-cli", &["--raw", "get", "big"]));
    assert!(got.strip_suffix(b"\n") == Some(&bytes[..]), "another value");

    let heard = directory.join("heard");
    let output = fs::File::create(&heard).expect("a file can be made");
    let mut subscriber = redis("redis-cli", &["subscribe", "news"])
        .stdout(output)
        .spawn()
        .expect("redis-cli starts");
    let hears = |word: &str| {
        fs::read_to_string(&heard)
            .unwrap_or_default()
            .contains(word)
    };
    wait("the subscription", PATIENCE, || hears("news").then_some(()));
    reload_twice(&stage, through, address);
    let told = done(&mut redis(
        "redis-benchmark",
        &["-q", "-n", "40000", "-P", "16", "-t", "set,get,lrange_300"],
    ));
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.matches("requests per second").count() >= 3, "{told}");
    done(&mut redis("redis-cli", &["publish", "news", "it-is-out"]));
    wait("the news", PATIENCE, || hears("it-is-out").then_some(()));
    let _ = subscriber.kill();
    let _ = subscriber.wait();
    assert!(stage.metric("weir_tcp_bytes_total", "direction=\"out\"") > 32e6);
}

/// What a program wrote that ended well.
fn done(command: &mut Command) -> Vec<u8> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stderr(Stdio::piped())
        .output()
        .expect("the program starts");
    assert!(
        status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&stderr)
    );
    stdout
}

/// PostgreSQL refuses to run as root: its package's user runs it then.
fn as_postgres(words: &[&str], log: &Path) -> Process {
    let change = [
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "--",
    ];
    // The change of user undoes what was asked about the parent's death.
    let again = ["setpriv", "--pdeathsig", "KILL", "--"];
    let all = match is_root() {
        true => [&["setpriv"], &change[..], &again, words].concat(),
        false => words.to_vec(),
    };
    let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
    Process::start(&all[0], &all[1..], log)
}

fn own(directory: &Path) {
    if is_root() {
        done(Command::new("chown").arg("postgres").arg(directory));
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Where Debian keeps PostgreSQL's own programs: the newest version's.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let programs = versions.map(|entry| entry.path().join("bin"));
    programs.filter(|bin| bin.join("pgbench").exists()).max()
}

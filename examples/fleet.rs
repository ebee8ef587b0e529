//! A fleet of three web application servers with log-in sessions, and weir in front of it, in one process.
//!
//!     cargo run --release --example fleet
//!
//! It prints a page to open and a configuration file to edit: add the line of the fourth server to the file, and that server
//! takes traffic. Ctrl-C ends everything. With `--self-test` it does all that by itself and says whether it went well.
//!
//! The servers are in `fleet/server.rs`, the configuration in `fleet/weir.toml`, the clients in `fleet/visitor.rs`.

#[path = "fleet/server.rs"]
mod server;
#[path = "fleet/visitor.rs"]
mod visitor;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use server::Server;
use visitor::{Visitor, exchange};
use weir::control::watch::Identity;

const CONFIG: &str = include_str!("fleet/weir.toml");
/// Visitors that click by themselves, and the time between two clicks of all.
const CROWD: usize = 12;
const PAUSE: Duration = Duration::from_millis(40);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => show(),
        ["--self-test"] => self_test().map(|()| ExitCode::SUCCESS),
        _ => Err("usage: fleet [--self-test]".to_owned()),
    };
    outcome.unwrap_or_else(|problem| {
        eprintln!("error: {problem}");
        ExitCode::FAILURE
    })
}

/// Three servers, a spare one, and weir in front of the three.
struct Fleet {
    /// The spare one is the last.
    servers: Arc<[Server]>,
    web: SocketAddr,
    admin: SocketAddr,
    directory: PathBuf,
    weir: Option<JoinHandle<ExitCode>>,
}

impl Fleet {
    /// Starts all of it and waits until weir is ready. The ports are taken when they are free, else others.
    fn start(web: u16, admin: u16) -> Result<Fleet, String> {
        let mut fleet = Fleet::prepare(web, admin).map_err(|error| error.to_string())?;
        let file = fleet.file();
        let read = Identity::of(&file);
        let loaded = weir::config::load(&file).map_err(|problems| problems.render(false))?;
        let weir = thread::spawn(move || weir::control::run::run(&file, read, loaded));
        let ready = || {
            exchange(fleet.admin, "GET", "/readyz", "")
                .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        };
        while !ready() {
            if weir.is_finished() {
                return Err("weir did not start".to_owned());
            }
            thread::sleep(PAUSE);
        }
        fleet.weir = Some(weir);
        Ok(fleet)
    }

    fn prepare(web: u16, admin: u16) -> io::Result<Fleet> {
        // Held together, so that they are two ports.
        let ports = [free_port(web)?, free_port(admin)?];
        let fleet = Fleet {
            servers: server::start(&["was1", "was2", "was3", "spare"])?,
            web: ports[0].local_addr()?,
            admin: ports[1].local_addr()?,
            directory: std::env::temp_dir().join(format!("weir-fleet-{}", std::process::id())),
            weir: None,
        };
        fs::DirBuilder::new().mode(0o700).create(&fleet.directory)?;
        let mut text = CONFIG
            .replace("/tmp/weir-fleet", &fleet.directory.to_string_lossy())
            .replace("127.0.0.1:8080", &fleet.web.to_string())
            .replace("127.0.0.1:9900", &fleet.admin.to_string());
        for (server, written) in fleet.servers.iter().zip(["8081", "8082", "8083"]) {
            text = text.replace(&format!("127.0.0.1:{written}"), &server.address.to_string());
        }
        fs::write(fleet.file(), text)?;
        Ok(fleet)
    }

    fn file(&self) -> PathBuf {
        self.directory.join("weir.toml")
    }

    fn spare(&self) -> &Server {
        &self.servers[3]
    }

    /// How the file names the server.
    fn line(server: &Server) -> String {
        format!(
            "  {{ name = \"{}\", address = \"{}\" }},",
            server.name, server.address
        )
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn free_port(wanted: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))
}

/// Serves until Ctrl-C.
fn show() -> Result<ExitCode, String> {
    let mut fleet = Fleet::start(8080, 9900)?;
    introduce(&fleet);
    let web = fleet.web;
    thread::spawn(move || crowd(web));
    // weir itself ends on SIGINT and SIGTERM, once it has finished what is open.
    let weir = fleet.weir.take().map(JoinHandle::join);
    weir.and_then(Result::ok)
        .ok_or_else(|| "weir panicked".to_owned())
}

fn introduce(fleet: &Fleet) {
    let Fleet {
        web,
        admin,
        directory,
        ..
    } = fleet;
    let (file, spare) = (fleet.file(), fleet.spare());
    let (file, line) = (file.display(), Fleet::line(spare));
    println!(
        "
  Open          http://{web}/
  Configuration {file}
  Admin         http://{admin}/
  Access log    {access_log}

  A fourth server, `spare`, runs at {address}, and weir does not know it. Add its line to `backends` in the file:

  {line}

  or let sed do it; the second command takes was3 out of service:

    sed -i '/\"was3\"/a \\{line}' {file}
    sed -i '/\"was3\"/d' {file}

  {CROWD} visitors click all the time, and the page shows who answers them. Ctrl-C ends everything.
",
        access_log = directory.join("access.log").display(),
        address = spare.address,
    );
}

/// Visitors that view the page for ever. What is worth knowing is printed: who moved to another server, and new errors.
fn crowd(web: SocketAddr) {
    let mut visitors: Vec<Visitor> = (0..CROWD).map(|_| Visitor::new(web)).collect();
    let mut last_error = String::new();
    loop {
        for (number, visitor) in visitors.iter_mut().enumerate() {
            let error = match visitor.view() {
                Ok(None) => String::new(),
                Ok(Some(before)) => {
                    println!(
                        "  visitor {number}: from {before} to {}, with a new session",
                        visitor.server
                    );
                    String::new()
                }
                Err(error) => error,
            };
            if !error.is_empty() && error != last_error {
                println!("  visitor {number}: {error}");
            }
            last_error = error;
            thread::sleep(PAUSE);
        }
    }
}

/// What an edit of the file may take until it shows.
const SOON: Duration = Duration::from_secs(2);

/// Sessions go on, a server that the file gains takes traffic, one that it loses takes none, and no request fails.
fn self_test() -> Result<(), String> {
    let fleet = Fleet::start(0, 0)?;
    let mut visitors: Vec<Visitor> = (0..40).map(|_| Visitor::new(fleet.web)).collect();
    for _ in 0..5 {
        let moved = view_all(&mut visitors)?;
        expect(moved.is_empty(), || {
            format!("visitors moved without cause: {moved:?}")
        })?;
    }
    expect(
        fleet.servers[..3]
            .iter()
            .all(|server| server.answered() > 0),
        || "a server got nothing".into(),
    )?;
    expect(fleet.spare().answered() == 0, || {
        "the spare server got something".into()
    })?;

    let third = Fleet::line(&fleet.servers[2]);
    edit(
        &fleet.file(),
        &third,
        &format!("{third}\n{}", Fleet::line(fleet.spare())),
    )?;
    let mut moved = Vec::new();
    within(SOON, "the spare server gets nothing", || {
        moved.extend(view_all(&mut visitors)?);
        // Somebody new, too: it may be that the ring moves nobody.
        let mut newcomer = Visitor::new(fleet.web);
        newcomer.view()?;
        visitors.push(newcomer);
        Ok(fleet.spare().answered() > 0)
    })?;
    moved.extend(view_all(&mut visitors)?);
    expect(moved.iter().all(|(_, to)| to == "spare"), || {
        format!("not to the spare server: {moved:?}")
    })?;
    expect(moved.len() < visitors.len() / 2, || {
        format!("{} visitors moved", moved.len())
    })?;

    edit(&fleet.file(), &format!("{third}\n"), "")?;
    within(SOON, "the removed server still gets requests", || {
        let moved = view_all(&mut visitors)?;
        expect(moved.iter().all(|(from, _)| from == "was3"), || {
            format!("not from was3: {moved:?}")
        })?;
        Ok(visitors.iter().all(|visitor| visitor.server != "was3"))
    })?;
    println!(
        "ok: {} visitors, {} moved to the spare server",
        visitors.len(),
        moved.len()
    );
    Ok(())
}

/// Everybody views the page; who moved, from where to where.
fn view_all(visitors: &mut [Visitor]) -> Result<Vec<(String, String)>, String> {
    let mut moved = Vec::new();
    for visitor in visitors {
        moved.extend(
            visitor
                .view()?
                .map(|before| (before, visitor.server.clone())),
        );
    }
    Ok(moved)
}

/// Replaces the file as editors do: under another name first.
fn edit(file: &Path, from: &str, to: &str) -> Result<(), String> {
    let replace = || {
        let text = fs::read_to_string(file)?.replace(from, to);
        let draft = file.with_extension("draft");
        fs::write(&draft, text)?;
        fs::rename(&draft, file)
    };
    replace().map_err(|error: io::Error| error.to_string())
}

fn within(
    limit: Duration,
    otherwise: &str,
    mut done: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let start = Instant::now();
    while !done()? {
        expect(start.elapsed() < limit, || {
            format!("{otherwise} after {limit:?}")
        })?;
    }
    Ok(())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

#[test]
fn the_fleet_works() {
    self_test().unwrap();
}

//! A fleet of three web application servers with log-in sessions, and weir in front of it, in one process.
//!
//!     cargo run --release --example fleet
//!
//! It prints a page to open and a configuration file to edit: add the line of the fourth server to the file, and that server
//! takes traffic. Ctrl-C ends everything. With `--self-test` it does all that by itself and says whether it went well.
//!
//! The servers are in `fleet/server.rs`, the configuration in `fleet/weir.toml`, the clients in `fleet/visitor.rs`.

#[path = "fleet/self_test.rs"]
mod self_test;
#[path = "fleet/server.rs"]
mod server;
#[path = "fleet/visitor.rs"]
mod visitor;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use server::Server;
use visitor::{Visitor, exchange};
use weir::control::certificates;
use weir::control::upgrade::take_over::Inheritance;
use weir::control::watch::Identity;

const CONFIG: &str = include_str!("fleet/weir.toml");
/// Visitors that click by themselves, and the time between two clicks of all.
const CROWD: usize = 12;
const PAUSE: Duration = Duration::from_millis(40);
/// Every so many clicks somebody new comes in the place of who would click. It shares no divisor with the crowd, so that everybody's turn comes.
const STAY: usize = 13;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => show(),
        ["--self-test"] => self_test::run().map(|()| ExitCode::SUCCESS),
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
        let loaded = weir::config::load(&file).and_then(|loaded| certificates::load(loaded, None));
        let loaded = loaded.map_err(|problems| problems.render(false))?;
        let weir = thread::spawn(move || {
            weir::control::run::run(&file, read, loaded, Inheritance::default())
        });
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

/// Visitors that view the page until weir ends, somebody new among them twice a second. What is worth knowing is printed: who moved to another server, and new errors.
fn crowd(web: SocketAddr) {
    let mut visitors: Vec<Visitor> = (0..CROWD).map(|_| Visitor::new(web)).collect();
    let mut last_error = String::new();
    for (click, number) in (0..CROWD).cycle().enumerate() {
        let visitor = &mut visitors[number];
        if click % STAY == STAY - 1 {
            *visitor = Visitor::new(web);
        }
        match visitor.view() {
            Ok(None) => {}
            Ok(Some(before)) => {
                let now = &visitor.server;
                println!("  visitor {number}: from {before} to {now}, with a new session");
            }
            // weir accepts nobody: it is about to end.
            Err(_) if TcpStream::connect(web).is_err() => return,
            Err(error) => {
                if error != last_error {
                    println!("  visitor {number}: {error}");
                }
                last_error = error;
            }
        }
        thread::sleep(PAUSE);
    }
}

#[test]
fn the_fleet_works() {
    self_test::run().unwrap();
}

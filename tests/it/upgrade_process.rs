//! The program changes under a running weir: who serves, what is kept, and that no client notices.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::message::Fault;
use crate::support::origin::{Visit, ok};
use crate::support::weir::{binary, get, list, plain};
use crate::support::{Client, Origin, Weir, until, within};

/// A weir whose program is at a path of the test's own, where another one can be put.
pub struct Staged {
    pub weir: Weir,
    pub program: PathBuf,
}

impl Staged {
    #[track_caller]
    pub fn start(config: &str) -> Staged {
        Staged::start_with(config, |_| {})
    }

    #[track_caller]
    pub fn start_with(config: &str, setup: impl FnOnce(&mut Command)) -> Staged {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-it-program-{}-{serial}", std::process::id());
        let program = std::env::temp_dir().join(name);
        std::os::unix::fs::symlink(binary(), &program).unwrap();
        let weir = Weir::start_with(config, |command| {
            command.arg0(&program);
            setup(command);
        });
        Staged { weir, program }
    }

    /// Runs `weir upgrade`.
    pub fn upgrade(&self) -> Output {
        let mut command = Command::new(binary());
        command.arg("upgrade").arg("-c").arg(&self.weir.file);
        command.env_remove("WEIR_ADMIN").output().unwrap()
    }

    /// The same, which must succeed: the id of the process that serves now.
    #[track_caller]
    pub fn upgraded(&self) -> u32 {
        let before = self.weir.serving();
        let output = self.upgrade();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{told}{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.weir.stderr()
        );
        let after = self.weir.serving();
        assert_ne!(before, after);
        let wanted = format!("process {after} serves in place of {before}, which has ");
        assert!(told.starts_with(&wanted), "{told}");
        assert_eq!(self.weir.status()["predecessor"], before);
        after
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.program);
    }
}

/// Switches for whoever asks, and echoes; anyone else gets a 200.
pub fn echo(name: &'static str) -> Origin {
    Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            if request.has("upgrade") {
                visit.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n");
                return send_back(visit);
            }
            visit.send(ok(name));
        }
    })
}

fn send_back(visit: &mut Visit) {
    while let Ok([byte]) = visit.reader.exactly(1).as_deref() {
        if !visit.send([*byte]) {
            return;
        }
    }
}

/// A client whose connection was switched.
#[track_caller]
pub fn switched(weir: &Weir) -> Client {
    let mut client = weir.client();
    let offer = "GET /socket HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n";
    assert_eq!(client.ask(offer).status(), 101);
    client
}

#[track_caller]
pub fn says_back(client: &mut Client) {
    client.send("x");
    assert_eq!(client.reader.exactly(1).as_deref(), Ok(&b"x"[..]));
}

/// Clients that ask all the time, each second one on a new connection for each request.
pub struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn on(weir: &Weir, clients: usize) -> Load {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let address = weir.address("web");
        let clients = (0..clients).map(|number| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                let (mut failures, mut kept) = (Vec::new(), None);
                while !stop.load(Ordering::SeqCst) {
                    match ask(&mut kept, address, number % 2 == 0) {
                        Ok(()) => drop(served.fetch_add(1, Ordering::SeqCst)),
                        Err(failure) => failures.push(failure),
                    }
                }
                failures
            })
        });
        let clients = clients.collect();
        Load {
            stop,
            served,
            clients,
        }
    }

    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// Waits until so many more requests were answered.
    #[track_caller]
    pub fn goes_on(&self, requests: usize) {
        let before = self.served();
        until("more answers", || {
            (self.served() >= before + requests).then_some(())
        });
    }

    /// Ends it: how many were served, and what failed.
    pub fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let failures = self.clients.into_iter().flat_map(|it| it.join().unwrap());
        (
            self.served.load(Ordering::SeqCst),
            failures.collect::<Vec<_>>(),
        )
    }
}

fn ask(
    kept: &mut Option<Client>,
    address: std::net::SocketAddr,
    keeps: bool,
) -> Result<(), String> {
    let was_kept = kept.is_some();
    let failed = |what: String| format!("{what} (on a kept connection: {was_kept})");
    let mut client = match kept.take() {
        Some(client) => client,
        None => Client::try_connect(address).map_err(|error| failed(error.to_string()))?,
    };
    let sent = client.try_send(get("/").as_bytes());
    sent.map_err(|error| failed(error.to_string()))?;
    let answer = client.try_answer();
    let answer = answer.map_err(|fault| failed(format!("{fault:?}")))?;
    if answer.status() != 200 {
        return Err(failed(answer.first_line()));
    }
    let closes = answer.value("connection").as_deref() == Some("close");
    *kept = Some(client).filter(|_| keeps && !closes);
    Ok(())
}

/// One listener before these origins, checked once a second.
fn checked(origins: &[Origin], head: &str) -> String {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    format!(
        "{head}\n[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n\
         [pools.was]\nbackends = [{}]\nhealth = {{ type = \"http\", path = \"/healthz\", interval = \"1s\" }}\n",
        list(&addresses)
    )
}

#[test]
fn no_request_fails_and_a_websocket_lasts_through_all_of_it() {
    let is_full = std::env::var_os("WEIR_FULL").is_some();
    let (upgrades, pace) = if is_full { (10, 2000) } else { (3, 200) };
    let origins = ["a", "b", "c", "d"].map(echo);
    let head = "workers = 2\ndrain_timeout = \"60s\"";
    let staged = Staged::start(&checked(&origins, head));
    let weir = &staged.weir;
    let mut socket = switched(weir);
    let load = Load::on(weir, 8);
    for _ in 0..upgrades {
        load.goes_on(pace);
        let process = staged.upgraded();
        assert_eq!(
            weir.admin("/readyz").status(),
            200,
            "ready from its beginning"
        );
        let backends = weir.status()["pools"][0]["backends"].clone();
        for backend in backends.as_array().unwrap() {
            assert_eq!(backend["health"], "up", "known from process to process");
        }
        load.goes_on(pace);
        says_back(&mut socket);
        assert_eq!(weir.serving(), process);
    }
    let (served, failures) = load.end();
    assert_eq!(failures, [""; 0], "of {} requests", served + failures.len());
    println!("{upgrades} upgrades under load: {served} requests, none failed");
    assert!(weir.exited().is_none(), "it still has the WebSocket");
    socket.finish();
    let status = weir.await_exit();
    assert!(status.success(), "{status}");
}

#[test]
fn what_is_open_has_until_the_deadline() {
    let origin = echo("a");
    let staged = Staged::start(&plain(&[&origin], "drain_timeout = \"1500ms\""));
    let weir = &staged.weir;
    let mut socket = switched(weir);
    let mut rests = weir.client();
    assert_eq!(rests.ask(get("/")).text(), "a");
    let mut rests_longer = weir.client();
    assert_eq!(rests_longer.ask(get("/")).text(), "a");
    let begun = Instant::now();
    staged.upgraded();
    says_back(&mut socket);
    // Its next request may have been on the way: it is answered by the process that has the connection.
    let answer = rests.ask(get("/"));
    assert_eq!(answer.text(), "a");
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    rests.expect_close();
    drop(rests);
    assert!(
        begun.elapsed() < Duration::from_millis(1400),
        "a slow machine"
    );
    let (rest, _) = socket.rest();
    assert!(rest.is_empty());
    rests_longer.expect_close();
    let status = weir.await_exit();
    assert!(status.success(), "{status}");
    assert!(
        begun.elapsed() >= Duration::from_millis(1450),
        "it had its time"
    );
    weir.tells("upgrade: 1 connection cut off");
    assert_eq!(weir.get("/").text(), "a");
}

#[test]
fn a_signal_does_it_too_and_a_process_without_work_ends_at_once() {
    let origin = echo("a");
    let staged = Staged::start(&plain(&[&origin], ""));
    let weir = &staged.weir;
    let before = weir.id();
    weir.signal(libc::SIGUSR2);
    assert!(weir.await_exit().success());
    until("the new process", || {
        (weir.serving() != before).then_some(())
    });
    assert_eq!(weir.get("/").text(), "a");
    let line = format!(
        "upgrade: process {} serves, {before} finishes",
        weir.serving()
    );
    weir.tells(&line);
    // The new one is a weir like the old one: it reloads, and ends when it is told.
    let generation = weir.generation();
    weir.write(&plain(&[&origin], "drain_delay = \"10ms\""));
    weir.await_generation_after(generation);
    let serving = weir.serving();
    crate::support::process::signal(serving, libc::SIGTERM);
    until("the listener to close", || {
        Client::try_connect(weir.address("web"))
            .is_err()
            .then_some(())
    });
}

#[test]
fn sockets_have_owners_whatever_the_number_of_workers() {
    let origins = ["a", "b"].map(echo);
    let config =
        |workers: usize| checked(&origins, &format!("workers = {workers}\nwatch = \"off\""));
    let staged = Staged::start(&config(3));
    let weir = &staged.weir;
    let load = Load::on(weir, 6);
    for workers in [1, 4, 2] {
        weir.write(&config(workers));
        staged.upgraded();
        assert_eq!(weir.status()["workers"], workers);
        // The kernel spreads connections over all sockets: one without an owner would keep some waiting.
        for _ in 0..40 {
            assert_eq!(weir.get("/").status(), 200);
        }
        load.goes_on(100);
    }
    let (_, failures) = load.end();
    assert_eq!(failures, [""; 0]);
}

#[test]
fn states_secrets_and_verdicts_go_along() {
    let origins = ["a", "b"].map(Origin::named);
    let dead = crate::support::origin::nobody();
    let config = format!(
        "state_dir = \"/proc/nowhere\"\n[listeners.web]\nbind = [\"$web\"]\n\
         [[routes]]\npool = \"was\"\nsticky = {{ mode = \"insert\" }}\n\
         [pools.was]\nbackends = [{}, {}]\nhealth.type = \"none\"\n\
         [[routes]]\npath = \"/dead\"\npool = \"dead\"\n\
         [pools.dead]\nbackends = [\"{dead}\"]\nhealth = {{ type = \"tcp\", interval = \"60s\" }}\n",
        name("a", &origins[0]),
        name("b", &origins[1]),
    );
    let staged = Staged::start(&config);
    let weir = &staged.weir;
    let answer = weir.get("/");
    let home = answer.text();
    let cookie = answer.value("set-cookie").expect("a cookie");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let other = if home == "a" { "b" } else { "a" };
    let set = weir.post(&format!("/api/v1/pools/was/backends/{home}/drain"));
    assert_eq!(set.status(), 200);
    for _ in 0..2 {
        staged.upgraded();
        let backends = weir.status()["pools"].clone();
        assert_eq!(backends[1]["backends"][0]["health"], "down");
        let drained = backends[0]["backends"].as_array().unwrap();
        let drained = drained.iter().find(|backend| backend["name"] == *home);
        assert_eq!(drained.unwrap()["state"], "drain", "though no disk has it");
        let request =
            format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\nCookie: {cookie}\r\n\r\n");
        assert_eq!(
            weir.client().ask(request).text(),
            home,
            "its cookie is good"
        );
        assert_eq!(weir.get("/").text(), other);
    }
}

fn name(name: &str, origin: &Origin) -> String {
    format!("{{ name = \"{name}\", address = \"{}\" }}", origin.address)
}

#[test]
fn a_listener_that_the_new_file_does_not_have_ends_with_the_old_process() {
    let origin = echo("a");
    let config = |bind: &str| plain(&[&origin], "watch = \"off\"").replace("\"$web\"", bind);
    let staged = Staged::start(&config("\"$web\", \"$more\""));
    let weir = &staged.weir;
    weir.write(&config("\"$web\", \"$other\""));
    staged.upgraded();
    for listener in ["web", "other"] {
        let mut client = Client::connect(weir.address(listener));
        assert_eq!(client.ask(get("/")).text(), "a");
    }
    let gone = within(Duration::from_secs(5), || {
        Client::try_connect(weir.address("more"))
            .is_err()
            .then_some(())
    });
    assert!(gone.is_some(), "nobody listens there any more");
}

#[test]
fn the_answer_under_way_arrives_whole() {
    let release = Arc::<AtomicBool>::default();
    let gate = Arc::clone(&release);
    let origin = Origin::start(move |visit| {
        while visit.request().is_ok() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow ");
            until("the release", || gate.load(Ordering::SeqCst).then_some(()));
            visit.send("done");
        }
    });
    let staged = Staged::start(&plain(&[&origin], ""));
    let mut client = staged.weir.client();
    client.send(get("/"));
    assert_eq!(client.answer_head().status(), 200);
    staged.upgraded();
    assert!(staged.weir.exited().is_none());
    release.store(true, Ordering::SeqCst);
    assert_eq!(client.reader.exactly(9).as_deref(), Ok(&b"slow done"[..]));
    // Its head was sent before, so that its reader may ask again, and is told then.
    let answer = client.ask(get("/"));
    assert_eq!(answer.text(), "slow done");
    assert_eq!(answer.value("connection").as_deref(), Some("close"));
    assert_eq!(client.rest().1, Fault::Closed);
    drop(client);
    assert!(staged.weir.await_exit().success());
}

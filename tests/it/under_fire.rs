//! Under a steady load nothing fails: reloads, a rolling restart by drain, a backend that is killed, one that freezes; and a new backend has
//! traffic soon after its line is in the file. The backends are processes of their own, so that they can be killed and stopped as such.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::message::Message;
use crate::support::origin::{Visit, ok};
use crate::support::weir::{get, post};
use crate::support::{Client, Origin, Weir, process, until};

const ADDRESS: &str = "WEIR_IT_SERVER";
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// How long `/hold` takes.
const HOLD: Duration = Duration::from_secs(3);

/// A backend that is a process.
struct Server {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    /// What it was asked for, as method and path.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(name: &'static str) -> Server {
        Server::start_at(name, process::free_address())
    }

    fn start_at(name: &'static str, address: SocketAddr) -> Server {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "under_fire::a_server", "--nocapture"])
            .env(ADDRESS, format!("{name} {address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        process::die_with_parent(&mut command);
        let mut child = command.spawn().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (output, lines) = (child.stdout.take().unwrap(), asked.clone());
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        until("the server to listen", || Client::try_connect(address).ok());
        Server {
            name,
            address,
            child,
            asked,
        }
    }

    fn signal(&self, signal: i32) {
        process::signal(self.child.id(), signal);
    }

    fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().unwrap();
    }

    fn asked_for(&self, path: &str) -> BTreeSet<String> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|line| line.contains(path))
            .cloned()
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No test but the process behind [`Server`], when it is told so.
#[test]
fn a_server() {
    let Ok(told) = std::env::var(ADDRESS) else {
        return;
    };
    let (name, address) = told.split_once(' ').unwrap();
    let name = name.to_owned();
    let _origin = Origin::at(address.parse().unwrap(), move |visit| serve(visit, &name));
    loop {
        thread::park();
    }
}

/// Answers with its name, says what it was asked for, and echoes once it is told to switch.
fn serve(visit: &mut Visit, name: &str) {
    while let Ok(request) = visit.request() {
        let asked = format!("{} {}\n", request.method(), request.target());
        std::io::stdout().write_all(asked.as_bytes()).unwrap();
        if request.has("upgrade") {
            visit.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n");
            while let Ok(bytes) = visit.reader.exactly(5) {
                visit.send(bytes);
            }
            return;
        }
        match request.target().split('/').nth(1) {
            Some("hold") => thread::sleep(HOLD),
            Some("pause") => thread::sleep(HOLD / 10),
            _ => {}
        }
        let head = match request.has("cookie") {
            true => "HTTP/1.1 200 OK\r\n",
            false => "HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=1\r\n",
        };
        let length = name.len();
        if !visit.send(format!("{head}Content-Length: {length}\r\n\r\n{name}")) {
            return;
        }
    }
}

/// Clients that never rest, each of which sees every answer.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let (stop, served) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let clients = (0..4).map(|number| {
            let (stop, served) = (stop.clone(), served.clone());
            thread::spawn(move || {
                let mut client = Client::connect(address).patient(Duration::from_secs(30));
                while !stop.load(SeqCst) {
                    if number == 0 {
                        client = Client::connect(address);
                    }
                    let answer = match number {
                        1 => client.ask(post("/", "hello")),
                        _ => client.ask(get("/")),
                    };
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    served.fetch_add(1, SeqCst);
                    // A steady load, not all that the machine can give.
                    thread::sleep(Duration::from_millis(2));
                }
            })
        });
        let clients = clients.collect();
        Load {
            stop,
            served,
            clients,
        }
    }

    /// How many requests were served, all of them well.
    fn end(self) -> usize {
        self.stop.store(true, SeqCst);
        for client in self.clients {
            client.join().expect("no request fails");
        }
        self.served.load(SeqCst)
    }
}

fn fleet() -> Vec<Server> {
    NAMES.into_iter().map(Server::start).collect()
}

/// These servers with these weights, and a route of its own to the last one.
fn config(servers: &[Server], weights: &[usize], more: &str) -> String {
    let backend = |server: &Server, weight: usize| {
        let (name, address) = (server.name, server.address);
        format!("{{ name = \"{name}\", address = \"{address}\", weight = {weight} }}")
    };
    let backends = servers
        .iter()
        .zip(weights)
        .filter(|(_, weight)| **weight > 0);
    let backends: Vec<String> = backends
        .map(|(own, weight)| backend(own, *weight))
        .collect();
    let socket = servers.last().unwrap().address;
    format!(
        "workers = 2\n[listeners.web]\nbind = [\"$web\"]\n\
         [[routes]]\npool = \"was\"\n{more}\n\
         [[routes]]\npath = \"/socket\"\npool = \"socket\"\n\
         [pools.was]\nbackends = [{}]\n{PROBES}\n\
         [pools.socket]\nbackends = [\"{socket}\"]\nhealth.type = \"none\"\n",
        backends.join(", ")
    )
}

const PROBES: &str = "[pools.was.health]\ntype = \"http\"\npath = \"/health\"\ninterval = \"200ms\"\ntimeout = \"1s\"\nfall = 2\nrise = 1";

fn rounds() -> usize {
    match std::env::var_os("WEIR_FULL") {
        Some(_) => 1000,
        None => 60,
    }
}

#[track_caller]
fn echoes(socket: &mut Client, number: usize) {
    let said = format!("{number:>5}");
    socket.send(&said);
    assert_eq!(socket.reader.exactly(5).expect("an echo"), said.as_bytes());
}

fn up(weir: &Weir, name: &str, value: f64) {
    weir.settles(
        "weir_backend_up",
        &[("pool", "was"), ("backend", name)],
        value,
    );
}

#[test]
fn reloads_and_a_rolling_restart_fail_no_request_and_leave_a_socket_alone() {
    let mut servers = fleet();
    // All of them are restarted; the socket is at a server of its own, behind a route that never changes.
    let holder = Server::start("e");
    let [last, held] = [servers[3].address, holder.address]
        .map(|address| format!("[pools.socket]\nbackends = [\"{address}\"]"));
    let config = |servers: &[Server], weights: &[usize], more: &str| {
        config(servers, weights, more).replace(&last, &held)
    };
    let weir = Weir::start(&config(&servers, &[1; 4], ""));
    let mut socket = weir.client();
    let offer = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n";
    assert_eq!(socket.ask(offer).status(), 101);
    let load = Load::start(weir.address("web"));
    for round in 0..rounds() {
        // Backends come and go, weights and the balancer change, and so does what a route does.
        let weights: Vec<usize> = (0..4).map(|own| (round + own) % 5).collect();
        let mut text = config(
            &servers,
            &weights,
            &format!("timeouts.response = \"{}s\"", 10 + round % 7),
        );
        if round % 2 == 1 {
            text = text.replace(
                "[pools.was]\n",
                "[pools.was]\nbalancer = \"least-connections\"\n",
            );
        }
        let generation = weir.generation();
        weir.write(&text);
        weir.await_generation_after(generation);
        echoes(&mut socket, round);
    }
    weir.write(&config(&servers, &[1; 4], ""));
    NAMES.iter().for_each(|name| up(&weir, name, 1.0));
    for server in &mut servers {
        restart(&weir, server);
        echoes(&mut socket, 0);
    }
    let served = load.end();
    println!(
        "{served} requests served through {} reloads and 4 restarts",
        rounds()
    );
    assert!(served > 500, "{served}");
    assert_eq!(weir.metric("weir_config_last_reload_successful", &[]), 1.0);
}

/// Drains a server, kills it when it has nothing left to do, starts it again, and takes it back.
fn restart(weir: &Weir, server: &mut Server) {
    let path = format!("/api/v1/pools/was/backends/{}", server.name);
    assert_eq!(weir.post(&format!("{path}/drain")).status(), 200);
    weir.settles(
        "weir_backend_in_flight",
        &[("pool", "was"), ("backend", server.name)],
        0.0,
    );
    server.kill();
    up(weir, server.name, 0.0);
    let (name, address) = (server.name, server.address);
    *server = Server::start_at(name, address);
    up(weir, name, 1.0);
    assert_eq!(weir.post(&format!("{path}/ready")).status(), 200);
    until("it to serve again", || {
        (!server.asked_for(" /").is_empty()).then_some(())
    });
}

/// Asks for `/ROUND/N` in all of these ways at once; what came of each, in order.
fn hold(weir: &Weir, round: &str, asks: &[fn(&str) -> String]) -> Vec<thread::JoinHandle<u16>> {
    let asks = asks.iter().enumerate().map(|(number, ask)| {
        let (address, request) = (weir.address("web"), ask(&format!("/{round}/{number}")));
        thread::spawn(move || {
            let mut client = Client::connect(address).patient(Duration::from_secs(30));
            client.send(request);
            client.answer().status()
        })
    });
    asks.collect()
}

#[test]
fn a_killed_backend_costs_what_it_had_and_nobody_may_do_twice() {
    let mut servers = fleet();
    let weir = Weir::start(&config(&servers, &[1; 4], "").replace("workers = 2", "workers = 1"));
    NAMES.iter().for_each(|name| up(&weir, name, 1.0));
    let asks: Vec<fn(&str) -> String> = (0..24)
        .map(|number| -> fn(&str) -> String {
            match number % 3 {
                0 => |path| post(path, "once"),
                _ => get,
            }
        })
        .collect();
    // Connections to take: what was in flight on a new one would not be tried again, unless the route says so.
    for one in hold(&weir, "pause", &asks) {
        assert_eq!(one.join().unwrap(), 200);
    }
    let held = hold(&weir, "hold", &asks);
    until("all of them to arrive", || {
        let arrived = servers.iter().map(|server| server.asked_for("/hold").len());
        (arrived.sum::<usize>() == asks.len()).then_some(())
    });
    let mut victim = servers.remove(1);
    victim.kill();
    let load = Load::start(weir.address("web"));
    let unsafe_there = victim.asked_for("POST /hold").len();
    let there = victim.asked_for("/hold").len();
    let statuses: Vec<u16> = held.into_iter().map(|one| one.join().unwrap()).collect();
    let failed = statuses.iter().filter(|status| **status != 200).count();
    println!(
        "{there} were in flight, {unsafe_there} of them not to be done twice, {failed} failed"
    );
    assert!(unsafe_there > 0 && there > unsafe_there);
    assert_eq!(failed, unsafe_there, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 502)),
        "{statuses:?}"
    );
    for (number, status) in statuses
        .iter()
        .enumerate()
        .filter(|(_, status)| **status != 200)
    {
        assert_eq!(number % 3, 0, "a GET failed: {status}");
    }
    load.end();
}

#[test]
fn a_frozen_backend_is_waited_for() {
    let servers = fleet();
    let sticky = "sticky = { mode = \"insert\", on_failure = \"wait\", wait = \"10s\" }";
    let weir = Weir::start(&config(&servers, &[1; 4], sticky));
    NAMES.iter().for_each(|name| up(&weir, name, 1.0));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (address, stop) = (weir.address("web"), stop.clone());
            thread::spawn(move || keep_asking(address, &stop))
        })
        .collect();
    let frozen = &servers[0];
    until("clients at home there", || {
        (!frozen.asked_for("GET /at").is_empty()).then_some(())
    });
    frozen.signal(libc::SIGSTOP);
    up(&weir, frozen.name, 0.0);
    thread::sleep(Duration::from_secs(3));
    frozen.signal(libc::SIGCONT);
    up(&weir, frozen.name, 1.0);
    stop.store(true, SeqCst);
    let longest = clients
        .into_iter()
        .map(|client| client.join().expect("no client sees an error"))
        .max();
    println!("the longest answer took {:?}", longest.unwrap());
    assert!(longest.unwrap() > Duration::from_secs(2), "somebody waited");
    weir.settles("weir_sticky_total", &[("result", "lost")], 0.0);
    weir.settles("weir_sticky_total", &[("result", "moved")], 0.0);
}

/// A browser that asks again and again, and wants the server that it had; how long the slowest answer took.
fn keep_asking(address: SocketAddr, stop: &AtomicBool) -> Duration {
    let mut client = Client::connect(address).patient(Duration::from_secs(30));
    let mut ask = |cookies: &str| -> Message {
        client.ask(format!("GET /at HTTP/1.1\r\nHost: a\r\n{cookies}\r\n"))
    };
    let first = ask("");
    let cookies: Vec<String> = first
        .values("set-cookie")
        .iter()
        .map(|line| line.split(';').next().unwrap().to_owned())
        .collect();
    let cookies = format!("Cookie: {}\r\n", cookies.join("; "));
    let mut longest = Duration::ZERO;
    while !stop.load(SeqCst) {
        let began = Instant::now();
        let answer = ask(&cookies);
        assert_eq!((answer.status(), answer.text()), (200, first.text()));
        longest = longest.max(began.elapsed());
        thread::sleep(Duration::from_millis(10));
    }
    longest
}

#[test]
fn a_line_in_the_file_is_traffic_soon() {
    let old = Origin::named("old");
    let text = |addresses: &[SocketAddr]| {
        let backends = crate::support::weir::list(addresses);
        format!(
            "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [{backends}]\n[pools.was.health]\ntype = \"http\"\n"
        )
    };
    let weir = Weir::start(&text(&[old.address]));
    let mut client = weir.client();
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let new = Origin::start(|visit| {
                while visit.request().is_ok() {
                    visit.send(ok("new"));
                }
            });
            let (generation, began) = (weir.generation(), Instant::now());
            weir.write(&text(&[old.address, new.address]));
            until("the new backend", || {
                (client.ask(get("/")).text() == "new").then_some(())
            });
            let took = began.elapsed();
            weir.await_generation_after(generation);
            let generation = weir.generation();
            weir.write(&text(&[old.address]));
            weir.await_generation_after(generation);
            took
        })
        .collect();
    times.sort();
    println!(
        "from the write to traffic: median {:?}, worst {:?}",
        times[10], times[19]
    );
    assert!(times[10] < Duration::from_secs(2), "{times:?}");
}

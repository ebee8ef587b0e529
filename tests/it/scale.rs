//! A pool that grows and shrinks with its load: a command starts servers, by writing them into a list, and stops those that are empty.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::load::Load;
use crate::support::{Client, Message, Origin, Weir, until, within};

/// For a pool to become as large as it should be: several holds and drains.
const PATIENCE: Duration = Duration::from_secs(40);

/// How many sessions were ever opened.
static SESSIONS: AtomicUsize = AtomicUsize::new(0);

/// Servers that take a while for an answer, and say by a cookie whose session it is.
fn server(name: &'static str) -> Origin {
    Origin::start(move |visit| {
        while let Ok(request) = visit.request() {
            if request.target() == "/slow" {
                thread::sleep(Duration::from_millis(20));
            }
            let cookie = match request.value("cookie") {
                Some(cookie) if cookie.contains(&format!("JSESSIONID={name}-")) => String::new(),
                _ => {
                    let session = SESSIONS.fetch_add(1, SeqCst);
                    format!("Set-Cookie: JSESSIONID={name}-{session}\r\n")
                }
            };
            let length = name.len();
            visit.send(format!(
                "HTTP/1.1 200 OK\r\n{cookie}Content-Length: {length}\r\n\r\n{name}"
            ));
        }
    })
}

/// A program that keeps the first so many of these servers in the list that weir reads, and notes what it was asked.
const PROGRAM: &str = r#"#!/bin/sh
set -e
read -r order
printf '%s\n' "$order" >>DIR/orders
case $order in
*'"action":"out"'*)
  wanted=$(printf '%s' "$order" | sed 's/.*"wanted":\([0-9]*\).*/\1/')
  head -n "$wanted" DIR/all >DIR/now
  ;;
*)
  gone=$(printf '%s' "$order" | sed 's/.*"backend":{"name":"\([^"]*\)".*/\1/')
  grep -v "$gone" DIR/now >DIR/next
  mv DIR/next DIR/now
  ;;
esac
{ echo 'backends = ['; sed 's/.*/"&",/' DIR/now; echo ']'; } >DIR/draft
mv DIR/draft DIR/was.toml
echo "done: $(wc -l <DIR/now)"
"#;

/// The directory of a weir that is about to start.
fn directory(command: &std::process::Command) -> PathBuf {
    let file = Path::new(command.get_args().last().unwrap());
    file.parent().unwrap().to_owned()
}

/// Puts the program, all servers and the first two of them there.
fn prepare(directory: &Path, servers: &[Origin], program: &str) {
    let all: Vec<String> = servers.iter().map(|own| own.address.to_string()).collect();
    fs::write(directory.join("all"), all.join("\n") + "\n").unwrap();
    fs::write(directory.join("now"), all[..2].join("\n") + "\n").unwrap();
    let list = format!("backends = [\"{}\", \"{}\"]\n", all[0], all[1]);
    fs::write(directory.join("was.toml"), list).unwrap();
    let path = directory.join("scale");
    fs::write(&path, program.replace("DIR", &directory.to_string_lossy())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn start(servers: &[Origin], program: &str, route: &str, scale: &str) -> Weir {
    let config = format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n{route}\n[pools.was]\nbalancer = \"least-connections\"\n\
         discovery = {{ type = \"file\", path = \"$dir/was.toml\" }}\n\
         [pools.was.scale]\nmin = 2\nmax = 4\ninterval = \"300ms\"\ncool_down = \"500ms\"\nhold = \"900ms\"\n\
         command = [\"$dir/scale\"]\n{scale}\n"
    );
    Weir::start_with(&config, |command| {
        prepare(&directory(command), servers, program);
    })
}

fn orders(weir: &Weir) -> Vec<Value> {
    let text = fs::read_to_string(weir.directory.join("orders")).unwrap_or_default();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn pool(weir: &Weir) -> Value {
    weir.status()["pools"][0].clone()
}

#[track_caller]
fn has(weir: &Weir, count: usize) {
    let found = within(PATIENCE, || {
        (pool(weir)["backends"].as_array().unwrap().len() == count).then_some(())
    });
    assert!(found.is_some(), "not {count}: {:#}", pool(weir));
}

fn fleet() -> [Origin; 4] {
    ["a", "b", "c", "d"].map(server)
}

#[test]
fn it_grows_under_load_and_shrinks_after_it() {
    let servers = fleet();
    let weir = start(&servers, PROGRAM, "", "target_in_flight = 2");
    has(&weir, 2);
    let few = Load::start(weir.address("web"), 2, "/");
    let many = Load::start(weir.address("web"), 8, "/slow");
    has(&weir, 4);
    until("work at every server", || {
        servers.iter().all(|own| own.hits() > 0).then_some(())
    });
    assert_eq!(weir.metric("weir_scale_wanted", &[("pool", "was")]), 4.0);
    assert!(weir.metric("weir_scale_load", &[("pool", "was")]) > 0.5);
    let first = orders(&weir).swap_remove(0);
    assert_eq!(
        (&first["action"], &first["pool"]),
        (&"out".into(), &"was".into())
    );
    assert_eq!(
        (&first["serving"], &first["measure"]),
        (&2.into(), &"in_flight".into())
    );
    assert_eq!(first["backends"].as_array().unwrap().len(), 2);
    assert!(many.stop() > 50);

    // A few go on asking while servers are taken away one by one.
    has(&weir, 2);
    assert!(few.stop() > 50);
    let done = |action| [("pool", "was"), ("result", "done"), ("action", action)];
    assert!(weir.metric("weir_scale_steps_total", &done("out")) >= 1.0);
    weir.settles("weir_scale_steps_total", &done("in"), 2.0);
    let last = orders(&weir).pop().unwrap();
    assert_eq!(
        (&last["action"], &last["wanted"]),
        (&"in".into(), &2.into())
    );
    weir.tells("scale: done: 2");
    // It comes to rest.
    until("rest", || {
        let scale = pool(&weir)["scale"].clone();
        (scale["doing"] == "nothing" && scale["wanted"] == 2).then_some(())
    });
    assert_eq!(pool(&weir)["backends"].as_array().unwrap().len(), 2);
}

/// A visitor with the cookies that it was given.
struct Visitor {
    client: Client,
    cookies: Vec<(String, String)>,
    server: String,
}

impl Visitor {
    fn new(address: SocketAddr) -> Visitor {
        let mut visitor = Visitor {
            client: Client::connect(address),
            cookies: Vec::new(),
            server: String::new(),
        };
        let answer = visitor.ask("/");
        visitor.server = answer.text();
        visitor
    }

    fn ask(&mut self, target: &str) -> Message {
        let cookies: Vec<_> = (self.cookies.iter())
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let cookies = match cookies.is_empty() {
            true => String::new(),
            false => format!("Cookie: {}\r\n", cookies.join("; ")),
        };
        let answer =
            (self.client).ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{cookies}\r\n"));
        assert_eq!(answer.status(), 200);
        for cookie in answer.values("set-cookie") {
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        answer
    }
}

#[test]
fn a_server_is_not_stopped_while_a_session_lives_in_its_memory() {
    let servers = fleet();
    let route = "sticky = { mode = \"insert\", sessions = \"local\", idle_timeout = \"4s\" }";
    let weir = start(
        &servers,
        PROGRAM,
        route,
        "target_sessions = 5\ndrain_deadline = \"1h\"",
    );
    let address = weir.address("web");
    let mut visitors: Vec<Visitor> = (0..10).map(|_| Visitor::new(address)).collect();
    let visit = |visitors: &mut [Visitor]| {
        for visitor in visitors {
            assert_eq!(
                visitor.ask("/").text(),
                visitor.server,
                "its session is lost"
            );
        }
    };
    visit(&mut visitors);
    until("four servers for more sessions", || {
        visit(&mut visitors);
        visitors.push(Visitor::new(address));
        visit(&mut visitors);
        let used = ["a", "b", "c", "d"];
        let used = used.iter().filter(|name| {
            visitors
                .iter()
                .filter(|visitor| visitor.server == **name)
                .count()
                > 0
        });
        (used.count() == 4).then_some(())
    });
    let count = |name: &str| {
        visitors
            .iter()
            .filter(|visitor| visitor.server == name)
            .count()
    };
    println!("{:?}", ["a", "b", "c", "d"].map(count));
    // All but two of the busiest server leave; those two stay for long.
    let mut kept: Vec<Visitor> = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let place = visitors
            .iter()
            .position(|visitor| visitor.server == name)
            .unwrap();
        kept.push(visitors.swap_remove(place));
    }
    drop(visitors);
    until("a server that drains", || {
        for visitor in &mut kept {
            assert_eq!(
                visitor.ask("/").text(),
                visitor.server,
                "its session is lost"
            );
        }
        let doing = pool(&weir)["scale"]["doing"].clone();
        doing.as_str().unwrap().ends_with("drains").then_some(())
    });
    let end = std::time::Instant::now() + Duration::from_millis(2500);
    while std::time::Instant::now() < end {
        for visitor in &mut kept {
            assert_eq!(
                visitor.ask("/").text(),
                visitor.server,
                "its session is lost"
            );
        }
        assert_eq!(pool(&weir)["backends"].as_array().unwrap().len(), 4);
        thread::sleep(Duration::from_millis(20));
    }
    // When they have gone, their servers may.
    drop(kept);
    has(&weir, 2);
    assert!(
        orders(&weir)
            .iter()
            .filter(|order| order["action"] == "in")
            .count()
            >= 2
    );
}

/// Somebody stays for hours at the server that was chosen, and the others are empty soon: one of those goes.
#[test]
fn an_empty_server_goes_sooner_than_one_with_a_session_that_lasts() {
    let servers = fleet();
    let route = "sticky = { mode = \"insert\", sessions = \"local\", idle_timeout = \"4s\" }";
    let scale = "target_sessions = 2\ndrain_deadline = \"1h\"";
    let weir = start(&servers, PROGRAM, route, scale);
    let address = weir.address("web");
    let mut visitors: Vec<Visitor> = Vec::new();
    let visit = |visitors: &mut [Visitor]| {
        for visitor in visitors {
            let answer = visitor.ask("/").text();
            assert_eq!(answer, visitor.server, "its session is lost");
        }
    };
    until("visitors at four servers", || {
        visitors.push(Visitor::new(address));
        visit(&mut visitors);
        let is_used = |name| visitors.iter().any(|visitor| visitor.server == name);
        ["a", "b", "c", "d"].into_iter().all(is_used).then_some(())
    });
    // One at each server, so that fewer servers would do for them.
    let mut seen = Vec::new();
    visitors.retain(|visitor| {
        let is_first = !seen.contains(&visitor.server);
        seen.push(visitor.server.clone());
        is_first
    });
    let doing = || pool(&weir)["scale"]["doing"].as_str().unwrap().to_owned();
    let address = until("one that drains", || {
        visit(&mut visitors);
        doing().strip_suffix(" drains").map(str::to_owned)
    });
    let named = |own: &&Origin| own.address.to_string() == address;
    let place = servers.iter().position(|own| named(&own)).unwrap();
    let name = ["a", "b", "c", "d"][place];
    visitors.retain(|visitor| visitor.server == name);
    let gone = within(PATIENCE, || {
        visit(&mut visitors);
        let backends = pool(&weir)["backends"].clone();
        (backends.as_array().unwrap().len() == 2).then_some(())
    });
    assert!(gone.is_some(), "{:#}", pool(&weir));
    weir.tells("it goes in its place");
}

#[test]
fn a_command_that_fails_or_hangs_is_told_and_given_up() {
    let servers = fleet();
    let program = "#!/bin/sh\necho $$ >>DIR/pids\ncase $(wc -l <DIR/pids) in 1) echo no such cloud >&2; exit 3;; *) exec sleep 100;; esac\n";
    let weir = start(
        &servers,
        program,
        "",
        "target_in_flight = 1\ntimeout = \"200ms\"",
    );
    let load = Load::start(weir.address("web"), 8, "/slow");
    let failed = [("pool", "was"), ("action", "out"), ("result", "failed")];
    until("two failures", || {
        (weir.metric("weir_scale_steps_total", &failed) >= 2.0).then_some(())
    });
    weir.tells("no such cloud");
    weir.tells("exit status: 3");
    weir.tells("did not end within 200ms");
    assert!(pool(&weir)["scale"]["problem"].is_string());
    load.stop();
    // Nobody is left behind, neither running nor as a zombie.
    until("the programs to be gone", || {
        let pids = fs::read_to_string(weir.directory.join("pids")).unwrap();
        let mut pids = pids.lines();
        pids.all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            .then_some(())
    });
}

#[test]
fn an_operator_stands_over_it_and_a_webhook_is_asked_as_a_command_is() {
    let servers = fleet();
    let hook = Origin::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let url = format!("webhook = \"http://{}/scale?pool=was\"", hook.address);
    let config = format!(
        "[listeners.web]\nbind = [\"$web\"]\n[[routes]]\npool = \"was\"\n[pools.was]\nbackends = [\"{}\", \"{}\"]\n\
         [pools.was.scale]\nmin = 1\nmax = 4\ninterval = \"200ms\"\ncool_down = \"300ms\"\nhold = \"300ms\"\n{url}\ntarget_latency = \"1s\"\n",
        servers[0].address, servers[1].address
    );
    let weir = Weir::start(&config);
    let draining = || {
        let backends = pool(&weir)["backends"].clone();
        let mut backends = backends.as_array().unwrap().iter().cloned();
        backends.find(|own| own["set_by"] == "scale")
    };
    let one = until("a backend that drains", draining);
    assert_eq!(one["effective"], "drain");
    until("the webhook to be asked", || {
        (hook.hits() > 0).then_some(())
    });
    let asked = hook.requests().swap_remove(0);
    assert_eq!(
        (asked.method(), asked.target()),
        ("POST".into(), "/scale?pool=was".into())
    );
    let order: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(
        (&order["action"], &order["backend"]["name"]),
        (&"in".into(), &one["name"])
    );

    // It stays in the file, and an operator wants it back.
    let name = one["name"].as_str().unwrap().replace(':', "%3A");
    until("the operator's word", || {
        assert_eq!(
            weir.post(&format!("/api/v1/pools/was/backends/{name}/ready"))
                .status(),
            200
        );
        draining().is_none().then_some(())
    });
    // What drains for a scale that is gone takes new work again.
    until("a backend that drains", draining);
    let generation = weir.generation();
    weir.write(config.split("[pools.was.scale]").next().unwrap());
    weir.await_generation_after(generation);
    until("nobody to drain", || draining().is_none().then_some(()));
    assert_eq!(
        weir.metric("weir_scale_wanted", &[]),
        0.0,
        "no rows are left"
    );
}

/// What servers say of their load when they are checked decides, however little they have to do.
#[test]
fn servers_say_themselves_how_busy_they_are() {
    let load = Arc::new(AtomicUsize::new(60));
    let servers: Vec<Origin> = (0..4)
        .map(|_| {
            let load = load.clone();
            Origin::start(move |visit| {
                while visit.request().is_ok() {
                    let load = load.load(SeqCst);
                    visit.send(format!(
                        "HTTP/1.1 200 OK\r\nX-Load: {load}\r\nContent-Length: 0\r\n\r\n"
                    ));
                }
            })
        })
        .collect();
    let scale = "target_load = 60\n[pools.was.health]\ntype = \"http\"\ninterval = \"50ms\"\nload_header = \"X-Load\"";
    let weir = start(&servers, PROGRAM, "", scale);
    weir.settles("weir_scale_load", &[("pool", "was")], 1.0);
    load.store(120, SeqCst);
    has(&weir, 4);
    load.store(6, SeqCst);
    has(&weir, 2);
    weir.settles("weir_scale_wanted", &[("pool", "was")], 2.0);
}

/// A backup is not there for the load, and before anything was measured as many are wanted as there are.
#[test]
fn backups_do_not_count_and_nobody_is_told_to_stop_everything() {
    let servers: Vec<Origin> = ["a", "b", "c"].map(server).into();
    let backup = servers[2].address;
    let scale = format!(
        "target_in_flight = 4\n[[pools.was.backends]]\naddress = \"{backup}\"\nbackup = true\n"
    );
    let weir = start(&servers[..2], PROGRAM, "", &scale);
    let first = until("a look at the pool", || {
        let scale = pool(&weir)["scale"].clone();
        scale.is_object().then_some(scale)
    });
    assert_eq!(first["wanted"], 2, "{first}");
    weir.settles("weir_backend_up", &[("pool", "was")], 3.0);
    weir.settles("weir_scale_serving", &[("pool", "was")], 2.0);
}

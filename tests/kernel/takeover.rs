//! Two weirs share a virtual IP, by keepalived and by BIRD with the files of `config/`, and one of them is killed.
//! The clients must be served again within four seconds, each by the backend that it had.
//! Here the walk ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::network::{self, BACKENDS, Network};
use crate::process::{Process, wait};
use crate::process::{run, there};
use crate::roles::source;

/// What a takeover may take.
const TAKEOVER: Duration = Duration::from_secs(4);
/// What anything else may take.
const PATIENCE: Duration = Duration::from_secs(60);
const SESSIONS: usize = 30;
const WEIRS: [&str; 2] = ["weir1", "weir2"];

pub fn missing_keepalived() -> Option<String> {
    let missing = || "Debian's package keepalived is not installed".to_owned();
    network::missing().or_else(|| (!there("keepalived")).then(missing))
}

pub fn missing_bird() -> Option<String> {
    let missing = || "Debian's package bird2 is not installed".to_owned();
    network::missing().or_else(|| (!there("bird") || !there("birdc")).then(missing))
}

/// VRRP: one weir has the address; it is killed, comes back, and then the cable of the other is pulled.
pub fn vrrp(directory: &Path) {
    let address = "10.99.0.10";
    let network = Network::new(directory);
    let _backends = network.backends();
    let mut weirs =
        WEIRS.map(|place| Some(network.weir(place, &configuration(directory, place, address))));
    let _keepers = WEIRS.map(|place| keepalived(&network, place, address));
    let owners = || {
        let has = |place: &&str| {
            network
                .ip(place, "-br address show dev eth0")
                .contains(&format!("{address}/32"))
        };
        WEIRS.into_iter().filter(has).collect::<Vec<_>>()
    };
    let owner = || {
        wait("one weir has the address", PATIENCE, || {
            <[&str; 1]>::try_from(owners()).ok()
        })[0]
    };
    let first = owner();
    let crowds = Crowds::new(&network, address);
    crowds.settle();

    let index = usize::from(first == WEIRS[1]);
    let moment = now();
    weirs[index] = None;
    let elsewhere = || owners().iter().any(|owner| *owner != first).then_some(());
    wait("the address has moved", PATIENCE, elsewhere);
    let gap = crowds.back_after(moment);
    println!(
        "  VRRP: the active weir was killed, and every client was served again after {gap:.2?}"
    );
    assert!(gap < TAKEOVER);
    let second = owner();
    assert_ne!(first, second);

    weirs[index] = Some(network.weir(first, &configuration(directory, first, address)));
    // Its keeper must have seen it, or there is nobody to take over.
    let log = directory.join(format!("keepalived-{first}.log"));
    wait("the keeper takes it for well", PATIENCE, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let last = text.rfind("Entering FAULT STATE")?;
        text[last..].contains("Entering BACKUP STATE").then_some(())
    });
    crowds.settle();
    assert_eq!(owner(), second, "the address came back without need");
    let moment = now();
    network.ip("router", &format!("link set {second} down"));
    // Who is cut off does not know, and keeps it.
    let back = || owners().contains(&first).then_some(());
    wait("the address has moved", PATIENCE, back);
    let gap = crowds.back_after(moment);
    println!(
        "  VRRP: the active weir's cable was pulled, and every client was served again after {gap:.2?}"
    );
    assert!(gap < TAKEOVER);
    crowds.judge();
}

/// BGP: both weirs have the address and half of the connections; one is killed, and comes back.
pub fn ecmp(directory: &Path) {
    let address = "198.51.100.10";
    let network = Network::new(directory);
    let _backends = network.backends();
    let mut weirs = WEIRS.map(|place| {
        network.ip(place, &format!("address add {address}/32 dev lo"));
        Some(network.weir(place, &configuration(directory, place, address)))
    });
    let _router = router(&network);
    without_its_protocol(&network);
    let _birds = WEIRS.map(|place| bird(&network, place));
    let ways = || {
        let routes = network.ip("router", &format!("route show {address}"));
        WEIRS
            .into_iter()
            .filter(|place| routes.contains(at(place)))
            .count()
    };
    wait("two ways of equal cost", PATIENCE, || {
        (ways() == 2).then_some(())
    });
    let crowds = Crowds::new(&network, address);
    crowds.settle();
    for place in WEIRS {
        let metrics = run(network
            .command(place, "curl")
            .args(["-s", "http://127.0.0.1:9900/metrics"]));
        assert!(
            metrics.contains("weir_http_requests_total{"),
            "nobody came to {place}"
        );
    }

    let moment = now();
    weirs[0] = None;
    wait("one way is left", PATIENCE, || (ways() == 1).then_some(()));
    let gap = crowds.back_after(moment);
    println!(
        "  BGP: one of two weirs was killed, and every client was served again after {gap:.2?}"
    );
    assert!(gap < TAKEOVER);

    weirs[0] = Some(network.weir("weir1", &configuration(directory, "weir1", address)));
    wait("two ways again", PATIENCE, || (ways() == 2).then_some(()));
    crowds.settle();
    crowds.judge();
}

/// Where a weir is.
fn at(place: &str) -> &'static str {
    if place == WEIRS[0] {
        "10.99.0.11"
    } else {
        "10.99.0.12"
    }
}

/// What the weirs share is the file and the secret.
fn configuration(directory: &Path, place: &str, address: &str) -> String {
    let secrets = directory.join("secrets");
    if !secrets.exists() {
        fs::write(
            &secrets,
            "dGhlIHNlY3JldCBvZiBhIHRlc3QsIGF0IGxlYXN0IDMyIGJ5dGVz\n",
        )
        .expect("a file can be written");
    }
    let backends: Vec<String> = BACKENDS
        .iter()
        .map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }}"))
        .collect();
    let backends = backends.join(", ");
    format!(
        "state_dir = \"{}\"\nsecrets_file = \"{}\"\n[log]\naccess = \"off\"\n[listeners.web]\nbind = [\"{address}:80\"]\n\
         [listeners.bytes]\nbind = [\"{address}:81\"]\nprotocol = \"tcp\"\n\
         [[routes]]\nlisteners = [\"web\"]\npool = \"was\"\nsticky = {{ mode = \"insert\" }}\n\
         [[routes]]\nlisteners = [\"bytes\"]\npool = \"mapped\"\n\
         [pools.was]\nbackends = [{backends}]\nhealth = {{ interval = \"500ms\" }}\n\
         [pools.mapped]\nbalancer = \"maglev\"\nbackends = [{backends}]\nhealth = {{ interval = \"500ms\" }}\n",
        directory.join(format!("state-{place}")).display(),
        secrets.display(),
    )
}

fn template(file: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(file);
    let text = fs::read_to_string(&path).expect("it is there");
    (path, text)
}

/// Replaces what an operator would, and notices when it is not there any more.
fn edited(mut text: String, changes: &[(&str, &str)]) -> String {
    for (old, new) in changes {
        assert!(text.contains(old), "the template does not say {old}");
        text = text.replace(old, new);
    }
    text
}

fn keepalived(network: &Network, place: &str, address: &str) -> Process {
    let (check, _) = template("keepalived/weir-ready");
    let (_, text) = template("keepalived/keepalived.conf");
    let text = edited(
        text,
        &[
            ("192.0.2.10/32", &format!("{address}/32")),
            ("/etc/keepalived/weir-ready", &check.display().to_string()),
            // The tree of a test may lie where others may write.
            ("  enable_script_security\n", ""),
            ("script_user nobody", "script_user root"),
            (
                "priority 100",
                if place == WEIRS[0] {
                    "priority 101"
                } else {
                    "priority 100"
                },
            ),
        ],
    );
    let file = |kind: &str| {
        network
            .directory
            .join(format!("{place}.{kind}"))
            .display()
            .to_string()
    };
    fs::write(file("keepalived"), text).expect("a file can be written");
    let options = [
        "keepalived",
        "--dont-fork",
        "--log-console",
        "--log-detail",
        "--vrrp",
        "--use-file",
    ];
    let (own, pid, vrrp) = (file("keepalived"), file("pid"), file("vrrp"));
    let rest = [own.as_str(), "--pid", &pid, "--vrrp_pid", &vrrp];
    let line: Vec<&str> = options.into_iter().chain(rest).collect();
    network.start(place, &format!("keepalived-{place}"), &line)
}

/// BIRD and the watcher that makes it announce.
fn bird(network: &Network, place: &str) -> [Process; 2] {
    let (_, text) = template("bird/bird.conf");
    let text = edited(
        text,
        &[
            ("router id 192.0.2.11", &format!("router id {}", at(place))),
            ("neighbor 192.0.2.1 ", "neighbor 10.99.0.1 "),
        ],
    );
    [daemon(network, place, &text), announcer(network, place)]
}

fn announcer(network: &Network, place: &str) -> Process {
    let (script, _) = template("bird/weir-announce");
    let socket = format!("BIRD_SOCKET={}", network.socket(place));
    let line = ["env", &socket, &script.display().to_string()];
    network.start(place, &format!("announce-{place}"), &line)
}

/// A BIRD that knows no protocol `weir`, as with Debian's own file: the watcher says so in BIRD's words.
fn without_its_protocol(network: &Network) {
    let _watcher = announcer(network, "router");
    let log = network.directory.join("announce-router.log");
    // Until BIRD listens there is another reason.
    wait("the watcher says what BIRD says", PATIENCE, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let mut lines = text.lines();
        lines
            .any(|line| line.contains("the protocol `weir`: syntax error"))
            .then_some(())
    });
}

/// What the operators of the router do.
fn router(network: &Network) -> Process {
    let mut text = "router id 10.99.0.1;\nprotocol device {}\nprotocol bfd { interface \"*\" { interval 300 ms; multiplier 3; }; }\n\
                    protocol kernel { merge paths on; ipv4 { import none; export all; }; }\n"
        .to_owned();
    for place in WEIRS {
        text += &format!(
            "protocol bgp {place} {{ local as 65000; neighbor {} as 65010; bfd on; ipv4 {{ import all; export none; }}; }}\n",
            at(place)
        );
    }
    daemon(network, "router", &text)
}

fn daemon(network: &Network, place: &str, text: &str) -> Process {
    let file = network.directory.join(format!("{place}.bird"));
    fs::write(&file, text).expect("a file can be written");
    let line = [
        "bird",
        "-f",
        "-c",
        &file.display().to_string(),
        "-s",
        &network.socket(place),
    ];
    network.start(place, &format!("bird-{place}"), &line)
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is later")
}

/// The clients of both listeners.
struct Crowds([Crowd; 2]);

impl Crowds {
    /// At the http listener a cookie says where a session belongs, at the tcp listener the client's address does.
    fn new(network: &Network, address: &str) -> Self {
        Self([80, 81].map(|port| Crowd::new(network, &format!("{address}:{port}"), port)))
    }

    fn settle(&self) {
        self.0.iter().for_each(Crowd::settle);
    }

    fn back_after(&self, moment: Duration) -> Duration {
        let gaps = self.0.iter().map(|crowd| crowd.back_after(moment));
        gaps.max().expect("there are two")
    }

    fn judge(&self) {
        self.0.iter().for_each(Crowd::judge);
    }
}

/// Many sessions that go on and on, each from an address of its own.
struct Crowd {
    port: u16,
    log: PathBuf,
    _process: Process,
}

/// One request: when it ended, whose it was, and which backend answered.
struct Visit {
    at: Duration,
    session: usize,
    backend: Option<String>,
}

impl Crowd {
    fn new(network: &Network, to: &str, port: u16) -> Self {
        for session in 0..SESSIONS {
            let own = source(session);
            let own = own.trim_end_matches(":0");
            // The other crowd may have brought it.
            network.ip("client", &format!("address replace {own}/24 dev eth0"));
        }
        let (name, sessions) = (format!("crowd-{port}"), SESSIONS.to_string());
        Self {
            port,
            log: network.directory.join(format!("{name}.log")),
            _process: network.cast("client", &name, &["client", to, &sessions]),
        }
    }

    fn visits(&self) -> Vec<Visit> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let visit = |line: &str| {
            let mut words = line.split(' ');
            let at = Duration::from_millis(words.next()?.parse().ok()?);
            let session = words.next()?.parse().ok()?;
            let backend = words.next().filter(|word| *word != "-").map(str::to_owned);
            Some(Visit {
                at,
                session,
                backend,
            })
        };
        whole.lines().filter_map(visit).collect()
    }

    /// Waits until from now on every session was served twice, and nobody in vain.
    fn settle(&self) {
        let moment = now();
        wait("everybody is served", PATIENCE, || {
            let visits = self.visits();
            let last = visits
                .iter()
                .filter(|visit| visit.at > moment && visit.backend.is_none())
                .map(|visit| visit.at)
                .max();
            let since = last.unwrap_or(moment);
            (served_since(&visits, since) >= 2).then_some(())
        });
    }

    /// How long after `moment` the last request in vain ended, if there was one, once every session was served twice since.
    fn back_after(&self, moment: Duration) -> Duration {
        wait("everybody is served again", PATIENCE, || {
            let visits = self.visits();
            let in_vain = visits
                .iter()
                .filter(|visit| visit.at > moment && visit.backend.is_none());
            let last = in_vain.map(|visit| visit.at).max().unwrap_or(moment);
            (served_since(&visits, last) >= 2).then(|| last.saturating_sub(moment))
        })
    }

    /// Every session had one backend all along, and all backends had sessions.
    fn judge(&self) {
        let visits = self.visits();
        let mut homes = vec![None; SESSIONS];
        for visit in visits.iter().filter(|visit| visit.backend.is_some()) {
            let home = homes[visit.session].get_or_insert(&visit.backend);
            assert_eq!(*home, &visit.backend, "session {} has moved", visit.session);
        }
        for (name, _) in BACKENDS {
            assert!(
                homes
                    .iter()
                    .flatten()
                    .any(|home| home.as_deref() == Some(name)),
                "nobody is at {name}"
            );
        }
        let lost = visits
            .iter()
            .filter(|visit| visit.backend.is_none())
            .count();
        println!(
            "  port {}: {} requests of {SESSIONS} sessions, {lost} in vain, every session at its backend",
            self.port,
            visits.len()
        );
    }
}

/// How often the session that was served least was, after `moment`.
fn served_since(visits: &[Visit], moment: Duration) -> usize {
    let mut served = vec![0; SESSIONS];
    for visit in visits
        .iter()
        .filter(|visit| visit.at > moment && visit.backend.is_some())
    {
        served[visit.session] += 1;
    }
    served.into_iter().min().unwrap_or_default()
}

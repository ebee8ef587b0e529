//! Sessions that last and say nothing for long: OpenSSH's own server and client through a tcp listener, with reloads, a drain and silence.
//! Nothing here is written in its protocol, which notices every byte that is changed.
//! Read `stage.rs` for weir.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::ports;
use crate::process::{Process, run, said, there, wait};
use crate::stage::{DRAIN, PATIENCE, Stage, Talk};

const SERVER: &str = "/usr/sbin/sshd";
/// Where it wants to lock a process in that knows no user yet; it does not make the folder.
const EMPTY: &str = "/run/sshd";
const MIB: usize = 1 << 20;

/// After so much silence weir ends a session.
const IDLE: Duration = Duration::from_secs(2);

/// What these claims need.
pub fn missing() -> Option<String> {
    if !Path::new(SERVER).exists() {
        return Some("Debian's package openssh-server is not installed".to_owned());
    }
    if !["ssh", "scp", "ssh-keygen"].into_iter().all(there) {
        return Some("Debian's package openssh-client is not installed".to_owned());
    }
    let made = fs::create_dir_all(EMPTY);
    made.err()
        .filter(|_| !Path::new(EMPTY).exists())
        .map(|error| format!("{EMPTY} cannot be made: {error}"))
}

/// Two servers that say who they are, and share the key that clients know them by; weir before them.
struct Site {
    directory: PathBuf,
    servers: Vec<(&'static str, SocketAddr, Process)>,
    listener: SocketAddr,
    user: String,
}

impl Site {
    fn start(directory: &Path) -> Self {
        for key in ["host", "client"] {
            let key = directory.join(key);
            run(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(key));
        }
        let listener = ports::free();
        let public = fs::read_to_string(directory.join("host.pub")).expect("it was made");
        fs::write(directory.join("known"), format!("weir {public}")).expect("a file");
        let servers = ["one", "two"].map(|name| {
            let address = ports::free();
            (name, address, server(directory, name, address))
        });
        Site {
            directory: directory.to_path_buf(),
            servers: servers.into(),
            listener,
            user: run(Command::new("id").arg("-un")).trim().to_owned(),
        }
    }

    /// What the file says of these servers, and `more` at its end.
    fn text(&self, names: &[&str], more: &str) -> String {
        let backends = self.servers.iter().filter_map(|(name, address, _)| {
            let is_asked = names.contains(name);
            is_asked.then(|| format!("{{ name = \"{name}\", address = \"{address}\" }}"))
        });
        let backends: Vec<String> = backends.collect();
        format!(
            "[listeners.ssh]\nbind = [\"{}\"]\nprotocol = \"tcp\"\n\
             [[routes]]\nlisteners = [\"ssh\"]\npool = \"ssh\"\n\
             [pools.ssh]\nbalancer = \"least-connections\"\nbackends = [{}]\n{more}",
            self.listener,
            backends.join(", ")
        )
    }

    /// What ssh and scp are told: nothing of this machine's, and the way to weir.
    fn options(&self) -> Vec<String> {
        let place = self.directory.display();
        [
            "-F/dev/null".to_owned(),
            format!("-i{place}/client"),
            "-oIdentitiesOnly=yes".to_owned(),
            "-oIdentityAgent=none".to_owned(),
            "-oBatchMode=yes".to_owned(),
            "-oLogLevel=ERROR".to_owned(),
            "-oHostKeyAlias=weir".to_owned(),
            format!("-oUserKnownHostsFile={place}/known"),
            "-oStrictHostKeyChecking=yes".to_owned(),
            format!("-oPort={}", self.listener.port()),
        ]
        .into()
    }

    /// A session that says who serves it and then everything back.
    fn session(&self, more: &[&str]) -> (Talk, String) {
        let mut words = self.options();
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words.push(format!("{}@127.0.0.1", self.user));
        words.push("echo $SERVER; exec cat".to_owned());
        let mut talk = Talk::start("ssh", &words);
        let server = talk.line();
        assert!(["one", "two"].contains(&&*server), "{server:?}");
        (talk, server)
    }

    /// A session with each server, the first one's first.
    fn pair(&self) -> (Talk, Talk) {
        let (first, at) = self.session(&[]);
        let (second, other) = self.session(&[]);
        assert_ne!(at, other, "least-connections");
        match &*at {
            "one" => (first, second),
            _ => (second, first),
        }
    }
}

fn server(directory: &Path, name: &str, address: SocketAddr) -> Process {
    let place = directory.display();
    let mut text = format!(
        "ListenAddress {address}\nHostKey {place}/host\nAuthorizedKeysFile {place}/client.pub\n\
         PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\nMaxStartups 100\nSubsystem sftp internal-sftp\nSetEnv SERVER={name}\n"
    );
    let file = directory.join(format!("sshd-{name}"));
    // From 9.8 on it shuts out who comes and goes without logging in, as health checks do, and with them all clients of the same address.
    let lenient = text.clone() + "PerSourcePenalties no\n";
    fs::write(&file, &lenient).expect("a file");
    let tried = Command::new(SERVER).arg("-tf").arg(&file).output();
    if tried.is_ok_and(|output| output.status.success()) {
        text = lenient;
    }
    fs::write(&file, text).expect("a file");
    let words = ["-D", "-e", "-f", &file.display().to_string()].map(str::to_owned);
    Process::start(SERVER, &words, &directory.join(format!("sshd-{name}.log")))
}

/// Says it and hears it again.
fn echoes(talk: &mut Talk, words: &str) {
    talk.say(words);
    talk.hear(words);
}

/// Sessions outlast reloads and the removal of another server; a removed server's own last until the deadline.
pub fn sessions(directory: &Path) {
    let site = Site::start(directory);
    let both = site.text(&["one", "two"], "");
    let stage = Stage::start(directory, &both, 2);
    let (mut first, mut second) = site.pair();
    let other = format!(
        "{both}[listeners.other]\nbind = [\"{}\"]\nprotocol = \"tcp\"\n[[routes]]\nlisteners = [\"other\"]\npool = \"ssh\"\n",
        ports::free()
    );
    stage.reload(&other);
    echoes(&mut first, "after one reload");
    echoes(&mut second, "after one reload");

    // `second` loses its server, and has some seconds yet.
    let removed = Instant::now();
    let alone = site.text(&["one"], "");
    stage.reload(&alone);
    echoes(&mut second, "not yet");
    let bytes = noise(16);
    let back = directory.join("back");
    fs::write(directory.join("noise"), &bytes).expect("a file");
    let mut stream = Command::new("timeout")
        .args(["120", "ssh"])
        .args(site.options())
        .args([&format!("{}@127.0.0.1", site.user), "cat"])
        .stdin(fs::File::open(directory.join("noise")).expect("it is there"))
        .stdout(fs::File::create(&back).expect("a file"))
        .spawn()
        .expect("ssh starts");
    let mut reloads = 0;
    let status = loop {
        if let Some(status) = stream.try_wait().expect("a child") {
            break status;
        }
        reloads += 1;
        stage.reload(&format!(
            "{alone}[limits]\nhead = \"{}KiB\"\n",
            32 + reloads
        ));
        echoes(&mut first, "after another");
    };
    assert!(status.success(), "{status}");
    assert!(
        fs::read(&back).is_ok_and(|back| back == bytes),
        "other bytes"
    );
    assert!(reloads > 0);

    second.hear("");
    let took = removed.elapsed();
    assert!(took > DRAIN.mul_f32(0.9), "{took:?}");
    wait("the line of its end", PATIENCE, || {
        stage.access().contains("\"end\":\"drained\"").then_some(())
    });
    echoes(&mut first, "it still stands");
    println!("  {reloads} reloads while 16 MiB went and came back");
}

/// Files sent and fetched are the same, by either protocol.
pub fn copies(directory: &Path) {
    let site = Site::start(directory);
    let stage = Stage::start(directory, &site.text(&["one", "two"], ""), 2);
    let size = if std::env::var_os("WEIR_FULL").is_some() {
        256
    } else {
        16
    };
    let [file, there, back] = ["file", "there", "back"].map(|name| directory.join(name));
    let bytes = noise(size);
    fs::write(&file, &bytes).expect("a file");
    for protocol in ["-s", "-O"] {
        let far = format!("{}@127.0.0.1:{}", site.user, there.display());
        for (from, to) in [
            (file.display().to_string(), far.clone()),
            (far.clone(), back.display().to_string()),
        ] {
            run(Command::new("timeout")
                .args(["300", "scp", protocol, "-q"])
                .args(site.options())
                .args([from, to]));
        }
        assert!(
            fs::read(&back).is_ok_and(|back| back == bytes),
            "scp {protocol}"
        );
        fs::remove_file(&there).expect("it is there");
        fs::remove_file(&back).expect("it is there");
    }
    let least = (2 * size * MIB) as f64;
    for direction in ["in", "out"] {
        let label = format!("direction=\"{direction}\"");
        assert!(stage.metric("weir_tcp_bytes_total", &label) > least);
    }
}

/// Who says nothing is cut off at the idle timeout and no sooner, whatever other timeouts there are; a client that asks whether the
/// server is still there stays.
pub fn idle(directory: &Path) {
    let site = Site::start(directory);
    let times = format!(
        "[timeouts]\nupgrade_idle = \"{}s\"\nkeep_alive = \"300ms\"\nresponse = \"300ms\"\nresponse_idle = \"300ms\"\nbody_idle = \"300ms\"\n",
        IDLE.as_secs()
    );
    let stage = Stage::start(directory, &site.text(&["one", "two"], &times), 2);
    let (mut alive, _) = site.session(&["-oServerAliveInterval=1"]);
    let (mut silent, _) = site.session(&["-oServerAliveInterval=0"]);
    echoes(&mut silent, "for the last time");
    let began = Instant::now();
    silent.hear("");
    let took = began.elapsed();
    let window = IDLE.mul_f32(0.9)..IDLE * 4;
    assert!(window.contains(&took), "{took:?}");
    wait("the line of its end", PATIENCE, || {
        stage.access().contains("\"end\":\"idle\"").then_some(())
    });
    wait("three times the idle timeout", PATIENCE, || {
        (began.elapsed() > IDLE * 3).then_some(())
    });
    echoes(&mut alive, "still here");
    assert_eq!(stage.access().matches("\"end\":\"idle\"").count(), 1);
}

/// A server that drains keeps its sessions and gets no more; who drains it can wait for their end.
pub fn drain(directory: &Path) {
    let site = Site::start(directory);
    let stage = Stage::start(directory, &site.text(&["one", "two"], ""), 2);
    let (mut first, mut second) = site.pair();
    let mut drains = stage
        .command(&["drain", "ssh/one", "--wait", "--deadline", "60s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir can be run");
    wait("the drain", PATIENCE, || {
        let told = run(&mut stage.command(&["status"]));
        told.contains("drain").then_some(())
    });
    let more: Vec<_> = (0..3).map(|_| site.session(&[])).collect();
    assert!(more.iter().all(|(_, at)| at == "two"));
    echoes(&mut first, "kept");
    echoes(&mut second, "untouched");
    assert!(drains.try_wait().expect("a child").is_none(), "it waits");
    drop(first);
    let done = drains.wait_with_output().expect("a child");
    assert!(done.status.success(), "{}", said(&done));
    run(&mut stage.command(&["ready", "ssh/one"]));
    assert_eq!(site.session(&[]).1, "one", "it has the fewest");
    echoes(&mut second, "as before");
}

/// So many MiB that no two pieces of are alike.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let words = std::iter::repeat_with(|| {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(size * MIB / 8).flatten().collect()
}

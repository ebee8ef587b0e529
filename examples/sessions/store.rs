//! The stores that servers share: Redis, Redis with a replica and a sentinel, Memcached, PostgreSQL; each on its own ports.
//! It must be reached over loopback only and keep its files under the directory that it gets.
//! Read `fleet.rs` for the servers that use it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::fleet::Keeping;
use crate::ports;
use crate::process::{Process, wait};

const START: Duration = Duration::from_secs(60);
/// After this a sentinel takes a silent primary for dead.
const SILENCE: &str = "500";

const DRIVER: &str = "/usr/share/java/postgresql.jar";
const SAFE: &str = "appendonly yes\nappendfsync always\n";

const TABLE: &str = "CREATE TABLE sessions (id varchar(100) PRIMARY KEY, app varchar(255), data bytea, valid char(1), \
    max_inactive int, last_access bigint); CREATE INDEX ON sessions (app);";

/// A running store, or none.
pub enum Store {
    /// The servers share nothing.
    None,
    /// One Redis.
    Redis(Daemon),
    /// Two, and who says which of them is the primary.
    Watched(Box<Watched>),
    /// One Memcached.
    Memcached(Daemon),
    /// One PostgreSQL.
    Postgres(Daemon),
}

/// A program on a port.
pub struct Daemon {
    address: SocketAddr,
    process: Process,
    directory: PathBuf,
}

/// A Redis, its replica, and a sentinel.
pub struct Watched {
    primary: Daemon,
    replica: Daemon,
    sentinel: Daemon,
}

impl Store {
    /// Why none can run here, if so.
    pub fn missing(keeping: Keeping) -> Option<String> {
        let runs = |program: &str| Command::new(program).arg("--version").output().is_ok();
        let needs = |package: &str, is_there: bool| {
            (!is_there).then(|| format!("Debian's package {package} is not installed"))
        };
        match keeping {
            Keeping::Local | Keeping::Delta | Keeping::DeltaListed | Keeping::Backup => None,
            Keeping::Redis | Keeping::RedisReplica => needs("redis-server", runs("redis-server")),
            Keeping::Memcached => needs("memcached", runs("memcached")),
            Keeping::Postgres => needs("postgresql", postgres_programs().is_some())
                .or_else(|| needs("libpostgresql-jdbc-java", Path::new(DRIVER).exists())),
        }
    }

    /// Starts what `keeping` needs and waits until it answers.
    pub fn start(keeping: Keeping, directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("a directory can be made");
        match keeping {
            Keeping::Local | Keeping::Delta | Keeping::DeltaListed | Keeping::Backup => Store::None,
            Keeping::Redis => Store::Redis(redis(&directory.join("redis"), ports::free(), "")),
            Keeping::RedisReplica => Store::Watched(Box::new(Watched::start(directory))),
            Keeping::Memcached => Store::Memcached(memcached(directory, ports::free())),
            Keeping::Postgres => Store::Postgres(postgres(directory)),
        }
    }

    /// The ports that it listens on.
    pub fn ports(&self) -> Vec<u16> {
        let daemons: &[&Daemon] = match self {
            Store::None => &[],
            Store::Redis(daemon) | Store::Memcached(daemon) | Store::Postgres(daemon) => &[daemon],
            Store::Watched(all) => &[&all.primary, &all.replica, &all.sentinel],
        };
        daemons.iter().map(|it| it.address.port()).collect()
    }

    /// What the Express application is told: the store's kind and its port.
    pub fn words(&self) -> Vec<String> {
        let (kind, daemon) = match self {
            Store::None | Store::Postgres(_) => return Vec::new(),
            Store::Redis(daemon) => ("redis", daemon),
            Store::Watched(all) => ("sentinel", &all.sentinel),
            Store::Memcached(daemon) => ("memcached", daemon),
        };
        vec![kind.to_owned(), daemon.address.port().to_string()]
    }

    /// The database's URL and the driver that reads it.
    pub fn database(&self) -> Option<(String, PathBuf)> {
        let Store::Postgres(daemon) = self else {
            return None;
        };
        let url = format!("jdbc:postgresql://{}/postgres?user=weir", daemon.address);
        Some((url, PathBuf::from(DRIVER)))
    }

    /// SIGKILL to the primary; returns when the other one is it. The killed one is started again, as a replica.
    pub fn fail_over(&mut self) {
        let Store::Watched(all) = self else {
            panic!("this store has no replica");
        };
        all.primary.process.kill();
        let promoted = all.replica.address;
        wait("the replica is promoted", START, || {
            ask(promoted, "INFO replication\r\n")?
                .contains("role:master")
                .then_some(())
        });
        std::mem::swap(&mut all.primary, &mut all.replica);
        let Daemon {
            address, directory, ..
        } = &all.replica;
        all.replica = redis(&directory.clone(), *address, &replica_of(promoted));
    }

    /// SIGKILL to a store of one process, which is then started again at the same port.
    pub fn restart(&mut self) {
        let Store::Memcached(daemon) = self else {
            panic!("this store is not restarted");
        };
        daemon.process.kill();
        *daemon = memcached(&daemon.directory.clone(), daemon.address);
    }
}

impl Watched {
    fn start(directory: &Path) -> Self {
        let primary = redis(&directory.join("one"), ports::free(), SAFE);
        let copy = replica_of(primary.address);
        let replica = redis(&directory.join("other"), ports::free(), &copy);
        wait("the replica has all of it", START, || {
            ask(primary.address, "INFO replication\r\n")?
                .contains("state=online")
                .then_some(())
        });
        let (own, address) = (directory.join("sentinel"), ports::free());
        let text = format!(
            "bind 127.0.0.1\nport {}\ndir {}\nsentinel monitor shop 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds shop {SILENCE}\nsentinel failover-timeout shop 5000\n",
            address.port(),
            own.display(),
            primary.address.port()
        );
        let mut sentinel = redis_server(&own, address, &text, &["--sentinel"]);
        sentinel.wait_answer("SENTINEL MASTERS\r\n", "num-slaves\r\n$1\r\n1");
        Self {
            primary,
            replica,
            sentinel,
        }
    }
}

impl Daemon {
    /// Waits until the answer to `question` holds `sign`.
    fn wait_answer(&mut self, question: &str, sign: &str) {
        wait(&format!("{sign:?} from {}", self.address), START, || {
            if let Some(status) = self.process.ended() {
                panic!("it ended, {status}:\n{}", self.process.tail(40));
            }
            ask(self.address, question)?.contains(sign).then_some(())
        });
    }
}

fn replica_of(primary: SocketAddr) -> String {
    format!("{SAFE}replicaof {} {}\n", primary.ip(), primary.port())
}

fn redis(directory: &Path, address: SocketAddr, more: &str) -> Daemon {
    let text = format!(
        "bind 127.0.0.1\nport {}\ndir {}\nsave \"\"\nrepl-diskless-sync-delay 0\n{more}",
        address.port(),
        directory.display()
    );
    let mut daemon = redis_server(directory, address, &text, &[]);
    daemon.wait_answer("PING\r\n", "PONG");
    daemon
}

fn redis_server(directory: &Path, address: SocketAddr, text: &str, more: &[&str]) -> Daemon {
    fs::create_dir_all(directory).expect("a directory can be made");
    let file = directory.join("redis.conf");
    fs::write(&file, text).expect("a file can be written");
    let mut arguments = vec![file.display().to_string()];
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    Daemon {
        address,
        process: Process::start("redis-server", &arguments, &directory.join("out.log")),
        directory: directory.to_path_buf(),
    }
}

fn memcached(directory: &Path, address: SocketAddr) -> Daemon {
    let port = address.port().to_string();
    // As root it insists on being told a user.
    let arguments = [
        "-l",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "0",
        "-m",
        "32",
        "-u",
        "nobody",
    ];
    let arguments = arguments.map(str::to_owned);
    let mut daemon = Daemon {
        address,
        process: Process::start("memcached", &arguments, &directory.join("out.log")),
        directory: directory.to_path_buf(),
    };
    daemon.wait_answer("version\r\n", "VERSION");
    daemon
}

/// PostgreSQL as it comes, safe on disk, with the table of Tomcat's DataSourceStore.
fn postgres(directory: &Path) -> Daemon {
    let programs = postgres_programs().expect("PostgreSQL is installed");
    let address = ports::free();
    let data = directory.join("data");
    let program = |name: &str| programs.join(name).display().to_string();
    let words = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    own(directory);
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
    let mut make = as_postgres(&words(&make), &directory.join("initdb.log"));
    wait("initdb ends", START, || make.ended());
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
        "shared_buffers=32MB",
    ];
    let mut daemon = Daemon {
        address,
        process: as_postgres(&words(&serve), &directory.join("out.log")),
        directory: directory.to_path_buf(),
    };
    let create = || {
        let psql = Command::new(program("psql"))
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "weir",
                "-d",
                "postgres",
                "-c",
                TABLE,
            ])
            .output();
        psql.is_ok_and(|output| output.status.success())
    };
    wait("PostgreSQL makes a table", START, || {
        if let Some(status) = daemon.process.ended() {
            panic!("it ended, {status}:\n{}", daemon.process.tail(40));
        }
        create().then_some(())
    });
    daemon
}

/// PostgreSQL refuses to run as root: its package's user runs it then.
fn as_postgres(words: &[String], log: &Path) -> Process {
    if !is_root() {
        return Process::start(&words[0], &words[1..], log);
    }
    let change = [
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "--",
    ];
    // The change of user undoes what was asked about the parent's death.
    let change = change
        .into_iter()
        .chain(["setpriv", "--pdeathsig", "KILL", "--"]);
    let mut all: Vec<String> = change.map(str::to_owned).collect();
    all.extend(words.iter().cloned());
    Process::start("setpriv", &all, log)
}

fn own(directory: &Path) {
    if is_root() {
        let status = Command::new("chown")
            .arg("postgres")
            .arg(directory)
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "chown postgres"
        );
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Where Debian keeps PostgreSQL's own programs: the newest version's.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let programs = versions.map(|entry| entry.path().join("bin"));
    programs.filter(|bin| bin.join("initdb").exists()).max()
}

/// What is answered to one line, as far as it comes with the first bytes.
fn ask(address: SocketAddr, question: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let mut answer = [0; 8192];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

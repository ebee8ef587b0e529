//! A fleet: real servers that keep their sessions in one of seven ways, a spare one, and the store that they share, if any.
//! It must start everything side by side and let nothing outlive it.
//! Read `cluster.rs` for what the Tomcats are told, and `store.rs` for the stores.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clients::SHOP;
use super::cluster::{self, Copies, Members};
use super::store::Store;
use crate::client::Line;
use crate::ports;
use crate::process::{Process, wait};
use crate::tomcat::{Extras, HEALTH, Tomcat};

const START: Duration = Duration::from_secs(180);

const PAGE: &str = include_str!("tomcat/shop.jsp");
const SERVLET: &str = "<servlet><servlet-name>shop</servlet-name><jsp-file>/WEB-INF/shop.jsp</jsp-file></servlet>\
    <servlet-mapping><servlet-name>shop</servlet-name><url-pattern>/shop</url-pattern></servlet-mapping>";

/// Where a fleet keeps its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Tomcat, each in its own memory.
    Local,
    /// Tomcat, DeltaManager; members take in whoever asks them.
    Delta,
    /// The same; members know whom their files name.
    DeltaListed,
    /// Tomcat, BackupManager.
    Backup,
    /// Express, Redis.
    Redis,
    /// Express, Redis with an append-only file and a replica.
    RedisReplica,
    /// Express, Memcached.
    Memcached,
    /// Tomcat, PersistentManager, PostgreSQL.
    Postgres,
}

impl Keeping {
    /// What weir's route says of it.
    pub fn sessions(self) -> &'static str {
        match self {
            Keeping::Local => "local",
            Keeping::Delta | Keeping::DeltaListed | Keeping::Backup => "replicated",
            Keeping::Redis | Keeping::RedisReplica | Keeping::Memcached | Keeping::Postgres => {
                "shared"
            }
        }
    }

    /// Name of the application's session cookie.
    pub fn cookie(self) -> &'static str {
        match self.is_express() {
            true => "connect.sid",
            false => "JSESSIONID",
        }
    }

    /// Why such a fleet cannot run here, if so.
    pub fn missing(self) -> Option<String> {
        let servers = match self.is_express() {
            true => express_missing(),
            false => Tomcat::missing(),
        };
        servers.or_else(|| Store::missing(self))
    }

    fn is_express(self) -> bool {
        matches!(
            self,
            Keeping::Redis | Keeping::RedisReplica | Keeping::Memcached
        )
    }

    fn cluster(self) -> Option<(Copies, Members)> {
        match self {
            Keeping::Delta => Some((Copies::ToAll, Members::Asked)),
            Keeping::DeltaListed => Some((Copies::ToAll, Members::Listed)),
            Keeping::Backup => Some((Copies::ToOne, Members::Asked)),
            _ => None,
        }
    }
}

/// One web application server.
pub struct Was {
    /// What its answers call it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub process: Process,
}

impl Was {
    fn wait_ready(&mut self) {
        let mut line = Line::new(self.address);
        let sign = format!("server={}", self.name);
        wait(&format!("{} answers", self.name), START, || {
            if let Some(status) = self.process.ended() {
                panic!("{} ended, {status}:\n{}", self.name, self.process.tail(40));
            }
            let said = line.get(SHOP, "").ok()?.body.contains(&sign);
            (said && line.get(HEALTH, "").ok()?.status == 200).then_some(())
        });
    }
}

/// Running servers and their store.
pub struct Fleet {
    /// Those in service at first.
    pub servers: Vec<Was>,
    /// What they share.
    pub store: Store,
    keeping: Keeping,
    directory: PathBuf,
    /// Where the members of a cluster reach each other; the last is the spare server's.
    members: Vec<SocketAddr>,
}

impl Fleet {
    /// Starts `count` servers and waits until they answer.
    pub fn start(keeping: Keeping, count: usize, directory: &Path) -> Self {
        let members = (0..=count).map(|_| ports::free()).collect();
        let mut fleet = Self {
            servers: Vec::new(),
            store: Store::start(keeping, &directory.join("store")),
            keeping,
            directory: directory.to_path_buf(),
            members,
        };
        fleet.servers = (0..count).map(|index| fleet.server(index)).collect();
        fleet.servers.iter_mut().for_each(Was::wait_ready);
        fleet
    }

    /// Starts one more server, which knows the others; they do not know it.
    pub fn newcomer(&self) -> Was {
        self.server(self.members.len() - 1)
    }

    /// Waits until a newcomer answers.
    pub fn wait_ready(&self, newcomer: &mut Was) {
        newcomer.wait_ready();
    }

    /// Whether its servers copy sessions to each other.
    pub fn is_cluster(&self) -> bool {
        self.keeping.cluster().is_some()
    }

    /// The ports over which servers, or servers and store, talk.
    pub fn ports(&self) -> Vec<u16> {
        match self.is_cluster() {
            true => self.members.iter().map(SocketAddr::port).collect(),
            false => self.store.ports(),
        }
    }

    fn server(&self, index: usize) -> Was {
        let name = format!("was{}", index + 1);
        let address = ports::free();
        match self.keeping.is_express() {
            true => self.express(name, address),
            false => self.tomcat(name, address, index),
        }
    }

    fn tomcat(&self, name: String, address: SocketAddr, index: usize) -> Was {
        let mut extras = Extras {
            application: SERVLET.to_owned(),
            pages: vec![("WEB-INF/shop.jsp", PAGE)],
            ..Extras::default()
        };
        if let Some((copies, members)) = self.keeping.cluster() {
            let count = self.members.len() - 1;
            let known = &self.members[..count];
            let own = self.members[index];
            let others: Vec<_> = known.iter().copied().filter(|it| *it != own).collect();
            extras.engine = cluster::cluster(copies, members, own, &others);
            extras.application.push_str("<distributable/>");
        }
        if let Some((database, driver)) = self.store.database() {
            extras.context = cluster::persistent_manager(&database);
            extras.libraries.push(driver);
        }
        let tomcat = Tomcat::start_with(&name, &self.directory, address, &extras);
        Was {
            name,
            address,
            process: tomcat.process,
        }
    }

    fn express(&self, name: String, address: SocketAddr) -> Was {
        let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sessions/express/app.js");
        let directory = self.directory.join(&name);
        fs::create_dir_all(&directory).expect("a directory can be made");
        let mut arguments = vec![
            format!("NODE_PATH={}", modules().display()),
            "node".to_owned(),
            "--max-old-space-size=64".to_owned(),
            app.display().to_string(),
            name.clone(),
            address.port().to_string(),
        ];
        arguments.extend(self.store.words());
        let process = Process::start("env", &arguments, &directory.join("out.log"));
        Was {
            name,
            address,
            process,
        }
    }
}

/// Where the application's modules are, which are not part of this tree.
fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/express/node_modules")
}

fn express_missing() -> Option<String> {
    let is_ready = modules().join("express").exists();
    (!is_ready).then(|| {
        format!(
            "no Express in {}: tests/run puts it there",
            modules().display()
        )
    })
}

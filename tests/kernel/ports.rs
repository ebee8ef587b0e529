//! A host with few ports for flows of datagrams: weir must leave half of them to others, serve its clients in turn all the same, and not hold
//! it against a backend when others have taken them all.
//! Here the walk ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::network::{BACKENDS, Network};
use crate::process::{run, wait};

const PATIENCE: Duration = Duration::from_secs(20);
const WEIR: &str = "10.99.0.11";
/// A hundred.
const PORTS: &str = "40000 40099";
const CLIENTS: usize = 200;

pub fn ports(directory: &Path) {
    let network = Network::new(directory);
    network.set("weir1", &[("ipv4/ip_local_port_range", PORTS)]);
    let _backends = network.backends();
    let weir = network.weir("weir1", &configuration(directory));
    let said = weir.tail(20);
    let wanted = "listener dns: at most 50 flows, for want of ports (net.ipv4.ip_local_port_range); max_flows is 10000";
    assert!(said.contains(wanted), "{said}");

    let holder = network.cast("weir1", "holder", &["holder"]);
    wait("all ports are taken", PATIENCE, || {
        holder.tail(1).contains("100 ports").then_some(())
    });
    let own = std::env::current_exe().expect("a program knows where it is");
    let mut question = network.command("client", &own.display().to_string());
    let (from, to) = ("10.98.0.2:0", format!("{WEIR}:53"));
    let answer = run(question.args(["--role", "question", from, &to]));
    assert!(!answer.contains("was"), "{answer}");
    let lost = |reason: &str| network.metric("weir1", "weir_udp_lost_total", reason);
    assert_eq!(lost("no_socket"), 1);
    let failed = network.metric("weir1", "weir_backend_connect_errors_total", "");
    assert_eq!(failed, 0, "errors of backends");
    drop(holder);

    let log = directory.join("quiet.log");
    let clients = CLIENTS.to_string();
    let _quiet = network.cast("client", "quiet", &["quiet", &to, &clients]);
    wait("every client is answered", PATIENCE, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let answered = text.lines().filter_map(|line| line.split(' ').next());
        (answered.collect::<BTreeSet<_>>().len() == CLIENTS).then_some(())
    });
    assert_eq!((lost("no_socket"), lost("no_backend")), (1, 0));
    // Beside those of flows two listen, and each worker has one more before another gives way.
    let sockets = network.sockets_of_datagrams("weir1");
    assert!((40..=54).contains(&sockets), "{sockets} sockets");
}

fn configuration(directory: &Path) -> String {
    let backends: Vec<String> = BACKENDS
        .iter()
        .map(|(_, address)| format!("{address:?}"))
        .collect();
    format!(
        "workers = 2\nstate_dir = \"{}\"\n[log]\naccess = \"off\"\n\
         [listeners.dns]\nbind = [\"{WEIR}:53\"]\nprotocol = \"udp\"\n\
         [[routes]]\nlisteners = [\"dns\"]\npool = \"ns\"\n\
         [pools.ns]\nbackends = [{}]\n",
        directory.join("state").display(),
        backends.join(", ")
    )
}

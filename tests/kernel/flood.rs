//! A flood of datagrams from a hundred thousand addresses, which a network of its own has room for. weir must stay within the flows that it is
//! allowed and the memory that goes with them, and whoever came before and comes back now and then must keep his way to his backend.
//! Here the walk ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::network::{BACKENDS, Network};
use crate::process::{Process, wait};
use crate::roles::STRANGERS;

const PATIENCE: Duration = Duration::from_secs(60);
/// How long the flood may take, on a machine that has much else to do.
const FLOOD: Duration = Duration::from_secs(1200);
const WEIR: &str = "10.99.0.11";

/// Flows that weir may have, of which so many are those of quiet clients.
const MAX_FLOWS: u64 = 4000;
const QUIET: usize = 50;

/// What a flow costs at most: its socket is the kernel's, and this is what weir itself keeps.
const BYTES_PER_FLOW: u64 = 2048;
/// What may come on top of that: batches of datagrams, lines on their way to the log.
const BYTES_BESIDE: u64 = 16 << 20;

/// Strangers that must have come and gone before the flood is over: a round of their addresses, or as many as the long form has time for.
fn wanted() -> u64 {
    match std::env::var_os("WEIR_FULL") {
        Some(_) => u64::from(STRANGERS) * 10,
        None => u64::from(STRANGERS),
    }
}

pub fn flood(directory: &Path) {
    let network = Network::new(directory);
    // The client answers for addresses that nobody has, and the router leads there.
    network.ip("client", "route add local 10.64.0.0/15 dev lo");
    network.ip("router", "route add 10.64.0.0/15 via 10.98.0.2");
    let _backends = network.backends();
    let weir = network.weir("weir1", &configuration(directory));
    let to = format!("{WEIR}:53");
    let clients = QUIET.to_string();
    let _quiet = network.cast("client", "quiet", &["quiet", &to, &clients]);
    let log = directory.join("quiet.log");
    let is_settled = || said(&log).values().filter(|said| said.len() > 2).count() == QUIET;
    wait("the quiet clients have come back", PATIENCE, || {
        is_settled().then_some(())
    });
    let before = resident(&weir);

    let began = Instant::now();
    let flood = network.cast("client", "flood", &["flood", &to, "2000"]);
    let (mut most, mut peak) = (0, 0);
    let evicted = wait("the strangers have come and gone", FLOOD, || {
        let figures = Figures::of(&network);
        (most, peak) = (most.max(figures.sockets), peak.max(resident(&weir)));
        (figures.evicted >= wanted()).then_some(figures.evicted)
    });
    drop(flood);
    let took = began.elapsed();
    // Beside those of flows: two that listen, and one that each worker has more before another gives way.
    assert!(most <= MAX_FLOWS + 4, "{most} sockets");
    // It is the difference of two counters, which are not read at once.
    wait("the flows are within their limit", PATIENCE, || {
        (Figures::of(&network).flows <= MAX_FLOWS).then_some(())
    });
    // Each must be heard of once more.
    let seen: BTreeMap<usize, usize> = counts(&log);
    wait("every quiet client is answered", PATIENCE, || {
        let now = counts(&log);
        (seen.iter().all(|(client, count)| now[client] > *count)).then_some(())
    });

    let grown = peak.saturating_sub(before);
    println!(
        "  flood: {evicted} strangers gave way within {took:.1?}; {most} sockets at most, {} KiB more memory",
        grown / 1024
    );
    let bound = MAX_FLOWS * BYTES_PER_FLOW + BYTES_BESIDE;
    assert!(grown < bound, "{grown} bytes more, of {bound}");
    for (client, said) in said(&log) {
        let ways: BTreeSet<&String> = said.iter().collect();
        assert_eq!(ways.len(), 1, "the quiet client {client} went {ways:?}");
    }
}

/// What each quiet client was answered: the backend's name, and the address and port that it was asked from, which tell flows apart.
fn said(log: &Path) -> BTreeMap<usize, Vec<String>> {
    let mut all = BTreeMap::<usize, Vec<String>>::new();
    let text = fs::read_to_string(log).unwrap_or_default();
    // The last line may not be there whole.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let (client, answer) = line.split_once(' ').expect("a client and an answer");
        let client = client.parse().expect("a number");
        all.entry(client).or_default().push(answer.to_owned());
    }
    all
}

fn counts(log: &Path) -> BTreeMap<usize, usize> {
    let said = said(log).into_iter();
    said.map(|(client, said)| (client, said.len())).collect()
}

/// Bytes of memory that a process has.
fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.expect("the kernel tells") * 1024
}

/// What weir and its kernel count.
struct Figures {
    flows: u64,
    evicted: u64,
    sockets: u64,
}

impl Figures {
    fn of(network: &Network) -> Figures {
        let [flows, evicted] = [
            ("weir_udp_flows", ""),
            ("weir_udp_flows_total", "end=\"evicted\""),
        ]
        .map(|(name, label)| network.metric("weir1", name, label));
        Figures {
            flows,
            evicted,
            sockets: network.sockets_of_datagrams("weir1"),
        }
    }
}

/// A quiet client whose datagrams are lost for a minute, because more come than weir can take, would be a new one by right: here silence ends no flow.
fn configuration(directory: &Path) -> String {
    let backends: Vec<String> = BACKENDS
        .iter()
        .map(|(_, address)| format!("{address:?}"))
        .collect();
    format!(
        "workers = 2\nstate_dir = \"{}\"\n[log]\naccess = \"/dev/null\"\n[timeouts]\nudp_idle = \"1h\"\n\
         [listeners.dns]\nbind = [\"{WEIR}:53\"]\nprotocol = \"udp\"\nmax_flows = {MAX_FLOWS}\n\
         [[routes]]\nlisteners = [\"dns\"]\npool = \"ns\"\n\
         [pools.ns]\nbackends = [{}]\n",
        directory.join("state").display(),
        backends.join(", ")
    )
}

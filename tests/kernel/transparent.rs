//! A backend that sees the client's address, by the rules of `config/transparent`: over HTTP, where clients must not share a connection,
//! over TCP and UDP; and what weir says when it may not do that.
//! Here the walk ends.

use std::path::Path;
use std::time::Duration;

use crate::network::{self, BACKENDS, Network};
use crate::process::wait;
use crate::process::{run, said, there};

const PATIENCE: Duration = Duration::from_secs(20);
/// The client has a second address, as another client would.
const CLIENTS: [&str; 2] = ["10.98.0.2", "10.98.0.3"];
/// What a backend sees of connections that weir makes in its own name.
const WEIR: &str = "10.99.0.11";

pub fn missing() -> Option<String> {
    let programs = [("nft", "nftables"), ("curl", "curl")];
    let missing = programs.into_iter().find(|(program, _)| !there(program));
    let missing =
        missing.map(|(_, package)| format!("Debian's package {package} is not installed"));
    network::missing().or(missing)
}

/// Each client is seen by its own address where the pool says so, and nowhere else.
pub fn transparent(directory: &Path) {
    let network = Network::new(directory);
    let _backends = network.backends();
    network.ip("client", &format!("address add {}/24 dev eth0", CLIENTS[1]));
    // What `config/transparent` tells the backends' operators, then weir's.
    network.ip("was", &format!("route replace default via {WEIR}"));
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/transparent/weir.nft");
    run(network.command("weir1", "nft").arg("-f").arg(rules));
    network.ip("weir1", "rule add fwmark 1 lookup 100");
    network.ip("weir1", "route add local default dev lo table 100");
    let weir = network.weir("weir1", &configuration(directory));

    let seen = |client: &str, port: u16| {
        let mut curl = network.command("client", "curl");
        let url = format!("http://{WEIR}:{port}/");
        // The connection to weir is kept: several requests of it, as they come.
        let output = curl
            .args(["-sS", "--max-time", "5", "--interface", client, "-w", "\\n"])
            .args([&url; 3])
            .output();
        let text = said(&output.expect("curl runs"));
        let addresses = text.lines().map(|line| {
            let address = line
                .split(' ')
                .nth(1)
                .and_then(|address| address.split(':').next());
            address.unwrap_or(line).to_owned()
        });
        addresses.collect::<Vec<_>>()
    };
    let told = |client: &str| {
        let own = std::env::current_exe().expect("a program knows where it is");
        let mut question = network.command("client", &own.display().to_string());
        let (from, to) = (format!("{client}:0"), format!("{WEIR}:83"));
        run(question.args(["--role", "question", &from, &to]))
    };
    for client in CLIENTS.iter().cycle().take(6) {
        assert_eq!(seen(client, 80), [*client; 3], "over HTTP");
        assert_eq!(seen(client, 81), [*client; 3], "over TCP");
        let answer = told(client);
        assert!(
            answer.contains(&format!(" {client}:")),
            "over UDP: {answer}"
        );
        assert_eq!(seen(client, 82), [WEIR; 3], "in weir's own name");
    }
    drop(weir);
    needs_a_capability(&network);
}

/// Without the right to do it weir does not start, and says what is missing.
fn needs_a_capability(network: &Network) {
    let file = network.directory.join("weir1.toml").display().to_string();
    let bare = ["setpriv", "--bounding-set", "-net_admin,-net_raw", "--"];
    let weir = [env!("CARGO_BIN_EXE_weir"), "run", "-c", &file];
    let line: Vec<&str> = bare.into_iter().chain(weir).collect();
    let mut process = network.start("weir1", "bare", &line);
    let ended = wait("weir refuses to start", PATIENCE, || process.ended());
    let said = process.tail(20);
    assert_eq!(ended.code(), Some(1), "{said}");
    let wanted = "pool shown: `transparent = true` needs the capability CAP_NET_ADMIN";
    assert!(said.contains(wanted), "{said}");
}

fn configuration(directory: &Path) -> String {
    let addresses: Vec<String> = BACKENDS
        .iter()
        .map(|(_, address)| format!("{address:?}"))
        .collect();
    let backends = format!(
        "backends = [{}]\nhealth = {{ interval = \"500ms\" }}\n",
        addresses.join(", ")
    );
    format!(
        "state_dir = \"{}\"\n[log]\naccess = \"off\"\n\
         [listeners.web]\nbind = [\"{WEIR}:80\"]\n\
         [listeners.bytes]\nbind = [\"{WEIR}:81\"]\nprotocol = \"tcp\"\n\
         [listeners.datagrams]\nbind = [\"{WEIR}:83\"]\nprotocol = \"udp\"\n\
         [listeners.own]\nbind = [\"{WEIR}:82\"]\n\
         [[routes]]\nlisteners = [\"web\"]\npool = \"shown\"\n\
         [[routes]]\nlisteners = [\"bytes\"]\npool = \"shown\"\n\
         [[routes]]\nlisteners = [\"datagrams\"]\npool = \"shown\"\n\
         [[routes]]\nlisteners = [\"own\"]\npool = \"hidden\"\n\
         [pools.shown]\ntransparent = true\n{backends}[pools.hidden]\n{backends}",
        directory.join("state").display(),
    )
}

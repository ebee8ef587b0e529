//! `weir explain`: which route and which backend a request, a connection or a datagram would take, and why.
//! It sends the request to nobody: a running weir tells what it would do with it.
//! The walk goes on in `control/admin/explain.rs`.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::admin_client::AdminAddress;
use super::print;
use super::status::{each, text};

/// Routes that are shown beside the one that is taken; `--json` has them all.
const SHOWN: usize = 8;

/// A request as it would come; or a connection, or a datagram, that a tcp or udp listener passes on.
#[derive(Args)]
pub struct Request {
    /// The URL of a request; a path alone is asked for on localhost. `--listener` of a tcp or udp listener takes its place.
    #[arg(required_unless_present = "listener")]
    url: Option<String>,
    /// Its method; default: GET.
    #[arg(short = 'X', long, value_name = "METHOD", requires = "url")]
    method: Option<String>,
    /// A header; may be given several times.
    #[arg(
        short = 'H',
        long = "header",
        value_name = "NAME: VALUE",
        requires = "url"
    )]
    headers: Vec<String>,
    /// A cookie; may be given several times.
    #[arg(long = "cookie", value_name = "NAME=VALUE", requires = "url")]
    cookies: Vec<String>,
    /// The client's address; default: 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// The listener that it comes to; of a request, by default the first that has the port of the URL, else the first. Without a URL:
    /// the tcp or udp listener that passes a connection or a datagram on.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The name that the client of a tcp listener asks for within TLS (SNI).
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    sni: Option<String>,
    /// A protocol that it offers within TLS; may be given several times.
    #[arg(long = "alpn", value_name = "PROTOCOL", conflicts_with = "url")]
    protocols: Vec<String>,
    /// Print the JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    address: AdminAddress,
}

/// Prints the explanation.
pub fn explain(request: &Request) -> ExitCode {
    let client = request.address.client();
    let answer = client.and_then(|client| client.get(&target(request)));
    print(answer.map(|told| match request.json {
        true => format!("{told:#}\n"),
        false => page(&told),
    }))
}

fn target(request: &Request) -> String {
    let mut pairs = Vec::new();
    pairs.extend(request.url.clone().map(|url| ("url", url)));
    pairs.extend(request.method.clone().map(|method| ("method", method)));
    pairs.extend(request.headers.iter().map(|line| ("header", line.clone())));
    if !request.cookies.is_empty() {
        pairs.push(("header", format!("Cookie: {}", request.cookies.join("; "))));
    }
    pairs.extend(request.client.map(|client| ("client", client.to_string())));
    pairs.extend(request.listener.clone().map(|name| ("listener", name)));
    pairs.extend(request.sni.clone().map(|name| ("sni", name)));
    let protocols = request.protocols.iter();
    pairs.extend(protocols.map(|protocol| ("alpn", protocol.clone())));
    let pairs = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", encoded(value)));
    format!("/api/v1/explain?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3).
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into());
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

fn page(told: &Value) -> String {
    let mut page = match told["connection"].is_object() {
        true => connection(&told["connection"]),
        false => request(&told["request"]),
    };
    routes(told, &mut page);
    let ways = each(&told["ways"]);
    page.extend(ways.map(|way| format!("way      {}\n", text(way))));
    if told["client"].is_object() {
        client(&told["client"], &mut page);
    }
    if told["pool"].is_object() {
        pool(&told["pool"], &mut page);
    }
    outcome(&told["outcome"], &mut page);
    page
}

fn request(told: &Value) -> String {
    format!(
        "request  {} {}{} from {} on listener {}\n",
        text(&told["method"]),
        text(&told["host"]),
        text(&told["path"]),
        text(&told["client"]),
        text(&told["listener"]),
    )
}

fn connection(told: &Value) -> String {
    let name = told["server_name"].as_str();
    let name = name.map_or(String::new(), |name| format!(", asks for {name}"));
    let protocols: Vec<String> = each(&told["protocols"]).map(text).collect();
    let offers = match protocols.is_empty() {
        true => String::new(),
        false => format!(", offers {}", protocols.join(", ")),
    };
    format!(
        "{}      from {} on listener {}{name}{offers}\n",
        text(&told["protocol"]),
        text(&told["client"]),
        text(&told["listener"]),
    )
}

fn routes(told: &Value, page: &mut String) {
    let line = |route: &Value, page: &mut String| {
        let because = text(&route["because"]);
        *page += &format!(
            "{} ({}): {because}\n",
            text(&route["name"]),
            text(&route["matches"])
        );
    };
    *page += "route    ";
    match told["route"].is_object() {
        true => line(&told["route"], page),
        false => *page += "none\n",
    }
    let filters: Vec<String> = each(&told["route"]["filters"]).map(text).collect();
    if !filters.is_empty() {
        *page += &format!("filters  {}\n", filters.join(", "));
    }
    let others: Vec<&Value> = each(&told["other_routes"]).collect();
    for route in others.iter().take(SHOWN) {
        *page += "     not ";
        line(route, page);
    }
    if others.len() > SHOWN {
        *page += &format!("     and {} more\n", others.len() - SHOWN);
    }
}

fn client(told: &Value, page: &mut String) {
    *page += &format!(
        "sticky   {}, sessions {}, on failure {}\n",
        text(&told["mode"]),
        text(&told["sessions"]),
        text(&told["on_failure"]),
    );
    let mut parts = vec![match text(&told["known"]).as_str() {
        "home" => match told["home"].as_str() {
            Some(home) => format!("home {home} ({})", text(&told["home_state"])),
            None => "its home is gone".to_owned(),
        },
        known => known.to_owned(),
    }];
    for (key, word) in [
        ("refuge", "was last at"),
        ("issued", "known since"),
        ("last_seen", "token of"),
        ("left_home", "away since"),
    ] {
        parts.extend(told[key].as_str().map(|value| format!("{word} {value}")));
    }
    *page += &format!("client   {}\n", parts.join(", "));
    let session = &told["session"];
    if session.is_object() {
        *page += &match session["live"].as_bool() {
            Some(true) => format!(
                "session  live at {}, idle for {} s, {} s old\n",
                session["backend"]
                    .as_str()
                    .unwrap_or("a backend that is gone"),
                session["idle_seconds"],
                session["age_seconds"],
            ),
            _ => "session  not one that weir saw accepted\n".to_owned(),
        };
    }
}

fn pool(told: &Value, page: &mut String) {
    *page += &match told["name"].as_str() {
        // Its filters answer.
        Some("none") | None => "pool     none\n".to_owned(),
        Some(name) => format!("pool     {name}, balancer {}\n", text(&told["balancer"])),
    };
    for backend in each(&told["backends"]) {
        let sessions = backend["sessions"].as_u64();
        let sessions = sessions.map_or(String::new(), |count| format!(", {count} sessions"));
        let because = backend["because"].as_str();
        let because = because.map_or(String::new(), |why| format!(" ({why})"));
        *page += &format!(
            "         {} ({}) {}{because}, weight {}, {} in flight{sessions}{}\n",
            text(&backend["name"]),
            text(&backend["address"]),
            text(&backend["effective"]),
            backend["weight"],
            backend["in_flight"],
            match backend["takes_new"].as_bool() {
                Some(true) => "",
                _ => ", no new clients",
            },
        );
    }
}

fn outcome(told: &Value, page: &mut String) {
    let to = match (told["backend"].as_str(), told["status"].as_u64()) {
        (Some(backend), _) => format!("to {backend}"),
        (None, Some(status)) => format!("answered {status}"),
        (None, None) => {
            let names: Vec<String> = each(&told["candidates"]).map(text).collect();
            match names.is_empty() {
                true if told["answered"] == true => "answered".to_owned(),
                true if told["refused"].is_string() => text(&told["refused"]),
                true => "held".to_owned(),
                false => format!("to one of {}", names.join(", ")),
            }
        }
    };
    let result = told["result"].as_str();
    let result = result.map_or(String::new(), |result| format!(" ({result})"));
    *page += &format!("outcome  {to}{result}: {}\n", text(&told["because"]));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_of_a_request_gets_lost_in_the_query() {
        assert_eq!(encoded("a b&c=%/é"), "a%20b%26c%3D%25%2F%C3%A9");
    }

    #[test]
    fn a_page_tells_the_way() {
        let told = json!({
            "request": { "method": "GET", "host": "a", "path": "/cart", "client": "::1", "listener": "web" },
            "route": { "name": "cart", "matches": "any host, /cart", "because": "it is" },
            "other_routes": [{ "name": "api", "matches": "any host, /api", "because": "the path" }],
            "client": { "mode": "insert", "sessions": "local", "on_failure": "temporary", "known": "home",
                "home": "was1", "home_state": "up", "session": { "live": true, "backend": "was1", "idle_seconds": 3, "age_seconds": 9 } },
            "pool": { "name": "was", "balancer": "round-robin", "backends": [
                { "name": "was1", "address": "192.0.2.1:80", "effective": "drain", "because": "set by api (ann)", "weight": 1, "in_flight": 2, "sessions": 7, "takes_new": false } ] },
            "outcome": { "backend": "was1", "result": "kept", "because": "its home was1 is up" },
        });
        let wanted = "\
request  GET a/cart from ::1 on listener web
route    cart (any host, /cart): it is
     not api (any host, /api): the path
sticky   insert, sessions local, on failure temporary
client   home was1 (up)
session  live at was1, idle for 3 s, 9 s old
pool     was, balancer round-robin
         was1 (192.0.2.1:80) drain (set by api (ann)), weight 1, 2 in flight, 7 sessions, no new clients
outcome  to was1 (kept): its home was1 is up
";
        assert_eq!(page(&told), wanted);
        let passed = json!({
            "connection": { "protocol": "tcp", "client": "::1", "listener": "db", "server_name": "a.test", "protocols": ["h2", "h3"] },
            "outcome": { "refused": "closed", "because": "no" },
        });
        let wanted = "\
tcp      from ::1 on listener db, asks for a.test, offers h2, h3
route    none
outcome  closed: no
";
        assert_eq!(page(&passed), wanted);
        let refused = json!({ "outcome": { "status": 404, "because": "no" } });
        assert!(page(&refused).ends_with("route    none\noutcome  answered 404: no\n"));
    }
}

//! `weir status`: what a running weir serves, for people; the document itself for scripts.
//! It shows what the admin server says and works nothing out.
//! The walk goes on in `control/admin/status.rs`.

use std::process::ExitCode;

use serde_json::Value;

use super::admin_client::AdminAddress;
use super::print;

/// Columns of the table of backends: title, key of the document, whether it is a number.
const COLUMNS: [(&str, &str, bool); 11] = [
    ("BACKEND", "/name", false),
    ("ADDRESS", "/address", false),
    ("SOURCE", "/source", false),
    ("WEIGHT", "/weight", true),
    ("STATE", "/effective", false),
    ("IN FLIGHT", "/in_flight", true),
    ("UPGRADED", "/upgraded", true),
    ("SESSIONS", "/sessions", true),
    ("NEW", "/connections/new", true),
    ("REUSED", "/connections/reused", true),
    ("FAILED", "/connections/failed", true),
];

/// What the page says, for `--help` and the manual page.
pub const COLUMNS_TOLD: &str = "\
A listener is shown with its open connections, one of udp with its flows: a flow is a client
that is not silent. A backend is shown with what is there now, and, from NEW on, with what
was since weir started:

  SOURCE     who names it: `config`, the file, or the kind of discovery
  WEIGHT     its share of new clients beside those of the others
  STATE      `up`, `down`, `unknown` (not checked yet), `ejected`, `drain` or `maint`
  IN FLIGHT  requests under way there, open tcp connections and udp flows
  UPGRADED   WebSockets and other upgraded connections that are open
  SESSIONS   live sessions; `-` where no route to the pool is sticky
  NEW        requests sent on a new connection, tcp connections and udp flows
  REUSED     requests sent on a connection that was kept
  FAILED     attempts to connect that failed

`--json` has more.";

/// Succeeds when weir is ready; else says why it is not.
pub fn ready(address: &AdminAddress) -> ExitCode {
    let answer = address.stranger().get("/readyz");
    print(answer.map(|_| "ready\n".to_owned()))
}

/// Prints the status.
pub fn status(address: &AdminAddress, json: bool) -> ExitCode {
    let answer = address
        .client()
        .and_then(|client| client.get("/api/v1/status"));
    print(answer.map(|status| match json {
        true => format!("{status:#}\n"),
        false => page(&status),
    }))
}

fn page(status: &Value) -> String {
    let mut page = format!(
        "weir {}: {}, generation {}, {} workers, up {}\n",
        text(&status["version"]),
        text(&status["lifecycle"]),
        status["generation"],
        status["workers"],
        time(status["uptime_seconds"].as_u64().unwrap_or_default()),
    );
    let reload = &status["last_reload"];
    if let Some(error) = reload["error"].as_str() {
        page += &format!("the reload at {} was refused:\n", text(&reload["at"]));
        page.extend(error.trim_end().lines().map(|line| format!("  {line}\n")));
    }
    if let Some(error) = status["failed_upgrade"]["error"].as_str() {
        let at = text(&status["failed_upgrade"]["at"]);
        page += &format!("the upgrade at {at} failed: {}\n", error.trim_end());
    }
    if status["process"]["state"] == "drain" {
        page += &set("weir", &status["process"]);
    }
    let warnings = each(&reload["warnings"]);
    page.extend(warnings.map(|warning| format!("warning: {}\n", text(warning))));
    page.push('\n');
    for listener in each(&status["listeners"]) {
        let addresses: Vec<String> = each(&listener["addresses"]).map(text).collect();
        let protocol = text(&listener["protocol"]);
        // Where nothing is connected.
        let open = if protocol == "udp" {
            "flows"
        } else {
            "connections"
        };
        page += &format!(
            "listener {} ({protocol}) on {}: {} {open}\n",
            text(&listener["name"]),
            addresses.join(", "),
            listener["connections"],
        );
        if listener["set_by"] == "api" {
            page += &format!("  {}", set(&text(&listener["name"]), listener));
        }
    }
    for route in each(&status["routes"]).filter(|route| route["canary"].is_object()) {
        let canary = &route["canary"];
        page += &format!(
            "route {}: {} % to the canary {}\n",
            text(&route["name"]),
            canary["weight"],
            text(&canary["pool"])
        );
    }
    page.extend(each(&status["pools"]).map(pool));
    page
}

fn pool(pool: &Value) -> String {
    let mut page = format!(
        "\npool {} ({}{})\n",
        text(&pool["name"]),
        text(&pool["balancer"]),
        match pool["checked"].as_bool() {
            Some(false) => ", not checked",
            _ => "",
        },
    );
    page += &discovery(&pool["discovery"]);
    page += &scale(&pool["scale"]);
    if let Some(queued @ 1..) = pool["queued"].as_u64() {
        page += &format!("  {queued} wait: every backend has all that it may have\n");
    }
    page += &table(each(&pool["backends"]));
    page.extend(each(&pool["backends"]).filter_map(why));
    page.extend(each(&pool["backends"]).filter_map(ejected));
    page.extend(each(&pool["backends"]).filter_map(limited));
    let backups = each(&pool["backends"]).filter(|backend| backend["backup"] == true);
    page.extend(backups.map(|backend| format!("  {}: a backup\n", text(&backend["name"]))));
    let set = each(&pool["backends"]).filter(|backend| backend["set_by"] == "api");
    let line = |backend: &Value| format!("  {}", self::set(&text(&backend["name"]), backend));
    page.extend(set.map(line));
    page
}

/// Who set the state of something, and when.
fn set(name: &str, what: &Value) -> String {
    let [state, at] = ["state", "set_at"].map(|key| text(&what[key]));
    let who = what["set_who"].as_str().filter(|who| !who.is_empty());
    let who = who.map_or_else(String::new, |who| format!(" ({who})"));
    format!("{name}: {state} was set by api{who} at {at}\n")
}

/// A line about a backend that is not up: why, and since when. What an operator set has a line of its own.
fn why(backend: &Value) -> Option<String> {
    let is_set = ["drain", "maint"]
        .iter()
        .any(|set| backend["effective"] == *set);
    if backend["effective"] == "up" || (is_set && backend["set_by"] == "api") {
        return None;
    }
    let because = backend["because"].as_str()?;
    let since = backend["since"].as_str();
    let since = since.map_or(String::new(), |at| format!(" since {at}"));
    let (name, state) = (text(&backend["name"]), text(&backend["effective"]));
    Some(format!("  {name}: {state}{since}: {because}\n"))
}

/// A line about a backend that is ejected.
fn ejected(backend: &Value) -> Option<String> {
    let left = backend.pointer("/passive/seconds_left")?.as_f64()?;
    let name = text(&backend["name"]);
    let left = time(left.ceil() as u64);
    Some(format!("  {name}: ejected for {left} more\n"))
}

/// A line about a backend that has all the requests that it may have.
fn limited(backend: &Value) -> Option<String> {
    let most = backend["max_in_flight"].as_u64()?;
    let has = backend["in_flight"].as_u64()? + backend["upgraded"].as_u64()?;
    let name = text(&backend["name"]);
    (has >= most).then(|| format!("  {name}: it has all {most} that it may have in flight\n"))
}

/// Where a pool's backends come from that the file does not name, and since when its last good list is there.
fn discovery(discovery: &Value) -> String {
    if discovery.is_null() {
        return String::new();
    }
    let [source, last, problem] =
        ["source", "last_success", "problem"].map(|key| text(&discovery[key]));
    let mut lines = format!(
        "  from {source}: {} backends, last good at {last}\n",
        discovery["endpoints"]
    );
    if !discovery["problem"].is_null() {
        lines += &format!("  problem: {problem}\n");
    }
    lines
}

/// How large a pool should be, and what is done about it.
fn scale(scale: &Value) -> String {
    if scale.is_null() {
        return String::new();
    }
    let mut lines = format!(
        "  scale: {} serve, {} wanted: {}\n",
        scale["serving"],
        scale["wanted"],
        text(&scale["doing"])
    );
    if let Some(problem) = scale["problem"].as_str() {
        lines += &format!("  problem: {problem}\n");
    }
    lines
}

/// Columns as wide as their widest cell, numbers to the right.
fn table<'a>(backends: impl Iterator<Item = &'a Value>) -> String {
    let titles = COLUMNS.map(|(title, ..)| title.to_owned());
    let rows = backends.map(|backend| {
        COLUMNS.map(|(_, key, _)| text(backend.pointer(key).unwrap_or(&Value::Null)))
    });
    let rows: Vec<_> = std::iter::once(titles).chain(rows).collect();
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows
                .iter()
                .map(|row| row[column].len())
                .max()
                .unwrap_or_default();
            line += &match COLUMNS[column].2 {
                true => format!("  {cell:>width$}"),
                false => format!("  {cell:<width$}"),
            };
        }
        table += line.trim_end();
        table.push('\n');
    }
    table
}

pub(super) fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A text without its quotes, a dash for nothing, anything else as JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// A length of time in its two greatest units.
pub(super) fn time(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86_400 => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_column_is_explained() {
        for (title, ..) in &COLUMNS[2..] {
            let line = format!("\n  {title} ");
            assert!(COLUMNS_TOLD.contains(&line), "{title}");
        }
    }

    #[test]
    fn a_page_shows_what_matters() {
        let backend = |name: &str, effective: &str, reused: u64| {
            json!({
                "name": name, "address": "10.0.0.11:8080", "source": if reused > 9 { "config" } else { "dns" }, "weight": 1, "effective": effective, "in_flight": 0, "upgraded": 2, "sessions": if reused > 9 { json!(12) } else { Value::Null },
                "connections": { "new": 3, "reused": reused, "failed": 0 },
            })
        };
        let mut drained = backend("was-two", "down", 5);
        drained["state"] = "drain".into();
        drained["set_by"] = "api".into();
        drained["since"] = "2026-11-20T23:49:00.000Z".into();
        drained["because"] = "status 404".into();
        drained["passive"] = json!({ "standing": "ejected", "seconds_left": 59.2 });
        drained["set_at"] = "2026-11-20T23:51:00.000Z".into();
        let status = json!({
            "version": "0.1.0", "lifecycle": "ready", "generation": 3, "workers": 2, "uptime_seconds": 11_400,
            "last_reload": { "ok": false, "at": "2026-11-20T23:50:00.123Z", "error": "error[E0102]: no pool\n" },
        "listeners": [{ "name": "web", "protocol": "http", "addresses": ["0.0.0.0:80", "[::]:80"], "connections": 7 },
                          { "name": "dns", "protocol": "udp", "addresses": ["0.0.0.0:53"], "connections": 5 }],
            "pools": [{ "name": "was", "balancer": "round-robin", "checked": false,
                        "discovery": { "source": "dns was.internal:8080", "endpoints": 1, "failures": 3, "last_success": "2026-11-20T23:50:01.000Z", "problem": "no answer within 2s" },
                        "backends": [backend("was1", "up", 1200), drained] }],
        });
        let wanted = "\
weir 0.1.0: ready, generation 3, 2 workers, up 3h10m
the reload at 2026-11-20T23:50:00.123Z was refused:
  error[E0102]: no pool

listener web (http) on 0.0.0.0:80, [::]:80: 7 connections
listener dns (udp) on 0.0.0.0:53: 5 flows

pool was (round-robin, not checked)
  from dns was.internal:8080: 1 backends, last good at 2026-11-20T23:50:01.000Z
  problem: no answer within 2s
  BACKEND  ADDRESS         SOURCE  WEIGHT  STATE  IN FLIGHT  UPGRADED  SESSIONS  NEW  REUSED  FAILED
  was1     10.0.0.11:8080  config       1  up             0         2        12    3    1200       0
  was-two  10.0.0.11:8080  dns          1  down           0         2         -    3       5       0
  was-two: down since 2026-11-20T23:49:00.000Z: status 404
  was-two: ejected for 1m0s more
  was-two: drain was set by api at 2026-11-20T23:51:00.000Z
";
        assert_eq!(page(&status), wanted);
    }
}

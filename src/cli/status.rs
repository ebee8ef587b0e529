//! `weir status`: what a running weir serves, for people; the document itself for scripts.
//! It shows what the admin server says and works nothing out.
//! The walk goes on in `control/admin/status.rs`.

use std::process::ExitCode;

use serde_json::Value;

use super::admin_client::AdminAddress;
use super::print;

/// Columns of the table of backends: title, key of the document, whether it is a number.
const COLUMNS: [(&str, &str, bool); 10] = [
    ("BACKEND", "/name", false),
    ("ADDRESS", "/address", false),
    ("WEIGHT", "/weight", true),
    ("STATE", "/effective", false),
    ("IN FLIGHT", "/in_flight", true),
    ("UPGRADED", "/upgraded", true),
    ("SESSIONS", "/sessions", true),
    ("NEW", "/connections/new", true),
    ("REUSED", "/connections/reused", true),
    ("FAILED", "/connections/failed", true),
];

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
    let warnings = each(&reload["warnings"]);
    page.extend(warnings.map(|warning| format!("warning: {}\n", text(warning))));
    page.push('\n');
    for listener in each(&status["listeners"]) {
        let addresses: Vec<String> = each(&listener["addresses"]).map(text).collect();
        page += &format!(
            "listener {} ({}) on {}: {} connections\n",
            text(&listener["name"]),
            text(&listener["protocol"]),
            addresses.join(", "),
            listener["connections"],
        );
    }
    for pool in each(&status["pools"]) {
        page += &format!(
            "\npool {} ({})\n",
            text(&pool["name"]),
            text(&pool["balancer"])
        );
        page += &table(each(&pool["backends"]));
        page.extend(each(&pool["backends"]).filter_map(ejected));
        let leaving = each(&pool["backends"]).filter(|backend| backend["set_by"] == "check");
        page.extend(
            leaving.map(|own| format!("  {}: it asks to be drained\n", text(&own["name"]))),
        );
        let set = each(&pool["backends"]).filter(|backend| backend["set_by"] == "api");
        page.extend(set.map(|backend| {
            let [name, state, at] = ["name", "state", "set_at"].map(|key| text(&backend[key]));
            format!("  {name}: {state} was set by api at {at}\n")
        }));
    }
    page
}

/// A line about a backend that is ejected.
fn ejected(backend: &Value) -> Option<String> {
    let left = backend.pointer("/passive/seconds_left")?.as_f64()?;
    let name = text(&backend["name"]);
    let left = time(left.ceil() as u64);
    Some(format!(
        "  {name}: it failed and is ejected for {left} more\n"
    ))
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
    fn a_page_shows_what_matters() {
        let backend = |name: &str, effective: &str, reused: u64| {
            json!({
                "name": name, "address": "10.0.0.11:8080", "weight": 1, "effective": effective, "in_flight": 0, "upgraded": 2, "sessions": if reused > 9 { json!(12) } else { Value::Null },
                "connections": { "new": 3, "reused": reused, "failed": 0 },
            })
        };
        let mut drained = backend("was-two", "down", 5);
        drained["state"] = "drain".into();
        drained["set_by"] = "api".into();
        drained["passive"] = json!({ "standing": "ejected", "seconds_left": 59.2 });
        drained["set_at"] = "2026-11-20T23:51:00.000Z".into();
        let status = json!({
            "version": "0.1.0", "lifecycle": "ready", "generation": 3, "workers": 2, "uptime_seconds": 11_400,
            "last_reload": { "ok": false, "at": "2026-11-20T23:50:00.123Z", "error": "error[E0102]: no pool\n" },
            "listeners": [{ "name": "web", "protocol": "http", "addresses": ["0.0.0.0:80", "[::]:80"], "connections": 7 }],
            "pools": [{ "name": "was", "balancer": "round-robin",
                        "backends": [backend("was1", "up", 1200), drained] }],
        });
        let wanted = "\
weir 0.1.0: ready, generation 3, 2 workers, up 3h10m
the reload at 2026-11-20T23:50:00.123Z was refused:
  error[E0102]: no pool

listener web (http) on 0.0.0.0:80, [::]:80: 7 connections

pool was (round-robin)
  BACKEND  ADDRESS         WEIGHT  STATE  IN FLIGHT  UPGRADED  SESSIONS  NEW  REUSED  FAILED
  was1     10.0.0.11:8080       1  up             0         2        12    3    1200       0
  was-two  10.0.0.11:8080       1  down           0         2         -    3       5       0
  was-two: it failed and is ejected for 1m0s more
  was-two: drain was set by api at 2026-11-20T23:51:00.000Z
";
        assert_eq!(page(&status), wanted);
    }
}

//! A list of backends as files and servers write it, JSON or TOML, read as strictly as the configuration.
//! One entry that is wrong refuses the whole list: the last good one is worth more than half of this one.
//! The walk goes back to `file.rs` and `http.rs`.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::MOST;
use crate::config;
use crate::config::model::{AdminState, Backend};

/// Bytes that a list may have.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// The keys of an entry.
const KEYS: [&str; 5] = ["address", "name", "route", "weight", "state"];
/// The greatest weight of a backend.
const MAX_WEIGHT: u64 = 256;

/// Reads `["10.0.0.11:8080", { "name": "was2", "address": "10.0.0.12:8080" }]`, or an object whose key `backends` has such a list.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn from_json(text: &str) -> Result<Vec<Backend>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    match value {
        Value::Array(entries) => backends(&entries),
        other => of_table(other),
    }
}

/// Reads `backends = ["10.0.0.11:8080", { name = "was2", address = "10.0.0.12:8080" }]`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn from_toml(text: &str) -> Result<Vec<Backend>, String> {
    let value: Value = toml::from_str(text).map_err(|error| {
        let what = error.message().replace('\n', " ");
        let line = error.span().map_or(0, |span| {
            text.as_bytes()[..span.start.min(text.len())]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
        });
        format!("not TOML: line {}: {what}", line + 1)
    })?;
    of_table(value)
}

fn of_table(value: Value) -> Result<Vec<Backend>, String> {
    let Value::Object(mut table) = value else {
        return Err("neither a list nor a table with the key `backends`".to_owned());
    };
    let entries = table.remove("backends");
    if let Some(odd) = table.keys().next() {
        return Err(format!("`{odd}` is not a key of a list; it has `backends`"));
    }
    match entries {
        Some(Value::Array(entries)) => backends(&entries),
        _ => Err("there is no list `backends`".to_owned()),
    }
}

fn backends(entries: &[Value]) -> Result<Vec<Backend>, String> {
    if entries.len() > MOST {
        return Err(format!("{} entries are more than {MOST}", entries.len()));
    }
    let (mut addresses, mut names, mut routes) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut backends = Vec::with_capacity(entries.len());
    for (entry, number) in entries.iter().zip(1..) {
        let of_entry = |problem| format!("entry {number}: {problem}");
        let backend = backend(entry).map_err(of_entry)?;
        let Backend {
            address,
            name,
            route,
            ..
        } = &backend;
        if !addresses.insert(*address) {
            return Err(of_entry(format!("the address {address} is there twice")));
        }
        if !names.insert(name.clone()) {
            return Err(of_entry(format!("the name `{name}` is there twice")));
        }
        if !routes.insert(route.clone()) {
            return Err(of_entry(format!("the route `{route}` is there twice")));
        }
        backends.push(backend);
    }
    Ok(backends)
}

fn backend(entry: &Value) -> Result<Backend, String> {
    let empty = Map::new();
    let (table, address) = match entry {
        Value::String(address) => (&empty, address),
        Value::Object(table) => match table.get("address") {
            Some(Value::String(address)) => (table, address),
            Some(_) => return Err("`address` is not text".to_owned()),
            None => return Err(without_address(table)),
        },
        _ => return Err("neither an address nor a table".to_owned()),
    };
    if let Some(odd) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(unknown(odd));
    }
    let address = config::backend_address(address)?;
    let named = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Value::String(name)) => config::backend_name(name).map(Some),
        Some(_) => Err(format!("`{key}` is not text")),
    };
    let name = named("name")?.unwrap_or_else(|| address.to_string());
    Ok(Backend {
        route: named("route")?.unwrap_or_else(|| name.clone()),
        name,
        address,
        weight: weight(table)?,
        state: state(table)?,
        discovered: true,
    })
}

fn without_address(table: &Map<String, Value>) -> String {
    let meant = table.keys().find(|key| !KEYS.contains(&key.as_str()));
    meant.map_or("`address` is missing".to_owned(), |odd| unknown(odd))
}

fn unknown(odd: &str) -> String {
    let meant = config::closest(odd, KEYS.into_iter());
    let help = meant.map_or(String::new(), |meant| format!(": is `{meant}` meant?"));
    format!("`{}` is not a key of a backend{help}", odd.escape_debug())
}

fn weight(table: &Map<String, Value>) -> Result<u16, String> {
    let Some(value) = table.get("weight") else {
        return Ok(1);
    };
    let weight = value
        .as_u64()
        .filter(|weight| (1..=MAX_WEIGHT).contains(weight));
    weight
        .and_then(|weight| u16::try_from(weight).ok())
        .ok_or_else(|| format!("`weight` is not a number from 1 to {MAX_WEIGHT}"))
}

fn state(table: &Map<String, Value>) -> Result<AdminState, String> {
    match table.get("state") {
        None => Ok(AdminState::Ready),
        Some(value) => (value.as_str())
            .and_then(AdminState::from_word)
            .ok_or_else(|| "`state` is neither \"ready\" nor \"drain\" nor \"maint\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(list: Result<Vec<Backend>, String>) -> String {
        let list = match list {
            Ok(list) => list,
            Err(problem) => return problem,
        };
        let one = |own: &Backend| {
            let (state, route) = (own.state.as_str(), &own.route);
            format!(
                "{} {} {route} {} {state}",
                own.name, own.address, own.weight
            )
        };
        list.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn lists_are_read_as_the_configuration_writes_them() {
        let json = r#"["10.0.0.1:80", {"name": "b", "address": "[::1]:81", "weight": 2, "state": "drain"}]"#;
        let told = "10.0.0.1:80 10.0.0.1:80 10.0.0.1:80 1 ready, b [::1]:81 b 2 drain";
        assert_eq!(shown(from_json(json)), told);
        assert_eq!(shown(from_json(&format!("{{\"backends\": {json}}}"))), told);
        let toml = "backends = [\"10.0.0.1:80\"]";
        assert_eq!(
            shown(from_toml(toml)),
            "10.0.0.1:80 10.0.0.1:80 10.0.0.1:80 1 ready"
        );
        let tables = "[[backends]]\naddress = \"10.0.0.1:80\"\nname = \"a\"\nroute = \"jvm1\"\n";
        assert_eq!(shown(from_toml(tables)), "a 10.0.0.1:80 jvm1 1 ready");
        assert_eq!(shown(from_json("[]")), "");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_entry() {
        for (json, told) in [
            ("[", "not JSON: EOF while parsing a list at line 1 column 1"),
            ("5", "neither a list nor a table with the key `backends`"),
            ("{}", "there is no list `backends`"),
            (
                r#"{"servers": []}"#,
                "`servers` is not a key of a list; it has `backends`",
            ),
            (
                r#"["10.0.0.1:80", 5]"#,
                "entry 2: neither an address nor a table",
            ),
            (
                r#"[{"adress": "10.0.0.1:80"}]"#,
                "entry 1: `adress` is not a key of a backend: is `address` meant?",
            ),
            (r#"[{}]"#, "entry 1: `address` is missing"),
            (
                r#"[{"address": "10.0.0.1:80", "weight": 0}]"#,
                "entry 1: `weight` is not a number from 1 to 256",
            ),
            (
                r#"[{"address": "10.0.0.1:80", "state": "up"}]"#,
                "entry 1: `state` is neither \"ready\" nor \"drain\" nor \"maint\"",
            ),
            (
                r#"["10.0.0.1:80", "10.0.0.1:80"]"#,
                "entry 2: the address 10.0.0.1:80 is there twice",
            ),
            (
                r#"[{"address": "10.0.0.1:80", "name": "a"}, {"address": "10.0.0.2:80", "name": "a"}]"#,
                "entry 2: the name `a` is there twice",
            ),
        ] {
            assert_eq!(shown(from_json(json)), told, "{json}");
        }
        let told = shown(from_json(r#"["was.internal:80"]"#));
        assert!(
            told.starts_with("entry 1: \"was.internal:80\" is a host name"),
            "{told}"
        );
        let told = shown(from_toml("backends = [\n\"10.0.0.1:80\"\nx"));
        assert!(told.starts_with("not TOML: line 3: "), "{told}");
        let many: Vec<String> = (0..=MOST)
            .map(|n| format!("\"10.0.{}.{}:80\"", n / 256, n % 256))
            .collect();
        let told = shown(from_json(&format!("[{}]", many.join(","))));
        assert_eq!(told, "4097 entries are more than 4096");
    }
}

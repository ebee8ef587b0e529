//! Alert rules and the dashboard: Prometheus's own tool judges the rules, and every metric in either is one that weir has.
//! It never starts weir: the table of metrics in the architecture page is held to the code by another test.
//! Here the walk ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{run, there};
use crate::root;

pub fn missing_promtool() -> Option<String> {
    (!there("promtool")).then(|| "Debian's package prometheus is not installed".to_owned())
}

/// The rules are rules, fire when they should and not when they should not, and speak of what is there.
pub fn alerts(_: &Path) {
    let folder = root().join("docker/prometheus");
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        run(Command::new("promtool")
            .args(arguments)
            .current_dir(&folder));
    }
    are_known(&fs::read_to_string(folder.join("alerts.yml")).expect("it is there"));
}

/// The dashboard is JSON with an expression in every panel, and speaks of metrics that are there.
pub fn dashboard(_: &Path) {
    let file = root().join("docker/grafana/dashboards/weir.json");
    let text = fs::read_to_string(file).expect("it is there");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let mut expressions = String::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"]
            .as_array()
            .expect("a panel shows something");
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            expressions += target["expr"].as_str().expect("an expression");
            expressions.push('\n');
        }
    }
    are_known(&expressions);
}

/// Panics over metrics that `src/README.md` does not list.
fn are_known(text: &str) {
    let page = fs::read_to_string(root().join("src/README.md")).expect("it is there");
    let known = metrics(&page);
    assert!(known.len() > 20, "{known:?}");
    let used = metrics(text);
    assert!(!used.is_empty());
    for name in used {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|family| known.contains(*family));
        let is_known = known.contains(name) || family.is_some();
        assert!(is_known, "weir has no metric {name}");
    }
}

fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("weir_"))
        .collect()
}

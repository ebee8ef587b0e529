//! `weir upgrade`: makes a running weir start its program anew, from the same file, and hand over to it.
//! The running process does everything; this command only asks and tells the outcome.
//! The walk goes on in `control/upgrade/mod.rs`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::admin_client::AdminAddress;
use super::print;
use crate::config::diagnostic::counted;

/// Prints which process serves now; fails with the reason when it is still the old one.
pub fn upgrade(address: &AdminAddress) -> ExitCode {
    let answer = address
        .client()
        .and_then(|client| client.post("/api/v1/upgrade", &json!({})));
    print(answer.map(|upgraded| told(&upgraded)))
}

fn told(upgraded: &Value) -> String {
    let open = upgraded["connections"].as_u64().unwrap_or_default() as usize;
    let rest = match open {
        0 => "which has nothing left to finish".to_owned(),
        _ => format!(
            "which has {} to finish within {:?}",
            counted(open, "connection"),
            Duration::try_from_secs_f64(upgraded["drain_seconds"].as_f64().unwrap_or_default())
                .unwrap_or_default()
        ),
    };
    format!(
        "process {} serves in place of {}, {rest}\n",
        upgraded["pid"], upgraded["predecessor"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told() {
        let outcome = |connections| {
            told(
                &json!({ "pid": 8, "predecessor": 7, "connections": connections, "drain_seconds": 30.0 }),
            )
        };
        assert_eq!(
            outcome(2),
            "process 8 serves in place of 7, which has 2 connections to finish within 30s\n"
        );
        assert!(outcome(0).ends_with("which has nothing left to finish\n"));
    }
}

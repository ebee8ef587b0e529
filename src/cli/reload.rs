//! `weir reload`: makes a running weir read its file again, and tells the outcome.
//! The file is read by the running process, not by this command.
//! The walk goes on in `control/reload.rs`.

use std::process::ExitCode;

use serde_json::json;

use super::admin_client::AdminAddress;
use super::print;

/// Prints what the reload did; fails with the reasons when it was refused.
pub fn reload(address: &AdminAddress) -> ExitCode {
    let answer = address
        .client()
        .and_then(|client| client.post("/api/v1/reload", &json!({})));
    print(answer.map(|reloaded| {
        let summary = reloaded["summary"].as_str().filter(|it| !it.is_empty());
        let mut text = format!(
            "generation {}: {}\n",
            reloaded["generation"],
            summary.unwrap_or("nothing changed")
        );
        let costs = &reloaded["report"];
        let (closing, lost) = (&costs["connections_closing"], &costs["sessions_lost"]);
        if [closing, lost]
            .iter()
            .any(|count| count.as_u64().unwrap_or_default() > 0)
        {
            text += &format!("cost: {closing} connections close, {lost} live sessions are lost\n");
        }
        for warning in reloaded["warnings"].as_array().into_iter().flatten() {
            text += &format!("{}\n", warning.as_str().unwrap_or_default());
        }
        text
    }))
}

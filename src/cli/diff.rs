//! `weir diff`: what a configuration file would change in a running weir.
//! Nothing changes; the running process compares what the file says with what it serves.
//! The walk goes on in `control/admin/diff.rs`.

use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::admin_client::AdminAddress;

/// The exit code when there is no answer; 1 says that something would change.
const TROUBLE: u8 = 2;

/// Prints the difference.
pub fn diff(address: &AdminAddress) -> ExitCode {
    let file = address.file();
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()));
    let answer = text.and_then(|text| {
        let document = json!({ "file": file.display().to_string(), "text": text });
        address.client()?.post("/api/v1/diff", &document)
    });
    // A reader that has gone away wanted no more.
    match answer {
        Ok(diff) => {
            let _ = io::stdout().write_all(page(&diff).as_bytes());
            match diff["summary"] == "" {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(problem) => {
            let _ = writeln!(io::stderr(), "{}", problem.trim_end());
            ExitCode::from(TROUBLE)
        }
    }
}

fn page(diff: &Value) -> String {
    let text = |key| diff[key].as_str().unwrap_or_default();
    let lines = |key| {
        diff[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    };
    if text("summary").is_empty() {
        return format!("{}: would change nothing\n", text("file"));
    }
    let mut page = format!("{}: would change: {}\n", text("file"), text("summary"));
    for cost in lines("costs") {
        page += &format!("cost: {cost}\n");
    }
    for key in lines("restart") {
        page += &format!("note: `{key}` takes effect at the next start\n");
    }
    for warning in lines("warnings") {
        page += &format!("warning: {warning}\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_what_would_change() {
        let same = json!({ "file": "/w.toml", "summary": "", "restart": [], "warnings": [] });
        assert_eq!(page(&same), "/w.toml: would change nothing\n");
        let other = json!({ "file": "/w.toml", "summary": "workers; pool was: -b", "restart": ["workers"], "warnings": ["lost"] });
        let wanted = "/w.toml: would change: workers; pool was: -b\n\
                      note: `workers` takes effect at the next start\nwarning: lost\n";
        assert_eq!(page(&other), wanted);
    }
}

//! The house rules of weir as tests: layers, sizes, purity, documents and what the top level may hold.
//! It reads source as text and tokens only, so it never needs the code to compile; a rule without a subject yet is silent.
//! Each rule (`tidy/rules.rs`) has a test over the real tree and a test that it can fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use rules::*;
use source::Source;

/// What is wrong with a configuration, as a user would read it.
fn judge(file: &str, text: &str) -> Option<String> {
    let found = weir::config::parse(file, text).err()?;
    Some(found.render(false))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> Option<String> {
    fs::read_to_string(root().join(name)).ok()
}

fn files_below(directory: &Path, suffix: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, suffix, found);
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
}

/// All sources of the product but files of tests, read once.
fn tree() -> &'static [Source] {
    static TREE: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let mut paths = Vec::new();
        files_below(&root().join("src"), ".rs", &mut paths);
        let all: Vec<Source> = paths
            .iter()
            .map(|path| {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy();
                Source::new(&name, &fs::read_to_string(path).unwrap())
            })
            .collect();
        let tests: BTreeSet<String> = all.iter().flat_map(Source::test_files).collect();
        let shipped = |source: &Source| !tests.contains(&source.path);
        all.into_iter().filter(shipped).collect()
    });
    &TREE
}

#[track_caller]
fn clean(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[track_caller]
fn caught(complaints: Vec<String>, parts: &[&str]) {
    let all = complaints.join("\n");
    assert_eq!(complaints.len(), parts.len(), "complaints: {all}");
    for part in parts {
        assert!(all.contains(part), "nothing about {part:?}: {all}");
    }
}

fn snippet(path: &str, text: &str) -> Vec<Source> {
    vec![Source::new(path, text)]
}

#[test]
fn imports_follow_the_layers() {
    clean(layer_order(tree()));
}

#[test]
fn imports_up_and_sideways_are_caught() {
    let bad = "//! x\nuse crate::{config::{self, model}, worker::Worker, http};\nuse crate::metrics::Shard;\n\
               fn f() { crate::control::run(); super::super::l4::x(); super::balance::y(); }\n\
               // use crate::cli;\nconst S: &str = \"crate::cli::x\";\n#[cfg(test)]\nmod tests { use crate::cli::x; }\n";
    caught(
        layer_order(&snippet("src/policy/route.rs", bad)),
        &[
            "src/policy/route.rs:2: `policy` reaches up: `worker`",
            "src/policy/route.rs:4: `policy` reaches up: `control`",
            "`policy` reaches up: `l4`",
        ],
    );
    caught(
        layer_order(&snippet("src/l7/proxy.rs", "use crate::l4::connection;")),
        &["`l7` reaches sideways: `l4`"],
    );
    caught(
        layer_order(&snippet("src/worker.rs", "use crate::Everything;")),
        &["to no layer: `Everything`"],
    );
    caught(
        layer_order(&snippet(
            "src/main.rs",
            "fn main() { weir::cli::run(); weir::attic::x() }",
        )),
        &["`main` reaches to no layer: `attic`"],
    );
    caught(
        layer_order(&snippet("src/utils/mod.rs", "//! x\n")),
        &["`utils` is no layer"],
    );
}

#[test]
fn the_root_only_declares_modules() {
    clean(root_is_bare(tree()));
    let bad = "//! x\npub mod cli;\npub use cli::run;\n";
    caught(root_is_bare(&snippet("src/lib.rs", bad)), &["src/lib.rs:3"]);
}

#[test]
fn files_and_functions_are_small() {
    clean(sizes(tree()));
}

#[test]
fn long_files_and_functions_are_caught() {
    let body = "    let x = '{';\n".repeat(70);
    let bad = format!(
        "pub async fn long(f: fn(u8) -> u8) -> [u8; 2] {{\n{body}}}\nfn short() {{\n{}}}\ntrait T {{ fn none(&self); }}\n",
        "    call(\"{\"); // {\n".repeat(68)
    );
    caught(
        sizes(&snippet("src/worker.rs", &bad)),
        &["`long` has 72 lines"],
    );
    let long = "// x\n".repeat(601);
    caught(sizes(&snippet("src/worker.rs", &long)), &["601 lines"]);
    let tested = format!(
        "{}#[cfg(test)]\nmod tests {{\n fn x() {{\n{} }}\n}}\n",
        "// x\n".repeat(590),
        "// y\n".repeat(100)
    );
    clean(sizes(&snippet("src/worker.rs", &tested)));
}

#[test]
fn policy_and_http_are_pure() {
    clean(purity(tree()));
}

#[test]
fn impurity_is_caught() {
    let bad = "use tokio::net;\nfn f() { crate::clock::now(); Instant::now(); let r = Rng::from_system(); }\n\
               /// tokio\nfn g(now: Instant, clock: u8) {}\n#[cfg(test)]\nmod tests { fn x() { Instant::now(); } }\n";
    caught(
        purity(&snippet("src/policy/limit.rs", bad)),
        &[
            "`tokio`",
            "`clock ::`",
            "`Instant :: now`",
            "`Rng :: from_system`",
        ],
    );
    clean(purity(&snippet("src/control/run.rs", bad)));
}

#[test]
fn the_data_path_has_no_locks_no_boxed_traits_and_no_unwrap() {
    clean(data_path(tree()));
    clean(unwraps(tree()));
}

#[test]
fn locks_and_unwraps_are_caught() {
    let bad = "use std::sync::Mutex;\nfn f() { x.read().unwrap(); x.unwrap_or(1); }\n#[tower]\nstruct MutexFree;\n";
    caught(
        data_path(&snippet("src/net/listener.rs", bad)),
        &["listener.rs:1: names `Mutex`", "`tower`"],
    );
    clean(data_path(&snippet("src/control/run.rs", bad)));
    caught(unwraps(&snippet("src/control/run.rs", bad)), &["run.rs:2"]);
}

#[test]
fn every_module_says_what_it_owns() {
    clean(module_pages(tree()));
    caught(
        module_pages(&snippet("src/a.rs", "use x;\n//! late\n")),
        &["src/a.rs"],
    );
}

#[test]
fn the_walk_leads_somewhere() {
    clean(walks(tree()));
    let bad = "//! The walk goes on in `a.rs`, `l7/` and `gone.rs`.\nuse x; // `lost.rs`\n";
    caught(
        walks(&snippet("src/l7/a.rs", bad)),
        &["src/l7/a.rs:1: `gone.rs` is nowhere"],
    );
}

#[test]
fn unsafe_is_rare_and_explained() {
    clean(unsafes(tree()));
}

#[test]
fn bare_unsafe_is_caught() {
    let good = "fn f() {\n    // SAFETY: the descriptor is open,\n    // and ours.\n    let x =\n        unsafe { call() };\n}\n";
    let bad = "// SAFETY: of something else\nlet a = 1;\nunsafe { call() }\n#![forbid(unsafe_code)]\n// unsafe\n";
    clean(unsafes(&snippet("src/net/socket.rs", good)));
    caught(
        unsafes(&snippet("src/net/socket.rs", bad)),
        &["socket.rs:3: no `// SAFETY:`"],
    );
    caught(
        unsafes(&snippet("src/l7/proxy.rs", good)),
        &["proxy.rs:5: `unsafe` in this layer"],
    );
}

#[test]
fn the_top_level_holds_what_the_design_lists() {
    let names = fs::read_dir(root()).unwrap();
    let names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    clean(top_level(&names, &page(".gitignore").unwrap_or_default()));
    let bad = ["src", "target", "scripts", ".git"].map(String::from);
    caught(top_level(&bad, "/target\n"), &["scripts: not of the house"]);
}

#[test]
fn every_config_key_is_in_the_reference() {
    let keys = weir::config::schema::KEYS.iter().map(|key| key.path);
    let reference = page("config/reference.toml").expect("the reference");
    clean(reference_keys(keys, &reference));
}

#[test]
fn undocumented_config_keys_are_caught() {
    let keys = ["workers", "pools.*.backends[].name", "sly", "pools.*.lost"];
    let reference = "# workers = 2 # sly\n[pools.was]\nbackends = [\"x\", { name = \"y\" }]\n";
    caught(
        reference_keys(keys.into_iter(), reference),
        &["no `sly`", "no `pools.*.lost`"],
    );
}

fn default_of(key: &str) -> Option<&'static str> {
    match weir::config::schema::key(key)?.default {
        weir::config::schema::Default::Is(value) => Some(value),
        _ => None,
    }
}

#[test]
fn the_limits_of_the_threat_model_are_those_of_the_code() {
    let page = page("src/THREATS.md").expect("the threat model");
    assert!(page.contains("| `limits.head` |"), "the table is there");
    clean(limits(tree(), default_of, &page));
}

#[test]
fn limits_that_are_others_are_caught() {
    let page = "| `limits.head` | `\"1KiB\"` | x |\n| `A` in `l7/a.rs` | `5` | x |\n\
                | `A` in `l7/a.rs` | `4 * 5` | x |\n| `gone` | `1` | x |\n| word | `2` | x |\n";
    let code = snippet("src/l7/a.rs", "pub const A: usize = 4 * 5;\n");
    caught(
        limits(&code, default_of, page),
        &["`limits.head` is not", "`A` is not `5`", "`gone` is not"],
    );
}

#[test]
fn every_metric_is_documented() {
    let pages: Vec<String> = METRIC_DOCUMENTS
        .iter()
        .filter_map(|name| page(name))
        .collect();
    if !pages.is_empty() {
        clean(metric_documents(tree(), &pages.concat()));
    }
}

#[test]
fn undocumented_metrics_are_caught() {
    let code = "const A: &str = \"weir_retries_total\"; const B: &str = \"weir_secret\"; let c = \"weir_\"; // \"weir_no\"\n";
    let found = metric_documents(
        &snippet("src/control/a.rs", code),
        "| `weir_retries_total` |",
    );
    caught(found, &["`weir_secret`"]);
}

#[test]
fn every_status_is_documented() {
    if let Some(page) = page("src/README.md") {
        clean(status_documents(tree(), &page));
    }
}

#[test]
fn undocumented_statuses_are_caught() {
    let table = snippet("src/l7/reject.rs", "//! x\nA => 413,\nB => 504, // 418\n");
    caught(
        status_documents(&table, "It answers 413 and 5040."),
        &["504 is not"],
    );
}

#[test]
fn every_example_loads() {
    let mut files = Vec::new();
    for directory in ["config", "examples", "docker"] {
        files_below(&root().join(directory), ".toml", &mut files);
    }
    let mut complaints = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        complaints.extend(judge(&file.to_string_lossy(), &text));
    }
    for (line, text) in toml_blocks(&page("README.md").unwrap_or_default()) {
        complaints.extend(judge(
            &format!("README.md, the block at line {line}"),
            &text,
        ));
    }
    clean(complaints);
}

#[test]
fn broken_examples_are_caught() {
    let page = "text\n```toml\nworkerz = 1\n```\n```\nx\n```\n";
    assert_eq!(toml_blocks(page), [(3, String::from("workerz = 1\n"))]);
    let report = judge("README.md", "workerz = 1\n").expect("an unknown key is a complaint");
    assert!(report.contains("workerz"), "{report}");
}

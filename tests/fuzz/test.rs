//! The fuzz targets as ordinary tests: over every seed and every crash that was ever found, and over inputs that are made from them here.
//! The fuzzers themselves need nightly Rust and time: `tests/fuzz/run`.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "src/lib.rs"]
mod targets;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// The inputs of a target with their files, in the order of their names.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folders = ["corpus", "crashes"].map(|folder| home().join(folder).join(target));
    let entries = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok());
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let read = |file: PathBuf| (file.clone(), fs::read(file).unwrap());
    files.into_iter().map(read).collect()
}

/// Runs a target; `what` is told when it panics.
fn run(target: targets::Target, bytes: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.1)(bytes))).is_err() {
        panic!("{} fails on {what}", target.0);
    }
}

#[test]
fn seeds_and_crashes_pass() {
    for target in targets::TARGETS {
        let inputs = inputs(target.0);
        assert!(!inputs.is_empty(), "{} has no seeds", target.0);
        for (file, bytes) in inputs {
            run(target, &bytes, &file.display().to_string());
        }
    }
}

/// What fuzzers do, without looking at where the inputs lead.
#[test]
fn inputs_made_from_seeds_pass() {
    let rounds = match std::env::var_os("WEIR_FULL") {
        Some(_) => 20_000,
        None => 1_000,
    };
    std::thread::scope(|scope| {
        for target in targets::TARGETS {
            scope.spawn(move || {
                let mut rng = weir::rng::Rng::from_seed(4);
                let seeds = inputs(target.0);
                for _ in 0..rounds {
                    let mut bytes = seeds[rng.next_u64() as usize % seeds.len()].1.clone();
                    for _ in 0..=rng.next_u64() % 4 {
                        let other = &seeds[rng.next_u64() as usize % seeds.len()].1;
                        change(&mut bytes, other, || rng.next_u64() as usize);
                    }
                    run(target, &bytes, &format!("b\"{}\"", bytes.escape_ascii()));
                }
            });
        }
    });
}

/// Bytes that mean something to one reader or another.
const SPICE: &[u8] = b"\r\n\t :;,=/%?#*.0159aAfFx\"\\\0\x7f\xff{}[]\x01";

/// One small change: a byte, a bit, a piece gone, a piece twice, or a piece of another input.
fn change(bytes: &mut Vec<u8>, other: &[u8], mut number: impl FnMut() -> usize) {
    let at = number() % (bytes.len() + 1);
    let end = at + number() % (bytes.len() - at + 1).min(12);
    match number() % 6 {
        0 => bytes.insert(at, SPICE[number() % SPICE.len()]),
        1 if at < bytes.len() => bytes[at] = SPICE[number() % SPICE.len()],
        2 if at < bytes.len() => bytes[at] ^= 1 << (number() % 8),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let from = number() % (other.len() + 1);
            let to = from + number() % (other.len() - from + 1);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
    }
}

/// A target that is built but never run, or run but never built, is none.
#[test]
fn every_target_is_everywhere() {
    let names: BTreeSet<String> = targets::TARGETS.map(|target| target.0.to_owned()).into();
    let stems = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(home().join(folder)).unwrap();
        let stem = |entry: fs::DirEntry| {
            entry
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        entries.map(|entry| stem(entry.unwrap())).collect()
    };
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("corpus"), names);
    if home().join("crashes").exists() {
        assert!(stems("crashes").is_subset(&names));
    }
    let manifest = fs::read_to_string(home().join("Cargo.toml")).unwrap();
    let listed = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    let listed: BTreeSet<String> = listed
        .map(|name| name.trim_end_matches(".rs\"").to_owned())
        .collect();
    assert_eq!(listed, names);
    for name in names {
        let text = fs::read_to_string(home().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(
            text.contains(&format!("targets::run(\"{name}\", bytes)")),
            "{name}"
        );
    }
}

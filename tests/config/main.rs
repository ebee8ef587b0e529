//! What weir says about configuration files, held against text files: each has a configuration, a line of dashes and the exact output.
//! `WEIR_REWRITE=1 cargo test --test config` writes the outputs and `config/reference.toml` anew; read the difference before keeping it.
//! A case's first line may be a directive for what text cannot hold: `#! missing`, `#! byte 255`, `#! grow 17`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::prelude::*;
use weir::config::codes::Code;
use weir::config::model::{Config, PathChecks};
use weir::config::{self, Loaded, Show};
use weir::control::filter_files;
use weir::http::path::normalize;

const SEPARATOR: &str = "\n---- output ----\n";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rewriting() -> bool {
    std::env::var_os("WEIR_REWRITE").is_some()
}

fn cases() -> Vec<PathBuf> {
    let directory = root().join("tests/config");
    let mut cases: Vec<_> = fs::read_dir(directory)
        .expect("the cases are there")
        .map(|entry| entry.expect("the directory is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    cases.sort();
    cases
}

/// What `weir check` would print about the text, with the verdict as the last line.
fn output(text: &str) -> String {
    let directive = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("#! "));
    let judged = match directive
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .as_deref()
    {
        None => config::parse("weir.toml", text),
        Some(["missing"]) => load_bytes(None),
        Some(["byte", byte]) => {
            let mut bytes = text.as_bytes().to_vec();
            bytes.push(byte.parse().expect("a byte"));
            load_bytes(Some(bytes))
        }
        Some(["grow", mebibytes]) => {
            let mut bytes = text.as_bytes().to_vec();
            let mebibytes: usize = mebibytes.parse().expect("a number");
            bytes.resize(mebibytes << 20, b'\n');
            load_bytes(Some(bytes))
        }
        Some(other) => panic!("unknown directive {other:?}"),
    };
    match judged.and_then(|loaded| filter_files::load(loaded, None)) {
        Ok((loaded, _)) => format!("{}weir.toml: ok\n", loaded.warnings),
        Err(problems) => format!("{problems}weir.toml: {}\n", problems.counts()),
    }
}

/// Loads a file with these bytes; or none at all.
fn load_bytes(bytes: Option<Vec<u8>>) -> Result<Loaded, weir::config::diagnostic::Diagnostics> {
    let directory = std::env::temp_dir().join(format!(
        "weir-config-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    fs::create_dir_all(&directory).expect("a directory for the case");
    let file = directory.join("weir.toml");
    if let Some(bytes) = bytes {
        fs::write(&file, bytes).expect("the case is written");
    }
    let judged = config::load(&file);
    fs::remove_dir_all(&directory).expect("the directory is removed");
    judged
}

/// The output with the name of the temporary directory cut out of it.
fn portable(output: String) -> String {
    let directory = format!("{}/weir-config-", std::env::temp_dir().display());
    output
        .split_inclusive('\n')
        .map(
            |line| match (line.find(&directory), line.find("/weir.toml")) {
                (Some(from), Some(to)) => format!("{}{}", &line[..from], &line[to + 1..]),
                _ => line.to_owned(),
            },
        )
        .collect()
}

#[test]
fn every_case_prints_what_it_says() {
    let mut wrong = Vec::new();
    for case in cases() {
        let file = fs::read_to_string(&case).expect("the case is readable");
        let (text, expected) = file.split_once(SEPARATOR).unwrap_or((file.trim_end(), ""));
        let actual = portable(output(text));
        if actual == expected {
            continue;
        }
        if rewriting() {
            fs::write(&case, format!("{text}{SEPARATOR}{actual}")).expect("the case is written");
        } else {
            wrong.push(format!(
                "{}\n-- expected\n{expected}-- printed\n{actual}",
                case.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_case_shows_the_code_it_is_named_after_and_every_code_has_one() {
    let mut named = BTreeSet::new();
    for case in cases() {
        let name = stem(&case);
        let code = name.split('-').next().unwrap_or_default().to_owned();
        if Code::ALL.iter().any(|known| known.text() == code) {
            let file = fs::read_to_string(&case).expect("the case is readable");
            assert!(file.contains(&format!("[{code}]: ")), "{name}");
            named.insert(code);
        }
    }
    let all: BTreeSet<_> = Code::ALL
        .iter()
        .map(|code| code.text().to_owned())
        .collect();
    let without: Vec<_> = all.difference(&named).collect();
    assert!(without.is_empty(), "no case for {without:?}");
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().expect("a case has a name");
    stem.to_string_lossy().into_owned()
}

fn loads(name: &str, text: &str) -> Config {
    match config::parse(name, text) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn the_reference_equals_the_code_and_loads() {
    let path = root().join("config/reference.toml");
    let text = config::reference(Show::Defaults);
    if rewriting() {
        fs::write(&path, &text).expect("the reference is written");
    }
    assert!(
        fs::read_to_string(&path).expect("the reference is there") == text,
        "config/reference.toml differs from src/config/keys.rs: WEIR_REWRITE=1 cargo test --test config"
    );
    loads("config/reference.toml", &text);
}

#[test]
fn every_example_of_the_reference_loads() {
    let examples = loads("examples", &config::reference(Show::Examples));
    assert_eq!(examples.workers, 2);
    assert_eq!(examples.routes[0].headers.len(), 2);
}

#[test]
fn defaults_are_those_of_the_reference() {
    let least = "[listeners.web]\nbind = [\"192.0.2.10:80\"]";
    let least = loads("least", least);
    let reference = loads("reference", &config::reference(Show::Defaults));
    assert_eq!(
        Config {
            listeners: least.listeners.clone(),
            routes: Vec::new(),
            pools: Vec::new(),
            ..reference
        },
        least
    );
}

#[test]
fn the_shipped_files_load_without_a_warning() {
    for file in [
        "config/weir.toml",
        "docker/config/weir.toml",
        "examples/fleet/weir.toml",
        "examples/scale/weir.toml",
    ] {
        let loaded = config::load(root().join(file)).expect("it loads");
        assert!(loaded.warnings.is_empty(), "{file}: {}", loaded.warnings);
    }
}

/// The commented-out parts must be as good as the rest.
#[test]
fn the_shipped_file_loads_with_its_comments_uncommented() {
    let text = fs::read_to_string(root().join("config/weir.toml")).expect("it is there");
    let uncommented: String = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ") {
            Some(code) if code.starts_with(['[', '{']) || code.contains(" = ") => code,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let with_files = format!("{uncommented}\n[pools.files]\nbackends = [\"127.0.0.1:8082\"]\n");
    assert_eq!(loads("weir.toml", &with_files).routes.len(), 2);
}

/// Any text is judged and drawn without a panic, and the same text the same way.
fn survives(text: &str) {
    let judged = config::parse("f", text);
    let problems = match &judged {
        Ok(loaded) => &loaded.warnings,
        Err(problems) => problems,
    };
    assert_eq!(judged.is_err(), problems.errors() > 0, "{text:?}");
    problems.render(true);
    problems.lines().count();
    assert_eq!(judged, config::parse("f", text));
}

/// Pieces that files are made of.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\n",
        "\r\n",
        "\t",
        "\"",
        "'",
        "\"\"\"",
        "\'\'\'",
        "#",
        "\\",
        "\0",
        "\u{feff}",
        "\u{202e}",
        "é",
        "日本",
        "listeners",
        "routes",
        "pools",
        "web",
        "was",
        "bind",
        "backends",
        "hosts",
        "path",
        "sticky",
        "cookie",
        "headers",
        "health",
        "timeouts",
        "true",
        "1",
        "-1",
        "1e9",
        "0x",
        "1979-05-27",
        "\"192.0.2.10:80\"",
        "\"*.example.com\"",
        "\"2s\"",
        "[listeners.web]\n",
        "[[routes]]\n",
        "[pools.was]\n",
        "bind = [\"192.0.2.10:80\"]\n",
        "backends = [\"10.0.0.11:8080\"]\n",
        "pool = \"was\"\n",
    ];
    prop_oneof![
        8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn text_made_of_pieces_never_panics(pieces in proptest::collection::vec(piece(), 0..60)) {
        survives(&pieces.concat());
    }

    /// What a route may ask for is what the normal form of a request can be. (A `%` is the exception: it is decoded from `%25`.)
    #[test]
    fn an_accepted_path_is_in_normal_form(path in "/[a-z./;?#* ~:é\\\\-]{0,12}") {
        let file = format!("[listeners.web]\nbind = [\"192.0.2.10:80\"]\n[[routes]]\npath = '{path}'\npool = \"was\"\n[pools.was]\nbackends = [\"10.0.0.11:8080\"]");
        if let Ok(loaded) = config::parse("f", &file) {
            let mut scratch = Vec::new();
            let normal = normalize(path.as_bytes(), &mut scratch, PathChecks::Strict);
            prop_assert_eq!(normal, Ok(path.as_bytes()));
            prop_assert_eq!(&loaded.config.routes[0].path, &path);
        }
    }

    /// A good file with a hole, or with something put in.
    #[test]
    fn a_damaged_file_never_panics(at in 0_usize..20_000, length in 0_usize..200, put_in in piece()) {
        let text = config::reference(Show::Examples);
        let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (from, to) = (boundary(at), boundary(at + length));
        survives(&format!("{}{put_in}{}", &text[..from], &text[to..]));
    }
}

#[test]
fn a_text_that_nests_deeply_is_refused() {
    for bracket in ["[", "{", "a.", "[[", "x = [", "x = {a="] {
        let judged = config::parse("f", &bracket.repeat(100_000));
        assert!(judged.is_err(), "{bracket}");
    }
}

/// One broken line is one problem, wherever it stands: nothing else may follow from it.
#[test]
fn a_broken_line_hides_nothing_and_invents_nothing() {
    let file = config::reference(Show::Examples);
    let lines: Vec<_> = file.lines().collect();
    for (place, line) in lines.iter().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let broken: Vec<_> = lines
            .iter()
            .enumerate()
            .map(|(at, other)| if at == place { "!" } else { *other })
            .collect();
        let problems = match config::parse("f", &broken.join("\n")) {
            Ok(_) => panic!("line {place} broken and not noticed"),
            Err(problems) => problems,
        };
        // A header that is lost leaves its keys to the table before it, which may not know them.
        if !line.starts_with('[') {
            assert_eq!(problems.errors(), 1, "{line}\n{problems}");
        }
    }
}

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("weir runs")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn check_of_a_good_file_exits_with_0_and_counts() {
    let output = weir(&["check", "-c", "config/weir.toml"]);
    assert!(output.status.success());
    let verdict = "ok: 1 listener, 1 route, 1 pool, 1 backend\n";
    assert_eq!(text(output.stdout), verdict);
    assert_eq!(text(output.stderr), "");
}

#[test]
fn check_of_a_bad_file_exits_with_1_and_prints_all_without_colour() {
    let case = root().join("tests/config/five-mistakes.txt");
    let case = fs::read_to_string(case).expect("the case is there");
    let (bad, _) = case.split_once(SEPARATOR).expect("the case has an output");
    let file = std::env::temp_dir().join(format!("weir-config-{}.toml", std::process::id()));
    fs::write(&file, bad).expect("the file is written");
    let output = weir(&["check", "-c", &file.to_string_lossy()]);
    fs::remove_file(&file).expect("the file is removed");
    assert_eq!(output.status.code(), Some(1));
    let printed = text(output.stderr);
    for code in ["E0201", "E0301", "E0102", "E0603", "E0206"] {
        assert!(printed.contains(&format!("error[{code}]: ")), "{printed}");
    }
    assert!(printed.ends_with(": 5 errors\n"), "{printed}");
    assert!(!printed.contains('\u{1b}'));
}

#[test]
fn schema_is_json_and_knows_every_key() {
    let output = weir(&["schema"]);
    assert!(output.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let weight = "/properties/pools/additionalProperties/properties/backends/items/anyOf/1/properties/weight/maximum";
    assert_eq!(schema.pointer(weight), Some(&serde_json::json!(256)));
}

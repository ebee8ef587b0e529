//! The rules: each takes sources or pages and gives complaints, none if all is well.
//! They judge text and tokens, never a compiled crate; a rule without a subject is silent.

use std::collections::BTreeMap;

use crate::source::Source;

/// Lines of a file, and of a function, tests aside.
const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// From the bottom up; what shares a row does not know its neighbours.
const LAYERS: &[&[&str]] = &[
    &["metrics", "clock", "rng"],
    &["config"],
    &["http"],
    &["policy"],
    &["state"],
    &["net"],
    &["upstream"],
    &["l7", "l4"],
    &["worker"],
    &["control"],
    &["cli"],
    &["main"],
];

const PURE: &[&str] = &["policy", "http"];
const PURE_NEVER_NAMES: &[&str] = &[
    "tokio",
    "tokio_util",
    "hyper",
    "hyper_util",
    "clock ::",
    "Instant :: now",
    "SystemTime :: now",
    "Rng :: from_seed",
    "Rng :: from_system",
];

const DATA_PATH: &[&str] = &[
    "net", "upstream", "l7", "l4", "worker", "state", "policy", "http",
];
const DATA_PATH_NEVER_NAMES: &[&str] = &["Mutex", "RwLock", "async_trait", "tower"];

const UNSAFE_ROOMS: &[&str] = &["src/net/", "src/control/datapath/"];

const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "build.rs",
    "config",
    "docker",
    "examples",
    "src",
    "tests",
];

/// Where a metric may be documented.
pub const METRIC_DOCUMENTS: &[&str] = &["README.md", "src/README.md"];

fn layer_rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&layer))
}

/// Every `crate::` and `super::` path leads down; every file lives in a layer.
pub fn layer_order(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let layer = source.layer();
        if layer == "lib" {
            continue;
        }
        let Some(rank) = layer_rank(layer) else {
            complaints.push(format!("{}: `{layer}` is no layer", source.path));
            continue;
        };
        for (target, line) in source.crate_references() {
            let wrong = match layer_rank(&target) {
                _ if target == layer => continue,
                Some(target_rank) if target_rank < rank => continue,
                Some(target_rank) if target_rank == rank => "sideways",
                Some(_) => "up",
                None => "to no layer",
            };
            complaints.push(format!(
                "{}:{line}: `{layer}` reaches {wrong}: `{target}`",
                source.path
            ));
        }
    }
    complaints
}

/// The crate's root only declares modules: a re-export there would hide an arrow.
pub fn root_is_bare(sources: &[Source]) -> Vec<String> {
    let root = sources.iter().filter(|source| source.layer() == "lib");
    root.flat_map(|source| source.naming(&["use", "fn", "struct", "enum", "trait", "impl"]))
        .collect()
}

pub fn sizes(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let lines = source.shipped_lines();
        if lines > FILE_LINES {
            complaints.push(format!("{}: {lines} lines", source.path));
        }
        for function in source.functions() {
            if function.lines > FUNCTION_LINES {
                complaints.push(format!(
                    "{}:{}: `{}` has {} lines",
                    source.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    complaints
}

fn in_rooms<'a>(sources: &'a [Source], rooms: &'a [&str]) -> impl Iterator<Item = &'a Source> {
    sources
        .iter()
        .filter(move |source| rooms.contains(&source.layer()))
}

pub fn purity(sources: &[Source]) -> Vec<String> {
    in_rooms(sources, PURE)
        .flat_map(|source| source.naming(PURE_NEVER_NAMES))
        .collect()
}

pub fn data_path(sources: &[Source]) -> Vec<String> {
    in_rooms(sources, DATA_PATH)
        .flat_map(|source| source.naming(DATA_PATH_NEVER_NAMES))
        .collect()
}

/// `unwrap()` is for tests, in every layer.
pub fn unwraps(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .flat_map(|source| source.naming(&[". unwrap ( )"]))
        .collect()
}

pub fn module_pages(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: does not begin with `//!`", source.path))
        .collect()
}

/// Every file and directory that a module's page names is somewhere below `src`, by the end of its path.
pub fn walks(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let page = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"));
        for (number, line) in page.enumerate() {
            let quoted = line.split('`').skip(1).step_by(2);
            for name in quoted.filter(|name| name.ends_with(".rs") || name.ends_with('/')) {
                let wanted = format!("/{name}");
                let found = sources.iter().any(|other| match name.ends_with('/') {
                    true => other.path.contains(&wanted),
                    false => other.path.ends_with(&wanted),
                });
                if !found {
                    let line = number + 1;
                    complaints.push(format!("{}:{line}: `{name}` is nowhere", source.path));
                }
            }
        }
    }
    complaints
}

pub fn unsafes(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        for line in source.unsafe_lines() {
            if !UNSAFE_ROOMS
                .iter()
                .any(|room| source.path.starts_with(room))
            {
                complaints.push(format!("{}:{line}: `unsafe` in this layer", source.path));
            }
            if !source.says_why_safe(line) {
                complaints.push(format!("{}:{line}: no `// SAFETY:` above", source.path));
            }
        }
    }
    complaints
}

pub fn top_level(names: &[String], ignored: &str) -> Vec<String> {
    let built = |name: &str| ignored.lines().any(|line| line == format!("/{name}"));
    names
        .iter()
        .filter(|name| *name != ".git" && !TOP_LEVEL.contains(&name.as_str()) && !built(name))
        .map(|name| format!("{name}: not of the house"))
        .collect()
}

/// Whether `reference` has the key: before `=`, within a table's header, or within an inline table; commented out or not.
fn mentions_key(reference: &str, key: &str) -> bool {
    let word = |text: &str| {
        let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
        words.any(|word| word == key)
    };
    reference.lines().any(|line| {
        let line = line.trim_start_matches(['#', ' ']);
        if line.starts_with('[') && word(line.split('=').next().unwrap_or(line)) {
            return true;
        }
        line.split('=')
            .rev()
            .skip(1)
            .any(|before| word(before.rsplit([',', '{']).next().unwrap_or(before)))
    })
}

/// Every key of the table of keys stands in the reference, by the last part of its path.
pub fn reference_keys<'k>(keys: impl Iterator<Item = &'k str>, reference: &str) -> Vec<String> {
    keys.filter(|path| {
        let mut names = path.rsplit(['.', '[', ']']);
        let name = names.find(|name| !name.is_empty() && *name != "*");
        !mentions_key(reference, name.unwrap_or(path))
    })
    .map(|path| format!("config/reference.toml: no `{path}`"))
    .collect()
}

fn is_metric(literal: &str) -> bool {
    let name = literal.strip_prefix("weir_").unwrap_or_default();
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

pub fn metric_documents(sources: &[Source], documents: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        for literal in source.literals.iter().filter(|one| is_metric(&one.text)) {
            let documented = documents
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .any(|word| word == literal.text);
            if !documented {
                complaints.push(format!(
                    "{}:{}: `{}` is in none of {METRIC_DOCUMENTS:?}",
                    source.path, literal.line, literal.text
                ));
            }
        }
    }
    complaints
}

/// Every status that the table of refusals names is on the architecture page.
pub fn status_documents(sources: &[Source], page: &str) -> Vec<String> {
    let tables = sources.iter().filter(|one| one.path == "src/l7/reject.rs");
    let statuses: BTreeMap<u16, usize> = tables
        .flat_map(|table| &table.tokens)
        .filter_map(|token| Some((token.text().parse().ok()?, token.line)))
        .filter(|(status, _)| (400..600).contains(status))
        .collect();
    statuses
        .iter()
        .filter(|(status, _)| {
            !page
                .split(|c: char| !c.is_ascii_alphanumeric())
                .any(|word| word == status.to_string())
        })
        .map(|(status, line)| format!("src/l7/reject.rs:{line}: {status} is not in src/README.md"))
        .collect()
}

/// The rows of a page that begin with a limit: its name, the file of a constant, and its value.
fn limit_rows(page: &str) -> impl Iterator<Item = (&str, Option<&str>, &str)> {
    page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let (limit, value) = (cells.next()?, cells.next()?);
        let value = value.strip_prefix('`')?.strip_suffix('`')?;
        let mut words = limit.split('`');
        let (name, _, file) = (words.next()?, words.next(), words.next());
        Some((name, file, value))
    })
}

/// Every limit of the page is what it says: keys by their defaults, constants by their text.
pub fn limits<'k>(
    sources: &[Source],
    default: impl Fn(&str) -> Option<&'k str>,
    page: &str,
) -> Vec<String> {
    let constant = |file: &str, name: &str| {
        let path = format!("src/{file}");
        let source = sources.iter().find(|source| source.path == path)?;
        let mut lines = source.text.lines();
        let line = lines.find(|line| line.contains(&format!("const {name}: ")))?;
        line.split_once(" = ")?.1.strip_suffix(';')
    };
    limit_rows(page)
        .filter_map(|(name, file, value)| {
            let real = match file {
                Some(file) => constant(file, name),
                None => default(name),
            };
            (real != Some(value)).then(|| format!("`{name}` is not `{value}` but {real:?}"))
        })
        .collect()
}

/// The ```` ```toml ```` blocks of a page with the line that each begins on.
pub fn toml_blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match &mut open {
            None if line.trim() == "```toml" => open = Some((number + 2, String::new())),
            None => {}
            Some(_) if line.trim() == "```" => blocks.extend(open.take()),
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    blocks
}

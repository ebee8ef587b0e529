//! Where the backends of a pool come from when the file does not name them all.
//! It never resolves a name and never looks whether there is such a file.
//! Here the walk ends.

use toml::de::DeTable;

use super::{Report, Section};
use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::model::{Discovery, Dns, HttpList, Records};
use crate::config::values::{names, places};

/// Keys that not every type has, with those that have them.
const KEYS: [(&str, &[Type]); 10] = [
    ("name", &[Type::Dns]),
    ("port", &[Type::Dns]),
    ("records", &[Type::Dns]),
    ("servers", &[Type::Dns]),
    ("min_ttl", &[Type::Dns]),
    ("max_ttl", &[Type::Dns]),
    ("path", &[Type::File]),
    ("url", &[Type::Http]),
    ("interval", &[Type::Http]),
    ("timeout", &[Type::Http, Type::Dns]),
];

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Dns,
    File,
    Http,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Type::Dns => "dns",
            Type::File => "file",
            Type::Http => "http",
        }
    }
}

/// The source of a pool, if it has one. One that lacks something was reported, and is left out.
pub(super) fn lower(report: &mut Report, pool: &Section<'_>) -> Option<Discovery> {
    pool.value("discovery")?;
    let empty = DeTable::new();
    let section = pool.section(report, "discovery", "pools.*.discovery", &empty);
    let kinds = [
        ("dns", Type::Dns),
        ("file", Type::File),
        ("http", Type::Http),
    ];
    let kind = section.choice(report, "type", kinds);
    // Without a type nobody knows which keys belong to it.
    if section.value("type").is_some() {
        let others = KEYS.iter().filter(|(_, of)| !of.contains(&kind));
        report.extend(others.filter_map(|(name, of)| of_another(&section, name, of[0])));
    }
    match kind {
        Type::Dns => dns(report, &section),
        Type::File => {
            let path = section.text(report, "path", names::file_path);
            needed(report, &section, "path", path.is_some());
            path.map(|path| Discovery::File { path })
        }
        Type::Http => http(report, &section),
    }
}

fn dns(report: &mut Report, section: &Section<'_>) -> Option<Discovery> {
    let words = [
        ("auto", Records::Auto),
        ("a", Records::A),
        ("aaaa", Records::Aaaa),
        ("both", Records::Both),
        ("srv", Records::Srv),
    ];
    let records = section.choice(report, "records", words);
    let name = section.text(report, "name", places::domain_name);
    needed(report, section, "name", name.is_some());
    let port = section.count(report, "port").map(|port| port as u16);
    match records {
        Records::Srv if port.is_some() => report.push(port_of_srv(section)),
        Records::Srv => {}
        _ => needed(report, section, "port", port.is_some()),
    }
    let servers = section.list(report, "servers", places::name_server);
    let mut time = |key| section.duration(report, key).unwrap_or_default();
    let (min_ttl, max_ttl, timeout) = (time("min_ttl"), time("max_ttl"), time("timeout"));
    if min_ttl > max_ttl {
        report.push(crossed(section));
    }
    Some(Discovery::Dns(Dns {
        name: name?,
        records,
        port: port.unwrap_or_default(),
        servers: super::values_of(servers),
        min_ttl,
        max_ttl,
        timeout,
    }))
}

fn http(report: &mut Report, section: &Section<'_>) -> Option<Discovery> {
    let url = section.text(report, "url", places::http_url);
    needed(report, section, "url", url.is_some());
    let mut time = |key| section.duration(report, key).unwrap_or_default();
    let (interval, timeout) = (time("interval"), time("timeout"));
    Some(Discovery::Http(HttpList {
        place: url?,
        interval,
        timeout,
    }))
}

/// Reports a key that this type cannot do without. One that is there and wrong was reported already.
fn needed(report: &mut Report, section: &Section<'_>, name: &'static str, is_there: bool) {
    if is_there || section.value(name).is_some() || section.value("type").is_none() {
        return;
    }
    let example = crate::config::schema::key(&format!("pools.*.discovery.{name}"));
    report.push(
        Diagnostic::at(
            Code::MissingKey,
            section.span(),
            format!("`{name}` is missing"),
            format!("`{name}` belongs here"),
        )
        .help(format!(
            "add {name} = {}",
            example.map_or("...", |key| key.example)
        )),
    );
}

fn of_another(section: &Section<'_>, name: &'static str, of: Type) -> Option<Diagnostic> {
    section.value(name)?;
    let of = of.as_str();
    let problem = Diagnostic::at(
        Code::OtherDiscovery,
        section.key_place(name),
        format!("`{name}` belongs to discovery of type \"{of}\""),
        "this source has no use for it",
    )
    .and(section.place("type"), "its type is given here");
    Some(problem.help(format!("leave it out, or write type = \"{of}\"")))
}

fn port_of_srv(section: &Section<'_>) -> Diagnostic {
    Diagnostic::at(
        Code::OtherDiscovery,
        section.key_place("port"),
        "SRV records tell the ports themselves",
        "nothing is left to say here",
    )
    .and(section.place("records"), "the records are chosen here")
    .help("leave `port` out, or look up addresses with records = \"auto\"")
}

fn crossed(section: &Section<'_>) -> Diagnostic {
    let problem = Diagnostic::at(
        Code::OutOfRange,
        section.place("min_ttl"),
        "`min_ttl` is longer than `max_ttl`",
        "an answer would hold longer than it may",
    );
    let problem = match section.value("max_ttl") {
        Some(longest) => problem.and(longest.span, "the longest time that it holds"),
        None => problem,
    };
    problem.help("write a shorter min_ttl, or a longer max_ttl")
}

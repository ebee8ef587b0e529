//! The filters of a route; a key that its type has no use for is a mistake.
//! It opens no file and renders nothing.
//! The walk goes on in `filters/browser.rs` and `filters/files.rs`.

mod browser;
mod files;

mod compress;

use toml::de::{DeTable, DeValue};

use super::{At, Report, Section, protection, values_of};
use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::keys;
use crate::config::model::{
    Access, Filter, HeaderEdits, LimitKey, RateLimit, Redirect, Respond, Rewrite, Scheme, Template,
};
use crate::config::suggest;
use crate::config::value::chosen;
use crate::config::values::{Read, names, rates, template};

/// The filters of a route, `None` in the place of one that is refused, and where each stands.
pub(super) fn lower(report: &mut Report, route: &Section<'_>) -> (Vec<Filter>, Vec<Span>) {
    let Some(value) = route.value("filters") else {
        return (Vec::new(), Vec::new());
    };
    let DeValue::Array(entries) = value.value else {
        report.push(value.wrong_type());
        return (Vec::new(), Vec::new());
    };
    let (mut filters, mut places) = (Vec::new(), Vec::new());
    for entry in entries.iter() {
        let DeValue::Table(table) = entry.get_ref() else {
            report.push(value.entry(entry).wrong_type());
            continue;
        };
        if let Some((filter, place)) = lower_one(report, table, entry.span()) {
            filters.push(filter);
            places.push(place);
        }
    }
    (filters, places)
}

/// The keys of each type, beside `type` itself.
const KEYS_OF_TYPES: &[(&str, &[&str])] = &[
    ("request-headers", &["remove", "set", "add"]),
    ("response-headers", &["remove", "set", "add"]),
    ("rewrite-path", &["prefix", "regex", "to"]),
    ("redirect", &["scheme", "host", "port", "path", "code"]),
    ("respond", &["status", "body", "content_type"]),
    ("request-id", &["header"]),
    (
        "cors",
        &[
            "origins",
            "methods",
            "headers",
            "expose",
            "credentials",
            "max_age",
        ],
    ),
    (
        "security-headers",
        &[
            "hsts",
            "hsts_subdomains",
            "nosniff",
            "frame_options",
            "referrer_policy",
            "content_security_policy",
            "permissions_policy",
        ],
    ),
    ("error-pages", &["pages"]),
    ("basic-auth", &["realm", "users_file", "forward"]),
    ("access", &["allow", "deny"]),
    (
        "rate-limit",
        &["rate", "burst", "key", "prefix_v4", "prefix_v6", "max_keys"],
    ),
    ("compress", &["algorithms", "min_size", "types", "level"]),
];

fn lower_one(report: &mut Report, table: &DeTable<'_>, span: Span) -> Option<(Filter, Span)> {
    let said = table.get("type").and_then(|kind| kind.get_ref().as_str());
    let own = said.and_then(|said| KEYS_OF_TYPES.iter().find(|(known, _)| *known == said));
    let has = |key: &str| own.is_none_or(|(_, keys)| key == "type" || keys.contains(&key));
    let section = Section::open_among(report, "routes[].filters[]", table, span, has);
    let kind = section.read(report, "type", |value| {
        value.text(|text| chosen(&keys::FILTER, text))
    })?;
    report.extend(of_other_types(&section, table, kind));
    let filter = match kind {
        "request-headers" => Filter::RequestHeaders(header_edits(
            report,
            &section,
            template::request_value,
            "host",
        )),
        "response-headers" => {
            Filter::ResponseHeaders(header_edits(report, &section, template::answer_value, ""))
        }
        "rewrite-path" => Filter::RewritePath(rewrite(report, &section)?),
        "redirect" => Filter::Redirect(redirect(report, &section)),
        "respond" => Filter::Respond(respond(report, &section)),
        "request-id" => Filter::RequestId {
            header: section.text(report, "header", |name| free_header(name, ""))?,
        },
        "cors" => Filter::Cors(browser::cors(report, &section)?),
        "security-headers" => Filter::SecurityHeaders(browser::security_headers(report, &section)),
        "error-pages" => Filter::ErrorPages(files::error_pages(report, &section)?),
        "basic-auth" => Filter::BasicAuth(files::basic_auth(report, &section)?),
        "access" => Filter::Access(access(report, &section)?),
        "rate-limit" => Filter::RateLimit(rate_limit(report, &section)?),
        "compress" => Filter::Compress(compress::lower(report, &section)),
        _ => return None,
    };
    Some((filter, section.place("type")))
}

/// The problems of keys that belong to filters of other types.
fn of_other_types(section: &Section<'_>, table: &DeTable<'_>, kind: &str) -> Vec<Diagnostic> {
    let own = KEYS_OF_TYPES.iter().find(|(known, _)| *known == kind);
    let own = own.map_or(&[][..], |(_, keys)| keys);
    let mut problems = Vec::new();
    for key in table.keys() {
        let name = key.get_ref();
        let with = KEYS_OF_TYPES
            .iter()
            .filter(|(_, keys)| keys.contains(&&**name));
        let types: Vec<&str> = with.map(|(known, _)| *known).collect();
        if types.is_empty() || own.contains(&&**name) {
            continue;
        }
        let types = suggest::quoted_list(&types);
        let known: Vec<_> = own.iter().map(|key| format!("`{key}`")).collect();
        let problem = Diagnostic::at(
            Code::OtherFilter,
            key.span(),
            format!("`{name}` belongs to filters of type {types}"),
            "this filter has no use for it",
        );
        let help = format!("leave `{name}` out; \"{kind}\" has {}", known.join(", "));
        problems.push(
            problem
                .and(section.place("type"), "the type is given here")
                .help(help),
        );
    }
    problems
}

/// What is done to a header. `may_set` is a protected name that may be set all the same.
fn header_edits(
    report: &mut Report,
    section: &Section<'_>,
    value: fn(&str) -> Read<Template>,
    may_set: &str,
) -> HeaderEdits {
    HeaderEdits {
        remove: values_of(section.list(report, "remove", |name| free_header(name, ""))),
        set: lines(report, section, "set", value, may_set),
        add: lines(report, section, "add", value, ""),
    }
}

fn lines(
    report: &mut Report,
    section: &Section<'_>,
    key: &'static str,
    value: fn(&str) -> Read<Template>,
    may_set: &str,
) -> Vec<(String, Template)> {
    let parse_name = |name: &str| free_header(name, may_set);
    let found = section.texts(report, key, parse_name, |name, text| {
        if name.eq_ignore_ascii_case("host") {
            return names::authority(text).and_then(|_| value(text));
        }
        value(text)
    });
    let mut lines: Vec<(At<String>, Template)> = Vec::new();
    for (name, value) in found {
        let same =
            |(known, _): &&(At<String>, Template)| known.value.eq_ignore_ascii_case(&name.value);
        match lines.iter().find(same) {
            Some((first, _)) => report.push(
                Diagnostic::at(
                    Code::ListedTwice,
                    name.span,
                    format!("`{key}` has `{}` twice", name.value),
                    "again here",
                )
                .and(first.span.clone(), "first said here")
                .help("leave one of them out: header names have no case"),
            ),
            None => lines.push((name, value)),
        }
    }
    lines
        .into_iter()
        .map(|(name, value)| (name.value, value))
        .collect()
}

/// The name of a header that a filter may change.
fn free_header(name: &str, may_set: &str) -> Read<String> {
    names::header_name(name)?;
    names::free_of_weir(name, may_set).map(|()| name.to_owned())
}

fn rewrite(report: &mut Report, section: &Section<'_>) -> Option<Rewrite> {
    let (prefix, regex) = (section.value("prefix"), section.value("regex"));
    let needed = match (&prefix, &regex) {
        (Some(prefix), Some(regex)) => {
            report.push(
                Diagnostic::at(
                    Code::OtherFilter,
                    regex.span.clone(),
                    "`prefix` and `regex` exclude each other",
                    "a filter has one of them",
                )
                .and(prefix.span.clone(), "the other one is given here")
                .help("write two filters, in the order in which they are to work"),
            );
            return None;
        }
        (None, None) => Some((
            "prefix",
            "add prefix = \"/shop\", or regex = \"^/old/(.*)$\"",
        )),
        _ if section.value("to").is_none() => {
            Some(("to", "add to = \"/\", with what comes instead"))
        }
        _ => None,
    };
    if let Some((name, help)) = needed {
        report.push(missing(section, name, help));
        return None;
    }
    if prefix.is_some() {
        let prefix = section.text(report, "prefix", names::path);
        let to = section.text(report, "to", template::path);
        let prefix = prefix?.trim_end_matches('/').to_owned();
        return Some(Rewrite::Prefix { prefix, to: to? });
    }
    let regex = section.text(report, "regex", template::regex)?;
    let to = section.text(report, "to", |to| template::path_of_groups(to, &regex))?;
    Some(Rewrite::Regex { regex, to })
}

fn access(report: &mut Report, section: &Section<'_>) -> Option<Access> {
    if section.value("allow").is_none() && section.value("deny").is_none() {
        let help = "add deny = [\"192.0.2.0/24\"], or allow = [\"10.0.0.0/8\"]";
        report.push(missing(section, "deny", help));
        return None;
    }
    Some(protection::access(report, section).0)
}

fn rate_limit(report: &mut Report, section: &Section<'_>) -> Option<RateLimit> {
    if section.value("rate").is_none() {
        let help = "add rate = \"10/s\", with how many may pass in how long";
        report.push(missing(section, "rate", help));
        return None;
    }
    let key = section.text(report, "key", rates::key)?;
    let unused: &[&str] = match key {
        LimitKey::Source => &[],
        LimitKey::Route => &["prefix_v4", "prefix_v6", "max_keys"],
        LimitKey::Header(_) | LimitKey::Cookie(_) => &["prefix_v4", "prefix_v6"],
    };
    let written = unused.iter().filter(|name| section.value(name).is_some());
    for name in written {
        let problem = Diagnostic::at(
            Code::OtherFilter,
            section.key_place(name),
            format!("`{name}` says nothing here"),
            format!("the limit counts by \"{key}\""),
        );
        let place = section.place("key");
        report.push(
            problem
                .and(place, "that is said here")
                .help(format!("leave `{name}` out")),
        );
    }
    Some(protection::rate_limit(report, section, key))
}

fn missing(section: &Section<'_>, name: &str, help: &str) -> Diagnostic {
    Diagnostic::at(
        Code::MissingKey,
        section.place("type"),
        format!("`{name}` is missing"),
        "a filter of this type needs it",
    )
    .help(help)
}

fn redirect(report: &mut Report, section: &Section<'_>) -> Redirect {
    let places = ["scheme", "host", "port", "path"];
    if places.iter().all(|key| section.value(key).is_none()) {
        report.push(missing(
            section,
            "path",
            "add scheme = \"https\", host = \"www.example.com\" or path = \"/new{path}\"",
        ));
    }
    let scheme = section.value("scheme").map(|_| {
        let schemes = [("http", Scheme::Http), ("https", Scheme::Https)];
        section.choice(report, "scheme", schemes)
    });
    let port = section.count(report, "port");
    let code = section.count(report, "code").unwrap_or_default();
    if !matches!(code, 301..=303 | 307 | 308) {
        report.push(
            Diagnostic::at(
                Code::OutOfRange,
                section.place("code"),
                format!("`code` is not a redirect: {code}"),
                "no client goes elsewhere for this status",
            )
            .help("write 308 or 301 for good, 307 or 302 for now, 303 to make a POST a GET"),
        );
    }
    Redirect {
        scheme,
        host: section.text(report, "host", template::redirect_host),
        port: port.and_then(|port| u16::try_from(port).ok()),
        path: section.text(report, "path", template::redirect_path),
        code: code as u16,
    }
}

fn respond(report: &mut Report, section: &Section<'_>) -> Respond {
    let status = section.count(report, "status").unwrap_or_default() as u16;
    let body = section.text(report, "body", |text| Ok(text.to_owned()));
    if let (204 | 304, Some(_)) = (status, section.value("body")) {
        report.push(
            Diagnostic::at(
                Code::OtherFilter,
                section.key_place("body"),
                format!("an answer with status {status} has no body"),
                "this would never be sent",
            )
            .and(section.place("status"), "the status is given here")
            .help("leave `body` out"),
        );
    }
    Respond {
        status,
        body: body.unwrap_or_default(),
        content_type: section
            .text(report, "content_type", names::media_type)
            .unwrap_or_default(),
    }
}

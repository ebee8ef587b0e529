//! The routes of a file.
//! It resolves no reference: which listeners and pools exist is judged in `check/references.rs`.
//! The walk goes on in `sticky.rs` and `filters.rs`.

use std::collections::{HashMap, HashSet};

use toml::de::{DeTable, DeValue};

use super::{At, Report, RoutePlaces, Section, filters, read_timeouts, retry, sticky, values_of};
use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::model::{Filter, HeaderMatch, Listener, Protocol, Route, Timeouts};
use crate::config::section::in_file_order;
use crate::config::value::Value;
use crate::config::values::{hello, names};

/// The keys that not every protocol has a use for.
const OF_SOME_PROTOCOLS: [&str; 10] = [
    "hosts", "path", "methods", "headers", "filters", "max_body", "retry", "sni", "alpn", "replies",
];

/// All routes in file order.
pub(super) fn lower(
    report: &mut Report,
    top: &Section<'_>,
    timeouts: Timeouts,
    listeners: &[Listener],
) -> (Vec<Route>, Vec<RoutePlaces>) {
    let Some(value) = top.value("routes") else {
        return (Vec::new(), Vec::new());
    };
    let DeValue::Array(entries) = value.value else {
        report.push(value.wrong_type());
        return (Vec::new(), Vec::new());
    };
    let mut routes = Vec::new();
    let mut places = Vec::new();
    for entry in entries.iter() {
        let DeValue::Table(table) = entry.get_ref() else {
            report.push(value.entry(entry).wrong_type());
            continue;
        };
        let (route, place) = lower_one(report, table, entry.span(), timeouts, listeners);
        routes.push(route);
        places.push(place);
    }
    name_the_nameless(&mut routes, listeners);
    (routes, places)
}

fn lower_one(
    report: &mut Report,
    table: &DeTable<'_>,
    span: Span,
    timeouts: Timeouts,
    listeners: &[Listener],
) -> (Route, RoutePlaces) {
    let empty = DeTable::new();
    let problems = report.len();
    let section = Section::open(report, "routes[]", table, span);
    let named = section.list(report, "listeners", names::name);
    let hosts = section.list(report, "hosts", names::host);
    let pool = section.text(report, "pool", names::name);
    let (sticky, sticky_places) =
        sticky::lower(report, &section, pool.as_deref().unwrap_or_default());
    let (filters, filter_places) = filters::lower(report, &section);
    if section.value("pool").is_none() && !filters.iter().any(Filter::ends_requests) {
        report.push(no_pool(&section));
    }
    let own_timeouts = section.section(report, "timeouts", "routes[].timeouts", &empty);
    let mut places = RoutePlaces {
        whole: section.span(),
        name: section.value("name").map(|value| value.span),
        listeners: named.clone(),
        hosts: hosts.iter().map(|host| host.span.clone()).collect(),
        pool: pool.clone().map(|value| At {
            value,
            span: section.place("pool"),
        }),
        sticky: sticky_places,
        filters: filter_places,
        keys: section.present(&OF_SOME_PROTOCOLS),
        sound: false,
    };
    let route = Route {
        name: section
            .text(report, "name", names::name)
            .unwrap_or_default(),
        listeners: match section.value("listeners") {
            Some(_) => values_of(named),
            None => every_one(&section, listeners),
        },
        hosts: values_of(hosts),
        path: section
            .text(report, "path", names::path)
            .unwrap_or_default(),
        methods: values_of(section.list(report, "methods", names::method)),
        headers: headers(report, &section),
        sni: values_of(section.list(report, "sni", hello::sni)),
        alpn: values_of(section.list(report, "alpn", hello::alpn)),
        pool: pool.unwrap_or_default(),
        filters,
        sticky,
        replies: (section.count(report, "replies")).map(|count| count as u32),
        max_body: section.size(report, "max_body"),
        timeouts: read_timeouts(report, &own_timeouts, Some(timeouts)),
        retry: retry::lower(report, &section),
    };
    places.sound = report.len() == problems;
    (route, places)
}

fn no_pool(section: &Section<'_>) -> Diagnostic {
    Diagnostic::at(
        Code::MissingKey,
        section.span(),
        "`pool` is missing",
        "`pool` belongs here",
    )
    .help("add pool = \"was\"; only a route with a filter of type \"redirect\" or \"respond\" needs none")
}

/// The listeners of a route that names none: those of the protocol that its keys are for, else of the first that the file has.
fn every_one(section: &Section<'_>, listeners: &[Listener]) -> Vec<String> {
    let is_there = |protocol: &Protocol| listeners.iter().any(|own| own.protocol == *protocol);
    let looks_at_hello = section.value("sni").is_some() || section.value("alpn").is_some();
    let protocol = match looks_at_hello {
        true => Some(Protocol::Tcp),
        false => [Protocol::Http, Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(is_there),
    };
    let meant = listeners
        .iter()
        .filter(|own| Some(own.protocol) == protocol);
    meant.map(|listener| listener.name.clone()).collect()
}

fn headers(report: &mut Report, section: &Section<'_>) -> Vec<HeaderMatch> {
    let Some(whole) = section.value("headers") else {
        return Vec::new();
    };
    let DeValue::Table(table) = whole.value else {
        report.push(whole.wrong_type());
        return Vec::new();
    };
    let mut headers: Vec<At<HeaderMatch>> = Vec::new();
    for (key, value) in in_file_order(table) {
        let entry = whole.entry(value);
        let read = header(key.get_ref(), key.span(), &entry);
        match read.and_then(|header| first_of_its_name(header, key.span(), &headers)) {
            Ok(header) => headers.push(header),
            Err(problem) => report.push(problem),
        }
    }
    values_of(headers)
}

fn header(name: &str, place: Span, entry: &Value<'_>) -> Result<HeaderMatch, Diagnostic> {
    let name = names::header_name(name).map_err(|flaw| flaw.of("a name in `headers`", place))?;
    let value = match entry.value {
        DeValue::Boolean(true) => None,
        DeValue::Boolean(false) => {
            let problem = Diagnostic::at(
                Code::BadHeader,
                entry.span.clone(),
                "`headers` asks for a header to be absent",
                "a condition is a value, or `true` for any",
            );
            return Err(problem.help(
                "give the route that wants the header; what lacks it falls to the next one",
            ));
        }
        _ => Some(entry.text(names::header_value)?),
    };
    Ok(HeaderMatch { name, value })
}

/// Header names differ by more than case.
fn first_of_its_name(
    value: HeaderMatch,
    span: Span,
    earlier: &[At<HeaderMatch>],
) -> Result<At<HeaderMatch>, Diagnostic> {
    match earlier
        .iter()
        .find(|earlier| earlier.value.name == value.name)
    {
        None => Ok(At { value, span }),
        Some(first) => Err(Diagnostic::at(
            Code::ListedTwice,
            span,
            format!("`headers` has `{}` twice", value.name),
            "again here",
        )
        .and(first.span.clone(), "first said here")
        .help("leave one of them out: header names have no case")),
    }
}

/// Gives a route without a name its match as text; where that is taken, with a number after it.
fn name_the_nameless(routes: &mut [Route], listeners: &[Listener]) {
    let mut taken: HashSet<String> = routes.iter().map(|route| route.name.clone()).collect();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for route in routes.iter_mut().filter(|route| route.name.is_empty()) {
        let plain = match_as_text(route, listeners);
        let mut name = plain.clone();
        while !taken.insert(name.clone()) {
            let number = numbers.entry(plain.clone()).or_insert(1);
            *number += 1;
            name = format!("{plain}#{number}");
        }
        route.name = name;
    }
}

/// Where a route is not for requests, its match is what the client asks for, else the listener.
fn match_as_text(route: &Route, listeners: &[Listener]) -> String {
    let serves = |listener: &&Listener| route.listeners.contains(&listener.name);
    match listeners.iter().find(serves) {
        Some(listener) if listener.protocol != Protocol::Http => {
            let asked = route.sni.first().or(route.alpn.first());
            asked.unwrap_or(&listener.name).clone()
        }
        _ => {
            let host = route.hosts.first().map_or("", String::as_str);
            format!("{host}{}", route.path)
        }
    }
}

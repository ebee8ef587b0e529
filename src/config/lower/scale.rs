//! How many backends a pool should have, and who sees to it.
//! It never looks whether there is such a program.
//! Here the walk ends.

use toml::de::DeTable;

use super::{Report, Section};
use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::model::{Actor, Scale, Target};
use crate::config::values::{Read, places};

/// The keys that say what is measured.
const TARGETS: [&str; 4] = [
    "target_in_flight",
    "target_sessions",
    "target_latency",
    "target_load",
];

/// What the pool says of its size, if it does. What lacks something was reported, and is left out.
pub(super) fn lower(report: &mut Report, pool: &Section<'_>) -> Option<Scale> {
    pool.value("scale")?;
    let empty = DeTable::new();
    let section = pool.section(report, "scale", "pools.*.scale", &empty);
    let mut count = |name| section.count(report, name).map(|count| count as usize);
    let (min, max) = (count("min"), count("max"));
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        report.push(crossed(&section));
    }
    let target = target(report, &section);
    let health = pool.section(&mut Report::new(), "health", "pools.*.health", &empty);
    if let Some(target) = section.value("target_load")
        && health.value("load_header").is_none()
    {
        report.push(unsaid(target.span));
    }
    let actor = actor(report, &section);
    let mut time = |name| section.duration(report, name).unwrap_or_default();
    Some(Scale {
        interval: time("interval"),
        cool_down: time("cool_down"),
        hold: time("hold"),
        drain_deadline: time("drain_deadline"),
        timeout: time("timeout"),
        min: min?,
        max: max?,
        target: target?,
        actor,
    })
}

fn target(report: &mut Report, section: &Section<'_>) -> Option<Target> {
    let in_flight = section.count(report, "target_in_flight");
    let sessions = section.count(report, "target_sessions");
    let latency = section.duration(report, "target_latency");
    let load = section.count(report, "target_load");
    match &section.present(&TARGETS)[..] {
        [] => report.push(without_target(section)),
        [_] => {}
        [(first, place), others @ ..] => {
            let found = others.iter().map(|(again, at)| {
                let message = format!("`{again}` beside `{first}`");
                Diagnostic::at(
                    Code::OtherScale,
                    at.clone(),
                    message,
                    "one of them is enough",
                )
                .and(place.clone(), "what is measured is given here")
                .help("keep the one whose target is met last when servers are added")
            });
            report.extend(found);
        }
    }
    (in_flight.map(|value| Target::InFlight(value as f64)))
        .or(sessions.map(|value| Target::Sessions(value as f64)))
        .or(latency.map(|value| Target::Latency(value.as_secs_f64())))
        .or(load.map(|value| Target::Load(value as f64)))
}

fn actor(report: &mut Report, section: &Section<'_>) -> Option<Actor> {
    let word = |text: &str| -> Read<String> { places::argument(text) };
    let command = (section.value("command"))
        .map(|_| section.entries(report, "command", word))
        .unwrap_or_default();
    let webhook = section.text(report, "webhook", places::http_url);
    if let [(first, place), (again, at)] = &section.present(&["command", "webhook"])[..] {
        report.push(
            Diagnostic::at(
                Code::OtherScale,
                at.clone(),
                format!("`{again}` beside `{first}`"),
                "one of them is asked",
            )
            .and(place.clone(), "the other one")
            .help("leave one of them out"),
        );
    }
    match command.is_empty() {
        false => Some(Actor::Command(super::values_of(command))),
        true => webhook.map(Actor::Webhook),
    }
}

fn without_target(section: &Section<'_>) -> Diagnostic {
    Diagnostic::at(
        Code::MissingKey,
        section.span(),
        "nothing is measured",
        "one of target_in_flight, target_sessions, target_latency and target_load belongs here",
    )
    .help("add target_in_flight = 50: how much of it each backend should have")
}

fn unsaid(target: Span) -> Diagnostic {
    Diagnostic::at(
        Code::OtherScale,
        target,
        "backends are not asked for their load".to_owned(),
        "which header of a check's answer says it?",
    )
    .help("add load_header = \"X-Load\" to the pool's health, of type \"http\"")
}

fn crossed(section: &Section<'_>) -> Diagnostic {
    Diagnostic::at(
        Code::OutOfRange,
        section.place("min"),
        "`min` is greater than `max`",
        "no number of backends is right",
    )
    .and(section.place("max"), "the greatest number")
    .help("write a smaller min")
}

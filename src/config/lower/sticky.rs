//! The stickiness of a route and weir's own cookie; a key that its mode has no use for is a mistake.
//! It seals nothing and reads no secret.
//! Here the walk ends.

use toml::de::{DeTable, DeValue};

use super::{At, Report, Section};
use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::keys;
use crate::config::model::{
    Cookie, InsertTimes, OnFailure, Rebalance, SameSite, Secure, Sessions, Sticky, StickyMode,
};
use crate::config::suggest;
use crate::config::value::Value;
use crate::config::values::{cookies, names, store};

/// Where the parts of a stickiness stand; what the file does not say stands at the table itself.
pub(in crate::config) struct StickyPlaces {
    pub mode: Span,
    /// The mode as the file has it, also one that this version lacks.
    pub mode_text: String,
    pub cookie_name: Span,
    pub same_site: Span,
    pub on_failure: Span,
    pub store: Span,
}

/// The stickiness of a route, `None` when it has none.
pub(super) fn lower(
    report: &mut Report,
    route: &Section<'_>,
    pool: &str,
) -> (Option<Sticky>, Option<StickyPlaces>) {
    if route.value("sticky").is_none() {
        return (None, None);
    }
    let empty = DeTable::new();
    let section = route.section(report, "sticky", "routes[].sticky", &empty);
    let mode = mode(report, &section);
    let sessions = section.choice(
        report,
        "sessions",
        [
            ("local", Sessions::Local),
            ("replicated", Sessions::Replicated),
            ("shared", Sessions::Shared),
        ],
    );
    let on_failure = on_failure(report, &section, &mode, sessions);
    report.extend(no_balance(&section, &mode, sessions));
    let session_cookie = section.text(report, "session_cookie", cookies::name);
    let idle_timeout = section.duration(report, "idle_timeout");
    let mode_text = section
        .value("mode")
        .and_then(|mode| mode.value.as_str().map(str::to_owned));
    if let Some(text) = &mode_text {
        report.extend(KEYS_OF_MODES.iter().filter_map(|(key, modes)| {
            (keys::MODE.words.contains(&text.as_str()) && !modes.contains(&text.as_str()))
                .then(|| of_other_modes(&section, key, modes))?
        }));
    }
    let (cookie, cookie_name, same_site) = cookie(report, &section, pool);
    let places = StickyPlaces {
        mode: section.place("mode"),
        mode_text: mode_text.unwrap_or_default(),
        cookie_name,
        same_site,
        on_failure: section.place("on_failure"),
        store: section.place("store"),
    };
    let rebalance = rebalance(report, &section, sessions, &mode);
    let sticky = Sticky {
        mode,
        rebalance,
        sessions,
        on_failure,
        balance_factor: section
            .fraction(report, "balance_factor")
            .unwrap_or_default(),
        first_flight: section.flag(report, "first_flight"),
        session_cookie: session_cookie.unwrap_or_default(),
        idle_timeout: idle_timeout.unwrap_or_default(),
        cookie,
    };
    (Some(sticky), Some(places))
}

/// The keys that not every mode has a use for, with the modes that do.
const KEYS_OF_MODES: [(&str, &[&str]); 8] = [
    ("first_flight", &["insert", "cookie-hash", "route", "learn"]),
    ("absolute_timeout", &["insert", "learn"]),
    ("rehome_after", &["insert"]),
    ("store", &["learn"]),
    ("header", &["header"]),
    ("prefix_v4", &["source"]),
    ("prefix_v6", &["source"]),
    ("cookie", &["insert", "cookie-hash"]),
];

/// The problem of a key that belongs to other modes, if the file has it.
fn of_other_modes(section: &Section<'_>, key: &'static str, modes: &[&str]) -> Option<Diagnostic> {
    section.value(key)?;
    let modes = suggest::quoted_list(modes);
    let problem = Diagnostic::at(
        Code::OtherMode,
        section.key_place(key),
        format!("`{key}` belongs to the sticky mode {modes}"),
        "this mode has no use for it",
    );
    Some(
        problem
            .and(section.place("mode"), "the mode is given here")
            .help(format!("leave `{key}` out, or write mode = {modes}")),
    )
}

fn mode(report: &mut Report, section: &Section<'_>) -> StickyMode {
    let absolute_timeout = section.duration(report, "absolute_timeout");
    let rehome_after = section.duration(report, "rehome_after");
    let header = section.text(report, "header", names::header_name);
    let store = section.text(report, "store", store::store);
    let bits = |report: &mut Report, key| {
        let count = section.count(report, key).unwrap_or_default();
        u8::try_from(count).unwrap_or(u8::MAX)
    };
    let (prefix_v4, prefix_v6) = (bits(report, "prefix_v4"), bits(report, "prefix_v6"));
    match section.choice(
        report,
        "mode",
        [
            ("cookie-hash", Mode::CookieHash),
            ("insert", Mode::Insert),
            ("route", Mode::Route),
            ("learn", Mode::Learn),
            ("source", Mode::Source),
            ("header", Mode::Header),
        ],
    ) {
        Mode::CookieHash => StickyMode::CookieHash,
        Mode::Insert => StickyMode::Insert(InsertTimes {
            absolute_timeout,
            rehome_after: rehome_after.unwrap_or_default(),
        }),
        Mode::Route => StickyMode::Route,
        Mode::Learn => StickyMode::Learn {
            absolute_timeout,
            store,
        },
        Mode::Source => StickyMode::Source {
            prefix_v4,
            prefix_v6,
        },
        Mode::Header => {
            if section.value("header").is_none() {
                report.push(no_header(section));
            }
            StickyMode::Header {
                name: header.unwrap_or_default(),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Mode {
    CookieHash,
    Insert,
    Route,
    Learn,
    Source,
    Header,
}

fn no_header(section: &Section<'_>) -> Diagnostic {
    Diagnostic::at(
        Code::MissingKey,
        section.place("mode"),
        "`header` is missing",
        "this mode knows a client by a request header",
    )
    .help("add header = \"x-user\", with the name of the header")
}

/// What happens at a failure. Where the new home cannot be written down, a move cannot be for good.
fn on_failure(
    report: &mut Report,
    section: &Section<'_>,
    mode: &StickyMode,
    sessions: Sessions,
) -> OnFailure {
    let default = match sessions {
        Sessions::Replicated | Sessions::Shared if mode.can_move() => OnFailure::Permanent,
        _ => OnFailure::Temporary,
    };
    let wait = section.duration(report, "wait").unwrap_or_default();
    if section.value("wait").is_some() && !is_written(section, "wait") {
        report.push(waits_for_nobody(section));
    }
    let Some(value) = section.value("on_failure") else {
        if default == OnFailure::Permanent {
            report.extend(never_returns(
                section,
                "no client goes back where sessions are not local",
            ));
        }
        return default;
    };
    let read = section.choice(
        report,
        "on_failure",
        [
            ("temporary", OnFailure::Temporary),
            ("permanent", OnFailure::Permanent),
            ("wait", OnFailure::Wait(wait)),
            ("error", OnFailure::Error),
        ],
    );
    if read == OnFailure::Permanent && !mode.can_move() {
        report.push(
            Diagnostic::at(
                Code::OtherMode,
                value.span,
                "a client cannot move for good in this mode",
                "there is nowhere to write its new home",
            )
            .and(section.place("mode"), "the mode is given here")
            .help("write \"temporary\", \"wait\" or \"error\", or choose the mode \"insert\", \"cookie-hash\" or \"learn\""),
        );
    }
    if !matches!(read, OnFailure::Temporary | OnFailure::Wait(_)) {
        report.extend(never_returns(
            section,
            "no client is away with this `on_failure`",
        ));
    }
    read
}

/// How idle clients move, where they can: somebody else must have their session, and something must tell their new home.
fn rebalance(
    report: &mut Report,
    section: &Section<'_>,
    sessions: Sessions,
    mode: &StickyMode,
) -> Option<Rebalance> {
    let idle = section.duration(report, "rebalance_idle");
    let rate = section.count(report, "rebalance_rate").unwrap_or_default();
    let is_on = section.choice(report, "rebalance", [("off", false), ("idle", true)]);
    if !is_on {
        let keys = ["rebalance_idle", "rebalance_rate"].into_iter();
        report.extend(keys.filter_map(|key| moves_nobody(section, key)));
        return None;
    }
    let is_by_key = matches!(mode, StickyMode::Source { .. } | StickyMode::Header { .. });
    let why = match sessions {
        Sessions::Local => "no other server has the sessions of one that has too many",
        _ if is_by_key => "there is nowhere to write a client's new home",
        _ => {
            return Some(Rebalance {
                idle: idle.unwrap_or_default(),
                rate: u32::try_from(rate).unwrap_or(u32::MAX),
            });
        }
    };
    let problem = Diagnostic::at(
        Code::OtherMode,
        section.place("rebalance"),
        "clients of this route cannot be moved",
        why,
    );
    report.push(problem.help(match sessions {
        Sessions::Local => "leave `rebalance` out or, if every server has every session, write sessions = \"replicated\" or \"shared\"",
        _ => "leave `rebalance` out, or write mode = \"insert\"",
    }));
    None
}

/// The problem of a key of `rebalance` where nobody moves.
fn moves_nobody(section: &Section<'_>, key: &'static str) -> Option<Diagnostic> {
    section.value(key)?;
    let message = format!("`{key}` belongs to rebalance = \"idle\"");
    let problem = Diagnostic::at(
        Code::OtherMode,
        section.key_place(key),
        message,
        "nobody is moved without that",
    );
    Some(problem.help(format!("leave `{key}` out, or write rebalance = \"idle\"")))
}

/// Whether the file has this `on_failure`.
fn is_written(section: &Section<'_>, word: &str) -> bool {
    section
        .value("on_failure")
        .is_some_and(|value| value.value.as_str() == Some(word))
}

/// The problem of a `wait` where nobody waits.
fn waits_for_nobody(section: &Section<'_>) -> Diagnostic {
    Diagnostic::at(
        Code::OtherMode,
        section.key_place("wait"),
        "`wait` belongs to on_failure = \"wait\"",
        "no request is held with this `on_failure`",
    )
    .help("leave `wait` out, or write on_failure = \"wait\"")
}

/// The problem of a `rehome_after` where nobody is away for a while.
fn never_returns(section: &Section<'_>, why: &str) -> Option<Diagnostic> {
    section.value("rehome_after")?;
    let message = "`rehome_after` belongs to on_failure = \"temporary\"";
    let problem = Diagnostic::at(
        Code::OtherMode,
        section.key_place("rehome_after"),
        message,
        why,
    );
    Some(problem.help("leave `rehome_after` out, or write on_failure = \"temporary\""))
}

/// The problem of a `balance_factor` where a client's key places it, whatever the load is, and nothing may be served elsewhere.
fn no_balance(section: &Section<'_>, mode: &StickyMode, sessions: Sessions) -> Option<Diagnostic> {
    let by_key = matches!(mode, StickyMode::Source { .. } | StickyMode::Header { .. });
    if !by_key || sessions == Sessions::Shared {
        return None;
    }
    section.value("balance_factor")?;
    let problem = Diagnostic::at(
        Code::OtherMode,
        section.key_place("balance_factor"),
        "`balance_factor` belongs to modes that remember where a client was placed",
        "here the client's key alone says where it goes",
    );
    Some(problem.and(section.place("mode"), "the mode is given here").help(
        "leave `balance_factor` out, or write mode = \"insert\" or, if every server has every session, sessions = \"shared\"",
    ))
}

/// The cookie, given by its name alone or as a table, with the places of its name and its SameSite attribute.
fn cookie(report: &mut Report, sticky: &Section<'_>, pool: &str) -> (Cookie, Span, Span) {
    let empty = DeTable::new();
    let path = "routes[].sticky.cookie";
    let short = match sticky.value("cookie") {
        Some(
            value @ Value {
                value: DeValue::String(_),
                ..
            },
        ) => Some(value),
        _ => None,
    };
    let name = short
        .as_ref()
        .and_then(|value| match value.text(cookies::name) {
            Ok(name) => Some(At {
                value: name,
                span: value.span.clone(),
            }),
            Err(problem) => {
                report.push(problem);
                None
            }
        });
    let section = match short {
        Some(value) => Section::empty(path, &empty, value.span),
        None => sticky.section(report, "cookie", path, &empty),
    };
    let name = name.unwrap_or_else(|| At {
        value: section
            .text(report, "name", cookies::name)
            .unwrap_or_else(|| format!("weir_{pool}")),
        span: section.place("name"),
    });
    (
        attributes(report, &section, name.value),
        name.span,
        section.place("same_site"),
    )
}

fn attributes(report: &mut Report, section: &Section<'_>, name: String) -> Cookie {
    Cookie {
        name,
        path: section
            .text(report, "path", cookies::path)
            .unwrap_or_default(),
        domain: section.text(report, "domain", cookies::domain),
        same_site: section.choice(
            report,
            "same_site",
            [
                ("lax", SameSite::Lax),
                ("strict", SameSite::Strict),
                ("none", SameSite::None),
            ],
        ),
        http_only: section.flag(report, "http_only"),
        secure: section.choice(
            report,
            "secure",
            [
                ("auto", Secure::Auto),
                ("always", Secure::Always),
                ("never", Secure::Never),
            ],
        ),
        max_age: section.duration(report, "max_age"),
    }
}

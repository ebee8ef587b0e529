//! The stickiness of a route and weir's own cookie.
//! It seals nothing and reads no secret.
//! Here the walk ends.

use toml::de::{DeTable, DeValue};

use super::{At, Report, Section};
use crate::config::diagnostic::Span;
use crate::config::model::{Cookie, SameSite, Secure, Sessions, Sticky, StickyMode};
use crate::config::value::Value;
use crate::config::values::cookies;

/// Where the parts of a stickiness stand; what the file does not say stands at the table itself.
pub(in crate::config) struct StickyPlaces {
    pub mode: Span,
    /// The mode as the file has it, also one that this version lacks.
    pub mode_text: String,
    pub cookie_name: Span,
    pub same_site: Span,
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
    let mode = section.choice(report, "mode", [("cookie-hash", StickyMode::CookieHash)]);
    let sessions = section.choice(report, "sessions", [("local", Sessions::Local)]);
    let mode_text = section
        .value("mode")
        .and_then(|mode| mode.value.as_str().map(str::to_owned));
    let (cookie, cookie_name, same_site) = cookie(report, &section, pool);
    let places = StickyPlaces {
        mode: section.place("mode"),
        mode_text: mode_text.unwrap_or_default(),
        cookie_name,
        same_site,
    };
    let sticky = Sticky {
        mode,
        sessions,
        cookie,
    };
    (Some(sticky), Some(places))
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

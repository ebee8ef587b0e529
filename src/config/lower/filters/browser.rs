//! Filters that speak to browsers: `cors` and `security-headers`.
//! What it lets pass gives no origin more than the file says.
//! Here the walk ends.

use super::{Report, Section, missing, values_of};
use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::model::{Cors, Origins, SecurityHeaders};
use crate::config::section::At;
use crate::config::value::chosen;
use crate::config::values::{names, origins, template};

pub(super) fn cors(report: &mut Report, section: &Section<'_>) -> Option<Cors> {
    if section.value("origins").is_none() {
        let help = "add origins = [\"https://shop.example.com\"], with those whose scripts may read answers";
        report.push(missing(section, "origins", help));
        return None;
    }
    let listed = section.list(report, "origins", origins::origin);
    let credentials = section.flag(report, "credentials");
    let names = |report: &mut Report, key| {
        section.list(report, key, |name| {
            names::header_name(name).map(|_| name.to_owned())
        })
    };
    let (headers, expose) = (names(report, "headers"), names(report, "expose"));
    let methods = match section.value("methods") {
        Some(_) => section.list(report, "methods", names::method),
        // Those that need no asking, so that a list is never empty.
        None => ["GET", "HEAD", "POST"]
            .map(|name| At {
                value: name.to_owned(),
                span: section.span(),
            })
            .into(),
    };
    let is_any = |origin: &&At<Origins>| origin.value == Origins::Any;
    if let Some(any) = listed.iter().find(is_any).filter(|_| credentials) {
        report.push(too_much(
            section,
            any,
            "every place in the world could act as its visitors",
        ));
    }
    for list in [&methods, &headers, &expose] {
        if let Some(any) = list
            .iter()
            .find(|entry| entry.value == "*")
            .filter(|_| credentials)
        {
            report.push(too_much(section, any, "browsers take this for a name then"));
        }
    }
    Some(Cors {
        origins: values_of(listed),
        methods: values_of(methods),
        headers: values_of(headers),
        expose: values_of(expose),
        credentials,
        max_age: section.duration(report, "max_age").unwrap_or_default(),
    })
}

fn too_much<T>(section: &Section<'_>, any: &At<T>, why: &str) -> Diagnostic {
    Diagnostic::at(
        Code::BadOrigin,
        any.span.clone(),
        "`*` does not go with credentials",
        why,
    )
    .and(
        section.key_place("credentials"),
        "cookies are sent with this",
    )
    .help("write out what is meant, or leave `credentials` out")
}

pub(super) fn security_headers(report: &mut Report, section: &Section<'_>) -> SecurityHeaders {
    let below = section.flag(report, "hsts_subdomains");
    let hsts = section.duration(report, "hsts").map(|age| {
        let below = if below { "; includeSubDomains" } else { "" };
        format!("max-age={}{below}", age.as_secs())
    });
    if hsts.is_none() && section.value("hsts_subdomains").is_some() {
        report.push(
            Diagnostic::at(
                Code::OtherFilter,
                section.key_place("hsts_subdomains"),
                "`hsts_subdomains` belongs to `hsts`",
                "nothing is sent without that",
            )
            .help("add hsts = \"8760h\", or leave this out"),
        );
    }
    let mut always = Vec::new();
    if section.flag(report, "nosniff") {
        always.push(("X-Content-Type-Options", "nosniff".to_owned()));
    }
    let frames = [
        ("sameorigin", Some("SAMEORIGIN")),
        ("deny", Some("DENY")),
        ("off", None),
    ];
    if let Some(frames) = section.choice(report, "frame_options", frames) {
        always.push(("X-Frame-Options", frames.to_owned()));
    }
    let policy = section.read(report, "referrer_policy", |value| {
        value.text(|text| chosen(&keys::REFERRER, text))
    });
    if let Some(policy) = policy.filter(|policy| *policy != "off") {
        always.push(("Referrer-Policy", policy.to_owned()));
    }
    for (key, name) in [
        ("content_security_policy", "Content-Security-Policy"),
        ("permissions_policy", "Permissions-Policy"),
    ] {
        if let Some(value) = section.text(report, key, template::plain_value) {
            always.push((name, value));
        }
    }
    SecurityHeaders { hsts, always }
}

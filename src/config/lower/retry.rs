//! The rules of retries of a route: the table `retry`.
//! It judges single values, and whether its time-outs mean anything beside `on`.
//! Here the walk ends.

use toml::de::DeTable;

use super::{Report, Section};
use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::model::{Retry, RetryOn};
use crate::config::value::chosen;
use crate::config::values::Read;

/// The rules of a route; `None` where the file has none.
pub(super) fn lower(report: &mut Report, route: &Section<'_>) -> Option<Retry> {
    route.value("retry")?;
    let empty = DeTable::new();
    let section = route.section(report, "retry", "routes[].retry", &empty);
    let retry = Retry {
        attempts: section.count(report, "attempts").unwrap_or_default() as u8,
        on: on(report, &section),
        budget: section.fraction(report, "budget").unwrap_or_default(),
        idempotency_key: section.flag(report, "idempotency_key"),
        try_timeout: section.duration(report, "try_timeout"),
        total_timeout: section.duration(report, "total_timeout"),
    };
    if retry.try_timeout.is_some() && !retry.on.timeout {
        report.push(waits_for_nothing(&section));
    }
    Some(retry)
}

/// What leads to a retry. Where the file does not say, who gives a try a time means that another one follows.
fn on(report: &mut Report, section: &Section<'_>) -> RetryOn {
    let listed = section.value("on").is_some();
    let words = section.list(report, "on", word);
    let has = |word| words.iter().any(|listed| listed.value == word);
    match listed {
        true => RetryOn {
            connect: has("connect"),
            reset: has("reset"),
            error_status: has("5xx"),
            timeout: has("timeout"),
        },
        false => RetryOn {
            connect: true,
            reset: true,
            error_status: false,
            timeout: section.value("try_timeout").is_some(),
        },
    }
}

fn word(text: &str) -> Read<&'static str> {
    chosen(&keys::RETRY_ON, text)
}

/// The problem of a time-out of a try that no other try follows.
fn waits_for_nothing(section: &Section<'_>) -> Diagnostic {
    Diagnostic::at(
        Code::OtherRetry,
        section.key_place("try_timeout"),
        "`try_timeout` means nothing without \"timeout\" in `on`",
        "no try follows one that took too long",
    )
    .help("write on = [\"connect\", \"reset\", \"timeout\"], or leave `try_timeout` out")
}

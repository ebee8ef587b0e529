//! What of the traffic is held against a backend: the table `[pools.NAME.passive]`, or `true` for its defaults.
//! It judges single values only.
//! Here the walk ends.

use toml::de::{DeTable, DeValue};

use super::{Report, Section};
use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::duration_text;
use crate::config::model::Passive;
use crate::config::value::Value;
use crate::config::values;

/// The rules of a pool; `None` where the file has none.
pub(super) fn lower(report: &mut Report, pool: &Section<'_>) -> Option<Passive> {
    let empty = DeTable::new();
    let section = match pool.value("passive")? {
        Value {
            value: DeValue::Boolean(false),
            ..
        } => return None,
        Value {
            value: DeValue::Boolean(true),
            span,
            ..
        } => Section::empty("pools.*.passive", &empty, span),
        _ => pool.section(report, "passive", "pools.*.passive", &empty),
    };
    let count = |report: &mut Report, name| section.count(report, name).unwrap_or_default() as u32;
    let fraction = |report: &mut Report, name| section.fraction(report, name).unwrap_or_default();
    let time = |report: &mut Report, name| section.duration(report, name).unwrap_or_default();
    let passive = Passive {
        consecutive_errors: count(report, "consecutive_errors"),
        consecutive_timeouts: count(report, "consecutive_timeouts"),
        statuses: section
            .text(report, "statuses", values::statuses)
            .unwrap_or_default(),
        error_ratio: fraction(report, "error_ratio"),
        window: time(report, "window"),
        ejection: time(report, "ejection"),
        max_ejection: time(report, "max_ejection"),
        max_ejected: fraction(report, "max_ejected"),
        panic_threshold: fraction(report, "panic_threshold"),
    };
    if passive.max_ejection < passive.ejection {
        report.push(cut_short(&section, &passive));
    }
    Some(passive)
}

/// The problem of a first ejection that is longer than any may be.
fn cut_short(section: &Section<'_>, passive: &Passive) -> Diagnostic {
    let message = "`ejection` is longer than `max_ejection`";
    let most = duration_text(passive.max_ejection);
    Diagnostic::at(
        Code::OutOfRange,
        section.place("ejection"),
        message,
        format!("no ejection lasts longer than {most}"),
    )
    .help("set max_ejection to ten times the ejection, or so")
}

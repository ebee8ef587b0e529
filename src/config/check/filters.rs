//! Whether every filter of a route can be reached, and whether a route without a pool asks for nothing that needs one.
//! Here the walk ends.

use crate::config::codes::Code;
use crate::config::diagnostic::Diagnostic;
use crate::config::lower::{Draft, RoutePlaces};
use crate::config::model::{Filter, Route};
use crate::config::section::Report;

pub(super) fn check(report: &mut Report, draft: &Draft) {
    for (route, places) in draft.config.routes.iter().zip(&draft.routes) {
        report.extend(never_reached(route, places));
        if places.pool.is_none() && places.sticky.is_some() {
            report.extend(keeps_nobody(route, places));
        }
    }
}

/// The first step on requests after a fixed answer.
fn never_reached(route: &Route, places: &RoutePlaces) -> Option<Diagnostic> {
    let is_end = |filter: &Filter| matches!(filter, Filter::Respond(_));
    let end = route.filters.iter().position(is_end)?;
    let mut later = (end + 1..).zip(route.filters.get(end + 1..)?);
    let (lost, _) = later.find(|(_, filter)| !filter.changes_answers())?;
    let problem = Diagnostic::at(
        Code::NeverReached,
        places.filters.get(lost)?.clone(),
        "no request reaches this filter",
        "after a fixed answer",
    );
    let place = places.filters.get(end)?.clone();
    Some(
        problem
            .and(place, "every request is answered here")
            .help("put it before the answer, or leave it out"),
    )
}

fn keeps_nobody(route: &Route, places: &RoutePlaces) -> Option<Diagnostic> {
    let last = route.filters.iter().position(Filter::ends_requests)?;
    let sticky = places.sticky.as_ref()?;
    let problem = Diagnostic::at(
        Code::OtherMode,
        sticky.mode.clone(),
        "a route without a pool keeps nobody",
        "there is no backend to stay with",
    );
    let place = places.filters.get(last)?.clone();
    Some(
        problem
            .and(place, "requests are answered here")
            .help("leave `sticky` out, or add pool = \"was\""),
    )
}

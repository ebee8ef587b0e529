//! The choice of a route against the plain reference that the router's own tests have, and against the reasons that people are told.

use std::cmp::Reverse;
use std::time::Instant;

use arbitrary::{Arbitrary, Result, Unstructured};
use weir::config::model::HeaderMatch;
use weir::http::request;
use weir::policy::facts::{Facts, RequestFacts};
use weir::policy::judge::judge;
use weir::policy::route::{RouteMatch, Router};

use super::support::LIMITS;

#[path = "../../../src/policy/route/reference.rs"]
mod reference;

const HOSTS: [&str; 8] = ["a", "b", "a.b", "b.a.b", "*.a", "*.b", "*.a.b", "[::1]"];
const PATHS: [&str; 9] = [
    "/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/b", "/b/a/a", "/a/b/c",
];
const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const FIELDS: [&str; 2] = ["x-a", "x-b"];

pub fn run(bytes: &[u8]) {
    // An input that is too short is none.
    let _ = choose(&mut Unstructured::new(bytes));
}

fn choose(input: &mut Unstructured<'_>) -> Result<()> {
    let listener = usize::from(u8::arbitrary(input)? % 72);
    let host = match bool::arbitrary(input)? {
        true => (*input.choose(&HOSTS)?).to_owned(),
        false => String::arbitrary(input)?,
    };
    let path = match bool::arbitrary(input)? {
        true => (*input.choose(&PATHS)?).to_owned(),
        false => format!("/{}", <&str>::arbitrary(input)?),
    };
    let mut wire = format!("{} / HTTP/1.1\r\nHost: {host}\r\n", input.choose(&METHODS)?);
    for _ in 0..input.int_in_range(0..=3)? {
        let (name, value) = (input.choose(&FIELDS)?, u8::arbitrary(input)? % 3);
        wire.push_str(&format!("{name}: {value}\r\n"));
    }
    wire.push_str("\r\n");
    let mut routes = Vec::new();
    for _ in 0..input.int_in_range(0..=12)? {
        routes.push(rule(input)?);
    }
    let mut lines = Vec::new();
    let Ok(Some(request)) = request::parse(wire.as_bytes(), &mut lines, &LIMITS) else {
        return Ok(());
    };
    if request.head.host().len() > 255 {
        // Longer than a name can be: it has no route of its own.
        return Ok(());
    }
    let facts = Facts {
        client: [127, 0, 0, 1].into(),
        listener,
        request: Some(RequestFacts {
            head: &request.head,
            path: path.as_bytes(),
            secure: false,
        }),
        session: None,
        hello: None,
        now: Instant::now(),
        wall_millis: 0,
    };
    let chosen = Router::compile(&routes).route(&facts);
    assert_eq!(chosen, reference::reference(&routes, &facts));
    let ranks = routes.iter().zip(0..).filter_map(|(rule, route)| {
        let rank = judge(rule, &facts).ok()?;
        Some((rank, Reverse(route)))
    });
    assert_eq!(chosen, ranks.max().map(|(_, Reverse(route))| route));
    Ok(())
}

fn rule(input: &mut Unstructured<'_>) -> Result<RouteMatch> {
    let mut rule = RouteMatch {
        path: (*input.choose(&PATHS)?).to_owned(),
        ..RouteMatch::default()
    };
    for _ in 0..input.int_in_range(1..=40)? {
        rule.listeners.push(input.int_in_range(0..=71)?);
    }
    for _ in 0..input.int_in_range(0..=2)? {
        rule.hosts.push((*input.choose(&HOSTS)?).to_owned());
    }
    for _ in 0..input.int_in_range(0..=2)? {
        rule.methods.push((*input.choose(&METHODS)?).to_owned());
    }
    for _ in 0..input.int_in_range(0..=2)? {
        let value = u8::arbitrary(input)? % 4;
        rule.headers.push(HeaderMatch {
            name: (*input.choose(&FIELDS)?).to_owned(),
            value: (value < 3).then(|| value.to_string()),
        });
    }
    Ok(rule)
}

//! Tree to model: every key read, every default filled in, every problem of a single value reported.
//! It never stops at a problem and never judges two things against each other.
//! The walk goes on in `lower/listeners.rs`, `lower/tls.rs`, `lower/pools.rs`, `lower/routes.rs`, and then in `check.rs`.

mod balancer;
mod discovery;
mod filters;
mod listeners;
mod load;
mod passive;
mod pools;
mod protection;
mod retry;
mod routes;
mod scale;
mod sticky;
mod tls;

use std::path::PathBuf;

use toml::de::DeTable;

use super::codes::Code;
use super::diagnostic::{Diagnostic, Span};
use super::model::{
    AccessFormat, AccessTarget, Admin, AdminBind, Config, Forwarding, Http2, Level, Limits, Log,
    Metrics, Timeouts, Watch,
};
use super::section::{At, Report, Section};
use super::values::{addresses, names};

/// The model with the places that its parts came from.
pub(super) struct Draft {
    pub config: Config,
    /// Where the admin address stands, if the file has one.
    pub admin: Option<Span>,
    pub listeners: Vec<ListenerPlaces>,
    pub routes: Vec<RoutePlaces>,
    pub pools: Vec<PoolPlaces>,
    /// The files that TLS needs, and where they are named.
    pub tls_files: Vec<(PathBuf, Span)>,
}

impl Draft {
    /// The files that filters have, and where these stand.
    pub fn filter_files(&self) -> Vec<(PathBuf, Span)> {
        let routes = self.config.routes.iter().zip(&self.routes);
        let filters = routes.flat_map(|(route, places)| route.filters.iter().zip(&places.filters));
        let files = filters.flat_map(|(filter, place)| {
            let named = filter.files().into_iter();
            named.map(|file| (file.clone(), place.clone()))
        });
        files.collect()
    }
}

/// Where the parts of a listener stand, in the order of the model.
pub(super) struct ListenerPlaces {
    pub name: Span,
    pub bind: Vec<Span>,
    pub protocol: Span,
    pub proxy_protocol: Span,
    pub allow: protection::AllowPlaces,
    /// Its keys that only some protocols have a use for.
    pub keys: Vec<(&'static str, Span)>,
}

/// Where the parts of a route stand, and its references as written.
pub(super) struct RoutePlaces {
    /// The `[[routes]]` that begins it.
    pub whole: Span,
    /// Its name, if it has one of its own.
    pub name: Option<Span>,
    /// The listeners it names; empty when it names none.
    pub listeners: Vec<At<String>>,
    pub hosts: Vec<Span>,
    /// The pool it names, if it names one.
    pub pool: Option<At<String>>,
    /// The pool that its canary names, if it has one.
    pub canary: Option<At<String>>,
    pub sticky: Option<sticky::StickyPlaces>,
    /// Its filters, by their types.
    pub filters: Vec<Span>,
    /// Its keys that only some protocols have a use for.
    pub keys: Vec<(&'static str, Span)>,
    /// Whether nothing was wrong with it, so that its match can be compared with others'.
    pub sound: bool,
}

/// Where the parts of a pool stand.
pub(super) struct PoolPlaces {
    pub protocol: Span,
    pub proxy_protocol: Span,
    pub transparent: Span,
    pub balancer: Span,
    pub name: Span,
    /// The pool that takes over for it, if it names one.
    pub fallback: Option<At<String>>,
    /// Its keys that are not for everything that listeners may lead to it.
    pub particular: Vec<(&'static str, Span)>,
    /// Where TLS is told to verify nothing, if it is.
    pub unverified: Option<Span>,
    /// Whether the file says how it is checked.
    pub has_check: bool,
    /// The timeout of its check, else the interval, if the file has one of them.
    pub check_time: Option<Span>,
}

/// Lowers the whole file. The model is whole only if nothing was reported.
pub(super) fn lower(report: &mut Report, tree: &DeTable<'_>, text: &str) -> Draft {
    let empty = DeTable::new();
    let top = Section::open(report, "", tree, 0..0);
    let timeouts = top.section(report, "timeouts", "timeouts", &empty);
    let timeouts = read_timeouts(report, &timeouts, None);
    let admin = top.section(report, "admin", "admin", &empty);
    let admin_place = admin.value("bind").map(|value| value.span);
    let mut tls_files = Vec::new();
    let (listeners, listener_places) = listeners::lower(report, &top, &mut tls_files);
    if listeners.is_empty()
        && top
            .value("listeners")
            .is_none_or(|value| value.value.is_table())
    {
        report.push(no_listeners(text));
    }
    let (mut pools, pool_places) = pools::lower(report, &top, &mut tls_files);
    let (routes, route_places) = routes::lower(report, &top, timeouts, &listeners);
    pools::settle(&mut pools, &pool_places, &routes, &listeners);
    let config = Config {
        workers: top.count(report, "workers").unwrap_or_default() as usize,
        state_dir: top
            .text(report, "state_dir", names::file_path)
            .unwrap_or_default(),
        secrets_file: top.text(report, "secrets_file", names::file_path),
        trusted_proxies: values_of(top.entries(report, "trusted_proxies", addresses::network)),
        drain_timeout: top.duration(report, "drain_timeout").unwrap_or_default(),
        drain_delay: top.duration(report, "drain_delay").unwrap_or_default(),
        watch: top.choice(
            report,
            "watch",
            [
                ("auto", Watch::Auto),
                ("poll", Watch::Poll),
                ("off", Watch::Off),
            ],
        ),
        timeouts,
        limits: limits(report, &top),
        http2: http2(report, &top),
        min_body_rate: min_body_rate(report, &top),
        forwarding: forwarding(report, &top),
        admin: self::admin(report, &admin),
        log: log(report, &top),
        metrics: metrics(report, &top),
        listeners,
        routes,
        pools,
    };
    Draft {
        config,
        admin: admin_place,
        listeners: listener_places,
        routes: route_places,
        pools: pool_places,
        tls_files,
    }
}

fn no_listeners(text: &str) -> Diagnostic {
    let message = if text.trim().is_empty() {
        "the file is empty"
    } else {
        "the file has no listener"
    };
    Diagnostic::of_file(Code::NoListeners, message)
        .help("add a table [listeners.web] with bind = [\"0.0.0.0:8080\"]")
}

/// Reads timeouts; those that the table does not have come from `over`, else from the table of keys.
fn read_timeouts(report: &mut Report, section: &Section<'_>, over: Option<Timeouts>) -> Timeouts {
    let mut read = |name, inherited: fn(&Timeouts) -> std::time::Duration| {
        let own = section.duration(report, name);
        own.or(over.as_ref().map(inherited)).unwrap_or_default()
    };
    Timeouts {
        header: read("header", |over| over.header),
        body_idle: read("body_idle", |over| over.body_idle),
        keep_alive: read("keep_alive", |over| over.keep_alive),
        connect: read("connect", |over| over.connect),
        response: read("response", |over| over.response),
        response_idle: read("response_idle", |over| over.response_idle),
        upgrade_idle: read("upgrade_idle", |over| over.upgrade_idle),
        udp_idle: read("udp_idle", |over| over.udp_idle),
        upstream_idle: read("upstream_idle", |over| over.upstream_idle),
    }
}

fn limits(report: &mut Report, top: &Section<'_>) -> Limits {
    let empty = DeTable::new();
    let section = top.section(report, "limits", "limits", &empty);
    Limits {
        head: section.size(report, "head").unwrap_or_default() as usize,
        header_lines: section.count(report, "header_lines").unwrap_or_default() as usize,
    }
}

fn http2(report: &mut Report, top: &Section<'_>) -> Http2 {
    let empty = DeTable::new();
    let section = top.section(report, "http2", "http2", &empty);
    let mut count = |name| section.count(report, name).unwrap_or_default() as u32;
    Http2 {
        streams: count("streams"),
        resets: count("resets"),
        pings: count("pings"),
        settings: count("settings"),
        empty_frames: count("empty_frames"),
        continuations: count("continuations"),
        window: section.size(report, "window").unwrap_or_default() as u32,
    }
}

fn min_body_rate(report: &mut Report, top: &Section<'_>) -> u64 {
    let empty = DeTable::new();
    // What it has beside this is told by `limits`.
    let section = top.section(&mut Report::new(), "limits", "limits", &empty);
    section.size(report, "min_body_rate").unwrap_or_default()
}

fn forwarding(report: &mut Report, top: &Section<'_>) -> Forwarding {
    let empty = DeTable::new();
    let section = top.section(report, "forwarding", "forwarding", &empty);
    Forwarding {
        forwarded: section.flag(report, "forwarded"),
        via: section.flag(report, "via"),
    }
}

fn admin(report: &mut Report, section: &Section<'_>) -> Admin {
    let bind = section.text(report, "bind", addresses::admin);
    Admin {
        bind: bind.unwrap_or_else(|| AdminBind::Unix(PathBuf::new())),
        token_file: section.text(report, "token_file", names::file_path),
    }
}

/// What the file says about the admin server, whatever is wrong elsewhere. `None` when it says that wrongly too, or when lines are
/// lost that may have said it.
pub(super) fn admin_alone(tree: &DeTable<'_>, lines_lost: bool) -> Option<Admin> {
    let (mut elsewhere, mut report) = (Report::new(), Report::new());
    let empty = DeTable::new();
    let top = Section::open(&mut elsewhere, "", tree, 0..0);
    let section = top.section(&mut elsewhere, "admin", "admin", &empty);
    let known = section.value("bind").is_some() || !lines_lost;
    let admin = admin(&mut report, &section);
    (known && report.is_empty()).then_some(admin)
}

/// The admin server of a file that does not mention it.
pub(super) fn default_admin() -> Admin {
    let empty = DeTable::new();
    admin(&mut Report::new(), &Section::empty("admin", &empty, 0..0))
}

fn log(report: &mut Report, top: &Section<'_>) -> Log {
    let empty = DeTable::new();
    let section = top.section(report, "log", "log", &empty);
    Log {
        level: section.choice(
            report,
            "level",
            [
                ("error", Level::Error),
                ("warn", Level::Warn),
                ("info", Level::Info),
                ("debug", Level::Debug),
            ],
        ),
        access: section
            .text(report, "access", names::access)
            .unwrap_or(AccessTarget::Stdout),
        access_format: section.choice(
            report,
            "access_format",
            [
                ("json", AccessFormat::Json),
                ("combined", AccessFormat::Combined),
            ],
        ),
    }
}

fn metrics(report: &mut Report, top: &Section<'_>) -> Metrics {
    let empty = DeTable::new();
    let section = top.section(report, "metrics", "metrics", &empty);
    Metrics {
        max_series: section.count(report, "max_series").unwrap_or_default() as usize,
    }
}

/// The values without their places.
fn values_of<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|at| at.value).collect()
}

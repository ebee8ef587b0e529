//! weir as it is delivered: the Debian package, the container image, the site in `docker/compose.yml`, dashboard and alerts.
//! It must start its own Docker engine, in namespaces of its own, so that nothing of it outlives the test or is seen by others.
//! Its own runner, so that what is missing is a skipped claim. Read `image.rs`, `site.rs` and `package.rs`, then
//! `engine.rs`.

mod bases;
#[path = "../fleet/claims.rs"]
mod claims;
mod compiled;
mod documents;
mod engine;
mod image;
mod package;
#[allow(dead_code)]
#[path = "../fleet/process.rs"]
mod process;
mod site;

use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use claims::Claim;
use engine::Engine;

const CLAIMS: &[Claim] = &[
    (
        "container::alerts",
        documents::missing_promtool,
        documents::alerts,
    ),
    ("container::dashboard", nothing, documents::dashboard),
    ("container::package", package::missing, package::package),
    ("container::unit", package::missing_systemd, package::unit),
    (
        "container::compose_file",
        site::missing_compose,
        site::compose_file,
    ),
    ("container::image", image::missing, image::image),
    ("container::unhealthy", image::missing, image::unhealthy),
    ("container::compiled", compiled::missing, compiled::compiled),
    ("container::compose", site::missing_stand_in, site::compose),
    ("container::site", site::missing, site::site),
];

fn main() -> ExitCode {
    let code = claims::run(CLAIMS);
    if let Some(Ok(engine)) = ENGINE.get() {
        engine.end();
    }
    code
}

static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();

/// The one engine of this run, started when it is first needed; else why there is none.
fn engine() -> Result<&'static Engine, String> {
    let engine = ENGINE.get_or_init(Engine::start);
    engine.as_ref().map_err(Clone::clone)
}

fn nothing() -> Option<String> {
    None
}

/// The top of the tree.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

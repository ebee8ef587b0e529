//! The files behind TLS: read, judged, watched, and made into what listeners and pools speak it with.
//! It never lets go of what is served for a file that cannot be used, and never starts with one.
//! Read `files.rs` (what is in a file), then `serving.rs` and `asking.rs` (either side of a connection), and `watch.rs`.

mod asking;
mod files;
mod serving;
pub mod watch;

use std::time::Duration;

use crate::clock;
use crate::config::Loaded;
use crate::config::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use crate::config::duration_text;
use crate::policy::persist::token::Secrets;
use crate::state::snapshot::Snapshot;

pub use self::files::Material;
use self::files::{Fault, Pair};

/// How long before its end a certificate is warned of.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Reads every file that the configuration's TLS needs. One that cannot be used any more is as it was in `last`, and says so.
///
/// # Errors
/// What is wrong with files that were not read before, at their places in the configuration, besides what was found there already.
pub fn load(
    mut loaded: Loaded,
    last: Option<&Material>,
) -> Result<(Loaded, Material), Diagnostics> {
    let (material, faults) = Material::read(&loaded.config, last);
    let errors = faults.into_iter().map(|fault| error(&loaded, fault));
    let errors: Vec<Diagnostic> = errors.collect();
    if !errors.is_empty() {
        return Err(loaded.warnings.with(errors));
    }
    let now = clock::wall_millis() as i64 / 1000;
    let warnings =
        material.pairs().filter_map(|pair| {
            let message = end_of(pair, now)?;
            let span = place(&loaded, pair.file());
            let found = Diagnostic::at(Code::CertificateEnds, span, message, "named here");
            Some(found.help(
                "put a renewed certificate in its place; running weirs take it up by themselves",
            ))
        });
    let warnings: Vec<Diagnostic> = warnings.collect();
    loaded.warnings = loaded.warnings.with(warnings);
    Ok((loaded, material))
}

/// Gives a snapshot what its listeners and pools speak TLS with.
///
/// # Errors
/// What rustls does not like, in words.
pub fn attach(
    snapshot: &mut Snapshot,
    material: &Material,
    secrets: Option<&Secrets>,
    previous: Option<&Snapshot>,
) -> Result<(), String> {
    let config = snapshot.config.clone();
    for (listener, from) in snapshot.listeners.iter_mut().zip(&config.listeners) {
        listener.tls = (from.tls.as_ref())
            .map(|tls| serving::config(from, tls, material, secrets))
            .transpose()
            .map_err(|why| format!("listener {}: {why}", from.name))?;
    }
    let known = previous.map_or(&[][..], |previous| &previous.pools);
    for (pool, from) in snapshot.pools.iter_mut().zip(&config.pools) {
        let before = known.iter().find(|known| known.name == pool.name);
        let before = before.and_then(|known| known.tls.as_ref());
        pool.tls = (from.tls.as_ref())
            .map(|tls| asking::config(tls, asking::offered(&config, from), material, before))
            .transpose()
            .map_err(|why| format!("pool {}: {why}", from.name))?;
    }
    snapshot.tls_files = material.states();
    Ok(())
}

/// What to say of the end of a certificate, if it is near or past.
fn end_of(pair: &Pair, now: i64) -> Option<String> {
    let left = pair.not_after - now;
    let file = pair.file().display();
    if left <= 0 {
        return Some(format!(
            "the certificate in {file} has expired: clients refuse it"
        ));
    }
    let left = Duration::from_secs(left.cast_unsigned());
    (left < SOON).then(|| {
        let hours = Duration::from_secs(left.as_secs() / 3600 * 3600);
        format!(
            "the certificate in {file} expires in {}",
            duration_text(hours)
        )
    })
}

fn error(loaded: &Loaded, fault: Fault) -> Diagnostic {
    let span = place(loaded, &fault.file);
    Diagnostic::at(Code::BadTlsFile, span, fault.message, "named here").help(fault.help)
}

/// Where the configuration names a file first.
fn place(loaded: &Loaded, file: &std::path::Path) -> Span {
    let named = loaded.tls_files.iter().find(|(path, _)| path == file);
    named.map_or(0..0, |(_, span)| span.clone())
}

//! Files that weir keeps in `state_dir`: private, and written whole or not at all.
//! Their text is somebody else's; nothing here knows what is kept.
//! The walk goes back to `secrets.rs` and `overrides.rs`.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Puts the text in place of what the file says.
///
/// # Errors
/// Those of the file system; the file is then as it was.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    write(path, text, |draft| fs::rename(draft, path))
}

/// Writes a draft beside `path`, making the directory when it is missing, and lets `place` give it the name.
///
/// # Errors
/// Those of the file system, and of `place`. No draft is left.
pub fn write(
    path: &Path,
    text: &str,
    place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
    }
    let draft = path.with_added_extension(format!("{}.tmp", std::process::id()));
    let written = write_private(&draft, text).and_then(|()| place(&draft));
    // The draft is of no use either way; what matters is whether it got the name.
    let _ = fs::remove_file(&draft);
    written
}

/// Whether a weir served with this directory before, which is written down in it. Where nothing can be, none did as far as is known.
pub fn has_served(directory: &Path) -> bool {
    let mark = directory.join("served");
    let is_known = mark.exists();
    if !is_known && let Err(error) = replace(&mark, "") {
        log::debug!("{}: {error}", mark.display());
    }
    is_known
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

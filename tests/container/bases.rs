//! The images that the Dockerfile and the compose file begin with, made here and imported under the names that those ask for: a Debian by
//! debootstrap, the same with the compiler of this machine.
//! Nothing is pulled: what an image cannot be made from here is a skipped claim.
//! Read `image.rs` for what is built on the first, `compiled.rs` for the second, `site.rs` for programs of Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::Engine;
use crate::process::{run, said, there};
use crate::root;

/// The base image as an archive, made once by debootstrap; else why it cannot be made.
pub fn base() -> Result<PathBuf, String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |key: &str| {
        let line = release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"')
    };
    if field("ID") != "debian" {
        return Err(
            "the image is made for Debian, and a binary of this system may not run there"
                .to_owned(),
        );
    }
    if !there("debootstrap") {
        return Err("Debian's package debootstrap is not installed".to_owned());
    }
    let suite = field("VERSION_CODENAME");
    let folder = root().join("target/container");
    let archive = folder.join(format!("{suite}.tar"));
    if archive.exists() {
        return Ok(archive);
    }
    let log = folder.join("debootstrap.log");
    fs::create_dir_all(&folder).expect("a directory can be made");
    // In memory, because it waits for the disk after every package; in a namespace of mounts that goes with it.
    let made = Command::new("timeout")
        .args(["900", "unshare", "--mount", "sh", "-euc", BASE])
        .args([suite.as_ref(), log.as_os_str(), archive.as_os_str()])
        .output()
        .map_err(|error| error.to_string())?;
    if made.status.success() {
        return Ok(archive);
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().last().unwrap_or_default();
    Err(format!(
        "debootstrap could not make a base: {last}{}",
        said(&made)
    ))
}

/// The suite, the log, the archive.
const BASE: &str = r#"
PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs -o size=1g,mode=755 tmpfs /mnt
debootstrap --variant=minbase --include=ca-certificates,libcap2-bin "$0" /mnt/base http://deb.debian.org/debian >"$1" 2>&1
tar -C /mnt/base --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' --exclude='./proc/*' -cf "$2.new" .
mv "$2.new" "$2"
"#;

/// The Debian of [`base`], by which the Dockerfile names it.
pub fn suite(archive: &Path) -> String {
    let name = archive.file_stem().expect("it has a name");
    name.to_string_lossy().into_owned()
}

/// Imports an image with this machine's compiler under that name: what the official one has besides Debian, and the crates, since
/// there is no network in an engine of ours.
pub fn import_compiler(engine: &Engine, suite: &str, name: &str, log: &Path) {
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]));
    run(engine
        .client(Path::new("unshare"))
        .args(["--mount", "bash", "-euo", "pipefail", "-c", COMPILER])
        .args([suite, name, sysroot.trim()])
        .arg(log)
        .arg(engine.docker().get_program())
        .current_dir(root()));
}

/// The suite, the image's name, the toolchain, the log, Docker's client.
const COMPILER: &str = r#"
PATH=$PATH:/usr/sbin:/sbin
base=/mnt/base home=/usr/local/cargo
mount -t tmpfs -o size=4g,mode=755 tmpfs /mnt
debootstrap --variant=minbase --include=gcc,g++,libc6-dev,make "$0" $base http://deb.debian.org/debian >"$3" 2>&1
rm -rf $base/var/cache/apt/archives/*.deb $base/var/lib/apt/lists/*
mkdir -p $base$home
cp -a "$2/bin" "$2/lib" $base$home
cargo vendor --locked --versioned-dirs $base$home/vendor 2>>"$3" | sed "s,$base,," >$base$home/config.toml
tar -C $base --exclude='./proc/*' -c . | "$4" import --change "ENV CARGO_HOME=$home" \
  --change "ENV PATH=$home/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" - "$1"
"#;

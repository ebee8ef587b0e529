//! How listeners and pools speak TLS.
//! It opens no file: whether a certificate and its key can be used is for control to find out, and the places of the files go there too.
//! Here the walk ends.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::{Report, Section};
use crate::config::codes::Code;
use crate::config::diagnostic::{Diagnostic, Span};
use crate::config::model::{CertificateFiles, ClientAuth, ListenerTls, PoolTls, TlsVersion};
use crate::config::value::Value;
use crate::config::values::names;

/// Files and where they are named.
pub(super) type Files = Vec<(PathBuf, Span)>;

/// What the table of a listener says of TLS; `None` when it has none.
pub(super) fn of_listener(
    report: &mut Report,
    listener: &Section<'_>,
    files: &mut Files,
) -> Option<ListenerTls> {
    listener.value("tls")?;
    let empty = DeTable::new();
    let tls = listener.section(report, "tls", "listeners.*.tls", &empty);
    Some(ListenerTls {
        certificates: certificates(report, &tls, files),
        strict_sni: tls.flag(report, "strict_sni"),
        min_version: tls.choice(
            report,
            "min_version",
            [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)],
        ),
        client_auth: client_auth(report, &tls, files),
    })
}

/// What the table of a pool says of TLS, and where it says that nothing is verified.
pub(super) fn of_pool(
    report: &mut Report,
    pool: &Section<'_>,
    files: &mut Files,
) -> (Option<PoolTls>, Option<Span>) {
    let empty = DeTable::new();
    let tls = match pool.value("tls") {
        None => return (None, None),
        Some(Value {
            value: DeValue::Boolean(false),
            ..
        }) => return (None, None),
        Some(Value {
            value: DeValue::Boolean(true),
            span,
            ..
        }) => Section::empty("pools.*.tls", &empty, span),
        Some(_) => pool.section(report, "tls", "pools.*.tls", &empty),
    };
    let verify = tls.flag(report, "verify");
    let read = PoolTls {
        ca: file(report, &tls, "ca", files),
        sni: tls.text(report, "sni", names::server_name),
        client: pair(report, &tls, files),
        verify,
    };
    (Some(read), (!verify).then(|| tls.place("verify")))
}

const CERTIFICATE: &str = "listeners.*.tls.certificates[]";

fn certificates(
    report: &mut Report,
    tls: &Section<'_>,
    files: &mut Files,
) -> Vec<CertificateFiles> {
    let Some(value) = tls.value("certificates") else {
        // It is required, and says so.
        tls.read(report, "certificates", |_| Ok(()));
        return Vec::new();
    };
    let DeValue::Array(entries) = value.value else {
        report.push(value.wrong_type());
        return Vec::new();
    };
    if entries.is_empty() {
        report.push(value.empty_list());
    }
    let mut found = Vec::new();
    for entry in entries.iter() {
        let DeValue::Table(table) = entry.get_ref() else {
            report.push(value.entry(entry).wrong_type());
            continue;
        };
        let table = Section::open(report, CERTIFICATE, table, entry.span());
        let cert = file(report, &table, "cert", files);
        let key = file(report, &table, "key", files);
        found.extend(
            cert.zip(key)
                .map(|(cert, key)| CertificateFiles { cert, key }),
        );
    }
    found
}

fn client_auth(report: &mut Report, tls: &Section<'_>, files: &mut Files) -> ClientAuth {
    let auth = tls.choice(
        report,
        "client_auth",
        [("off", 0), ("request", 1), ("require", 2)],
    );
    match (auth, file(report, tls, "client_ca", files)) {
        (0, None) => ClientAuth::Off,
        (0, Some(_)) => {
            report.push(
                Diagnostic::at(
                    Code::NoClientCa,
                    tls.key_place("client_ca"),
                    "`client_ca` without `client_auth`",
                    "no client is asked for a certificate",
                )
                .help("write client_auth = \"require\", or \"request\", or leave `client_ca` out"),
            );
            ClientAuth::Off
        }
        (1, Some(ca)) => ClientAuth::Request(ca),
        (_, Some(ca)) => ClientAuth::Require(ca),
        (_, None) => {
            report.push(
                Diagnostic::at(
                    Code::NoClientCa,
                    tls.place("client_auth"),
                    "`client_auth` without `client_ca`",
                    "nothing says whose certificates are good",
                )
                .help("add client_ca = \"FILE\", a PEM file with the authority that signs them"),
            );
            ClientAuth::Off
        }
    }
}

/// The certificate that weir shows to backends, with its key.
fn pair(report: &mut Report, tls: &Section<'_>, files: &mut Files) -> Option<CertificateFiles> {
    let cert = file(report, tls, "cert", files);
    let key = file(report, tls, "key", files);
    let (given, missing) = match (&cert, &key) {
        (Some(_), None) => ("cert", "key"),
        (None, Some(_)) => ("key", "cert"),
        _ => {
            return cert
                .zip(key)
                .map(|(cert, key)| CertificateFiles { cert, key });
        }
    };
    report.push(
        Diagnostic::at(
            Code::HalfPair,
            tls.key_place(given),
            format!("`{given}` without `{missing}`"),
            "one proves nothing without the other",
        )
        .help(format!("add {missing} = \"FILE\", or leave `{given}` out")),
    );
    None
}

/// A file, whose place is written down.
fn file(
    report: &mut Report,
    section: &Section<'_>,
    name: &'static str,
    files: &mut Files,
) -> Option<PathBuf> {
    let path = section.text(report, name, names::file_path)?;
    files.push((path.clone(), section.place(name)));
    Some(path)
}

//! Filters that have files: `error-pages` and `basic-auth`.
//! It opens none of them: control does, before a generation is served.
//! Here the walk ends.

use super::{Report, Section, missing};
use crate::config::codes::Code;
use crate::config::model::{BasicAuth, ErrorPage};
use crate::config::values::{Flaw, Read, names, template};

pub(super) fn error_pages(report: &mut Report, section: &Section<'_>) -> Option<Vec<ErrorPage>> {
    if section.value("pages").is_none() {
        let help = "add pages = { \"503\" = \"/etc/weir/503.html\" }";
        report.push(missing(section, "pages", help));
        return None;
    }
    let pages = section.texts(report, "pages", statuses, |_, file| names::file_path(file));
    let pages = pages.into_iter().map(|(statuses, file)| ErrorPage {
        statuses: statuses.value,
        file,
    });
    Some(pages.collect())
}

/// A status, or a class such as `5xx`, of errors.
fn statuses(text: &str) -> Read<(u16, u16)> {
    let class = text
        .strip_suffix("xx")
        .and_then(|class| class.parse::<u16>().ok());
    let found = match class {
        Some(class) => Some((class * 100, class * 100 + 99)),
        None => text.parse().ok().map(|status| (status, status)),
    };
    found
        .filter(|(first, last)| *first >= 400 && *last <= 599 && text.len() == 3)
        .ok_or_else(|| {
            Flaw::new(
                Code::BadStatusRange,
                "is not a status of errors",
                "weir has pages for errors only",
                "write a status from 400 to 599, or \"4xx\" or \"5xx\"",
            )
        })
}

pub(super) fn basic_auth(report: &mut Report, section: &Section<'_>) -> Option<BasicAuth> {
    if section.value("users_file").is_none() {
        let help = "add users_file = \"/etc/weir/users\", with lines of name:hash";
        report.push(missing(section, "users_file", help));
        return None;
    }
    let users_file = section.text(report, "users_file", names::file_path);
    Some(BasicAuth {
        realm: section
            .text(report, "realm", template::plain_value)
            .unwrap_or_default(),
        users_file: users_file?,
        forward: section.flag(report, "forward"),
    })
}

//! Text to rates: so many a second, minute or hour; and to what a rate limit counts by.
//! Nothing here knows where in the file a value stands.
//! Here the walk ends.

use std::time::Duration;

use super::{Flaw, Read, brief, cookies, names};
use crate::config::codes::Code;
use crate::config::model::{LimitKey, Rate};

/// The highest count of a rate: more is no limit.
const MOST: u32 = 1_000_000;

/// `10/s`, `600/m` or `1000/h`.
pub fn rate(text: &str) -> Read<Rate> {
    let bad = |label: String| {
        let help = "write a whole number and a unit of time: \"10/s\", \"600/m\" or \"1000/h\"";
        Flaw::new(Code::BadRate, "is not a rate", label, help)
    };
    let Some((number, unit)) = text.split_once('/') else {
        return Err(bad("the unit of time is missing".into()));
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "" => return Err(bad("the unit of time is missing".into())),
        other => return Err(bad(format!("`{}` is no unit of time", brief(other)))),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad(format!("`{}` is no whole number", brief(number))));
    }
    match number.parse() {
        Ok(0) => Err(bad("this lets nobody pass".into())),
        Ok(count) if count <= MOST => Ok(Rate {
            count,
            period: Duration::from_secs(seconds),
        }),
        Ok::<u32, _>(_) | Err(_) => Err(bad(format!("more than {MOST}"))),
    }
}

/// `source`, `header:NAME`, `cookie:NAME` or `route`.
pub fn key(text: &str) -> Read<LimitKey> {
    match text.split_once(':') {
        None if text == "source" => Ok(LimitKey::Source),
        None if text == "route" => Ok(LimitKey::Route),
        Some(("header", name)) => names::header_name(name).map(LimitKey::Header),
        Some(("cookie", name)) => cookies::name(name).map(LimitKey::Cookie),
        _ => Err(Flaw::new(
            Code::UnknownChoice,
            "has an unknown value",
            format!("there is no `{}`", brief(text)),
            "it can be \"source\", \"route\", \"header:NAME\" or \"cookie:NAME\"",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let read = |text: &str| rate(text).map(|rate| (rate.count, rate.to_string()));
        assert_eq!(read("10/s"), Ok((10, "10/s".into())));
        assert_eq!(read("600/m"), Ok((600, "600/m".into())));
        assert_eq!(read("1000000/h"), Ok((1_000_000, "1000000/h".into())));
        for text in [
            "",
            "10",
            "10/",
            "/s",
            "0/s",
            "1000001/s",
            "1.5/s",
            "+1/s",
            "10/d",
            "10 /s",
            "-1/s",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys() {
        let read = |text: &str| key(text).map(|key| key.to_string());
        assert_eq!(read("source"), Ok("source".into()));
        assert_eq!(read("header:X-Api-Key"), Ok("header:x-api-key".into()));
        assert_eq!(read("cookie:JSESSIONID"), Ok("cookie:JSESSIONID".into()));
        assert_eq!(read("route"), Ok("route".into()));
        for text in ["", "header", "header:", "cookie:a b", "path", "source:1"] {
            assert!(key(text).is_err(), "{text}");
        }
    }
}

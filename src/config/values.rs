//! Text of single values to typed ones: durations, sizes and status codes here, addresses and names beside it.
//! Nothing here knows where in the file a value stands; a value that is refused comes back as a flaw in plain words.
//! The walk goes on in `values/addresses.rs`, `values/names.rs`, `values/places.rs`, `values/cookies.rs`, `values/hello.rs`, `values/rates.rs`, `values/store.rs` and `values/template.rs`.

pub mod addresses;
pub mod cookies;
pub mod hello;
pub mod names;
pub mod origins;
pub mod payload;
pub mod places;
pub mod rates;
pub mod store;
pub mod template;

use std::time::Duration;

use super::codes::Code;

/// The longest time that may be written: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Its kind.
    pub code: Code,
    /// Goes on after the key's name: "is not a duration".
    pub says: String,
    /// A few words beside the carets.
    pub label: String,
    /// How to mend it.
    pub help: String,
}

impl Flaw {
    /// A flaw from its words.
    pub fn new(
        code: Code,
        says: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Flaw {
        Flaw {
            code,
            says: says.into(),
            label: label.into(),
            help: help.into(),
        }
    }
}

/// What reading a value gives.
pub type Read<T> = Result<T, Flaw>;

/// A whole number and a unit, `250ms`, `2s`, `5m` or `1h`, of at least `min`, and at most a year.
pub fn duration(text: &str, min: Duration) -> Read<Duration> {
    let bad = |label: String| {
        Flaw::new(
            Code::BadDuration,
            "is not a duration",
            label,
            "write a whole number and a unit: \"250ms\", \"2s\", \"5m\" or \"1h\"",
        )
    };
    let (number, unit) = number_and_unit(text);
    let millis_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number.is_empty() => return Err(bad("there is nothing here".to_owned())),
        "" => return Err(bad("the unit is missing".to_owned())),
        _ if number.is_empty() => return Err(bad("this does not begin with a number".to_owned())),
        other => return Err(bad(no_unit(other, "time"))),
    };
    if number.is_empty() {
        return Err(bad("the number is missing".to_owned()));
    }
    let value = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(millis_per_unit))
        .map(Duration::from_millis)
        .filter(|value| *value <= LONGEST);
    match value {
        None => Err(out_of_range("more than a year", "write at most \"8760h\"")),
        Some(value) if value < min => {
            let least = duration_text(min);
            let help = if value.is_zero() {
                format!("a wait cannot be switched off; write at least \"{least}\"")
            } else {
                format!("write at least \"{least}\"")
            };
            Err(out_of_range(format!("less than {least}"), help))
        }
        Some(value) => Ok(value),
    }
}

/// A duration in the largest unit that holds it whole.
pub fn duration_text(value: Duration) -> String {
    let millis = value.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// A whole number and a unit, `512B`, `64KiB`, `1MiB` or `2GiB`, within bounds in bytes.
pub fn size(text: &str, min: u64, max: u64) -> Read<u64> {
    let bad = |label: String| {
        Flaw::new(
            Code::BadSize,
            "is not a size",
            label,
            "write a whole number and a unit: \"512B\", \"64KiB\", \"1MiB\" or \"2GiB\"",
        )
    };
    let (number, unit) = number_and_unit(text);
    let bytes_per_unit: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" if number.is_empty() => return Err(bad("there is nothing here".to_owned())),
        "" => return Err(bad("the unit is missing".to_owned())),
        _ if number.is_empty() => return Err(bad("this does not begin with a number".to_owned())),
        other => {
            let first = other.to_ascii_uppercase();
            let meant = ["K", "M", "G"].into_iter().find(|unit| {
                first
                    .strip_prefix(unit)
                    .is_some_and(|rest| rest.is_empty() || rest == "B" || rest == "IB")
            });
            return Err(match meant {
                Some(unit) => bad(format!("the unit is written `{unit}iB`")),
                None => bad(no_unit(other, "size")),
            });
        }
    };
    let value = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(bytes_per_unit));
    match value {
        Some(value) if value < min => Err(out_of_range(
            format!("less than {}", size_text(min)),
            size_bounds(min, max),
        )),
        Some(value) if value <= max => Ok(value),
        _ => Err(out_of_range(
            format!("more than {}", size_text(max)),
            size_bounds(min, max),
        )),
    }
}

fn size_bounds(min: u64, max: u64) -> String {
    format!("write \"{}\" to \"{}\"", size_text(min), size_text(max))
}

/// A size in the largest unit that holds it whole.
pub fn size_text(value: u64) -> String {
    match value {
        0 => "0B".to_owned(),
        _ if value.is_multiple_of(1 << 30) => format!("{}GiB", value >> 30),
        _ if value.is_multiple_of(1 << 20) => format!("{}MiB", value >> 20),
        _ if value.is_multiple_of(1 << 10) => format!("{}KiB", value >> 10),
        _ => format!("{value}B"),
    }
}

/// A whole number within bounds, from its digits.
pub fn count(digits: &str, radix: u32, min: u64, max: u64) -> Read<u64> {
    let label = match u64::from_str_radix(digits, radix) {
        Ok(number) if (min..=max).contains(&number) => return Ok(number),
        Ok(number) if number < min => format!("less than {min}"),
        Err(_) if digits.starts_with('-') => format!("less than {min}"),
        _ => format!("more than {max}"),
    };
    let help = format!("write a whole number from {min} to {max}");
    Err(out_of_range(label, help))
}

/// A number from 0 to `max`.
pub fn fraction(number: f64, max: u32) -> Read<f64> {
    let label = match number {
        number if (0.0..=f64::from(max)).contains(&number) => return Ok(number),
        number if number < 0.0 => "less than 0".to_owned(),
        number if number.is_nan() => "this is no number".to_owned(),
        _ => format!("more than {max}"),
    };
    let help = format!("write a number from 0 to {max}, such as 0.25");
    Err(out_of_range(label, help))
}

/// Status codes, `200-399` or `200,204`, as inclusive ranges in the order written.
pub fn statuses(text: &str) -> Read<Vec<(u16, u16)>> {
    text.split(',')
        .map(|part| status_range(part.trim()))
        .collect()
}

fn status_range(part: &str) -> Read<(u16, u16)> {
    let bad = |label: String| {
        Flaw::new(
            Code::BadStatusRange,
            "is not a set of status codes",
            label,
            "write codes and ranges between commas: \"200-399\" or \"200,204,300-304\"",
        )
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let code = |text: &str| -> Read<u16> {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            _ if text.is_empty() => Err(bad("a status code is missing".to_owned())),
            Ok(code) if digits && (100..=599).contains(&code) => Ok(code),
            Ok::<u16, _>(_) if digits => Err(bad(format!("`{text}` is not from 100 to 599"))),
            _ => Err(bad(format!("`{}` is no status code", brief(text)))),
        }
    };
    let (first, last) = (code(first)?, code(last)?);
    if first > last {
        return Err(bad(format!("`{part}` runs backwards")));
    }
    Ok((first, last))
}

/// A flaw of a value beyond its bounds.
fn out_of_range(label: impl Into<String>, help: impl Into<String>) -> Flaw {
    Flaw::new(Code::OutOfRange, "is out of range", label, help)
}

/// What is wrong with the text after a number.
fn no_unit(text: &str, of: &str) -> String {
    if text.starts_with(' ') {
        "no blank belongs between number and unit".to_owned()
    } else if text.starts_with(['.', ',']) {
        "only whole numbers are read".to_owned()
    } else {
        format!("`{}` is no unit of {of}", brief(text))
    }
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A piece of text short enough for a label, without characters that would upset a terminal.
pub fn brief(text: &str) -> String {
    const MOST: usize = 40;
    let clean = |character: char| {
        if character.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        }
    };
    let mut out: String = text.chars().take(MOST).map(clean).collect();
    if text.chars().nth(MOST).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let read = |text| duration(text, Duration::from_millis(1)).map_err(|flaw| flaw.label);
        assert_eq!(read("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(read("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(read("8760h"), Ok(LONGEST));
        assert_eq!(read("8761h"), Err("more than a year".to_owned()));
        assert_eq!(
            read("99999999999999999999h"),
            Err("more than a year".to_owned())
        );
        assert_eq!(read("0s"), Err("less than 1ms".to_owned()));
        assert_eq!(read("5"), Err("the unit is missing".to_owned()));
        assert_eq!(read("1.5s"), Err("only whole numbers are read".to_owned()));
        assert_eq!(
            read("-1s"),
            Err("this does not begin with a number".to_owned())
        );
        assert_eq!(read("s"), Err("the number is missing".to_owned()));
        assert_eq!(read(""), Err("there is nothing here".to_owned()));
    }

    #[test]
    fn sizes() {
        let read = |text| size(text, 1024, 1 << 20).map_err(|flaw| flaw.label);
        assert_eq!(read("64KiB"), Ok(65536));
        assert_eq!(read("1MiB"), Ok(1 << 20));
        assert_eq!(read("1023B"), Err("less than 1KiB".to_owned()));
        assert_eq!(read("1GiB"), Err("more than 1MiB".to_owned()));
        assert_eq!(read("64kb"), Err("the unit is written `KiB`".to_owned()));
        assert_eq!(read("64K"), Err("the unit is written `KiB`".to_owned()));
        assert_eq!(
            read("64 KiB"),
            Err("no blank belongs between number and unit".to_owned())
        );
    }

    #[test]
    fn texts_read_back() {
        for millis in [1, 250, 1_000, 60_000, 90_000, 3_600_000] {
            let value = Duration::from_millis(millis);
            assert_eq!(duration(&duration_text(value), Duration::ZERO), Ok(value));
        }
        for bytes in [0, 1, 1024, 1500, 1 << 20, 1 << 30] {
            assert_eq!(size(&size_text(bytes), 0, u64::MAX), Ok(bytes));
        }
    }

    #[test]
    fn status_codes() {
        assert_eq!(statuses("200-399"), Ok(vec![(200, 399)]));
        assert_eq!(statuses("200, 204"), Ok(vec![(200, 200), (204, 204)]));
        for text in [
            "", "200-", "abc", "99", "600", "399-200", "200,,204", "+200",
        ] {
            assert!(statuses(text).is_err(), "{text}");
        }
    }
}

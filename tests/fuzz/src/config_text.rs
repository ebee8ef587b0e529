//! Configuration: no text makes reading it fail otherwise than by telling, every place that is told lies in the text, and the same text
//! is read the same way again.

use weir::config::parse;

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let read = parse("fuzz.toml", text);
    let found = match &read {
        Ok(loaded) => &loaded.warnings,
        Err(found) => found,
    };
    assert_eq!(read.is_err(), found.errors() > 0);
    for problem in found.iter() {
        assert!(!problem.message.is_empty());
        for label in &problem.labels {
            let place = text.get(label.span.clone());
            assert!(place.is_some(), "{:?} of {}", label.span, problem.message);
        }
    }
    let drawn = found.render(false);
    assert!(found.is_empty() || drawn.contains("fuzz.toml"));
    assert_eq!(found.lines().count(), found.iter().count().min(100));
    assert_eq!(parse("fuzz.toml", text), read);
}

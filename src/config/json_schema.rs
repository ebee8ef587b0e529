//! The table of keys as a JSON Schema (draft 2020-12), for editors.
//! It can say less than `weir check`: what it accepts may still be refused, what it refuses always is.
//! Here the walk ends.

use serde_json::{Map, Value, json};

use super::schema::{Default, Key, Kind, children};

/// The JSON Schema of a configuration file.
pub fn json_schema() -> Value {
    let mut schema = table("");
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("weir configuration");
    schema
}

/// The schema of the table whose keys stand under `path`.
fn table(path: &str) -> Value {
    let properties: Map<String, Value> = children(path)
        .map(|(name, key)| (name.to_owned(), property(key)))
        .collect();
    let required: Vec<&str> = children(path)
        .filter(|(_, key)| key.default == Default::Required)
        .map(|(name, _)| name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = of_kind(key);
    let default = match key.default {
        Default::Required => "required".to_owned(),
        Default::Is(value) => format!("default {value}"),
        Default::Means(meaning) => format!("default: {meaning}"),
    };
    let reload = key.reload.text();
    schema["description"] = json!(format!("{} ({default}; reload: {reload})", key.doc));
    if let Default::Is(text) = key.default
        && let Some(value) = plain(text)
    {
        schema["default"] = value;
    }
    schema
}

/// A scalar or empty TOML value as JSON.
fn plain(text: &str) -> Option<Value> {
    match text {
        "{}" => Some(json!({})),
        text => serde_json::from_str(text).ok(),
    }
}

fn of_kind(key: &Key) -> Value {
    let path = key.path;
    match key.kind {
        Kind::Table => table(path),
        Kind::Named => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z0-9_-]+$" },
            "additionalProperties": table(&format!("{path}.*")),
            "minProperties": usize::from(key.default == Default::Required),
        }),
        Kind::Tables => json!({ "type": "array", "items": table(&format!("{path}[]")) }),
        Kind::TextOrTables(form) => json!({
            "type": "array",
            "minItems": 1,
            "items": { "anyOf": [text(form.pattern), table(&format!("{path}[]"))] },
        }),
        Kind::TextOrTable(form) => json!({ "anyOf": [text(form.pattern), table(path)] }),
        Kind::FlagOrTable => json!({ "anyOf": [{ "type": "boolean" }, table(path)] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Count { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Fraction { max } => json!({ "type": "number", "minimum": 0, "maximum": max }),
        Kind::Duration { .. } => text("^[0-9]+(ms|s|m|h)$"),
        Kind::Size { .. } => text("^[0-9]+(B|KiB|MiB|GiB)$"),
        Kind::Text(form) => text(form.pattern),
        Kind::Choice(choice) if choice.open.is_empty() => json!({ "enum": choice.words }),
        Kind::Choice(choice) => {
            let pattern = format!("^({}).+$", choice.open.join("|"));
            json!({ "anyOf": [{ "enum": choice.words }, text(&pattern)] })
        }
        Kind::List(form) => {
            let mut list =
                json!({ "type": "array", "uniqueItems": true, "items": text(form.pattern) });
            if key.default != Default::Is("[]") {
                list["minItems"] = json!(1);
            }
            list
        }
        Kind::Headers => json!({
            "type": "object",
            "additionalProperties": { "anyOf": [{ "type": "string" }, { "const": true }] },
        }),
        Kind::Texts(form) => json!({
            "type": "object",
            "propertyNames": { "pattern": form.pattern },
            "additionalProperties": { "type": "string" },
        }),
    }
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

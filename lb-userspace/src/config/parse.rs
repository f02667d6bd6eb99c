//! A file's text to its entries.
//!
//! serde and toml say what they expected in the words of Rust; here it is said in the words of the file.

use std::{ops::Range, path::Path};

use toml::{Spanned, de::DeValue};

use super::{
    document::{Document, Step},
    entry::FileEntry,
    error::{ConfigError, TextError},
    nearest::nearest,
};

/// Reads the text of the file at `path`.
///
/// # Errors
/// The first thing that is not TOML, not a known field, of the wrong type, or missing.
pub fn parse(text: &str, path: &Path) -> Result<FileEntry, ConfigError> {
    let error = |span, message| ConfigError::Text(TextError::new(path, text, span, message));
    let document = Document::new(text).map_err(|cause| {
        error(cause.span().unwrap_or(0..0), format!("not valid TOML: {}", cause.message()))
    })?;
    tables_are_tables(&document).map_err(|(span, message)| error(span, message))?;
    toml::from_str(text).map_err(|cause| {
        let span = cause.span().unwrap_or(0..0);
        let path = document.path_at(&span);
        let message = explain(cause.message(), &document, &path);
        error(span, format!("{}{message}", context(&document, &path)))
    })
}

/// serde would take an array for a table, its values in the order of the fields: nobody means that.
fn tables_are_tables(document: &Document<'_>) -> Result<(), (Range<usize>, String)> {
    let table = |steps: &[Step], header: &str| match document.value(steps) {
        Some(value) if !value.get_ref().is_table() => {
            Err((value.span(), format!("{}here must be a table: write {header}", context(document, steps))))
        }
        _ => Ok(()),
    };
    let tables =
        |steps: &[Step], header: &str| match document.value(steps).map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Array(array))) => Ok(array.len()),
            Some((value, _)) => {
                let context = context(document, steps);
                Err((
                    value.span(),
                    format!("{context}there can be several of these: write {header}, with two brackets"),
                ))
            }
            None => Ok(0),
        };
    table(&["agent".into()], "[agent], once")?;
    table(&["limits".into()], "[limits], once")?;
    for service in 0..tables(&["service".into()], "[[service]]")? {
        let service = ["service".into(), service.into()];
        table(&service, "[[service]]")?;
        let [top, index] = &service;
        table(&[top.clone(), index.clone(), "health".into()], "[service.health], once for each service")?;
        let backends = [top.clone(), index.clone(), "backend".into()];
        for backend in 0..tables(&backends, "[[service.backend]]")? {
            let [.., last] = &backends;
            table(&[top.clone(), index.clone(), last.clone(), backend.into()], "[[service.backend]]")?;
        }
    }
    Ok(())
}

/// Which service and which part of it a path is in: `service "web" (line 12), health: `, or nothing.
fn context(document: &Document<'_>, path: &[Step]) -> String {
    let [Step::Key(top), Step::Index(index), rest @ ..] = path else { return String::new() };
    if top != "service" {
        return String::new();
    }
    let line = document.line(&path[..2]).unwrap_or(0);
    let name = document.value(&[path[0].clone(), path[1].clone(), "name".into()]);
    let service = match name.and_then(|name| name.get_ref().as_str()) {
        Some(name) => format!("service {name:?} (line {line})"),
        None => format!("service {} (line {line})", index + 1),
    };
    match rest {
        [Step::Key(part), Step::Index(index), ..] if part == "backend" => {
            format!("{service}, backend {}: ", index + 1)
        }
        [Step::Key(part), ..] if part == "health" => format!("{service}, health: "),
        _ => format!("{service}: "),
    }
}

fn explain(message: &str, document: &Document<'_>, path: &[Step]) -> String {
    let words: Vec<&str> = message.split('`').collect();
    if let ["unknown field ", unknown, ..] = words[..] {
        return unknown_field(unknown, &quoted(&words[2..]));
    }
    if let ["unknown variant ", unknown, ..] = words[..] {
        return unknown_word(&field(path), unknown, &quoted(&words[2..]));
    }
    if let ["missing field ", missing, ..] = words[..] {
        return format!("missing field `{missing}`: add {}", example(missing));
    }
    let expected = match message.rsplit_once("expected ") {
        Some((_, expected)) => expected,
        None if message == "wanted string or table" => "a string",
        None => return message.to_owned(),
    };
    let found = document.value(path).map_or("this", |value| type_name(value.get_ref()));
    let number = |max: u64| format!("a whole number from 0 to {max}, without quotes");
    let wanted = match expected {
        "u16" => number(u16::MAX.into()),
        "u32" => number(u32::MAX.into()),
        "a string" => format!("a text in quotes, for example {}", example(&field(path))),
        "a boolean" => "true or false, without quotes".to_owned(),
        "a sequence" => "a list in brackets".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    };
    match (expected, document.value(path).map(Spanned::get_ref)) {
        ("u16" | "u32", Some(DeValue::Integer(_))) => {
            format!("`{}` is out of range: it takes {wanted}", field(path))
        }
        _ => format!("`{}` is {found}: it takes {wanted}", field(path)),
    }
}

fn unknown_field(unknown: &str, known: &[&str]) -> String {
    match nearest(unknown, known.iter().copied()) {
        Some(meant) => format!("unknown field `{unknown}`: did you mean `{meant}`?"),
        None => format!("unknown field `{unknown}`: known here are {}", list(known)),
    }
}

fn unknown_word(field: &str, unknown: &str, known: &[&str]) -> String {
    let meant = nearest(unknown, known.iter().copied());
    let meant = meant.map_or_else(String::new, |meant| format!("did you mean `{meant}`? "));
    format!("unknown {field} `{unknown}`: {meant}there is {}", list(known))
}

/// The words that stand between backquotes, of a message split at its backquotes.
fn quoted<'a>(words: &[&'a str]) -> Vec<&'a str> {
    words.iter().skip(1).step_by(2).copied().collect()
}

fn list(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match &words[..] {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The name of the field that a path ends in.
fn field(path: &[Step]) -> String {
    let key = |step: &Step| match step {
        Step::Key(key) => Some(key.clone()),
        Step::Index(_) => None,
    };
    path.iter().rev().find_map(key).unwrap_or_else(|| "this".to_owned())
}

fn example(field: &str) -> String {
    match field {
        "address" => "address = \"10.1.0.10\"".to_owned(),
        "port" => "port = 80".to_owned(),
        "protocol" => "protocol = \"tcp\" or \"udp\"".to_owned(),
        "type" => "type = \"none\", \"tcp\" or \"http\"".to_owned(),
        "name" => "name = \"web\"".to_owned(),
        "mode" => "mode = \"full-nat\"".to_owned(),
        "scheduler" => "scheduler = \"maglev\"".to_owned(),
        "path" => "path = \"/healthz\"".to_owned(),
        "expect_status" => "expect_status = \"200-399\"".to_owned(),
        "interval" | "timeout" => format!("{field} = \"2s\""),
        "idle_timeout" => "idle_timeout = \"5m\"".to_owned(),
        "interfaces" => "interfaces = [\"eth0\"]".to_owned(),
        other => format!("{other} = \"…\""),
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests;

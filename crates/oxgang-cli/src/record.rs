//! One input: what the function gets, how it is matched on `--resume`, how it is shown.

use std::sync::Arc;

use serde_json::Value;

use crate::one_line;

/// What one input is to the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text: the one positional argument.
    Line,
    /// A CSV row: keyword arguments, all text.
    Row,
    /// A JSON object: keyword arguments.
    Object,
}

/// One input.
#[derive(Debug, Clone)]
pub enum Record {
    /// A line, or an argument.
    Line(String),
    /// A CSV row and the names of its columns.
    Row(Arc<[String]>, csv::StringRecord),
    /// A JSON object.
    Object(Value),
}

impl Record {
    /// Its value as JSON: what a .jsonl row carries as `input`.
    pub fn json(&self) -> Value {
        match self {
            Record::Line(text) => Value::String(text.clone()),
            Record::Row(names, fields) => {
                let pairs = names.iter().zip(fields.iter());
                Value::Object(pairs.map(|(name, field)| (name.clone(), field.into())).collect())
            }
            Record::Object(value) => value.clone(),
        }
    }

    /// What makes two inputs the same one: equal keys, whatever the order of an object's members.
    pub fn key(&self) -> String {
        key_of(&self.json())
    }

    /// For a person, on one line, not too long.
    pub fn label(&self) -> String {
        const LONGEST: usize = 200;
        let text = match self {
            Record::Line(text) => one_line(text),
            Record::Row(names, fields) => {
                let pairs = names.iter().zip(fields.iter());
                one_line(&pairs.map(|(n, f)| format!("{n}={f}")).collect::<Vec<_>>().join(", "))
            }
            Record::Object(value) => value.to_string(),
        };
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// JSON with the members of each object sorted by name.
pub fn key_of(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), key_of(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(key_of).collect::<Vec<_>>().join(","))
        }
        plain => plain.to_string(),
    }
}

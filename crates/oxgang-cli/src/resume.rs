//! Reading the output of an earlier run: which inputs are done, which failed, what is torn.
//!
//! The rule: an input is *done* when the file has a row for it without an error. `--resume` skips
//! each done row's input once (an input given twice is done when it has two rows), takes the rows
//! of failed inputs out of the file and tries those again; so a finished file has one row per
//! input. Whatever follows the last whole row was being written when a run was killed, and is cut
//! off. A file that holds anything else was not written by this command with these inputs, and is
//! refused untouched.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::output::{ERROR, Format};
use crate::patience::{Check, Refused};
use crate::record::{Kind, key_of};
use crate::{Stop, reason};

/// Rows read between two questions to the check.
const STRIDE: u64 = 4096;

/// Inputs that are done, each as often as it is.
#[derive(Debug, Default)]
pub struct Done {
    keys: HashMap<String, u32>,
}

impl Done {
    fn add(&mut self, key: String) {
        *self.keys.entry(key).or_default() += 1;
    }

    /// Nothing is done (any more).
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Uses up one row of this input; false when there is none left.
    pub fn take(&mut self, key: &str) -> bool {
        match self.keys.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.keys.remove(key);
            }
            None => return false,
        }
        true
    }
}

/// The shape of this run's inputs, for comparison with the file's.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What each input is.
    pub kind: Kind,
    /// The columns of a CSV input.
    pub names: Vec<String>,
}

impl Shape {
    /// The names of the columns that carry the input in a .csv output.
    pub fn columns(&self) -> Vec<String> {
        match self.kind {
            Kind::Line | Kind::Object => vec!["input".into()],
            Kind::Row => self.names.iter().map(|name| self.column(name)).collect(),
        }
    }

    /// A column of ours has its name to itself: an input's own `error` steps aside.
    fn column(&self, name: &str) -> String {
        if name == ERROR { format!("input.{name}") } else { name.to_owned() }
    }
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub struct Found {
    /// Inputs that need not run again.
    pub done: Done,
    /// How many rows tell of failures.
    pub failed: u64,
    /// The length of the part that is made of whole rows.
    pub whole_bytes: u64,
    /// The columns of a .csv file; empty when it has none yet.
    pub header: Vec<String>,
}

/// Reads the whole file, once, without keeping more than the keys.
pub fn read(
    file: &File,
    format: Format,
    shape: &Shape,
    name: &str,
    check: &Check,
) -> Result<Found, Stop> {
    let mut reading = Reading { shape, name, check, rows: 0, found: Found::default() };
    match format {
        Format::Csv => reading.csv(file)?,
        Format::Jsonl => reading.jsonl(file)?,
    }
    Ok(reading.found)
}

struct Reading<'a> {
    shape: &'a Shape,
    name: &'a str,
    check: &'a Check,
    rows: u64,
    found: Found,
}

#[derive(Deserialize)]
struct JsonRow {
    input: Value,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

impl Reading<'_> {
    fn refuse(&self, line: u64, what: impl std::fmt::Display) -> Stop {
        Stop::usage(format!(
            "cannot resume: {}, line {line}: {what}; give -o the file of the same run, or a new one",
            self.name
        ))
    }

    fn trouble(&self, error: &io::Error) -> Stop {
        Stop::usage(format!("cannot read {}: {}", self.name, reason(error)))
    }

    fn count(&mut self, key: String, failed: bool) -> Result<(), Stop> {
        self.rows += 1;
        if self.rows.is_multiple_of(STRIDE) {
            (self.check)().map_err(|Refused| Stop::usage("stopped while reading the output"))?;
        }
        if failed {
            self.found.failed += 1;
        } else {
            self.found.done.add(key);
        }
        Ok(())
    }

    fn jsonl(&mut self, mut file: &File) -> Result<(), Stop> {
        file.seek(SeekFrom::Start(0)).map_err(|error| self.trouble(&error))?;
        let mut reader = BufReader::new(file);
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            let count =
                reader.read_until(b'\n', &mut bytes).map_err(|error| self.trouble(&error))?;
            if bytes.last() != Some(&b'\n') {
                break; // the end, or a torn row: a whole one ends with its line
            }
            let row: JsonRow = serde_json::from_slice(&bytes)
                .map_err(|_| self.refuse(line, "not a row that this command writes"))?;
            let right = match self.shape.kind {
                Kind::Line => row.input.is_string(),
                Kind::Row | Kind::Object => row.input.is_object(),
            };
            if !right {
                return Err(self.refuse(line, "its input is of another kind"));
            }
            self.count(key_of(&row.input), row.error.is_some())?;
            self.found.whole_bytes += count as u64;
        }
        Ok(())
    }

    fn csv(&mut self, file: &File) -> Result<(), Stop> {
        let end = last_whole_record(file).map_err(|error| self.trouble(&error))?;
        self.found.whole_bytes = end;
        let mut seeker = file;
        seeker.seek(SeekFrom::Start(0)).map_err(|error| self.trouble(&error))?;
        let mut reader = csv_reader(file.take(end));
        let columns = self.shape.columns();
        let mut row = csv::StringRecord::new();
        loop {
            let line = reader.position().line();
            let more = reader.read_record(&mut row).map_err(|error| match error.into_kind() {
                csv::ErrorKind::Io(error) => self.trouble(&error),
                _ => self.refuse(line, "not UTF-8 text"),
            })?;
            if !more {
                return Ok(());
            }
            let line = row.position().map_or(line, csv::Position::line);
            if self.found.header.is_empty() {
                let header: Vec<String> = row.iter().map(str::to_owned).collect();
                if !header.starts_with(&columns)
                    || header[columns.len()..].last().is_none_or(|last| last != ERROR)
                {
                    return Err(self.refuse(
                        line,
                        format!("its columns are not {}, …, {ERROR}", columns.join(", ")),
                    ));
                }
                self.found.header = header;
                continue;
            }
            if row.len() != self.found.header.len() {
                return Err(self.refuse(line, "the row does not fit the header"));
            }
            let key = self.csv_key(&row, line)?;
            let failed = row.iter().next_back().is_some_and(|error| !error.is_empty());
            self.count(key, failed)?;
        }
    }

    fn csv_key(&self, row: &csv::StringRecord, line: u64) -> Result<String, Stop> {
        let input = &row[0];
        Ok(key_of(&match self.shape.kind {
            Kind::Line => Value::String(input.to_owned()),
            Kind::Row => {
                let pairs = self.shape.names.iter().zip(row.iter());
                Value::Object(pairs.map(|(name, field)| (name.clone(), field.into())).collect())
            }
            Kind::Object => serde_json::from_str(input)
                .ok()
                .filter(Value::is_object)
                .ok_or_else(|| self.refuse(line, "its input is not a JSON object"))?,
        }))
    }
}

/// Whether a whole line of a .jsonl output tells of a failure.
pub(crate) fn is_failure(line: &[u8]) -> bool {
    serde_json::from_slice::<JsonRow>(line).is_ok_and(|row| row.error.is_some())
}

/// Reads rows of any width; the first one is the header.
pub(crate) fn csv_reader<R: Read>(reader: R) -> csv::Reader<R> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(reader)
}

/// Where the last whole record of a CSV file ends.
///
/// Only the last one can be torn. A whole one ends with a newline that is not inside quotes, and
/// since a quote inside a field is doubled, that is a newline after an even number of quotes.
fn last_whole_record(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = csv_reader(file);
    let mut row = csv::ByteRecord::new();
    let mut start = 0;
    while reader.read_byte_record(&mut row).map_err(csv_io)? {
        start = row.position().map_or(start, csv::Position::byte);
    }
    drop(reader);
    file.seek(SeekFrom::Start(start))?;
    let mut last = Vec::new();
    file.read_to_end(&mut last)?;
    let quotes = last.iter().filter(|byte| **byte == b'"').count();
    let whole = last.last() == Some(&b'\n') && quotes.is_multiple_of(2);
    Ok(if whole { start + last.len() as u64 } else { start })
}

/// The I/O error inside a CSV error; reading flexible byte records has no other kind.
pub(crate) fn csv_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;

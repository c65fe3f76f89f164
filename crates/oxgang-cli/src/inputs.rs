//! Where inputs come from: arguments, a file, standard input; lines, CSV rows, JSON objects.
//!
//! Promises: inputs are read as they are needed, never all at once. Regular files are read once
//! before anything starts ([`scan`]), which gives the total and finds bad lines early; a pipe can
//! only be judged as it comes. Every error names the file and the line. Every read can be ended
//! (see [`crate::patience`]).
//!
//! Rules: a line ends with LF or CRLF; empty lines are skipped; text is UTF-8, and a byte order
//! mark at the start is dropped. The fields of a CSV row are text, never guessed to be numbers.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use serde_json::Value;

use crate::Stop;
use crate::grammar::MapOptions;
use crate::patience::{Check, PatientReader, Refused, is_refusal};
use crate::reason;
use crate::record::{Kind, Record};

/// Records read between two questions to the check when no read has to wait.
const STRIDE: u64 = 4096;

/// Why there is no next input.
#[derive(Debug)]
pub enum InputError {
    /// The check ended the wait.
    Refused,
    /// This line is wrong, or the file cannot be read: one line for the user.
    Bad(String),
}

enum Source {
    Arguments(std::vec::IntoIter<OsString>),
    Lines(BufReader<PatientReader>),
    Objects(BufReader<PatientReader>),
    Rows(Box<csv::Reader<BufReader<PatientReader>>>, Arc<[String]>),
}

/// The inputs of one run, in order.
pub struct Inputs {
    source: Source,
    name: String,
    line: u64,
    waits: bool,
    buffer: Vec<u8>,
    check: Check,
}

/// The file that `--from` names, unless that is standard input.
fn named_file(options: &MapOptions) -> Option<&Path> {
    options.from.as_deref().filter(|path| *path != Path::new("-"))
}

/// Checks that the inputs named by the command can be read at all, and opens them.
pub fn open(options: &MapOptions, check: &Check) -> Result<Inputs, Stop> {
    if !options.inputs.is_empty() && options.from.is_some() {
        return Err(Stop::usage("give the inputs as arguments or with --from, not both"));
    }
    let (source, name) = match named_file(options) {
        Some(path) => {
            let name = path.display().to_string();
            let why = |what: String| {
                Stop::usage(format!("cannot read {name}: {what}; give --from a file you can read"))
            };
            let file = open_file(path).map_err(|error| why(reason(&error)))?;
            if file.metadata().map_err(|error| why(reason(&error)))?.is_dir() {
                return Err(why("it is a directory".into()));
            }
            (Some((file, kind_of(path))), name)
        }
        None if options.inputs.is_empty() => {
            if options.from.is_none() && io::stdin().is_terminal() {
                return Err(Stop::usage(
                    "no inputs: name them after TARGET, give --from FILE, or pipe them in",
                ));
            }
            let file = io::stdin().as_fd().try_clone_to_owned().map_err(|error| {
                Stop::usage(format!("no standard input ({}); give --from FILE", reason(&error)))
            })?;
            (Some((File::from(file), Kind::Line)), "standard input".into())
        }
        None => (None, "the arguments".into()),
    };
    let opened = match source {
        None => {
            check_arguments(&options.inputs)?;
            let inputs = options.inputs.clone().into_iter();
            Ok(Inputs::new(Source::Arguments(inputs), name, check))
        }
        Some((file, kind)) => Inputs::from_file(file, kind, name, check),
    };
    opened.map_err(|error| match error {
        InputError::Refused => Stop::usage("stopped while waiting for input"),
        InputError::Bad(message) => Stop::usage(message),
    })
}

fn kind_of(path: &Path) -> Kind {
    match extension(path).as_deref() {
        Some("csv") => Kind::Row,
        Some("jsonl" | "ndjson") => Kind::Object,
        _ => Kind::Line,
    }
}

/// The extension in small letters.
pub(crate) fn extension(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

fn check_arguments(inputs: &[OsString]) -> Result<(), Stop> {
    match inputs.iter().enumerate().find(|(_, input)| input.to_str().is_none()) {
        Some((index, input)) => Err(Stop::usage(format!(
            "input {} is not UTF-8 text ({}); rename the file it names",
            index + 1,
            input.to_string_lossy()
        ))),
        None => Ok(()),
    }
}

/// How many inputs there are, where that can be known beforehand; finds the first bad one.
///
/// Arguments are counted, regular files are read through; a pipe or a terminal has no total.
pub fn scan(options: &MapOptions, check: &Check) -> Result<Option<u64>, InputError> {
    if !options.inputs.is_empty() {
        return Ok(Some(options.inputs.len() as u64));
    }
    let path: PathBuf = match named_file(options) {
        Some(path) => path.into(),
        None => return Ok(None),
    };
    if !fs::metadata(&path).is_ok_and(|found| found.is_file()) {
        return Ok(None);
    }
    let name = path.display().to_string();
    let file = open_file(&path).map_err(|error| unreadable(&name, &error))?;
    let mut inputs = Inputs::from_file(file, kind_of(&path), name, check)?;
    let mut total = 0;
    while inputs.next_record()?.is_some() {
        total += 1;
    }
    Ok(Some(total))
}

fn bad(message: String) -> InputError {
    InputError::Bad(message)
}

fn unreadable(name: &str, error: &io::Error) -> InputError {
    bad(format!("cannot read {name}: {}", reason(error)))
}

/// Opens without waiting: a named pipe whose writer has not come yet is waited for by the reads,
/// which can be ended.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

impl Inputs {
    fn new(source: Source, name: String, check: &Check) -> Inputs {
        let check = check.clone();
        Inputs { source, name, line: 0, waits: false, buffer: Vec::new(), check }
    }

    fn from_file(
        file: File,
        kind: Kind,
        name: String,
        check: &Check,
    ) -> Result<Inputs, InputError> {
        let waits = !file.metadata().is_ok_and(|found| found.is_file());
        let reader = BufReader::with_capacity(1 << 16, PatientReader::new(file, check.clone()));
        let source = match kind {
            Kind::Line => Source::Lines(reader),
            Kind::Object => Source::Objects(reader),
            Kind::Row => {
                let mut rows = csv::Reader::from_reader(reader);
                let names = column_names(&mut rows, &name)?;
                Source::Rows(Box::new(rows), names)
            }
        };
        Ok(Inputs { waits, ..Inputs::new(source, name, check) })
    }

    /// Whether the next input may have to be waited for: a pipe, or a terminal.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// What each input is.
    pub fn kind(&self) -> Kind {
        match self.source {
            Source::Arguments(_) | Source::Lines(_) => Kind::Line,
            Source::Objects(_) => Kind::Object,
            Source::Rows(..) => Kind::Row,
        }
    }

    /// The columns of a CSV input.
    pub fn column_names(&self) -> Option<&[String]> {
        match &self.source {
            Source::Rows(_, names) => Some(names),
            _ => None,
        }
    }

    /// The next input, or None after the last.
    pub fn next_record(&mut self) -> Result<Option<Record>, InputError> {
        loop {
            self.line += 1;
            if self.line.is_multiple_of(STRIDE) {
                (self.check)().map_err(|Refused| InputError::Refused)?;
            }
            if let Source::Rows(rows, names) = &mut self.source {
                return next_row(rows, names, &self.name);
            }
            if let Source::Arguments(inputs) = &mut self.source {
                let text = inputs.next().map(OsString::into_string).transpose();
                return match text {
                    Ok(text) => Ok(text.map(Record::Line)),
                    Err(_) => Err(self.wrong("not UTF-8 text")),
                };
            }
            let objects = matches!(self.source, Source::Objects(_));
            if !self.read_line()? {
                return Ok(None);
            }
            let bytes = std::mem::take(&mut self.buffer);
            let Ok(text) = String::from_utf8(bytes) else {
                return Err(self.wrong("not UTF-8 text; convert the file to UTF-8"));
            };
            if objects {
                if text.trim().is_empty() {
                    continue;
                }
                return self.object(&text).map(Some);
            }
            if text.is_empty() {
                continue;
            }
            return Ok(Some(Record::Line(text)));
        }
    }

    fn wrong(&self, what: impl std::fmt::Display) -> InputError {
        bad(format!("{}, line {}: {what}", self.name, self.line))
    }

    /// Reads one line into the buffer, without its end; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, InputError> {
        let (Source::Lines(reader) | Source::Objects(reader)) = &mut self.source else {
            return Ok(false);
        };
        self.buffer.clear();
        match reader.read_until(b'\n', &mut self.buffer) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if is_refusal(&error) => return Err(InputError::Refused),
            Err(error) => return Err(unreadable(&self.name, &error)),
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        }
        if self.line == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
            self.buffer.drain(..3);
        }
        Ok(true)
    }

    fn object(&self, text: &str) -> Result<Record, InputError> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            // The parser counts lines of the text it was given, which is always one.
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default().to_owned();
            self.wrong(format!("not JSON ({what}, column {})", error.column()))
        })?;
        let found = match &value {
            Value::Object(_) => return Ok(Record::Object(value)),
            Value::Array(_) => "an array",
            Value::String(_) => "a string",
            Value::Number(_) => "a number",
            Value::Bool(_) => "a boolean",
            Value::Null => "null",
        };
        Err(self.wrong(format!("{found}; each line must be an object such as {{\"name\": \"x\"}}")))
    }
}

type Rows = csv::Reader<BufReader<PatientReader>>;

fn column_names(rows: &mut Rows, name: &str) -> Result<Arc<[String]>, InputError> {
    let header = rows.headers().map_err(|error| csv_error(&error, name, 1))?;
    let names: Arc<[String]> = header.iter().map(str::to_owned).collect();
    for (index, column) in names.iter().enumerate() {
        if column.is_empty() {
            return Err(bad(format!(
                "{name}, line 1: column {} has no name; columns are keyword arguments",
                index + 1
            )));
        }
        if names[..index].contains(column) {
            return Err(bad(format!(
                "{name}, line 1: two columns are named {column}; columns are keyword arguments"
            )));
        }
    }
    Ok(names)
}

fn next_row(
    rows: &mut Rows,
    names: &Arc<[String]>,
    name: &str,
) -> Result<Option<Record>, InputError> {
    let mut fields = csv::StringRecord::new();
    let line = rows.position().line();
    match rows.read_record(&mut fields) {
        Ok(true) => Ok(Some(Record::Row(names.clone(), fields))),
        Ok(false) => Ok(None),
        Err(error) => Err(csv_error(&error, name, line)),
    }
}

fn csv_error(error: &csv::Error, name: &str, line: u64) -> InputError {
    let line = error.position().map_or(line, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::Io(error) if is_refusal(error) => InputError::Refused,
        csv::ErrorKind::Io(error) => unreadable(name, error),
        csv::ErrorKind::Utf8 { .. } => {
            bad(format!("{name}, line {line}: not UTF-8 text; convert the file to UTF-8"))
        }
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => bad(format!(
            "{name}, line {line}: {len} fields where the header has {expected_len}; correct the row"
        )),
        _ => bad(format!("{name}, line {line}: {error}")),
    }
}

#[cfg(test)]
#[path = "inputs_tests.rs"]
mod tests;

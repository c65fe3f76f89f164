//! The file of results: one row per input, written as results arrive, never half a row.
//!
//! * A row is one `write(2)` of a complete record to a file opened for appending; if the system
//!   took only a part of it (a full disk), that part is cut off again.
//! * `.jsonl`: `{"input":…,"result":…}` or `{"input":…,"error":{"type":…,"message":…}}`.
//! * `.csv`: the columns of the input, the columns of the results, then `error` (empty when the
//!   input succeeded). A result key that is taken by an input column or is `error` becomes
//!   `result.<key>`. The first row settles the header; when a later result brings new columns, the
//!   file is written anew with a wider header and put in place by a rename, so that at every moment
//!   the name holds a complete file. Since that costs a pass over the file, it is done at most
//!   [`WIDENINGS`] times; after that, new columns are that input's failure.
//! * The file is locked while a run writes it: two runs cannot mix their rows. The lock is the
//!   process's (POSIX record lock), so workers do not inherit it and a kill releases it. It would
//!   also be lost by closing any other descriptor of the file: nothing here opens it twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use crate::record::Record;
use crate::resume::{csv_io, csv_reader, is_failure};

/// The column that says why an input failed.
pub const ERROR: &str = "error";

/// How often one run may write its .csv anew for new columns.
pub const WIDENINGS: u32 = 100;

/// The kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object per line.
    Jsonl,
}

/// A result in the form that the file takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// For .csv: names and texts of cells.
    Cells(Vec<(String, String)>),
    /// For .jsonl, JSON; for standard output, a line.
    Text(String),
}

/// Why a row was not written.
#[derive(Debug)]
pub enum RowError {
    /// The result does not fit the file: this input's failure.
    Shape(String),
    /// The file cannot be written: the run's end.
    Io(io::Error),
}

impl From<io::Error> for RowError {
    fn from(error: io::Error) -> RowError {
        RowError::Io(error)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Done,
    All,
}

/// A result file that is being written.
pub struct Table {
    path: PathBuf,
    file: File,
    format: Format,
    /// The columns that carry the input.
    columns: Vec<String>,
    /// All columns of a .csv; empty before its first row.
    header: Vec<String>,
    widened: u32,
}

impl Table {
    /// A table over a locked file of whole rows, with that file's header.
    pub(crate) fn new(
        path: PathBuf,
        file: File,
        format: Format,
        columns: Vec<String>,
        header: Vec<String>,
    ) -> Table {
        Table { path, file, format, columns, header, widened: 0 }
    }

    /// Takes out the rows of inputs that failed.
    pub(crate) fn drop_failures(&mut self) -> io::Result<()> {
        let header = self.header.clone();
        self.rewrite(&header, Keep::Done)
    }

    /// Writes the row of an input that succeeded.
    pub fn write_result(&mut self, record: &Record, result: &Payload) -> Result<(), RowError> {
        match result {
            Payload::Text(json) => {
                let row = format!("{{\"input\":{},\"result\":{json}}}\n", record.json());
                Ok(self.append(row.as_bytes())?)
            }
            Payload::Cells(cells) => self.write_cells(record, cells, ""),
        }
    }

    /// Writes the row of an input that failed.
    pub fn write_failure(
        &mut self,
        record: &Record,
        type_name: &str,
        message: &str,
    ) -> Result<(), RowError> {
        match self.format {
            Format::Jsonl => {
                let error = serde_json::json!({"type": type_name, "message": message});
                let row = format!("{{\"input\":{},\"error\":{error}}}\n", record.json());
                Ok(self.append(row.as_bytes())?)
            }
            Format::Csv => self.write_cells(record, &[], &failure_text(type_name, message)),
        }
    }

    /// Writes the header of a .csv that got no row; nothing else is left to write.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.format == Format::Csv && self.header.is_empty() {
            self.header = self.columns.clone();
            self.header.push(ERROR.into());
            let bytes = csv_line(&self.header)?;
            self.append(&bytes)?;
        }
        Ok(())
    }

    fn write_cells(
        &mut self,
        record: &Record,
        cells: &[(String, String)],
        error: &str,
    ) -> Result<(), RowError> {
        let cells: Vec<(String, &str)> =
            cells.iter().map(|(name, cell)| (self.column_for(name), cell.as_str())).collect();
        let new: Vec<&String> =
            cells.iter().map(|(name, _)| name).filter(|name| !self.header.contains(name)).collect();
        let mut bytes = Vec::new();
        if self.header.is_empty() {
            self.header = self.columns.clone();
            self.header.extend(new.into_iter().cloned());
            self.header.push(ERROR.into());
            bytes = csv_line(&self.header)?;
        } else if !new.is_empty() {
            let mut header = self.header.clone();
            let last = header.len() - 1;
            header.splice(last..last, new.into_iter().cloned());
            self.widen(&header)?;
        }
        let inputs = self.columns.len();
        let mut row = vec![""; self.header.len()];
        let input;
        match record {
            Record::Line(text) => row[0] = text,
            Record::Object(value) => {
                input = value.to_string();
                row[0] = &input;
            }
            Record::Row(_, fields) => {
                for (place, field) in row.iter_mut().zip(fields) {
                    *place = field;
                }
            }
        }
        for (name, cell) in &cells {
            if let Some(place) = self.header[inputs..].iter().position(|column| column == name) {
                row[inputs + place] = cell;
            }
        }
        if let Some(last) = row.last_mut() {
            *last = error;
        }
        bytes.extend(csv_line(&row)?);
        Ok(self.append(&bytes)?)
    }

    fn column_for(&self, key: &str) -> String {
        if key == ERROR || self.columns.iter().any(|column| column == key) {
            format!("result.{key}")
        } else {
            key.to_owned()
        }
    }

    fn widen(&mut self, header: &[String]) -> Result<(), RowError> {
        if self.widened == WIDENINGS {
            return Err(RowError::Shape(format!(
                "the result brings new columns, and the .csv was made wider {WIDENINGS} times \
                 already; write results of such different shapes to a .jsonl file"
            )));
        }
        self.rewrite(header, Keep::All)?;
        self.widened += 1;
        Ok(())
    }

    /// One write of one record; all of it, or nothing of it.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        if written == bytes.len() {
            return Ok(());
        }
        let end = self.file.metadata()?.len();
        self.file.set_len(end - written as u64)?;
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    /// Writes the file anew beside itself, then puts it in its own place.
    fn rewrite(&mut self, header: &[String], keep: Keep) -> io::Result<()> {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".oxgang-new");
        let beside = self.path.with_file_name(name);
        // What a killed run may have left there is of no use; the lock says nobody is using it.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut opening = OpenOptions::new();
        let new = opening.read(true).append(true).create_new(true).open(&beside)?;
        let done = self.fill(&new, header, keep).and_then(|()| {
            new.set_permissions(self.file.metadata()?.permissions())?;
            // The same as in `lock`: where there are no locks, none is missed.
            if let Err(Errno::AGAIN) = fcntl_lock(&new, FlockOperation::NonBlockingLockExclusive) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            new.sync_all()?;
            fs::rename(&beside, &self.path)
        });
        if let Err(error) = done {
            // The first error is the one to tell; the leftover is removed by the next run too.
            drop(fs::remove_file(&beside));
            return Err(error);
        }
        self.file = new;
        self.header = header.to_vec();
        Ok(())
    }

    fn fill(&self, new: &File, header: &[String], keep: Keep) -> io::Result<()> {
        let mut old = &self.file;
        old.seek(SeekFrom::Start(0))?;
        let mut writer = BufWriter::with_capacity(1 << 16, new);
        match self.format {
            Format::Jsonl => {
                let mut reader = BufReader::new(old);
                let mut line = Vec::new();
                while reader.read_until(b'\n', &mut line)? > 0 {
                    if keep == Keep::All || !is_failure(&line) {
                        writer.write_all(&line)?;
                    }
                    line.clear();
                }
            }
            Format::Csv => {
                let mut reader = csv_reader(old);
                let mut row = csv::ByteRecord::new();
                reader.read_byte_record(&mut row).map_err(csv_io)?;
                writer.write_all(&csv_line(header)?)?;
                let places: Vec<Option<usize>> = header
                    .iter()
                    .map(|name| self.header.iter().position(|column| column == name))
                    .collect();
                while reader.read_byte_record(&mut row).map_err(csv_io)? {
                    let failed = row.iter().next_back().is_some_and(|error| !error.is_empty());
                    if failed && keep == Keep::Done {
                        continue;
                    }
                    let cells = places.iter().map(|place| place.map_or(&b""[..], |at| &row[at]));
                    writer.write_all(&csv_line(cells)?)?;
                }
            }
        }
        writer.flush()
    }
}

/// One failure, as it stands in a cell and in the summary.
pub fn failure_text(type_name: &str, message: &str) -> String {
    if message.is_empty() { type_name.into() } else { format!("{type_name}: {message}") }
}

fn csv_line<I, T>(cells: I) -> io::Result<Vec<u8>>
where
    I: IntoIterator<Item = T>,
    T: AsRef<[u8]>,
{
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).map_err(csv_io)?;
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;

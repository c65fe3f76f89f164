//! The output before the run: is it possible, what does it hold, make it ready.
//!
//! Three steps, so that a mistake anywhere in the command leaves the file as it is: [`plan`] checks
//! and locks, [`Plan::read_done`] reads, and only [`Plan::start`] changes or creates anything.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, access, fcntl_lock};
use rustix::io::Errno;

use crate::grammar::MapOptions;
use crate::inputs::extension;
use crate::output::{Format, Table};
use crate::patience::Check;
use crate::resume::{self, Found, Shape};
use crate::{Stop, reason};

/// An output that was checked, and not touched yet.
pub struct Plan {
    path: PathBuf,
    name: String,
    format: Format,
    existing: Option<File>,
    found: Found,
}

/// Checks what `-o` and `--resume` ask for, without changing anything.
pub fn plan(options: &MapOptions) -> Result<Option<Plan>, Stop> {
    let Some(path) = &options.output else {
        if options.resume {
            return Err(Stop::usage("--resume goes on with a file: name it with -o FILE"));
        }
        return Ok(None);
    };
    let name = path.display().to_string();
    let format = match extension(path).as_deref() {
        Some("csv") => Format::Csv,
        Some("jsonl" | "ndjson") => Format::Jsonl,
        _ => {
            return Err(Stop::usage(format!(
                "-o {name}: results are written as .csv or .jsonl; name the file so"
            )));
        }
    };
    let unwritable = |error: io::Error| unwritable(&name, &error);
    let (path, existing) = match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            return Err(Stop::usage(format!("-o {name}: not a regular file; give another name")));
        }
        Ok(found) if found.len() > 0 && !options.resume => {
            return Err(Stop::usage(format!(
                "-o {name}: the file has content; add --resume to go on with it, or give a new name"
            )));
        }
        Ok(_) => {
            // A rename must replace the file itself, not a link to it.
            let path = fs::canonicalize(path).map_err(unwritable)?;
            let file =
                OpenOptions::new().read(true).append(true).open(&path).map_err(unwritable)?;
            lock(&file, &name)?;
            (path, Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            access(folder(path), Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|errno| unwritable(errno.into()))?;
            (path.clone(), None)
        }
        Err(error) => return Err(unwritable(error)),
    };
    Ok(Some(Plan { path, name, format, existing, found: Found::default() }))
}

fn unwritable(name: &str, error: &io::Error) -> Stop {
    Stop::usage(format!(
        "cannot write {name}: {}; give -o a file in a folder that exists and is yours to write",
        reason(error)
    ))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

fn lock(file: &File, name: &str) -> Result<(), Stop> {
    match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN | Errno::ACCESS) => Err(Stop::usage(format!(
            "-o {name}: another run is writing it; wait for its end, or give another name"
        ))),
        // A file system without locks: go on without.
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Plan {
    /// The kind of file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Reads what an earlier run left; its done inputs are given to the caller.
    pub fn read_done(&mut self, shape: &Shape, check: &Check) -> Result<resume::Done, Stop> {
        if let Some(file) = &self.existing {
            self.found = resume::read(file, self.format, shape, &self.name, check)?;
        }
        Ok(std::mem::take(&mut self.found.done))
    }

    /// Makes the file ready for rows: creates it, or cuts off what is torn and takes out what
    /// failed.
    pub fn start(self, shape: Shape) -> Result<Table, Stop> {
        let failed = |error: io::Error| unwritable(&self.name, &error);
        let file = match self.existing {
            Some(file) => file,
            None => {
                let mut opening = OpenOptions::new();
                let file = opening.read(true).append(true).create_new(true);
                let file = file.open(&self.path).map_err(failed)?;
                lock(&file, &self.name)?;
                file
            }
        };
        // Between our opening and our locking, another run may have put a new file in place.
        let (ours, named) = (file.metadata(), fs::metadata(&self.path));
        if !ours.is_ok_and(|ours| named.is_ok_and(|named| ours.ino() == named.ino())) {
            return Err(Stop::usage(format!("-o {}: another run has just replaced it", self.name)));
        }
        if file.metadata().map_err(failed)?.len() > self.found.whole_bytes {
            file.set_len(self.found.whole_bytes).map_err(failed)?;
        }
        let columns = shape.columns();
        let mut table = Table::new(self.path, file, self.format, columns, self.found.header);
        if self.found.failed > 0 {
            table.drop_failures().map_err(|error| unwritable(&self.name, &error))?;
        }
        Ok(table)
    }
}

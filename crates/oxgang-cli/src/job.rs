//! One run of `oxgang map`, from the command line to the last word.
//!
//! The order is fixed: [`Job::new`] (arguments, files that must be readable or writable),
//! [`Job::prepare`] (read through the inputs and the earlier output), [`Job::next_input`] for the
//! first input, [`Job::start`] (only now is anything created), then inputs and outcomes in any
//! order, and [`Job::finish`]. Until `start`, every error means that nothing happened.
//!
//! Inputs may be asked for by one thread while another hands in outcomes; each side has a lock of
//! its own, taken in the order *inputs, desk*, so neither waits for the other's streams.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::grammar::{self, MapOptions, Model, Show};
use crate::inputs::{self, InputError, Inputs};
use crate::output::{Format, Payload, RowError, Table, failure_text};
use crate::patience::{self, Check, is_refusal};
use crate::plan::{self, Plan};
use crate::progress::{Progress, Stream};
use crate::record::{Kind, Record};
use crate::resume::{Done, Shape};
use crate::summary::{Ending, Tally};
use crate::{Stop, reason};

/// Where results go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A file of rows.
    File(Format),
    /// Standard output, a line each.
    Lines,
}

/// What became of handing in a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handed {
    /// It is written.
    Ok,
    /// It could not be written as a row: the input counts as failed.
    Failed,
}

/// One run.
pub struct Job {
    /// What was asked for.
    pub options: MapOptions,
    form: Form,
    kind: Kind,
    waits: bool,
    check: Check,
    feed: Mutex<Feed>,
    desk: Mutex<Desk>,
}

struct Feed {
    inputs: Inputs,
    done: Done,
    given: u64,
}

struct Desk {
    plan: Option<Plan>,
    sink: Sink,
    /// Inputs whose outcome is not known yet, by their place in the order they were given.
    open: HashMap<u64, Record>,
    total: Option<u64>,
    skipped_early: u64,
    progress: Option<Progress>,
    tally: Tally,
    started: Instant,
}

enum Sink {
    None,
    Table(Table),
    Lines(File),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic on the other side leaves counts that may be off by one, not rows that are torn.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    /// Reads the command and checks what can be checked without reading the inputs.
    pub fn new(arguments: Vec<OsString>, check: Check) -> Result<Job, Stop> {
        let options = grammar::parse(arguments)?;
        if options.memory_limit.is_some()
            && matches!(options.model, Model::Thread | Model::Coroutine)
        {
            return Err(Stop::usage(
                "--memory-limit is for processes: threads and coroutines share their memory; leave \
                 it out, or take --model process",
            ));
        }
        let plan = plan::plan(&options)?;
        let inputs = inputs::open(&options, &check)?;
        Ok(Job {
            form: plan.as_ref().map_or(Form::Lines, |plan| Form::File(plan.format())),
            kind: inputs.kind(),
            waits: inputs.waits(),
            feed: Mutex::new(Feed { inputs, done: Done::default(), given: 0 }),
            desk: Mutex::new(Desk {
                plan,
                sink: Sink::None,
                open: HashMap::new(),
                total: None,
                skipped_early: 0,
                progress: None,
                tally: Tally::default(),
                started: Instant::now(),
            }),
            options,
            check,
        })
    }

    /// Where results go.
    pub fn form(&self) -> Form {
        self.form
    }

    /// What each input is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the next input may have to be waited for.
    pub fn waits(&self) -> bool {
        self.waits
    }

    fn shape(feed: &Feed) -> Shape {
        let names = feed.inputs.column_names().unwrap_or_default().to_vec();
        Shape { kind: feed.inputs.kind(), names }
    }

    /// Reads through a file of inputs, and through the output of an earlier run.
    pub fn prepare(&self) -> Result<(), Stop> {
        let total = inputs::scan(&self.options, &self.check).map_err(stop_for)?;
        let mut feed = locked(&self.feed);
        let mut desk = locked(&self.desk);
        desk.total = total;
        let shape = Job::shape(&feed);
        if let Some(plan) = &mut desk.plan {
            feed.done = plan.read_done(&shape, &self.check)?;
        }
        Ok(())
    }

    /// The next input that is not done yet, with its place; None after the last.
    pub fn next_input(&self) -> Result<Option<(u64, Record)>, InputError> {
        let mut feed = locked(&self.feed);
        loop {
            let Some(record) = feed.inputs.next_record()? else { return Ok(None) };
            let known = !feed.done.is_empty() && feed.done.take(&record.key());
            let mut desk = locked(&self.desk);
            if known {
                desk.skip();
                continue;
            }
            let place = feed.given;
            feed.given += 1;
            desk.open.insert(place, record.clone());
            return Ok(Some((place, record)));
        }
    }

    /// The point of no return: creates or repairs the output, shows progress.
    pub fn start(&self, description: &str) -> Result<(), Stop> {
        let feed = locked(&self.feed);
        let mut desk = locked(&self.desk);
        let shape = Job::shape(&feed);
        desk.sink = match desk.plan.take() {
            Some(plan) => Sink::Table(plan.start(shape)?),
            None => {
                let stream = io::stdout().as_fd().try_clone_to_owned().map_err(|error| {
                    Stop::usage(format!("no standard output ({}); give -o FILE", reason(&error)))
                })?;
                Sink::Lines(File::from(stream))
            }
        };
        let stream = match self.options.progress {
            _ if self.options.quiet => Stream::Never,
            Show::Auto => Stream::Auto,
            Show::Always => Stream::Always,
            Show::Never => Stream::Never,
        };
        let total = desk.total.map(|total| total.saturating_sub(desk.skipped_early));
        desk.progress = Some(Progress::new(total, description, stream));
        desk.started = Instant::now();
        Ok(())
    }

    /// Writes the result of the input at `place`.
    pub fn succeed(&self, place: u64, result: &Payload) -> Result<Handed, io::Error> {
        let mut desk = locked(&self.desk);
        let record = desk.take(place)?;
        let written = match &mut desk.sink {
            Sink::Table(table) => table.write_result(&record, result),
            Sink::Lines(_) => desk.print(result, &self.check).map_err(RowError::Io),
            Sink::None => Err(RowError::Io(not_started())),
        };
        match written {
            Ok(()) => {
                desk.tally.ok += 1;
                desk.advance(true);
                Ok(Handed::Ok)
            }
            Err(RowError::Shape(what)) => {
                desk.record_failure(&record, "ResultError", &what)?;
                Ok(Handed::Failed)
            }
            Err(RowError::Io(error)) => Err(error),
        }
    }

    /// Writes down that the input at `place` failed.
    pub fn fail(&self, place: u64, type_name: &str, message: &str) -> Result<(), io::Error> {
        let mut desk = locked(&self.desk);
        let record = desk.take(place)?;
        desk.record_failure(&record, type_name, message)
    }

    /// Ends the progress, says the last words on standard error, returns the exit code.
    pub fn finish(&self, ending: &Ending) -> u8 {
        let mut desk = locked(&self.desk);
        let elapsed = desk.started.elapsed();
        if let Some(mut progress) = desk.progress.take() {
            progress.finish();
        }
        let mut ending = ending.clone();
        if let Sink::Table(table) = &mut desk.sink
            && let Err(error) = table.finish()
            && ending == Ending::Done
        {
            ending = Ending::Trouble(1, self.trouble(&error));
        }
        let output = self.options.output.as_ref().map(|path| path.display().to_string());
        let text = desk.tally.text(&ending, elapsed, output.as_deref(), self.options.quiet);
        // Where standard error is gone, the exit code still tells.
        drop(io::stderr().write_all(text.as_bytes()));
        desk.tally.exit_code(&ending)
    }

    /// What to say when a row cannot be written.
    pub fn trouble(&self, error: &io::Error) -> String {
        match &self.options.output {
            Some(path) => format!(
                "cannot write {}: {}; the rows in it are whole",
                path.display(),
                reason(error)
            ),
            None => format!("cannot write to standard output: {}", reason(error)),
        }
    }
}

/// An input that cannot be read, before anything was started.
pub fn stop_for(error: InputError) -> Stop {
    match error {
        InputError::Refused => Stop::usage("stopped while waiting for input"),
        InputError::Bad(message) => Stop::usage(message),
    }
}

/// How a run ends when a row could not be written; None when the check ended a wait.
pub fn ending_for(error: &io::Error, said: String) -> Option<Ending> {
    if is_refusal(error) {
        None
    } else if error.kind() == io::ErrorKind::BrokenPipe {
        Some(Ending::Pipe)
    } else {
        Some(Ending::Trouble(1, said))
    }
}

fn not_started() -> io::Error {
    io::Error::other("a result was handed in before the start")
}

impl Desk {
    fn take(&mut self, place: u64) -> io::Result<Record> {
        self.open.remove(&place).ok_or_else(|| {
            io::Error::other(format!("outcome {place} was handed in twice, or never asked for"))
        })
    }

    fn skip(&mut self) {
        self.tally.skipped += 1;
        match &mut self.progress {
            Some(progress) => progress.skip(),
            None => self.skipped_early += 1,
        }
    }

    fn advance(&mut self, ok: bool) {
        if let Some(progress) = &mut self.progress {
            progress.advance(ok);
        }
    }

    fn record_failure(
        &mut self,
        record: &Record,
        type_name: &str,
        message: &str,
    ) -> Result<(), io::Error> {
        if let Sink::Table(table) = &mut self.sink {
            match table.write_failure(record, type_name, message) {
                Ok(()) | Err(RowError::Shape(_)) => {}
                Err(RowError::Io(error)) => return Err(error),
            }
        }
        self.tally.fail(&record.label(), &failure_text(type_name, message));
        self.advance(false);
        Ok(())
    }

    fn print(&self, result: &Payload, check: &Check) -> io::Result<()> {
        let Sink::Lines(stream) = &self.sink else { return Err(not_started()) };
        let line = match result {
            Payload::Text(text) => format!("{text}\n"),
            Payload::Cells(_) => return Err(io::Error::other("cells have no line form")),
        };
        let write = || patience::write_all(stream, line.as_bytes(), check);
        match &self.progress {
            Some(progress) if stream.is_terminal() => progress.aside(write),
            _ => write(),
        }
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;

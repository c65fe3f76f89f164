//! The command's Rust half, and the progress display, as Python classes.
//!
//! Nothing is decided here. Each call lets go of the interpreter before it takes a lock or touches
//! a stream, and each wait inside asks Python about signals ([`signals`]); what a signal handler
//! raised there is raised again from the call that was waiting.

use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use oxgang_cli::Stop;
use oxgang_cli::grammar::Chunksize;
use oxgang_cli::inputs::InputError;
use oxgang_cli::job::{Form, Handed, Job, stop_for};
use oxgang_cli::output::{Format, Payload};
use oxgang_cli::patience::{Check, Refused, is_refusal};
use oxgang_cli::progress::{Progress as Display, Stream};
use oxgang_cli::record::{Kind, Record};
use oxgang_cli::summary::Ending;
use pyo3::IntoPyObjectExt;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

create_exception!(
    oxgang._core,
    CliStop,
    PyException,
    "The command ends here: ``args`` is (exit code, text for stdout, text for stderr)."
);

type Raised = Arc<Mutex<Option<PyErr>>>;

fn signals(raised: &Raised) -> Check {
    let raised = raised.clone();
    Arc::new(move || {
        Python::attach(|py| py.check_signals()).map_err(|error| {
            *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            Refused
        })
    })
}

fn stopped(stop: Stop) -> PyErr {
    CliStop::new_err((stop.code, stop.out, stop.err))
}

/// One run of ``oxgang map``: its command line, inputs, output, progress and summary.
///
/// Iterating gives the inputs: text, or a dict for a CSV row, or JSON text for an object
/// (``kind`` says which). Their places, counted from 0, name them in ``succeed`` and ``fail``.
#[pyclass(frozen, module = "oxgang._core")]
pub struct MapJob {
    job: Job,
    raised: Raised,
}

impl MapJob {
    /// What a signal handler raised during the wait, or else `error`.
    fn or_raised(&self, error: PyErr) -> PyErr {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(error)
    }

    fn unwritten(&self, error: io::Error) -> PyErr {
        if is_refusal(&error) {
            self.or_raised(PyKeyboardInterrupt::new_err(()))
        } else if error.kind() == io::ErrorKind::BrokenPipe {
            error.into()
        } else {
            stopped(Stop::trouble(self.job.trouble(&error)))
        }
    }
}

#[derive(FromPyObject)]
enum Outcome {
    Text(String),
    Cells(Vec<(String, String)>),
}

#[pymethods]
impl MapJob {
    #[new]
    fn new(py: Python<'_>, arguments: Vec<OsString>) -> PyResult<MapJob> {
        let raised = Raised::default();
        let check = signals(&raised);
        match py.detach(|| Job::new(arguments, check)) {
            Ok(job) => Ok(MapJob { job, raised }),
            Err(stop) => {
                let signalled = raised.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(signalled.unwrap_or_else(|| stopped(stop)))
            }
        }
    }

    #[getter]
    fn target(&self) -> &str {
        &self.job.options.target
    }

    #[getter]
    fn model(&self) -> &'static str {
        self.job.options.model.word()
    }

    #[getter]
    fn jobs(&self) -> Option<usize> {
        self.job.options.jobs
    }

    #[getter]
    fn retries(&self) -> u32 {
        self.job.options.retries
    }

    #[getter]
    fn timeout(&self) -> Option<f64> {
        self.job.options.timeout
    }

    #[getter]
    fn memory_limit(&self) -> Option<u64> {
        self.job.options.memory_limit
    }

    #[getter]
    fn chunksize<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.job.options.chunksize {
            Chunksize::Auto => "auto".into_bound_py_any(py),
            Chunksize::Exactly(count) => count.into_bound_py_any(py),
        }
    }

    #[getter]
    fn fail_fast(&self) -> bool {
        self.job.options.fail_fast
    }

    /// Where results go: "csv", "jsonl" or "lines".
    #[getter]
    fn form(&self) -> &'static str {
        match self.job.form() {
            Form::File(Format::Csv) => "csv",
            Form::File(Format::Jsonl) => "jsonl",
            Form::Lines => "lines",
        }
    }

    /// What an input is: "line", "row" or "object".
    #[getter]
    fn kind(&self) -> &'static str {
        match self.job.kind() {
            Kind::Line => "line",
            Kind::Row => "row",
            Kind::Object => "object",
        }
    }

    /// Whether inputs may have to be waited for: they come through a pipe or from a terminal.
    #[getter]
    fn waits(&self) -> bool {
        self.job.waits()
    }

    /// Reads through a file of inputs and through the output of an earlier run.
    fn prepare(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.job.prepare()).map_err(|stop| self.or_raised(stopped(stop)))
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = py.detach(|| self.job.next_input()).map_err(|error| {
            let interrupted = matches!(error, InputError::Refused);
            let stop = stopped(stop_for(error));
            if interrupted { self.or_raised(stop) } else { stop }
        })?;
        let Some((_, record)) = next else { return Ok(None) };
        Ok(Some(match record {
            Record::Line(text) => text.into_bound_py_any(py)?,
            Record::Object(value) => value.to_string().into_bound_py_any(py)?,
            Record::Row(names, fields) => {
                let row = PyDict::new(py);
                for (name, field) in names.iter().zip(&fields) {
                    row.set_item(name, field)?;
                }
                row.into_any()
            }
        }))
    }

    /// Creates or repairs the output and shows progress: the run begins.
    fn start(&self, py: Python<'_>, description: &str) -> PyResult<()> {
        py.detach(|| self.job.start(description)).map_err(stopped)
    }

    /// Writes a result (text, or cells for .csv); False if it does not fit the file.
    fn succeed(&self, py: Python<'_>, place: u64, result: Outcome) -> PyResult<bool> {
        let payload = match result {
            Outcome::Text(text) => Payload::Text(text),
            Outcome::Cells(cells) => Payload::Cells(cells),
        };
        let handed = py.detach(|| self.job.succeed(place, &payload));
        Ok(handed.map_err(|error| self.unwritten(error))? == Handed::Ok)
    }

    /// Writes down a failure.
    fn fail(&self, py: Python<'_>, place: u64, type_name: &str, message: &str) -> PyResult<()> {
        py.detach(|| self.job.fail(place, type_name, message))
            .map_err(|error| self.unwritten(error))
    }

    /// Ends progress, prints the summary, returns the exit code.
    ///
    /// ``ending`` is "done", "fail_fast", "signal" (``number`` is the signal's), "pipe", or
    /// "trouble" (``number`` is the exit code, ``message`` one line).
    #[pyo3(signature = (ending, number = 0, message = String::new()))]
    fn finish(&self, py: Python<'_>, ending: &str, number: u8, message: String) -> PyResult<u8> {
        let ending = match ending {
            "done" => Ending::Done,
            "fail_fast" => Ending::FailFast,
            "signal" => Ending::Signal(number),
            "pipe" => Ending::Pipe,
            "trouble" => Ending::Trouble(number, message),
            other => return Err(PyValueError::new_err(format!("no such ending: {other}"))),
        };
        Ok(py.detach(|| self.job.finish(&ending)))
    }
}

/// Reads the words after ``oxgang run``: what is exchanged, whether to report, whether children
/// started in other ways have it too, the interpreter's options, the program with its arguments.
#[pyfunction]
#[expect(clippy::type_complexity, reason = "a tuple for Python")]
pub fn run_options(
    words: Vec<OsString>,
) -> PyResult<(Vec<&'static str>, bool, bool, Vec<OsString>, Vec<OsString>)> {
    let options = oxgang_cli::run::parse(words).map_err(stopped)?;
    Ok((options.only, options.report, options.children, options.flags, options.program))
}

/// A line on standard error that shows how far something is.
///
/// ``total`` None: not known. ``stream`` "auto": only if standard error is a terminal; "always":
/// also if it is not, as plain lines.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Progress {
    display: Mutex<Display>,
}

#[pymethods]
impl Progress {
    #[new]
    #[pyo3(signature = (total, description, stream = "auto"))]
    fn new(total: Option<u64>, description: &str, stream: &str) -> PyResult<Progress> {
        let stream = match stream {
            "auto" => Stream::Auto,
            "always" => Stream::Always,
            other => {
                return Err(PyValueError::new_err(format!(
                    "stream must be 'auto' or 'always', not {other:?}"
                )));
            }
        };
        Ok(Progress { display: Mutex::new(Display::new(total, description, stream)) })
    }

    /// One more outcome; ``ok`` False counts as a failure.
    fn advance(&self, py: Python<'_>, ok: bool) {
        py.detach(|| self.display.lock().unwrap_or_else(PoisonError::into_inner).advance(ok));
    }

    /// The end; what is shown stays. May be called again.
    fn finish(&self, py: Python<'_>) {
        py.detach(|| self.display.lock().unwrap_or_else(PoisonError::into_inner).finish());
    }
}

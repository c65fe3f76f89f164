//! The worker's loop, on the main thread of a worker process.
//!
//! A task with limits can be made to raise: by a signal, whose handler Python runs on this very
//! thread, between two steps of the task's own code. It asks [`Interrupt::due`], which says no
//! unless the owner meant the task that runs now, and no again once the answer is being made.

use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use oxgang::Payload;
use oxgang::region;
use oxgang::segment::Mapped;
use oxgang::wire;
use oxgang::worker::{Next, Worker};
use oxgang_os::{clock, process};
use oxgang_shm::oversight::Oversight;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::payload;
use crate::python::names;
use crate::template::Invitation;

/// Tasks in a row without giving other threads of the worker a chance at the interpreter.
const IN_A_ROW: u32 = 64;

/// A function as it came, or as it is once it was needed.
enum Function {
    Sent(Vec<u8>),
    Loaded(Py<PyAny>),
}

/// What a signal's handler asks.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Interrupt {
    page: Oversight<Mapped>,
    /// Position + 1 of the task that can be interrupted; 0: none.
    running: AtomicU64,
    raised: AtomicBool,
}

#[pymethods]
impl Interrupt {
    /// The limit, in seconds, that the running task has passed, so that it shall stop; `None`:
    /// there is no such task. Said once.
    fn due(&self) -> Option<f64> {
        let running = self.running.load(Ordering::Relaxed);
        let limit = self.page.interrupted(running.checked_sub(1)?)?;
        self.running.store(0, Ordering::Relaxed);
        self.raised.store(true, Ordering::Relaxed);
        Some(limit as f64 / 1e9)
    }
}

impl Interrupt {
    /// Makes this process one that can be interrupted.
    fn arm(py: Python<'_>, worker: &Worker) -> PyResult<Py<Self>> {
        let page = worker.oversight();
        let interrupt = Self { page, running: AtomicU64::new(0), raised: AtomicBool::new(false) };
        let interrupt = Py::new(py, interrupt)?;
        // for the life of the process; without it there will be no stacks, that is all
        let stacks = worker.stacks().ok().map(IntoRawFd::into_raw_fd);
        let signals = (process::soft_signal(), process::dump_signal());
        let arguments = (&interrupt, stacks, signals.0, signals.1);
        let skills = py.import("oxgang._limits")?.getattr("arm")?.call1(arguments)?;
        interrupt.get().page.set_skills(skills.extract()?);
        Ok(interrupt)
    }

    fn begin(&self, position: u64) {
        self.raised.store(false, Ordering::Relaxed);
        self.page.begin(position, clock::now());
        self.running.store(position + 1, Ordering::Relaxed);
    }

    /// From now on the task cannot be interrupted. Whether it has been.
    fn end(&self) -> bool {
        self.running.store(0, Ordering::Relaxed);
        self.page.end();
        self.raised.load(Ordering::Relaxed)
    }
}

/// Serves a pool until it says stop, or is gone. `setup` gets the bytes that the owner sends
/// first.
#[pyfunction]
pub fn work(py: Python<'_>, invitation: &Invitation, setup: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut worker = Worker::join(invitation.take()?).map_err(PyOSError::new_err)?;
    let slots = wire::SLOTS + wire::FILTERS;
    let mut functions: Vec<Option<Function>> = (0..slots).map(|_| None).collect();
    let mut armed: Option<Py<Interrupt>> = None;
    let mut in_a_row = 0;
    region::take_down_sent();
    loop {
        in_a_row += 1;
        let quick = if in_a_row < IN_A_ROW { worker.try_next() } else { Ok(None) };
        let next = match quick {
            Ok(Some(request)) => Ok(Next::Request(request)),
            Ok(None) => {
                in_a_row = 0;
                py.detach(|| worker.wait_next())
            }
            Err(error) => Err(error),
        };
        let request = match next.map_err(PyOSError::new_err)? {
            Next::Request(request) => request,
            Next::Signal => {
                py.check_signals()?;
                continue;
            }
        };
        let slot = wire::slot(request.aux);
        match request.kind {
            wire::TASK => {
                let interrupt = if request.aux & wire::OVERSEEN == 0 {
                    None
                } else {
                    if armed.is_none() {
                        armed = Some(Interrupt::arm(py, &worker)?);
                    }
                    armed.as_ref().map(Py::get).inspect(|one| one.begin(request.position))
                };
                let start = Instant::now();
                let filter = wire::filter(request.aux);
                let (kind, answer, done_with) =
                    answer(py, &mut functions, slot, filter, &worker, interrupt);
                let nanoseconds = start.elapsed().as_nanos() as u64;
                worker.add_regions(region::take_sent());
                publish(py, &mut worker, kind, request.id, nanoseconds, answer)?;
                drop(done_with);
            }
            wire::DEFINE => {
                let bytes = worker.fetch_payload().map_err(PyOSError::new_err)?;
                functions[slot] = Some(Function::Sent(bytes.to_vec()));
            }
            wire::SETUP => {
                let bytes = worker.fetch_payload().map_err(PyOSError::new_err)?;
                let bytes = PyBytes::new(py, bytes);
                let told = setup.call1((bytes,)).map(|_| ());
                let failed = told.is_err();
                let (kind, why) = match told {
                    Ok(()) => (wire::READY, Vec::new()),
                    Err(error) => (wire::SETUP_FAILED, error.to_string().into_bytes()),
                };
                publish(py, &mut worker, kind, 0, 0, why.into())?;
                if failed {
                    return Ok(());
                }
            }
            wire::STOP => return Ok(()),
            // a newer owner's request: refusing is safer than guessing
            _ => return Err(PyOSError::new_err("a request of an unknown kind")),
        }
    }
}

fn publish(
    py: Python<'_>,
    worker: &mut Worker,
    kind: u8,
    id: u64,
    aux: u64,
    mut answer: Payload,
) -> PyResult<()> {
    let first = worker.publish_now(kind, id, aux, &mut answer);
    let published = match first {
        Ok(true) => Ok(()),
        // no room yet: wait for it without the interpreter
        Ok(false) => py.detach(|| worker.publish(kind, id, aux, &mut answer)),
        Err(error) => Err(error),
    };
    published.or_else(|error| {
        if kind != wire::RESULT {
            return Err(PyOSError::new_err(error));
        }
        // most likely no memory for the block: the task's error, and a short one
        let size = answer.length();
        let text = format!("no shared memory for a result of {size} bytes: {error}");
        let error = pyo3::exceptions::PyMemoryError::new_err(text);
        let mut answer = payload::of_error(py, error, false)?;
        py.detach(|| worker.publish(wire::FAILURE, id, aux, &mut answer))
            .map_err(PyOSError::new_err)
    })
}

/// What a call leaves behind: the end of many objects takes a while, which nobody need wait for.
type DoneWith<'py> = Option<(Bound<'py, PyAny>, Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)>;

/// Runs the call: kind and bytes of the answer, and what to drop when it is out.
fn answer<'py>(
    py: Python<'py>,
    functions: &mut [Option<Function>],
    slot: usize,
    filter: Option<usize>,
    worker: &Worker,
    interrupt: Option<&Interrupt>,
) -> (u8, Payload, DoneWith<'py>) {
    let end = || interrupt.is_some_and(Interrupt::end);
    let failure = |functions: &mut [Option<Function>], error: PyErr, decoding: bool| {
        let decoding = !end() && decoding; // its limit is not its data's fault
        let again = match filter.map(|filter| load(py, &mut functions[filter])) {
            Some(Ok(Some(classes))) => is_one_of(py, &error, classes).unwrap_or(false),
            Some(Ok(None)) | None => false,
            Some(Err(failure)) => {
                let bytes = payload::of_error(py, failure, true);
                return (wire::FAILURE, bytes.unwrap_or_default(), None);
            }
        };
        let bytes = payload::of_error(py, error, decoding);
        // dump_error falls back by itself; what is left is an empty failure, a clear one
        (if again { wire::AGAIN } else { wire::FAILURE }, bytes.unwrap_or_default(), None)
    };
    let call = load(py, &mut functions[slot]);
    let call = call.and_then(|f| Ok((f, payload::to_call(py, worker)?)));
    let (function, (args, kwargs)) = match call {
        Ok((Some(function), call)) => (function.into_bound(py), call),
        Ok((None, (all, kwargs))) => match all.get_item(0) {
            Ok(function) => (function, (all.get_slice(1, all.len()), kwargs)),
            Err(error) => return failure(functions, error, true),
        },
        Err(error) => return failure(functions, error, true),
    };
    let value = match function.call(&args, kwargs.as_ref()) {
        Ok(value) => value,
        Err(error) => return failure(functions, error, false),
    };
    match payload::of_value(worker, &value) {
        Ok(answer) => {
            end();
            // blocks that came along must be seen to be free, or not, before the answer says so
            let done_with = worker.attached().is_empty().then_some((value, args, kwargs));
            (wire::RESULT, answer, done_with)
        }
        Err(error) => failure(functions, error, false),
    }
}

fn is_one_of(py: Python<'_>, error: &PyErr, names: Py<PyAny>) -> PyResult<bool> {
    let is_one_of = py.import("oxgang._limits")?.getattr("is_one_of")?;
    is_one_of.call1((error.value(py), names))?.extract()
}

/// The function of a slot; `None`: it comes with the arguments.
fn load(py: Python<'_>, function: &mut Option<Function>) -> PyResult<Option<Py<PyAny>>> {
    match function {
        Some(Function::Loaded(loaded)) => Ok(Some(loaded.clone_ref(py))),
        Some(Function::Sent(bytes)) if bytes.is_empty() => Ok(None),
        Some(Function::Sent(bytes)) => {
            let loaded = names(py)?.load_callable.call1(py, (PyBytes::new(py, bytes),))?;
            *function = Some(Function::Loaded(loaded.clone_ref(py)));
            Ok(Some(loaded))
        }
        None => Err(PyOSError::new_err("the task's function has not arrived")),
    }
}

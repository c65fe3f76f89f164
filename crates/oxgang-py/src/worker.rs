//! The worker's loop, on the main thread of a worker process.

use std::time::Instant;

use oxgang::Payload;
use oxgang::wire;
use oxgang::worker::{Next, Worker};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

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

/// Serves a pool until it says stop, or is gone. `setup` gets the bytes that the owner sends
/// first.
#[pyfunction]
pub fn work(py: Python<'_>, invitation: &Invitation, setup: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut worker = Worker::join(invitation.take()?).map_err(PyOSError::new_err)?;
    let mut functions: Vec<Option<Function>> = (0..wire::SLOTS).map(|_| None).collect();
    let mut in_a_row = 0;
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
        let slot = request.aux as usize % wire::SLOTS;
        match request.kind {
            wire::TASK => {
                let start = Instant::now();
                let (kind, answer) = answer(py, &mut functions[slot], &mut worker);
                let nanoseconds = start.elapsed().as_nanos() as u64;
                publish(py, &mut worker, kind, request.id, nanoseconds, answer)?;
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

/// Runs the call: kind and bytes of the answer.
fn answer(py: Python<'_>, function: &mut Option<Function>, worker: &mut Worker) -> (u8, Payload) {
    let failure = |error: PyErr, decoding: bool| {
        let bytes = payload::of_error(py, error, decoding);
        // dump_error falls back by itself; what is left is an empty failure, a clear one
        (wire::FAILURE, bytes.unwrap_or_default())
    };
    let called = match load(py, function).and_then(|f| Ok((f, payload::to_call(py, worker)?))) {
        Err(error) => return failure(error, true),
        Ok((Some(function), (args, kwargs))) => function.bind(py).call(args, kwargs.as_ref()),
        Ok((None, (all, kwargs))) => {
            let rest = all.get_slice(1, all.len());
            let function = all.get_item(0);
            drop(all);
            function.and_then(|function| function.call(rest, kwargs.as_ref()))
        }
    };
    match called.and_then(|value| payload::of_value(worker.store(), &value)) {
        Ok(answer) => (wire::RESULT, answer),
        Err(error) => failure(error, false),
    }
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

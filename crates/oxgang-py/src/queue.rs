//! Queues between processes: `oxgang::queue` with Python's rules of waiting.
//!
//! What needs no waiting is done with the interpreter held, as long as it is short; all else without
//! it. An object becomes bytes before any lock is taken, and bytes become an object when all
//! are given back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use oxgang::lane::{Got, Sent};
use oxgang::queue::Queue;
use oxgang::shelf::Letter;
use oxgang::sync::Wait;
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::message::{self, Message, Received, Taken, no_memory, with_buffer};
use crate::sync::waiting_long;
use crate::wait::{self, may_block};

/// `((pid, fd, key), doorbell)`; see [`oxgang::queue::Address`].
type PyAddress = ((u32, i32, (u64, u64)), i32);

/// What a queue raises.
struct Raised {
    empty: Py<PyAny>,
    full: Py<PyAny>,
    shut: Py<PyAny>,
}

fn raised(py: Python<'_>) -> PyResult<&Raised> {
    static RAISED: PyOnceLock<Raised> = PyOnceLock::new();
    RAISED.get_or_try_init(py, || {
        let of = |module: &str, name: &str| -> PyResult<Py<PyAny>> {
            Ok(py.import(module)?.getattr(name)?.unbind())
        };
        let (empty, full) = (of("queue", "Empty")?, of("queue", "Full")?);
        Ok(Raised { empty, full, shut: of("oxgang.errors", "ShutDown")? })
    })
}

fn raise(py: Python<'_>, which: impl Fn(&Raised) -> &Py<PyAny>) -> PyErr {
    let made = raised(py).and_then(|raised| which(raised).call0(py));
    made.map_or_else(|error| error, |error| PyErr::from_value(error.into_bound(py)))
}

/// A queue that processes share.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
pub struct SharedQueue {
    queue: OnceLock<Arc<Queue>>,
    closed: AtomicBool,
    /// Something was put in by way of this handle.
    used: AtomicBool,
}

impl SharedQueue {
    fn opened(&self) -> PyResult<&Arc<Queue>> {
        self.queue.get().ok_or_else(|| {
            PyRuntimeError::new_err("the queue has not been set up: call the class's __init__")
        })
    }

    fn usable(slf: &Bound<'_, Self>) -> PyResult<Arc<Queue>> {
        let this = slf.get();
        if this.closed.load(Ordering::Relaxed) {
            let text = format!("Queue {} is closed", slf.repr()?);
            return Err(PyValueError::new_err(text));
        }
        this.opened().cloned()
    }

    fn take_over(&self, queue: Arc<Queue>) -> PyResult<()> {
        self.queue.set(queue).map_err(|_| PyRuntimeError::new_err("the queue has been set up"))
    }

    /// What is to become of an object that cannot be put in: a class can say so, where the standard
    /// queue's would be told by its thread.
    #[cold]
    fn not_encoded(slf: &Bound<'_, Self>, error: PyErr, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        if !error.is_instance_of::<PyException>(py) {
            return Err(error);
        }
        match slf.getattr_opt(intern!(py, "_on_queue_feeder_error"))? {
            Some(hook) => hook.call1((error.into_value(py), obj)).map(drop),
            None => Err(error),
        }
    }

    #[cold]
    fn put_slowly(
        py: Python<'_>,
        queue: &Queue,
        letter: Letter<'_>,
        block: bool,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let deadline = if block { wait::deadline(timeout)? } else { None };
        let (sent, error) =
            waiting_long(py, queue.words(), deadline, |kernel| queue.send(kernel, block, letter));
        Self::after_put(py, sent, letter, error)
    }

    fn after_put(
        py: Python<'_>,
        sent: std::io::Result<Sent>,
        letter: Letter<'_>,
        error: Option<PyErr>,
    ) -> PyResult<()> {
        match sent.map_err(|error| no_memory(&error, letter.length()))? {
            Sent::Yes => error.map_or(Ok(()), Err),
            Sent::Shut => Err(error.unwrap_or_else(|| raise(py, |raised| &raised.shut))),
            Sent::Full | Sent::Tight | Sent::Busy => {
                Err(error.unwrap_or_else(|| raise(py, |raised| &raised.full)))
            }
        }
    }

    /// For what is long, or contended: received without the interpreter.
    #[cold]
    fn get_slowly(
        py: Python<'_>,
        queue: &Queue,
        deadline: Option<Instant>,
        block: bool,
        into: &mut Taken<'_>,
    ) -> PyResult<()> {
        let (got, error) = waiting_long(py, queue.words(), deadline, |kernel| {
            queue.receive(kernel, block, |came| into.take(came))
        });
        match got.map_err(|error| no_memory(&error, 0))? {
            Got::Message => error.map_or(Ok(()), Err),
            Got::Shut => Err(error.unwrap_or_else(|| raise(py, |raised| &raised.shut))),
            _ => Err(error.unwrap_or_else(|| raise(py, |raised| &raised.empty))),
        }
    }

    /// Waits for an item.
    #[cold]
    fn wait(py: Python<'_>, queue: &Queue, deadline: Option<Instant>) -> PyResult<()> {
        let (more, error) = waiting_long(py, queue.words(), deadline, |kernel| queue.wait(kernel));
        match error {
            Some(error) => Err(error),
            None if more => Ok(()),
            None => Err(raise(py, |raised| &raised.empty)),
        }
    }
}

#[pymethods]
impl SharedQueue {
    /// Subclasses have signatures of their own: what there is to say is said to `_open`.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(
        _args: &Bound<'_, pyo3::types::PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> Self {
        Self {
            queue: OnceLock::new(),
            closed: AtomicBool::new(false),
            used: AtomicBool::new(false),
        }
    }

    /// Sets it up, as a new one for up to `most` items; 0: any number.
    fn _open(&self, most: u64) -> PyResult<()> {
        self.take_over(Queue::create(most)?)
    }

    /// Sets it up as the one at an address; `inherited`: descriptors of this process that stand for
    /// the two of the address.
    fn _attach(&self, address: PyAddress, inherited: Option<(i32, i32)>) -> PyResult<()> {
        let queue = Queue::open(address, inherited).map_err(|error| {
            let ((pid, _, _), _) = address;
            PyOSError::new_err(format!(
                "a queue did not arrive: process {pid}, which sent it, has ended or let go of it \
                 ({error}); keep it there until it is in use here"
            ))
        })?;
        self.take_over(queue)
    }

    fn _address(&self, inherit: bool) -> PyResult<PyAddress> {
        let queue = self.opened()?;
        Ok(if inherit { queue.address() } else { queue.send_handle() })
    }

    /// Puts an item in; `block=False`, or a time limit in seconds.
    #[pyo3(signature = (obj, block=None, timeout=None))]
    fn put(
        slf: &Bound<'_, Self>,
        obj: &Bound<'_, PyAny>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let queue = Self::usable(slf)?;
        slf.get().used.store(true, Ordering::Relaxed);
        let message = match Message::of(obj) {
            Ok(message) => message,
            Err(error) => return Self::not_encoded(slf, error, obj),
        };
        if let Some(bytes) = message.short() {
            let parts = [bytes];
            let letter = Letter { parts: &parts, apart: &[] };
            return match queue.send_now(&parts) {
                Ok(Sent::Yes) => Ok(()),
                Ok(Sent::Full | Sent::Tight | Sent::Busy) => {
                    Self::put_slowly(slf.py(), &queue, letter, may_block(block)?, timeout)
                }
                other => Self::after_put(slf.py(), other, letter, None),
            };
        }
        let letter = Letter { parts: &message.parts(), apart: &message.apart() };
        if letter.length() < message::LONG
            && let Ok(Sent::Yes) = queue.send_now(&letter.in_line())
        {
            return Ok(());
        }
        Self::put_slowly(slf.py(), &queue, letter, may_block(block)?, timeout)
    }

    /// Takes an item out; `block=False`, or a time limit in seconds.
    #[pyo3(signature = (block=None, timeout=None))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        block: Option<&Bound<'py, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, queue) = (slf.py(), Self::usable(slf)?);
        with_buffer(|buffer| {
            let mut received = Received::new(py, buffer);
            let mut limits = None;
            loop {
                let got = queue.receive_now(message::LONG, |came| received.take(came));
                let got = got.map_err(|error| no_memory(&error, 0))?;
                if got == Got::Message {
                    return received.value();
                }
                let (block, deadline) = match limits {
                    Some(limits) => limits,
                    None => {
                        let block = may_block(block)?;
                        *limits.insert((block, if block { wait::deadline(timeout)? } else { None }))
                    }
                };
                match got {
                    Got::Shut => return Err(raise(py, |raised| &raised.shut)),
                    Got::Nothing if block => Self::wait(py, &queue, deadline)?,
                    Got::Nothing => return Err(raise(py, |raised| &raised.empty)),
                    _ => {
                        Self::get_slowly(py, &queue, deadline, block, &mut received.message)?;
                        return received.value();
                    }
                }
            }
        })
    }

    /// How many items are in it now.
    fn qsize(&self) -> PyResult<u64> {
        Ok(self.opened()?.lane().count())
    }

    /// Whether there is none.
    fn empty(&self) -> PyResult<bool> {
        // as the standard queue, whose end to read from is closed then
        if self.closed.load(Ordering::Relaxed) && self.used.load(Ordering::Relaxed) {
            return Err(PyOSError::new_err("handle is closed"));
        }
        Ok(self.opened()?.lane().count() == 0)
    }

    /// Whether there are as many as there can be.
    fn full(&self) -> PyResult<bool> {
        let lane = self.opened()?.lane();
        Ok(lane.most().is_some_and(|most| lane.count() >= most))
    }

    fn _task_done(&self) -> PyResult<()> {
        let queue = self.opened()?;
        let done = queue.lane().task_done(&Wait::steadfast(queue.words()));
        done.map_err(|_| PyValueError::new_err("task_done() called too many times"))
    }

    #[pyo3(signature = (timeout=None))]
    fn _join(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let queue = slf.get().opened()?;
        let deadline = wait::deadline(timeout)?;
        let (done, error) = waiting_long(slf.py(), queue.words(), deadline, |kernel| {
            queue.lane().wait_finished(kernel)
        });
        error.map_or(Ok(done), Err)
    }

    /// Nothing more is put in; `immediate`: nor taken out.
    #[pyo3(signature = (immediate=false))]
    fn shutdown(&self, immediate: bool) -> PyResult<()> {
        self.opened()?.shut(immediate);
        Ok(())
    }

    #[getter]
    fn is_shutdown(&self) -> PyResult<bool> {
        Ok(self.opened()?.lane().is_shut())
    }

    /// Waits until there is something to take out; `False`: not within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn _poll(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let queue = slf.get().opened()?;
        if queue.lane().has_more() {
            return Ok(true);
        }
        let deadline = wait::deadline(timeout)?;
        let (more, error) = waiting_long(slf.py(), queue.words(), deadline, |kernel| {
            queue.lane().wait_for_more(kernel)
        });
        error.map_or(Ok(more), Err)
    }

    /// The number of a descriptor that is readable while there is something to take out.
    fn _watch_fd(&self) -> PyResult<i32> {
        use std::os::fd::AsRawFd;
        Ok(self.opened()?.watch_fd().as_raw_fd())
    }

    /// This process puts nothing more in, and takes nothing more out.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    #[getter]
    fn _closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

//! The line between a proxy's thread and its thread in a manager's server: `oxgang::line` with
//! Python's values and rules of waiting.
//!
//! | a message | holds |
//! |---|---|
//! | of the asker's | identity of the object, name of the method, arguments, keywords |
//! | of the answerer's | kind of the answer, value |
//!
//! as [`crate::message`] writes them. Long buffers go apart.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use oxgang::line::{Line as Engine, Patience, Places, Trouble};
use oxgang::shelf::{Apart, Letter};
use oxgang_os::bell::Bell;
use pyo3::exceptions::{PyEOFError, PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::message::{self, Message};
use crate::{raw, wait};

/// More than this is not kept for the next message.
const KEPT: usize = 1 << 20;

/// Where those who use a server's lines may spin.
#[pyclass(frozen, module = "oxgang._core")]
pub struct LinePlaces(Places);

#[pymethods]
impl LinePlaces {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Places::new()?))
    }
}

/// One side of a line.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Line {
    inner: Mutex<Option<Inner>>,
    bell: Arc<Bell>,
    peer: i32,
    waits: AtomicBool,
}

struct Inner {
    line: Engine,
    buffer: Vec<u8>,
}

/// Waits without the interpreter: what came of it, and what a signal handler raised.
fn waiting<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Patience<'_>) -> Result<T, Trouble> + Send,
) -> (Result<T, Trouble>, Option<PyErr>) {
    let (pid, thread) = oxgang_os::process::own_numbers();
    py.detach(|| {
        let raised = Cell::new(None);
        let give_up = || wait::interrupted(&raised);
        let done = work(&Patience::new(pid == thread, &give_up));
        (done, raised.into_inner())
    })
}

/// Says a message by `say`.
fn saying<T>(message: &Message<'_>, say: impl FnOnce(Letter<'_>) -> T) -> T {
    match message.short() {
        Some(bytes) => say(Letter { parts: &[bytes], apart: &[] }),
        None => say(Letter { parts: &message.parts(), apart: &message.apart() }),
    }
}

/// What came apart from the message in the buffer, before the other side may use its slot again.
fn came_apart(line: &mut Engine, slot: Option<u32>, buffer: &[u8]) -> PyResult<Option<Arc<Apart>>> {
    let Some(slot) = slot else { return Ok(None) };
    let came = line.look(slot, message::length_apart(buffer)?)?;
    Ok(Some(Arc::new(came)))
}

impl Line {
    fn new(line: Engine) -> Self {
        let (bell, peer) = (line.bell(), line.peer());
        let inner = Mutex::new(Some(Inner { line, buffer: Vec::new() }));
        Self { inner, bell, peer, waits: AtomicBool::new(false) }
    }

    fn inner(&self) -> PyResult<MutexGuard<'_, Option<Inner>>> {
        let busy = "the line is in use by another call: each thread needs its own";
        self.inner.try_lock().map_err(|_| PyRuntimeError::new_err(busy))
    }

    fn error(&self, py: Python<'_>, trouble: Trouble, raised: Option<PyErr>, asks: bool) -> PyErr {
        if let Some(error) = raised {
            return error;
        }
        match trouble {
            Trouble::Gone if asks => gone(py, self.peer).unwrap_or_else(|error| error),
            Trouble::Gone => PyEOFError::new_err(format!("the client ({}) has ended", self.peer)),
            Trouble::Stopped => PyRuntimeError::new_err("the interpreter is ending"),
            Trouble::Broken(error) => PyOSError::new_err(error),
        }
    }
}

fn gone(py: Python<'_>, pid: i32) -> PyResult<PyErr> {
    let options = PyDict::new(py);
    options.set_item("pid", pid)?;
    let text = format!("the manager process ({pid}) has ended; make a new manager");
    let class = py.import("oxgang.errors")?.getattr("ManagerDied")?;
    Ok(PyErr::from_value(class.call((text,), Some(&options))?))
}

fn closed() -> PyErr {
    PyOSError::new_err("the line is closed")
}

#[pymethods]
impl Line {
    /// Whether the server is of this package: other ways to servers have it too.
    #[getter]
    fn known(&self) -> bool {
        true
    }

    /// Makes a line over a connected socket, whose descriptor it takes over: the server's side.
    #[staticmethod]
    fn offer(py: Python<'_>, fd: i32, places: &LinePlaces) -> PyResult<Self> {
        let socket = raw::adopt(fd)?;
        Ok(Self::new(py.detach(|| Engine::offer(socket, &places.0))?))
    }

    /// Takes up the line that is offered through a socket, whose descriptor it takes over.
    #[staticmethod]
    fn take_up(py: Python<'_>, fd: i32) -> PyResult<Self> {
        let socket = raw::adopt(fd)?;
        Ok(Self::new(py.detach(|| Engine::take_up(socket))?))
    }

    /// The other side's process.
    #[getter]
    fn pid(&self) -> i32 {
        self.peer
    }

    /// Whether the other side, which is gone, went with its process; waits so many seconds for that.
    fn went_with_process(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let guard = self.inner()?;
        let limit = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let line = &guard.as_ref().ok_or_else(closed)?.line;
        Ok(py.detach(|| line.went_with_process(limit)))
    }

    /// Whether a thread waits in `recv` now.
    #[getter]
    fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Whether the next call can go through it.
    fn usable(&self) -> bool {
        let guard = self.inner.try_lock().ok();
        guard.is_some_and(|guard| guard.as_ref().is_some_and(|inner| inner.line.usable()))
    }

    /// Lets go of it; the other side finds this one gone, whoever else has the socket open.
    fn close(&self) -> PyResult<()> {
        self.bell.hang_up();
        self.inner()?.take();
        Ok(())
    }

    /// Ends it while another thread may be using it.
    fn hang_up(&self) {
        self.bell.hang_up();
    }

    /// Calls a method: kind and value of the answer.
    fn call<'py>(
        &self,
        py: Python<'py>,
        ident: &Bound<'py, PyAny>,
        name: &Bound<'py, PyAny>,
        args: &Bound<'py, PyAny>,
        kwds: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let question = Message::of_several(py, [ident, name, args, kwds])?;
        let mut guard = self.inner()?;
        let Inner { line, buffer } = guard.as_mut().ok_or_else(closed)?;
        buffer.clear();
        let (done, raised) =
            saying(&question, |letter| waiting(py, |patience| line.ask(letter, buffer, patience)));
        let slot = done.map_err(|trouble| self.error(py, trouble, raised, true))?;
        let apart = came_apart(line, slot, buffer)?;
        // what unpickling runs may call through this thread's other ways, not through this one
        let taken = std::mem::take(buffer);
        drop(guard);
        let answer = message::to_several::<2>(py, &taken, apart.as_ref());
        self.keep(taken);
        answer
    }

    /// The next request.
    fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let mut guard = self.inner()?;
        let Inner { line, buffer } = guard.as_mut().ok_or_else(closed)?;
        buffer.clear();
        self.waits.store(true, Ordering::Release);
        let (done, raised) = waiting(py, |patience| line.listen(buffer, patience));
        self.waits.store(false, Ordering::Release);
        let slot = done.map_err(|trouble| self.error(py, trouble, raised, false))?;
        let apart = came_apart(line, slot, buffer)?;
        let taken = std::mem::take(buffer);
        drop(guard);
        let request = message::to_several::<4>(py, &taken, apart.as_ref());
        self.keep(taken);
        request
    }

    /// Sends an answer: a tuple of its kind and a value.
    fn send<'py>(&self, py: Python<'py>, answer: &Bound<'py, PyTuple>) -> PyResult<()> {
        let (kind, value) = (answer.get_borrowed_item(0)?, answer.get_borrowed_item(1)?);
        let answer = Message::of_several(py, [&kind.to_owned(), &value.to_owned()])?;
        let mut guard = self.inner()?;
        let Inner { line, .. } = guard.as_mut().ok_or_else(closed)?;
        let (done, raised) =
            saying(&answer, |letter| waiting(py, |patience| line.say(letter, patience)));
        done.map_err(|trouble| self.error(py, trouble, raised, false))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let name = slf.get_type().getattr(intern!(slf.py(), "__qualname__"))?;
        Ok(format!("<{name} to process {}>", slf.get().peer))
    }
}

impl Line {
    /// A buffer may be used for the next message, if nobody has begun one since.
    fn keep(&self, buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT
            && let Ok(mut guard) = self.inner.try_lock()
            && let Some(inner) = guard.as_mut()
        {
            inner.buffer = buffer;
        }
    }
}

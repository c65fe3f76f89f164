//! Ends of pipes: `oxgang::pipe` with Python's rules of waiting.
//!
//! An end is let go of by `close`; who is in the middle of a call with it finishes that.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use oxgang::pipe::{End, Heard};
use oxgang::shelf::Letter;
use oxgang::sync::Wait;
use pyo3::exceptions::{PyBrokenPipeError, PyEOFError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::message::{self, Message, Received, no_memory, with_buffer};
use crate::raw::{Lent, adopt};
use crate::sync::waiting_long;
use crate::wait;

/// What an end consists of: `((pid, fd, key), reader, writer, lanes, second)`.
type PyParts = ((u32, i32, (u64, u64)), Option<i32>, Option<i32>, usize, bool);

/// One end of a pipe.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
pub struct PipeEnd {
    end: Mutex<Slot>,
    deaf: AtomicBool,
}

/// What an end is now.
enum Slot {
    New,
    Open(Arc<End>),
    Closed { readable: bool, writable: bool },
}

/// What is wrong with a call.
fn not_this_way(what: &str) -> PyErr {
    PyOSError::new_err(format!("connection is {what}-only"))
}

impl PipeEnd {
    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        // held for an assignment: nothing in there panics
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> PyResult<Arc<End>> {
        match &*self.slot() {
            Slot::Open(end) => Ok(end.clone()),
            Slot::Closed { .. } => Err(PyOSError::new_err("handle is closed")),
            Slot::New => Err(PyRuntimeError::new_err("no end of a pipe: use Pipe()")),
        }
    }

    fn reading(&self) -> PyResult<Arc<End>> {
        let end = self.end()?;
        let hears = end.is_readable() && !self.deaf.load(Ordering::Relaxed);
        if hears { Ok(end) } else { Err(not_this_way("write")) }
    }

    fn writing(&self) -> PyResult<Arc<End>> {
        let end = self.end()?;
        if end.is_writable() { Ok(end) } else { Err(not_this_way("read")) }
    }

    fn take_over(&self, end: End) -> PyResult<()> {
        let mut slot = self.slot();
        if !matches!(*slot, Slot::New) {
            return Err(PyRuntimeError::new_err("the end of a pipe has been set up"));
        }
        *slot = Slot::Open(Arc::new(end));
        Ok(())
    }

    fn directions(&self) -> (bool, bool) {
        match &*self.slot() {
            Slot::Open(end) => (end.is_readable(), end.is_writable()),
            Slot::Closed { readable, writable } => (*readable, *writable),
            Slot::New => (false, false),
        }
    }

    fn send_letter(py: Python<'_>, end: &End, letter: Letter<'_>) -> PyResult<()> {
        let Some(words) = end.words() else { return Err(not_this_way("read")) };
        let mut heard = Heard::Nothing;
        let length = letter.length();
        let refused = |error| no_memory(&error, length);
        if length < message::LONG {
            heard = end.send_now(&letter.in_line()).map_err(refused)?;
        }
        while heard == Heard::Nothing {
            let (sent, error) = waiting_long(py, words, None, |kernel| end.send(kernel, letter));
            heard = sent.map_err(refused)?;
            match (heard, error) {
                (Heard::Message, None) => break,
                (_, Some(error)) => return Err(error),
                _ => {}
            }
        }
        match heard {
            Heard::Message => Ok(()),
            Heard::Gone => Err(PyBrokenPipeError::new_err((
                32,
                "Broken pipe: nobody has the other end of the connection any more",
            ))),
            _ => Err(not_this_way("read")),
        }
    }

    fn send_message(py: Python<'_>, end: &End, message: &Message<'_>) -> PyResult<()> {
        Self::send_letter(py, end, Letter { parts: &message.parts(), apart: &message.apart() })
    }

    fn receive(py: Python<'_>, end: &End, received: &mut Received<'_, '_>) -> PyResult<()> {
        let Some(words) = end.words() else { return Err(not_this_way("write")) };
        let refused = |error| no_memory(&error, 0);
        let take = |received: &mut Received<'_, '_>| {
            end.receive_now(message::LONG, |came| received.take(came))
        };
        let mut heard = take(received).map_err(refused)?;
        while heard == Heard::Nothing {
            let (there, error) = waiting_long(py, words, None, |kernel| end.wait(kernel));
            if let Some(error) = error {
                return Err(error);
            }
            match there? {
                Heard::Message => heard = take(received).map_err(refused)?,
                Heard::Nothing => continue,
                other => heard = other,
            }
            if heard == Heard::Nothing {
                // long, or others are at it: without the interpreter
                let into = &mut received.message;
                let (got, error) = waiting_long(py, words, None, |kernel| {
                    end.receive(kernel, |came| into.take(came))
                });
                heard = got.map_err(refused)?;
                if let Some(error) = error {
                    return Err(error);
                }
            }
        }
        match heard {
            Heard::Message => Ok(()),
            Heard::Gone => Err(PyEOFError::new_err(())),
            _ => Err(not_this_way("write")),
        }
    }
}

#[pymethods]
impl PipeEnd {
    /// One that is yet to be set up.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(
        _args: &Bound<'_, pyo3::types::PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> Self {
        Self { end: Mutex::new(Slot::New), deaf: AtomicBool::new(false) }
    }

    /// Sets two up as the ends of a new pipe.
    #[staticmethod]
    fn _pair(one: &Bound<'_, Self>, other: &Bound<'_, Self>, two_way: bool) -> PyResult<()> {
        let (first, second) = End::pair(two_way)?;
        one.get().take_over(first)?;
        other.get().take_over(second)
    }

    /// Sets it up from parts; the descriptors to read from and to write to become its own.
    fn _assemble(&self, parts: PyParts) -> PyResult<()> {
        let (memory, reader, writer, lanes, second) = parts;
        let (reader, writer) = (reader.map(adopt).transpose()?, writer.map(adopt).transpose()?);
        let end = End::assemble(memory, reader, writer, lanes, second).map_err(|error| {
            PyOSError::new_err(format!(
                "a connection did not arrive: its memory is not to be had any more ({error})"
            ))
        })?;
        self.take_over(end)
    }

    fn _parts(&self) -> PyResult<PyParts> {
        Ok(self.end()?.parts())
    }

    /// Sends an object.
    fn send(&self, py: Python<'_>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let end = self.writing()?;
        let message = Message::of(obj)?;
        match message.short() {
            Some(bytes) => Self::send_letter(py, &end, (&[bytes][..]).into()),
            None => Self::send_message(py, &end, &message),
        }
    }

    /// Sends bytes.
    #[pyo3(signature = (buf, offset=0, size=None))]
    fn send_bytes(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: isize,
        size: Option<isize>,
    ) -> PyResult<()> {
        let end = self.writing()?;
        let lent = match Lent::of(buf) {
            Ok(lent) => lent,
            Err(_) => {
                // of items of another kind: their bytes
                let view = py.get_type::<PyMemoryView>().call1((buf,))?;
                Lent::of(&view.call_method1("cast", ("B",))?)?
            }
        };
        let length = lent.as_ref().len();
        let wrong = |text: &str| Err(PyValueError::new_err(text.to_owned()));
        let Ok(from) = usize::try_from(offset) else { return wrong("offset is negative") };
        if length < from {
            return wrong("buffer length < offset");
        }
        let count = match size {
            None => length - from,
            Some(size) => match usize::try_from(size) {
                Err(_) => return wrong("size is negative"),
                Ok(size) if size > length - from => return wrong("buffer length < offset + size"),
                Ok(size) => size,
            },
        };
        let message = Message::of_bytes(lent, from..from + count);
        Self::send_message(py, &end, &message)
    }

    /// Receives an object.
    fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let end = self.reading()?;
        with_buffer(|buffer| {
            let mut received = Received::new(py, buffer);
            Self::receive(py, &end, &mut received)?;
            received.value()
        })
    }

    /// Receives bytes.
    #[pyo3(signature = (maxlength=None))]
    fn recv_bytes<'py>(
        &self,
        py: Python<'py>,
        maxlength: Option<isize>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let end = self.reading()?;
        let most = match maxlength.map(usize::try_from) {
            Some(Err(_)) => return Err(PyValueError::new_err("negative maxlength")),
            Some(Ok(most)) => most,
            None => usize::MAX,
        };
        with_buffer(|buffer| {
            let mut received = Received::new(py, buffer);
            Self::receive(py, &end, &mut received)?;
            let bytes = received.bytes()?;
            if bytes.as_bytes().len() > most {
                self.deafen(&end);
                return Err(PyOSError::new_err("bad message length"));
            }
            Ok(bytes)
        })
    }

    /// Whether there is something to receive, waiting for it for `timeout` seconds at most (`None`:
    /// as long as it takes).
    #[pyo3(signature = (timeout=None))]
    fn _poll(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let end = self.reading()?;
        let Some(words) = end.words() else { return Err(not_this_way("write")) };
        if end.look()? != Heard::Nothing {
            return Ok(true);
        }
        let deadline = wait::deadline(timeout)?;
        if deadline.is_some_and(|deadline| deadline <= std::time::Instant::now()) {
            return Ok(false);
        }
        loop {
            let (heard, error) =
                waiting_long(py, words, deadline, |kernel: &Wait<'_>| end.wait(kernel));
            if let Some(error) = error {
                return Err(error);
            }
            match heard? {
                Heard::Nothing if deadline.is_none() => {}
                heard => return Ok(heard != Heard::Nothing),
            }
        }
    }

    /// The number of its descriptor: readable while there is something to receive, or nobody to send
    /// it.
    fn fileno(&self) -> PyResult<i32> {
        let end = self.end()?;
        // the interpreter is held, so that no thread of Python forks meanwhile
        let fd = end.watch_fd().map(|fd| fd.as_raw_fd());
        fd.ok_or_else(|| PyOSError::new_err("handle is invalid"))
    }

    /// Lets go of it.
    fn close(&self) {
        let (readable, writable) = self.directions();
        let mut slot = self.slot();
        let gone = std::mem::replace(&mut *slot, Slot::Closed { readable, writable });
        drop(slot);
        drop(gone);
    }

    /// Whether it was let go of.
    #[getter]
    fn closed(&self) -> bool {
        !matches!(*self.slot(), Slot::Open(_))
    }

    /// Whether it receives.
    #[getter]
    fn readable(&self) -> bool {
        self.directions().0 && !self.deaf.load(Ordering::Relaxed)
    }

    /// Whether it sends.
    #[getter]
    fn writable(&self) -> bool {
        self.directions().1
    }

    /// The number of its descriptor, if it is open; for those who look for it there.
    #[getter]
    fn _handle(&self) -> Option<i32> {
        let (_, reader, writer, ..) = self.end().ok()?.parts();
        reader.or(writer)
    }
}

impl PipeEnd {
    /// As the standard module documents it: after a message that was too long nothing is received
    /// any more.
    fn deafen(&self, end: &End) {
        self.deaf.store(true, Ordering::Relaxed);
        if !end.is_writable() {
            self.close();
        }
    }
}

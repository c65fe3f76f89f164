//! The template process, from both sides, and the lifeline that ends what outlives its owner.
//!
//! What it forks besides workers, the program's own processes, is in [`child`](crate::child).

use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use oxgang::child::Expected;
use oxgang::starter::Invited;
use oxgang::template::{Order, Server};
use oxgang_os::link::Link;
use oxgang_os::process;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::child::Child;
use crate::raw::adopt;

/// The owner's end of the line; dropping it (as a fork of the owner must) lets go of it.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Lifeline {
    line: process::Lifeline,
}

#[pymethods]
impl Lifeline {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self { line: process::Lifeline::new().map_err(PyOSError::new_err)? })
    }

    /// The descriptor that workers hold.
    fn fileno(&self) -> i32 {
        self.line.end_to_hold().as_raw_fd()
    }
}

/// What a worker holds so that it ends with its owner.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Held {
    _line: Option<OwnedFd>,
}

/// The owner's handle of its template process.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Template {
    pub inner: Arc<oxgang::template::Template>,
}

#[pymethods]
impl Template {
    /// Starts `arguments[0]`; `first` is its first message.
    #[new]
    fn new(
        py: Python<'_>,
        arguments: Vec<std::ffi::OsString>,
        first: &[u8],
        lifeline: &Lifeline,
    ) -> PyResult<Self> {
        let (program, rest) = arguments
            .split_first()
            .ok_or_else(|| PyRuntimeError::new_err("no program to start"))?;
        let line = lifeline.line.end_to_hold();
        let started = py.detach(|| oxgang::template::Template::start(program, rest, first, line));
        Ok(Self { inner: Arc::new(started.map_err(PyOSError::new_err)?) })
    }

    #[getter]
    fn pid(&self) -> i32 {
        self.inner.pid()
    }

    fn alive(&self) -> bool {
        self.inner.alive()
    }

    /// Tells it what to import.
    fn prepare(&self, what: &[u8]) -> PyResult<()> {
        self.inner.prepare(what).map_err(PyOSError::new_err)
    }

    /// Has it fork a process that is no worker, for which the descriptors are: they become its own.
    fn fork(&self, py: Python<'_>, fds: Vec<RawFd>) -> PyResult<Child> {
        let fds = fds.into_iter().map(adopt).collect::<PyResult<Vec<_>>>()?;
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let expected = Expected::new(self.inner.fork(&fds)?)?;
        Child::expect(py, expected)
    }

    /// Ends it and waits for that.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.end()).map_err(PyOSError::new_err)
    }
}

/// An invitation to be a worker, to be taken up once.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Invitation {
    invited: Mutex<Option<Invited>>,
}

impl Invitation {
    pub fn take(&self) -> PyResult<Invited> {
        let invited = self.invited.lock().unwrap_or_else(PoisonError::into_inner).take();
        invited.ok_or_else(|| PyRuntimeError::new_err("the invitation has been taken up"))
    }
}

#[pymethods]
impl Invitation {
    /// From the three descriptors, which become its own.
    #[new]
    fn new(incarnation: u64, channel: i32, pool: i32, wake: i32) -> PyResult<Self> {
        let invited = Invited {
            incarnation,
            channel: adopt(channel)?,
            pool: adopt(pool)?,
            wake: adopt(wake)?,
        };
        Ok(Self { invited: Mutex::new(Some(invited)) })
    }
}

/// Holds the line: this process is killed when its owner ends.
#[pyfunction]
pub fn hold_lifeline(fd: i32) -> PyResult<Held> {
    let line = adopt(fd)?;
    let held = process::hold(line.as_fd())?; // as an OSError of its kind
    Ok(Held { _line: Some(held) })
}

/// The template's own side. One thread uses it.
#[pyclass(module = "oxgang._core", unsendable)]
pub struct TemplateServer {
    server: Option<Server>,
}

#[pymethods]
impl TemplateServer {
    /// With a descriptor of the link, which becomes its own.
    #[new]
    fn new(fd: i32) -> PyResult<Self> {
        Ok(Self { server: Some(Server::new(Link::adopt(adopt(fd)?))) })
    }

    /// The next order: `None` (the owner is gone), bytes (warm this up), `(link, incarnation,
    /// invitation)`: fork a worker; or `(link, descriptors)`: fork a process that they are for.
    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let server = self.server()?;
        match server.next_order().map_err(PyOSError::new_err)? {
            Order::End => Ok(py.None().into_bound(py)),
            Order::Prepare(what) => Ok(PyBytes::new(py, &what).into_any()),
            Order::Fork(invited, link) => {
                let one = invited.incarnation;
                let invitation = Invitation { invited: Mutex::new(Some(invited)) };
                Ok((link, one, invitation).into_pyobject(py)?.into_any())
            }
            Order::Process(fds, link) => {
                let fds: Vec<RawFd> = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
                Ok((link, fds).into_pyobject(py)?.into_any())
            }
        }
    }

    /// The fork is there.
    fn started(&mut self, link: usize, incarnation: u64, pid: i32) -> PyResult<()> {
        self.server()?.started(link, incarnation, pid).map_err(PyOSError::new_err)
    }

    /// The fork failed.
    fn refused(&mut self, link: usize, incarnation: u64, why: &str) -> PyResult<()> {
        self.server()?.refused(link, incarnation, why);
        Ok(())
    }

    /// In the fork: lets go of the template's things. Keep what is returned.
    fn leave(&mut self) -> PyResult<Held> {
        let server = self.server.take();
        let server = server.ok_or_else(|| PyRuntimeError::new_err("left already"))?;
        Ok(Held { _line: server.leave()? })
    }
}

impl TemplateServer {
    fn server(&mut self) -> PyResult<&mut Server> {
        self.server.as_mut().ok_or_else(|| PyRuntimeError::new_err("the template has been left"))
    }
}

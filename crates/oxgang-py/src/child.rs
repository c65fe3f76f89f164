//! `Child`: a process of the program, and waiting for its end.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use oxgang::child::{self, Expected};
use oxgang_os::process::Exit;
use pyo3::prelude::*;

use crate::wait;

/// A signal may come in the moment between the last look and the sleep, and interrupts nothing
/// then; so nobody sleeps longer than this.
const SLICE: Duration = Duration::from_millis(200);

/// What Python is told of an end that nobody knows, as the standard fork server has it.
const UNKNOWN: i32 = 255;

/// A process that this one has forked, or that the template has.
#[pyclass(frozen, weakref, module = "oxgang._core")]
pub struct Child {
    child: child::Child,
}

impl Child {
    /// What the template was asked for, once it is there.
    pub fn expect(py: Python<'_>, mut expected: Expected) -> PyResult<Self> {
        loop {
            if let Some(child) = py.detach(|| expected.wait(SLICE))? {
                return Ok(Self { child });
            }
            py.check_signals()?;
        }
    }
}

fn code(exit: Exit) -> i32 {
    exit.code().unwrap_or(UNKNOWN)
}

#[pymethods]
impl Child {
    /// One that this process has just forked.
    #[new]
    fn new(pid: i32) -> PyResult<Self> {
        Ok(Self { child: child::Child::own(pid)? })
    }

    #[getter]
    fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// What becomes readable when it ends.
    fn fileno(&self) -> i32 {
        self.child.as_fd().as_raw_fd()
    }

    /// How it ended; `None`: it runs.
    fn poll(&self, py: Python<'_>) -> Option<i32> {
        py.detach(|| self.child.poll()).map(code)
    }

    /// Waits until it ends, for `timeout` seconds at most: how, or `None`.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<i32>> {
        let deadline = wait::deadline(timeout)?;
        loop {
            let slice = Instant::now() + SLICE;
            let until = deadline.map_or(slice, |deadline| deadline.min(slice));
            if let Some(exit) = py.detach(|| self.child.wait(Some(until)))? {
                return Ok(Some(code(exit)));
            }
            py.check_signals()?;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(None);
            }
        }
    }

    /// Sends a signal; one that has ended gets none.
    fn signal(&self, number: i32) -> PyResult<()> {
        Ok(self.child.signal(number)?)
    }
}

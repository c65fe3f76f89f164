//! How a loop is to call its port, and how the port learns that it never will.
//!
//! Nobody tells a port that its loop has been closed. But a loop that is closed drops what it was to
//! call, and what it was to call when a descriptor is readable. So it is not given the port's own
//! methods but *tickets*: one that is dropped and was not used says that the loop has let go. (The
//! loops of asyncio and uvloop do that; others are asked whether they are closed, at each post.)

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use super::LoopPort;

/// When the loop will call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Once, since something was posted.
    Announced,
    /// Once, in its next round.
    Again,
    /// Whenever the port's descriptor is readable, until that is taken from it.
    Ring,
}

/// See above.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Ticket {
    port: Py<LoopPort>,
    call: Call,
    used: AtomicBool,
}

impl Ticket {
    pub fn new(port: &Bound<'_, LoopPort>, call: Call) -> Self {
        Self { port: port.clone().unbind(), call, used: AtomicBool::new(false) }
    }

    /// It was not needed.
    pub fn void(&self) {
        self.used.store(true, Ordering::Relaxed);
    }
}

#[pymethods]
impl Ticket {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let port = self.port.bind(py);
        match self.call {
            Call::Ring => return LoopPort::drain(port),
            Call::Announced => port.get().mailbox.heard(),
            Call::Again => port.get().coming.store(false, Ordering::Relaxed),
        }
        self.void();
        LoopPort::look(port)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !*self.used.get_mut() {
            // without an interpreter there is no loop any more either
            Python::try_attach(|py| LoopPort::dropped(self.port.bind(py), self.call));
        }
    }
}

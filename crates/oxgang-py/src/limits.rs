//! What a call may take, on its way to the engine, and what it was lost by, on its way back.

use std::sync::Arc;
use std::time::Duration;

use oxgang::task::Crash;
use oxgang::{Callable, Cause, Death, TaskOptions};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Limits and further tries of calls; checked and explained by `oxgang._options`.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Options {
    pub options: Arc<TaskOptions>,
}

#[pymethods]
impl Options {
    #[new]
    #[pyo3(signature = (*, timeout, grace, memory, retries, retry_timeouts, retry_memory, retry_on))]
    fn new(
        timeout: Option<f64>,
        grace: f64,
        memory: Option<u64>,
        retries: u32,
        retry_timeouts: bool,
        retry_memory: bool,
        retry_on: Option<Vec<u8>>,
    ) -> PyResult<Self> {
        let seconds = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|error| PyValueError::new_err(format!("{seconds} seconds: {error}")))
        };
        let options = TaskOptions {
            timeout: timeout.map(seconds).transpose()?,
            grace: seconds(grace)?,
            memory,
            retries,
            retry_timeouts,
            retry_memory,
            retry_on: retry_on.map(Callable::new),
        };
        Ok(Self { options: Arc::new(options) })
    }
}

/// `(pid, exit code, seconds, kind, limit, used, stack, peak)`, as `oxgang._faults` takes it.
fn facts<'py>(py: Python<'py>, death: &Death) -> PyResult<Bound<'py, PyAny>> {
    let (kind, limit, used) = match death.cause {
        Cause::Died(kills) => ("died", None, kills.into_bound_py_any(py)?),
        Cause::TimeUp(limit) => {
            ("time", Some(limit.as_secs_f64().into_bound_py_any(py)?), py.None().into_bound(py))
        }
        Cause::Memory(limit, used) => {
            ("memory", Some(limit.into_bound_py_any(py)?), used.into_bound_py_any(py)?)
        }
        Cause::Terminated => ("terminated", None, py.None().into_bound(py)),
    };
    let ran = death.ran.map(|ran| ran.as_secs_f64());
    let pid = Some(death.pid).filter(|pid| *pid != 0);
    (pid, death.exit.code(), ran, kind, limit, used, &death.stack, death.peak).into_bound_py_any(py)
}

/// The exception for a lost call.
pub fn error_of(py: Python<'_>, crash: &Crash, function: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
    let deaths = crash.earlier.iter().chain([&crash.death]);
    let deaths = deaths.map(|death| facts(py, death)).collect::<PyResult<Vec<_>>>()?;
    let make = py.import("oxgang._faults")?.getattr("crash_error")?;
    Ok(make.call1((crash.task, function, deaths))?.unbind())
}

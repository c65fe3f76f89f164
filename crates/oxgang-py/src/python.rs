//! Python objects that Rust needs, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// `oxgang._pickling`'s functions.
pub struct Names {
    pub new_pickler: Py<PyAny>,
    pub dump_otherwise: Py<PyAny>,
    pub dumps_back: Py<PyAny>,
    pub loads: Py<PyAny>,
    pub dump_callable: Py<PyAny>,
    pub dump_class: Py<PyAny>,
    pub extra_reducers: Py<PyAny>,
    pub rebuild: Py<PyAny>,
    pub load_callable: Py<PyAny>,
    pub dump_error: Py<PyAny>,
    pub load_error: Py<PyAny>,
    pub payload_error: Py<PyAny>,
    pub broken_error: Py<PyAny>,
}

/// The functions, imported on first use.
pub fn names(py: Python<'_>) -> PyResult<&Names> {
    static NAMES: PyOnceLock<Names> = PyOnceLock::new();
    NAMES.get_or_try_init(py, || {
        let pickling = py.import("oxgang._pickling")?;
        let of = |name: &str| -> PyResult<Py<PyAny>> { Ok(pickling.getattr(name)?.unbind()) };
        Ok(Names {
            new_pickler: of("new_pickler")?,
            dump_otherwise: of("dump_otherwise")?,
            dumps_back: of("dumps_back")?,
            loads: of("loads")?,
            dump_callable: of("dump_callable")?,
            dump_class: of("dump_class")?,
            extra_reducers: of("extra_reducers")?,
            rebuild: of("rebuild")?,
            load_callable: of("load_callable")?,
            dump_error: of("dump_error")?,
            load_error: of("load_error")?,
            payload_error: of("payload_error")?,
            broken_error: of("broken_error")?,
        })
    })
}

/// What the standard library's futures are made of. Not needed in a worker, which must not
/// pay for the import.
pub struct Standard {
    /// `threading.Condition`
    pub condition: Py<PyAny>,
    base: Py<PyModule>,
}

/// The standard library's, imported on first use.
pub fn standard(py: Python<'_>) -> PyResult<&Standard> {
    static STANDARD: PyOnceLock<Standard> = PyOnceLock::new();
    STANDARD.get_or_try_init(py, || {
        Ok(Standard {
            condition: py.import("threading")?.getattr("Condition")?.unbind(),
            base: py.import("concurrent.futures._base")?.unbind(),
        })
    })
}

impl Standard {
    fn error<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) -> PyErr {
        let made = self.base.bind(py).getattr(name).and_then(|class| class.call1(arguments));
        made.map_or_else(|error| error, PyErr::from_value)
    }

    /// `CancelledError()`
    pub fn cancelled_error(&self, py: Python<'_>) -> PyErr {
        self.error(py, "CancelledError", ())
    }

    /// `TimeoutError()`
    pub fn timeout_error(&self, py: Python<'_>) -> PyErr {
        self.error(py, "TimeoutError", ())
    }

    /// `InvalidStateError`, worded as the standard one.
    pub fn invalid_state(&self, future: &Bound<'_, PyAny>, state: &str) -> PyErr {
        let text = future.repr().map(|repr| repr.to_string()).unwrap_or_default();
        self.error(future.py(), "InvalidStateError", (format!("{state}: {text}"),))
    }

    /// Whether it is an `InvalidStateError`.
    pub fn is_invalid_state(&self, py: Python<'_>, error: &PyErr) -> bool {
        let class = self.base.bind(py).getattr("InvalidStateError");
        class.is_ok_and(|class| error.is_instance(py, &class))
    }

    /// Logs what the standard class logs.
    pub fn log_critical(&self, future: &Bound<'_, PyAny>, state: &str) -> PyResult<()> {
        let logger = self.base.bind(future.py()).getattr("LOGGER")?;
        let text = "Future %s in unexpected state: %s";
        logger.call_method1("critical", (text, future.as_ptr() as usize, state))?;
        Ok(())
    }

    /// A callback that raises is logged, and the others are called all the same.
    pub fn log_callback_failure(&self, future: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
        let py = future.py();
        let logger = self.base.bind(py).getattr("LOGGER")?;
        let options = pyo3::types::PyDict::new(py);
        options.set_item("exc_info", error.into_value(py))?;
        logger.call_method(
            "error",
            ("exception calling callback for %r", future),
            Some(&options),
        )?;
        Ok(())
    }
}

//! What stands in for `builtins.__import__` once modules of ours are in the standard ones' place.
//!
//! Here is only the question of every import, whether it is one of the few that the standard
//! modules themselves are meant by; `oxgang._standard` says why, and answers those. It is not
//! Python code, so that it is quick, and no traceback has a line of it.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

/// Takes the place of ``builtins.__import__``.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Importer {
    /// `__import__` as it was.
    original: Py<PyAny>,
    /// `oxgang._standard.import_for`.
    standard: Py<PyAny>,
    /// What is ours now: "threading", "concurrent.futures", …
    families: Vec<String>,
    /// Packages that are built on the standard modules' private parts, ours first of all.
    builders: Vec<String>,
}

impl Importer {
    /// Whether the module `name` is below one of the families.
    fn governs(&self, name: &str) -> bool {
        self.families.iter().any(|family| is_within(name, family))
    }

    /// Whether the importer is to see the standard modules: it is one of them, or of ours.
    fn is_built_on_them(&self, importer: &str) -> bool {
        self.governs(importer) || self.builders.iter().any(|name| is_within(importer, name))
    }

    fn concerns(&self, name: &str, importer: &str, level: i32) -> bool {
        if level > 0 {
            // our own parts do not import each other so, and have names of their own
            return self.governs(importer);
        }
        (self.governs(name) || name == "concurrent") && self.is_built_on_them(importer)
    }
}

fn is_within(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[pymethods]
impl Importer {
    #[new]
    fn new(
        original: Py<PyAny>,
        standard: Py<PyAny>,
        families: Vec<String>,
        builders: Vec<String>,
    ) -> Importer {
        Importer { original, standard, families, builders }
    }

    /// ``__import__`` as it was.
    #[getter]
    fn original(&self, py: Python<'_>) -> Py<PyAny> {
        self.original.clone_ref(py)
    }

    #[pyo3(signature = (name, globals = None, locals = None, fromlist = None, level = 0))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        globals: Option<&Bound<'py, PyAny>>,
        locals: Option<&Bound<'py, PyAny>>,
        fromlist: Option<&Bound<'py, PyAny>>,
        level: i32,
    ) -> PyResult<Bound<'py, PyAny>> {
        // C code that imports by name says so with a list, and takes what `sys.modules` has: pickle
        // for one, which is to find there whatever it has an object's home for
        let by_statement = fromlist.is_none_or(|names| !names.is_exact_instance_of::<PyList>());
        if by_statement
            && let Some(globals) = globals.and_then(|globals| globals.cast::<PyDict>().ok())
            && let Ok(asked) = name.cast::<PyString>()
            && let Ok(asked) = asked.to_str()
            && let Some(importer) = globals.get_item("__name__")?
            && let Ok(importer) = importer.cast::<PyString>()
            && let Ok(importer) = importer.to_str()
            && self.concerns(asked, importer, level)
        {
            let package = globals.get_item("__package__")?;
            let found = self.standard.bind(py).call1((name, package, fromlist, level))?;
            if !found.is_none() {
                return Ok(found);
            }
        }
        let nothing = py.None().into_bound(py);
        let globals = globals.unwrap_or(&nothing);
        let locals = locals.unwrap_or(&nothing);
        match fromlist {
            Some(fromlist) => {
                self.original.bind(py).call1((name, globals, locals, fromlist, level))
            }
            None => self.original.bind(py).call1((name, globals, locals, (), level)),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<oxgang's {}>", self.original.bind(py).repr()?))
    }
}

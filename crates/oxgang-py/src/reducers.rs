//! The standard dispatch tables, which say how instances of some classes are pickled.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::python::names;

/// `copyreg`'s, and that of the standard library's pickler for processes, if that is loaded.
pub fn tables(py: Python<'_>) -> PyResult<(&Bound<'_, PyDict>, Option<&Bound<'_, PyDict>>)> {
    static COMMON: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    static EXTRA: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let common = COMMON.get_or_try_init(py, || {
        let table = py.import("copyreg")?.getattr("dispatch_table")?;
        table.cast_into().map(Bound::unbind).map_err(PyErr::from)
    })?;
    let extra = match EXTRA.get(py) {
        Some(extra) => Some(extra),
        None => {
            let found: Option<Py<PyDict>> = names(py)?.extra_reducers.call0(py)?.extract(py)?;
            found.map(|table| EXTRA.get_or_init(py, || table))
        }
    };
    Ok((common.bind(py), extra.map(|extra| extra.bind(py))))
}

/// By which it is noticed that somebody has registered something.
pub type Sizes = (usize, Option<usize>);

pub fn sizes(py: Python<'_>) -> PyResult<Sizes> {
    let (common, extra) = tables(py)?;
    Ok((common.len(), extra.map(|extra| extra.len())))
}

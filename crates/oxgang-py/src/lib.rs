//! The extension module `oxgang._core`.
use pyo3::prelude::*;

mod cli;

#[pymodule]
mod _core {
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use crate::cli::{CliStop, MapJob, Progress};
}

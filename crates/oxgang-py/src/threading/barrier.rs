//! `Barrier`: waiting until a number of parties have come.
//!
//! Each meeting of the parties is a *round* with an end of its own, which those who waited in it
//! read; the next begins at once. The last to come runs the action, without the books; whoever
//! comes meanwhile waits until that is done, so that no two actions run at a time.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use oxgang::parking::Line;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::{Books, describe, wait_until};
use crate::wait;

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const BROKEN: u8 = 2;

#[derive(Default)]
struct Round(AtomicU8);

impl Round {
    fn end(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            OPEN => None,
            end => Some(end == PASSED),
        }
    }
}

#[derive(Default)]
struct Meeting {
    round: Arc<Round>,
    /// Who have come to the round.
    count: usize,
    acting: bool,
    broken: bool,
    line: Line,
}

impl Meeting {
    /// The round is over.
    fn finish(&mut self, end: u8) {
        std::mem::take(&mut self.round).0.store(end, Ordering::Release);
        self.count = 0;
    }

    fn break_up(&mut self) {
        self.finish(BROKEN);
        self.broken = true;
    }
}

struct Terms {
    parties: usize,
    action: Option<Py<PyAny>>,
    timeout: Option<Py<PyAny>>,
}

/// Base of `oxgang.threading.Barrier`.
#[pyclass(subclass, frozen, weakref, module = "oxgang._core")]
#[derive(Default)]
pub struct ThreadBarrier {
    terms: OnceLock<Terms>,
    books: Books<Meeting>,
}

fn broken(py: Python<'_>) -> PyErr {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = CLASS.get_or_try_init(py, || {
        Ok::<_, PyErr>(py.import("threading")?.getattr("BrokenBarrierError")?.unbind())
    });
    let made = class.and_then(|class| class.bind(py).call0());
    made.map_or_else(|error| error, PyErr::from_value)
}

/// What becomes of one who has come.
enum Came {
    Last(Arc<Round>),
    Waits(Arc<Round>, usize),
    Broken,
}

impl ThreadBarrier {
    fn terms(&self) -> PyResult<&Terms> {
        self.terms.get().ok_or_else(|| {
            PyRuntimeError::new_err("a subclass of Barrier must call super().__init__()")
        })
    }

    /// Changes something that all who wait want to know.
    fn change<T>(&self, py: Python<'_>, change: impl FnOnce(&mut Meeting) -> T) -> T {
        let mut meeting = self.books.open(py);
        let changed = change(&mut meeting);
        let calls = meeting.line.call_all();
        drop(meeting);
        drop(calls);
        changed
    }

    fn come(&self, py: Python<'_>, parties: usize) -> PyResult<Came> {
        let come = |meeting: &mut Meeting| {
            if meeting.broken {
                return Some(Came::Broken);
            }
            if meeting.acting {
                return None;
            }
            let (round, place) = (meeting.round.clone(), meeting.count);
            meeting.count += 1;
            meeting.acting = meeting.count == parties;
            Some(if meeting.acting { Came::Last(round) } else { Came::Waits(round, place) })
        };
        let came = wait_until(py, &self.books, |meeting| &mut meeting.line, None, come)?;
        Ok(came.unwrap_or(Came::Broken)) // there is no deadline
    }

    /// The last one's part.
    fn act(&self, py: Python<'_>, terms: &Terms, round: &Arc<Round>) -> PyResult<usize> {
        let acted = match &terms.action {
            Some(action) => action.bind(py).call0().map(drop),
            None => Ok(()),
        };
        let passed = self.change(py, |meeting| {
            meeting.acting = false;
            let still = Arc::ptr_eq(&meeting.round, round);
            match &acted {
                Ok(()) if still => meeting.finish(PASSED),
                Ok(()) => {}
                Err(_) => meeting.break_up(),
            }
            still
        });
        acted?;
        if passed { Ok(terms.parties - 1) } else { Err(broken(py)) }
    }
}

#[pymethods]
impl ThreadBarrier {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    fn _open(
        &self,
        parties: usize,
        action: Option<Py<PyAny>>,
        timeout: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        if parties < 1 {
            return Err(PyValueError::new_err("parties must be > 0"));
        }
        let twice = |_| PyRuntimeError::new_err("the barrier is already set up");
        self.terms.set(Terms { parties, action, timeout }).map_err(twice)
    }

    /// Waits for the other parties; a number from 0 to ``parties - 1``, another for each.
    ///
    /// Raises `BrokenBarrierError` if the barrier is, or gets, broken or reset, or if `timeout`
    /// seconds (default: the barrier's) have passed, which breaks it.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let terms = self.terms()?;
        let deadline = wait::deadline(timeout.or(terms.timeout.as_ref().map(|own| own.bind(py))))?;
        let (round, place) = match self.come(py, terms.parties)? {
            Came::Last(round) => return self.act(py, terms, &round),
            Came::Waits(round, place) => (round, place),
            Came::Broken => return Err(broken(py)),
        };
        let waited = |deadline| {
            wait_until(py, &self.books, |meeting| &mut meeting.line, deadline, |_| round.end())
        };
        let passed = match waited(deadline) {
            Ok(Some(passed)) => passed,
            // in time: all have come, and only the action is left
            Ok(None) if self.books.open(py).acting => waited(None)?.unwrap_or(false),
            Ok(None) => self.change(py, |meeting| {
                if Arc::ptr_eq(&meeting.round, &round) {
                    meeting.break_up();
                }
                round.end() == Some(true)
            }),
            Err(error) => {
                let mut meeting = self.books.open(py);
                if Arc::ptr_eq(&meeting.round, &round) && !meeting.acting {
                    meeting.count -= 1; // as if it had never come
                }
                return Err(error);
            }
        };
        if passed { Ok(place) } else { Err(broken(py)) }
    }

    /// Makes it as new; who waits gets `BrokenBarrierError`.
    fn reset(&self, py: Python<'_>) {
        self.change(py, |meeting| {
            meeting.finish(BROKEN);
            meeting.broken = false;
        });
    }

    /// Breaks it: who waits, and who comes, gets `BrokenBarrierError`.
    fn abort(&self, py: Python<'_>) {
        self.change(py, Meeting::break_up);
    }

    /// How many must come.
    #[getter]
    fn parties(&self) -> PyResult<usize> {
        Ok(self.terms()?.parties)
    }

    /// How many have come and wait.
    #[getter]
    fn n_waiting(&self, py: Python<'_>) -> usize {
        self.books.open(py).count
    }

    /// Whether it is broken.
    #[getter]
    fn broken(&self, py: Python<'_>) -> bool {
        self.books.open(py).broken
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (py, this) = (slf.py(), slf.get());
        let state = if this.broken(py) {
            "broken".to_owned()
        } else {
            format!("waiters={}/{}", this.n_waiting(py), this.parties()?)
        };
        describe(slf.as_any(), &state)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(terms) = self.terms.get() {
            visit.call(&terms.action)?;
            visit.call(&terms.timeout)?;
        }
        Ok(())
    }
}

//! `ThreadPool`: the executor's submit.

use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::{Item, Shared, ThreadQueue};
use crate::batch::Batch;
use crate::calls::Calls;
use crate::future::{Future, PartOf};
use crate::raw;
use crate::results::ResultLine;
use crate::timer::{Plan, ThreadOptions};

/// Base of `ThreadPoolExecutor`.
#[pyclass(subclass, weakref, frozen, module = "oxgang._core")]
pub struct ThreadPool {
    shared: Arc<Shared>,
    settings: OnceLock<Settings>,
}

struct Settings {
    future_class: Py<PyAny>,
    plan: Option<Arc<Plan>>,
    /// Calls run in copies of their submitters' contexts.
    context: bool,
}

#[pymethods]
impl ThreadPool {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { shared: Arc::default(), settings: OnceLock::new() }
    }

    /// Makes the queue. `options` are of calls that are given none; `context`: calls run in copies
    /// of their submitters' contexts.
    #[pyo3(signature = (future_class, max_workers, options, context=false))]
    fn _open(
        &self,
        future_class: Py<PyAny>,
        max_workers: usize,
        options: Option<&ThreadOptions>,
        context: bool,
    ) -> PyResult<ThreadQueue> {
        let twice = |_| PyRuntimeError::new_err("the executor is already set up");
        let plan = options.map(|options| options.plan.clone());
        self.settings.set(Settings { future_class, plan, context }).map_err(twice)?;
        self.shared.books().most = max_workers;
        Ok(ThreadQueue { shared: self.shared.clone() })
    }

    /// Starts all threads now, not with the first calls.
    fn _start_all(slf: &Bound<'_, Self>) -> PyResult<()> {
        let shared = &slf.get().shared;
        let start = shared.books().call_for_all();
        Self::start(slf, start)
    }

    /// Schedules ``fn(*args, **kwargs)`` and returns a future for its result.
    #[pyo3(signature = (r#fn, /, *args, **kwargs))]
    fn submit<'py>(
        slf: &Bound<'py, Self>,
        r#fn: Py<PyAny>,
        args: Py<PyTuple>,
        kwargs: Option<Py<PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let plan = slf.get().opened()?.plan.as_ref();
        Self::submit_one(slf, plan, r#fn, args, kwargs)
    }

    /// The same with options of its own.
    #[pyo3(signature = (options, r#fn, /, *args, **kwargs))]
    fn _submit_as<'py>(
        slf: &Bound<'py, Self>,
        options: &ThreadOptions,
        r#fn: Py<PyAny>,
        args: Py<PyTuple>,
        kwargs: Option<Py<PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::submit_one(slf, Some(&options.plan), r#fn, args, kwargs)
    }

    /// Submits one call for each tuple of arguments, and gives the futures as a list. They are
    /// handed in together, so this is for iterables that give their next item at once.
    fn _submit_many<'py>(
        slf: &Bound<'py, Self>,
        r#fn: &Bound<'py, PyAny>,
        calls: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let settings = slf.get().opened()?;
        let plan = settings.plan.as_ref();
        let futures = PyList::empty(py);
        let mut items = Vec::new();
        for args in calls.try_iter()? {
            let args = args?.cast_into::<PyTuple>()?.unbind();
            let (future, item) = settings.item(py, plan, r#fn.clone().unbind(), args, None)?;
            items.push(item);
            futures.append(future)?;
        }
        Self::hand_in(slf, plan.is_some(), items.into_iter())?;
        Ok(futures)
    }

    /// The same for results that are wanted together: one `Batch` stands for all of them.
    fn _submit_batch(
        slf: &Bound<'_, Self>,
        r#fn: &Bound<'_, PyAny>,
        calls: &Bound<'_, PyAny>,
    ) -> PyResult<Batch> {
        let of_batch = Calls::of_batch(None, r#fn.clone().unbind());
        Self::submit_parts(slf, r#fn, calls, &of_batch)?;
        Ok(Batch { calls: of_batch })
    }

    /// A line for the results of calls of `fn`: in their order, or as they come.
    fn _line(&self, r#fn: Py<PyAny>, ordered: bool) -> ResultLine {
        ResultLine { calls: Calls::of_line(None, r#fn, ordered) }
    }

    /// Submits one call for each tuple of arguments, into the line; how many. Those before one that
    /// cannot be read are submitted.
    fn _submit_line(
        slf: &Bound<'_, Self>,
        r#fn: &Bound<'_, PyAny>,
        calls: &Bound<'_, PyAny>,
        line: &ResultLine,
    ) -> PyResult<usize> {
        Self::submit_parts(slf, r#fn, calls, &line.calls)
    }
}

impl Settings {
    /// A future, and the call that it is of.
    fn item<'py>(
        &self,
        py: Python<'py>,
        plan: Option<&Arc<Plan>>,
        function: Py<PyAny>,
        args: Py<PyTuple>,
        kwargs: Option<Py<PyDict>>,
    ) -> PyResult<(Bound<'py, PyAny>, Item)> {
        let made = self.future_class.call0(py)?.into_bound(py);
        let future = made.cast::<Future>()?.clone().unbind();
        let context = self.context.then(|| raw::copy_context(py)).transpose()?.map(Bound::unbind);
        let (plan, last_error) = (plan.cloned(), None);
        let item = Item { future, function, args, kwargs, plan, context, errors: 0, last_error };
        Ok((made, item))
    }
}

impl ThreadPool {
    fn opened(&self) -> PyResult<&Settings> {
        self.settings.get().ok_or_else(|| {
            PyRuntimeError::new_err(
                "the executor is not set up: a subclass must call super().__init__()",
            )
        })
    }

    fn submit_one<'py>(
        slf: &Bound<'py, Self>,
        plan: Option<&Arc<Plan>>,
        r#fn: Py<PyAny>,
        args: Py<PyTuple>,
        kwargs: Option<Py<PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let settings = slf.get().opened()?;
        let (future, item) = settings.item(slf.py(), plan, r#fn, args, kwargs)?;
        Self::hand_in(slf, plan.is_some(), std::iter::once(item))?;
        Ok(future)
    }

    /// Submits one call for each tuple of arguments, as parts of many; how many.
    fn submit_parts(
        slf: &Bound<'_, Self>,
        r#fn: &Bound<'_, PyAny>,
        calls: &Bound<'_, PyAny>,
        of: &Arc<Calls>,
    ) -> PyResult<usize> {
        let py = slf.py();
        let settings = slf.get().opened()?;
        let plan = settings.plan.as_ref();
        let mut items = Vec::new();
        let read = calls.try_iter()?.try_for_each(|args| {
            let args = args?.cast_into::<PyTuple>()?.unbind();
            items.push(settings.item(py, plan, r#fn.clone().unbind(), args, None)?.1);
            PyResult::Ok(())
        });
        let count = items.len();
        let first = of.expect_many(count);
        for (item, part) in items.iter().zip(first..) {
            item.future.get().cell.inner().part = Some(PartOf { calls: of.clone(), part });
        }
        let queued = Self::queue(slf, plan.is_some(), items.into_iter());
        let start = queued.inspect_err(|_| of.withdraw(count))?;
        Self::start(slf, start)?;
        read.map(|()| count)
    }

    /// Queues the calls, wakes idle threads, and starts as many as there is work for.
    fn hand_in(
        slf: &Bound<'_, Self>,
        timed: bool,
        items: impl Iterator<Item = Item>,
    ) -> PyResult<()> {
        let start = Self::queue(slf, timed, items)?;
        Self::start(slf, start)
    }

    /// Queues the calls and wakes idle threads; how many are to be started, which are counted.
    fn queue(
        slf: &Bound<'_, Self>,
        timed: bool,
        items: impl Iterator<Item = Item>,
    ) -> PyResult<usize> {
        let shared = &slf.get().shared;
        if timed && !std::mem::replace(&mut shared.books().timed, true) {
            slf.call_method0("_start_timer").inspect_err(|_| shared.books().timed = false)?;
        }
        let (start, wake) = {
            let mut books = shared.books();
            if books.broken || books.closed {
                drop(books);
                return Err(refusal(slf)?);
            }
            books.queue.extend(items);
            books.call_for_threads()
        };
        if wake > 0 {
            shared.nudge(wake as u32);
        }
        Ok(start)
    }

    /// Starts threads that are counted already.
    fn start(slf: &Bound<'_, Self>, count: usize) -> PyResult<()> {
        for done in 0..count {
            if let Err(error) = slf.call_method0("_start_thread") {
                slf.get().shared.books().count_out(count - done - 1);
                return Err(error);
            }
        }
        Ok(())
    }
}

fn refusal(slf: &Bound<'_, ThreadPool>) -> PyResult<PyErr> {
    let error = slf.call_method0("_refusal")?;
    Ok(PyErr::from_value(error))
}

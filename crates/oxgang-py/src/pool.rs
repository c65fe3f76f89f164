//! `ProcessPool`: the executor's submit, and the handle by which its driver serves it.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use oxgang::pool::{PoolOptions, Refused, Turn};
use oxgang::starter::{Invitation, Starter};
use oxgang::template::TemplateStarter;
use oxgang::{Callable, Late, Outcome, Payload, Pool, Task, TaskId, TaskOptions};
use oxgang_os::process::{Exit, Process, Room};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyFunction, PyList, PyTuple, PyType};

use crate::batch::Batch;
use crate::calls::Calls;
use crate::future::{self, Future, Source};
use crate::limits::Options;
use crate::payload::{self, Call, LateCall};
use crate::python::names;
use crate::results::ResultLine;
use crate::template::Template;

/// Callables are remembered up to this number, then all are forgotten: they are only sent
/// once more.
const REMEMBERED: usize = 1024;

/// Calls of a map that are handed in together: the pool's lock and the workers' wake-ups are
/// shared by them.
const TOGETHER: usize = 32;

/// What a worker needs of a call.
type Ready = (Arc<Callable>, Payload);

/// A start method in Python: `start(incarnation, channel, pool, wake) -> pid | None` and
/// `exitcode(pid) -> int | None`.
struct PythonStarter {
    start: Py<PyAny>,
    exitcode: Py<PyAny>,
}

impl Starter for PythonStarter {
    fn start(&self, invitation: Invitation<'_>) -> oxgang_os::Result<Option<Process>> {
        // it may have begun a task by the time at which its handle is opened
        let room = Room::take(invitation.channel)?;
        Python::attach(|py| {
            let arguments = (
                invitation.incarnation,
                invitation.channel.as_raw_fd(),
                invitation.pool.as_raw_fd(),
                invitation.wake.as_raw_fd(),
            );
            let pid =
                self.start.call1(py, arguments).and_then(|pid| pid.extract::<Option<i32>>(py));
            drop(room);
            match pid {
                Ok(Some(pid)) => Process::open(pid).map(Some),
                // nothing that could be looked after; whoever made it knows, and says so
                Ok(None) => Ok(None),
                Err(error) => Err(std::io::Error::other(error.to_string())),
            }
        })
    }

    fn exit(&self, process: &Process) -> Option<Exit> {
        Python::attach(|py| {
            let code = self.exitcode.call1(py, (process.pid,));
            match code.and_then(|code| code.extract::<Option<i32>>(py)) {
                Ok(code) => Some(Exit::from_code(code)),
                Err(error) => {
                    error.write_unraisable(py, None);
                    Some(Exit::Unknown)
                }
            }
        })
    }
}

/// A function whose encoded form is known, and for how long it is good.
struct Known {
    /// Kept, so that its address stays its own.
    _function: Py<PyAny>,
    callable: Arc<Callable>,
    /// Good while each dict has this very value for the name.
    watched: Vec<(Py<PyDict>, Py<PyAny>, Py<PyAny>)>,
}

impl Known {
    fn is_good(&self, py: Python<'_>) -> bool {
        self.watched.iter().all(|(dict, name, value)| {
            dict.bind(py).get_item(name).is_ok_and(|now| now.is_some_and(|now| now.is(value)))
        })
    }
}

#[derive(Default)]
struct Callables {
    by_object: HashMap<usize, Arc<Known>>,
    /// The one that was asked for last: mostly it is asked for again.
    last: Option<(usize, Arc<Known>)>,
    by_bytes: HashMap<Vec<u8>, Arc<Callable>>,
}

impl Callables {
    fn known_by(&mut self, bytes: &[u8]) -> Arc<Callable> {
        if let Some(callable) = self.by_bytes.get(bytes) {
            return callable.clone();
        }
        if self.by_bytes.len() >= REMEMBERED {
            self.by_bytes.clear();
        }
        let callable = Callable::new(bytes.to_vec());
        self.by_bytes.insert(bytes.to_vec(), callable.clone());
        callable
    }
}

/// A function that stands for itself in many submits: encoded once.
#[pyclass(frozen, module = "oxgang._core")]
pub struct Sendable {
    function: Py<PyAny>,
    callable: Arc<Callable>,
}

/// A pool's handle without its executor: for the driver, and for who outlives the executor.
#[pyclass(frozen, module = "oxgang._core")]
pub struct PoolHandle {
    pool: Arc<Pool>,
}

impl PoolHandle {
    /// Makes the payload of a call that had to wait for room.
    fn encode(&self, py: Python<'_>, id: TaskId, late: Late) {
        let call = late.downcast_ref::<LateCall>();
        let call = call.ok_or_else(|| PyTypeError::new_err("not a call"));
        let made = call.and_then(|call| payload::of_late_call(py, self.pool.store(), call));
        let made = made.map_err(|error| {
            // of what cannot be told at all an empty failure is left, a clear one
            Outcome::Failure(payload::of_error(py, error, false).unwrap_or_default().into())
        });
        py.detach(|| self.pool.encoded(id, made));
    }
}

#[pymethods]
impl PoolHandle {
    /// Serves the pool until it is over. For a thread that Python made.
    fn drive(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let turn = py.detach(|| {
                self.pool.turn(None).unwrap_or_else(|error| Turn {
                    attention: self.pool.give_up(&format!("the pool cannot go on: {error}")),
                    late: None,
                    finished: true,
                })
            });
            for completion in turn.attention {
                if let Err(error) = future::telling::deliver_completion(py, completion) {
                    // what a callback may not raise (SystemExit, say) ends nobody's futures
                    error.write_unraisable(py, None);
                }
            }
            if turn.finished {
                return Ok(());
            }
            if let Some((id, late)) = turn.late {
                self.encode(py, id, late);
            }
        }
    }

    /// Starts all workers now, not with the first tasks.
    fn start_all(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.pool.start_all()).map_err(|refused| refusal(py, &refused))
    }

    /// No more tasks; `cancel`: and none that has not begun.
    fn close(&self, py: Python<'_>, cancel: bool) {
        py.detach(|| self.pool.close(cancel));
    }

    /// Ends all workers at once.
    fn kill(&self, py: Python<'_>, why: &str) {
        py.detach(|| self.pool.kill(why));
    }

    /// Sends a signal to all workers.
    fn signal(&self, number: i32) {
        self.pool.signal(number);
    }

    /// Why the pool cannot go on, or `None`.
    fn broken(&self) -> Option<String> {
        self.pool.broken().map(|why| why.to_string())
    }

    /// Whether this process is a fork of the pool's own.
    fn forked(&self) -> bool {
        self.pool.forked()
    }

    /// `(incarnation, pid or None, ready, tasks)` of each worker.
    fn workers(&self) -> Vec<(u64, Option<i32>, bool, usize)> {
        let workers = self.pool.workers();
        workers.into_iter().map(|w| (w.incarnation, w.pid, w.ready, w.tasks)).collect()
    }

    /// Counts since the pool was made.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.pool.counters();
        let dict = PyDict::new(py);
        for (name, count) in [
            ("submitted", counters.submitted),
            ("answered", counters.answered),
            ("lost", counters.lost),
            ("stopped", counters.stopped),
            ("retried", counters.retried),
            ("moved", counters.moved),
            ("started", counters.started),
            ("crashed", counters.crashed),
            ("passed_bytes", counters.passed_bytes),
            ("lent_bytes", counters.lent_bytes),
            ("held_bytes", self.pool.held_bytes()),
        ] {
            dict.set_item(name, count)?;
        }
        Ok(dict)
    }
}

/// Base of `ProcessPoolExecutor`.
#[pyclass(subclass, weakref, frozen, module = "oxgang._core")]
pub struct ProcessPool {
    pool: OnceLock<Arc<Pool>>,
    future_class: OnceLock<Py<PyAny>>,
    callables: Mutex<Callables>,
    driven: AtomicBool,
    /// What tasks have that are submitted without any.
    options: OnceLock<Arc<TaskOptions>>,
    apply: Arc<Callable>,
}

#[pymethods]
impl ProcessPool {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            pool: OnceLock::new(),
            future_class: OnceLock::new(),
            callables: Mutex::default(),
            driven: AtomicBool::new(false),
            options: OnceLock::new(),
            apply: Callable::new(Vec::new()),
        }
    }

    /// Makes the pool. `sizes`: workers, tasks per worker, bytes that may be held. `starter` is a
    /// function that gives the template of the moment, or a pair of functions: see `PythonStarter`.
    /// `options` are of calls that are given none.
    fn _open(
        &self,
        future_class: Py<PyAny>,
        sizes: (usize, Option<u64>, u64),
        eager: bool,
        setup: &[u8],
        starter: &Bound<'_, PyAny>,
        options: Option<&Options>,
    ) -> PyResult<PoolHandle> {
        let (max_workers, tasks_per_worker, room) = sizes;
        let own = options;
        let starter: Box<dyn Starter> = match starter.extract() {
            Ok((start, exitcode)) => Box::new(PythonStarter { start, exitcode }),
            Err(_) => {
                let renew = starter.clone().unbind();
                Box::new(TemplateStarter::new(Box::new(move || {
                    let template = Python::attach(|py| {
                        let template = renew.call0(py)?.into_bound(py).cast_into::<Template>()?;
                        PyResult::Ok(template.get().inner.clone())
                    });
                    template.map_err(|error| std::io::Error::other(error.to_string()))
                })))
            }
        };
        let options =
            PoolOptions { max_workers, eager, tasks_per_worker, setup: setup.to_vec(), room };
        let pool = Arc::new(Pool::new(options, starter).map_err(PyOSError::new_err)?);
        let twice = || PyRuntimeError::new_err("the executor is already set up");
        self.pool.set(pool.clone()).map_err(|_| twice())?;
        if let Some(own) = own {
            self.options.set(own.options.clone()).map_err(|_| twice())?;
        }
        self.future_class.set(future_class).map_err(|_| twice())?;
        Ok(PoolHandle { pool })
    }

    /// What stands for `fn` in many submits; `fn` itself if there is nothing to save.
    fn _same<'py>(&self, r#fn: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.callable(r#fn) {
            Ok(Some(callable)) => {
                let function = r#fn.clone().unbind();
                Ok(Bound::new(r#fn.py(), Sendable { function, callable })?.into_any())
            }
            // what cannot be sent is the submits' error, each future's own
            Ok(None) | Err(_) => Ok(r#fn.clone()),
        }
    }

    /// What stands for `fn`, whose encoded form the caller knows, in many submits.
    fn _encoded(&self, r#fn: Py<PyAny>, data: &[u8]) -> Sendable {
        let mut callables = self.callables.lock().unwrap_or_else(PoisonError::into_inner);
        Sendable { function: r#fn, callable: callables.known_by(data) }
    }

    /// Schedules ``fn(*args, **kwargs)`` and returns a future for its result.
    #[pyo3(signature = (r#fn, /, *args, **kwargs))]
    fn submit<'py>(
        slf: &Bound<'py, Self>,
        r#fn: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::submit_one(slf, slf.get().options.get(), r#fn, args, kwargs)
    }

    /// The same with options of its own.
    #[pyo3(signature = (options, r#fn, /, *args, **kwargs))]
    fn _submit_as<'py>(
        slf: &Bound<'py, Self>,
        options: &Options,
        r#fn: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::submit_one(slf, Some(&options.options), r#fn, args, kwargs)
    }

    /// Submits one call for each tuple of arguments, and gives the futures as a list. Some are
    /// handed in together, so this is for iterables that give their next item at once.
    fn _submit_many<'py>(
        slf: &Bound<'py, Self>,
        r#fn: &Bound<'py, PyAny>,
        calls: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let this = slf.get();
        let (pool, class) = this.opened()?;
        let r#fn = this._same(r#fn)?;
        let futures = PyList::empty(py);
        Self::submit_each(slf, calls, |args| {
            let callable = this.callable(&r#fn);
            let (future, task) = this.prepare(pool, class, &r#fn, callable, args, None)?;
            futures.append(future)?;
            Ok(task)
        })?;
        Ok(futures)
    }

    /// The same for results that are wanted together: one `Batch` stands for all of them.
    fn _submit_batch<'py>(
        slf: &Bound<'py, Self>,
        r#fn: &Bound<'py, PyAny>,
        calls: &Bound<'py, PyAny>,
    ) -> PyResult<Batch> {
        let this = slf.get();
        let (pool, _) = this.opened()?;
        let r#fn = this._same(r#fn)?;
        let of_batch = Calls::of_batch(Some(pool), this.named(&r#fn)?);
        Self::submit_each(slf, calls, |args| this.part(pool, &r#fn, args, &of_batch))?;
        Ok(Batch { calls: of_batch })
    }

    /// A line for the results of calls of `fn`: in their order, or as they come.
    fn _line(&self, r#fn: &Bound<'_, PyAny>, ordered: bool) -> PyResult<ResultLine> {
        let (pool, _) = self.opened()?;
        Ok(ResultLine { calls: Calls::of_line(Some(pool), self.named(r#fn)?, ordered) })
    }

    /// Submits one call for each tuple of arguments, into the line; how many. Those before one that
    /// cannot be read, or sent at all, are submitted.
    fn _submit_line(
        slf: &Bound<'_, Self>,
        r#fn: &Bound<'_, PyAny>,
        calls: &Bound<'_, PyAny>,
        line: &ResultLine,
    ) -> PyResult<usize> {
        let this = slf.get();
        let (pool, _) = this.opened()?;
        let mut count = 0;
        let submitted = Self::submit_each(slf, calls, |args| {
            let task = this.part(pool, r#fn, args, &line.calls)?;
            count += 1;
            Ok(task)
        });
        match submitted {
            Ok(()) => Ok(count),
            Err(stopped) => {
                line.calls.withdraw(stopped.left);
                Err(stopped.error)
            }
        }
    }
}

/// Why not all of many calls were handed in, and how many tasks had been made for nothing.
struct Stopped {
    error: PyErr,
    left: usize,
}

impl From<Stopped> for PyErr {
    fn from(stopped: Stopped) -> Self {
        stopped.error
    }
}

impl ProcessPool {
    fn opened(&self) -> PyResult<(&Arc<Pool>, &Py<PyAny>)> {
        self.pool.get().zip(self.future_class.get()).ok_or_else(|| {
            PyRuntimeError::new_err(
                "the executor is not set up: a subclass must call super().__init__()",
            )
        })
    }

    fn submit_one<'py>(
        slf: &Bound<'py, Self>,
        options: Option<&Arc<TaskOptions>>,
        r#fn: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let (pool, class) = this.opened()?;
        let callable = this.callable(r#fn);
        let (future, task) = this.prepare(pool, class, r#fn, callable, args, kwargs)?;
        if let Some(task) = task {
            let task = task.with_options(options.cloned());
            this.see_to_driver(slf)?;
            pool.submit(task).map_err(|refused| refusal(py, &refused))?;
        }
        Ok(future)
    }

    /// Hands in the tasks that `make` makes of each tuple of arguments, some at a time; and those
    /// that there are when one cannot be made.
    fn submit_each<'py>(
        slf: &Bound<'py, Self>,
        calls: &Bound<'py, PyAny>,
        mut make: impl FnMut(&Bound<'py, PyTuple>) -> PyResult<Option<Task>>,
    ) -> Result<(), Stopped> {
        let unhurt = |error| Stopped { error, left: 0 };
        let this = slf.get();
        let mut tasks = Vec::with_capacity(TOGETHER);
        let mut made = Ok(());
        for args in calls.try_iter().map_err(unhurt)? {
            let args = args.and_then(|args| Ok(args.cast_into::<PyTuple>()?));
            match args.and_then(|args| make(&args)) {
                Ok(task) => {
                    tasks.extend(task.map(|task| task.with_options(this.options.get().cloned())));
                }
                Err(error) => {
                    made = Err(unhurt(error));
                    break;
                }
            }
            if tasks.len() == TOGETHER {
                Self::hand_in(slf, &mut tasks)?;
            }
        }
        Self::hand_in(slf, &mut tasks)?;
        made
    }

    fn hand_in(slf: &Bound<'_, Self>, tasks: &mut Vec<Task>) -> Result<(), Stopped> {
        let (this, left) = (slf.get(), tasks.len());
        let handed = this.see_to_driver(slf).and_then(|()| {
            let (pool, _) = this.opened()?;
            pool.submit_all(tasks.drain(..)).map_err(|refused| refusal(slf.py(), &refused))
        });
        handed.map_err(|error| Stopped { error, left })
    }

    /// A task that is a part of many calls; `None`: it cannot be encoded, and its part says so.
    fn part(
        &self,
        pool: &Arc<Pool>,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        calls: &Arc<Calls>,
    ) -> PyResult<Option<Task>> {
        match self.encode(pool, function, self.callable(function), args, None)? {
            Ok((callable, payload)) => {
                let id = Pool::next_task();
                let part = calls.expect(id);
                Ok(Some(Task::new(id, callable, payload, calls.clone()).part(part)))
            }
            Err(error) => {
                calls.refuse(error);
                Ok(None)
            }
        }
    }

    /// A future, and the task that will complete it; without one, the future is done: the
    /// call cannot be sent, and that is this future's error, as in the standard class.
    fn prepare<'py>(
        &self,
        pool: &Arc<Pool>,
        class: &Py<PyAny>,
        function: &Bound<'py, PyAny>,
        callable: PyResult<Option<Arc<Callable>>>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<(Bound<'py, PyAny>, Option<Task>)> {
        let py = function.py();
        let future = class.call0(py)?.into_bound(py);
        let completion = future::cell_of(&future)?;
        let bound = future.cast::<Future>()?;
        match self.encode(pool, function, callable, args, kwargs)? {
            Ok((callable, payload)) => {
                let id = Pool::next_task();
                let named = self.named(function)?;
                bound.get().bind(Source { pool: pool.clone(), task: id, function: named });
                Ok((future, Some(Task::new(id, callable, payload, completion))))
            }
            Err(error) => {
                Future::finish(bound, None, Some(error))?;
                Ok((future, None))
            }
        }
    }

    /// What is sent of a call; or why it cannot be.
    fn encode(
        &self,
        pool: &Arc<Pool>,
        function: &Bound<'_, PyAny>,
        callable: PyResult<Option<Arc<Callable>>>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Result<Ready, Py<PyAny>>> {
        let py = function.py();
        if pool.forked() {
            return Err(refusal(py, &Refused::Forked)); // its memory is not ours to write to
        }
        let encoded = callable.and_then(|callable| match callable {
            Some(callable) => Ok((callable, payload::of_call(pool, args, kwargs)?)),
            None => {
                let all = std::iter::once(function.clone()).chain(args.iter());
                let all = PyTuple::new(py, all.collect::<Vec<_>>())?;
                Ok((self.apply.clone(), payload::of_call(pool, &all, kwargs)?))
            }
        });
        match encoded {
            Ok((callable, Call::Ready(payload))) => Ok(Ok((callable, payload))),
            Ok((callable, Call::Late(late))) => Ok(Ok((callable, Payload::late(Arc::new(late))))),
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => {
                match pool.broken() {
                    Some(why) => Err(refusal(py, &Refused::Broken(why))),
                    None => Ok(Err(error.into_value(py).into_any())),
                }
            }
            Err(interruption) => Err(interruption),
        }
    }

    /// What to call the function in messages; keeps nothing of the caller's data alive.
    fn named(&self, function: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = function.py();
        if let Ok(sendable) = function.cast::<Sendable>() {
            return Ok(sendable.get().function.clone_ref(py));
        }
        if stands_for_itself(function) {
            return Ok(function.clone().unbind());
        }
        let own = function.getattr("__qualname__");
        own.or_else(|_| Ok(function.get_type().qualname()?.into_any())).map(Bound::unbind)
    }

    /// Before a task is handed in: a pool without a driver would never be done with it.
    fn see_to_driver(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        if !self.driven.load(Ordering::Relaxed) && !self.driven.swap(true, Ordering::AcqRel) {
            let started = slf.call_method0("_start_driver");
            self.driven.store(started.is_ok(), Ordering::Release);
            started?;
        }
        Ok(())
    }
}

impl ProcessPool {
    /// What stands for the function at the workers; `None`: it travels with its arguments.
    fn callable(&self, function: &Bound<'_, PyAny>) -> PyResult<Option<Arc<Callable>>> {
        let py = function.py();
        if let Ok(sendable) = function.cast::<Sendable>() {
            return Ok(Some(sendable.get().callable.clone()));
        }
        if !stands_for_itself(function) {
            return Ok(None);
        }
        let key = function.as_ptr() as usize;
        let lock = || self.callables.lock().unwrap_or_else(PoisonError::into_inner);
        let known = {
            let callables = lock();
            match &callables.last {
                Some((last, known)) if *last == key => Some(known.clone()),
                _ => callables.by_object.get(&key).cloned(),
            }
        };
        if let Some(known) = known
            && known.is_good(py)
        {
            return Ok(Some(known.callable.clone()));
        }
        let dumped = names(py)?.dump_callable.call1(py, (function,))?;
        let (bytes, watched): (Bound<'_, PyBytes>, Option<Vec<_>>) = dumped.extract(py)?;
        let bytes = bytes.as_bytes();
        let mut forgotten = Vec::new();
        let mut callables = lock();
        let callable = callables.known_by(bytes);
        if let Some(watched) = watched {
            if callables.by_object.len() >= REMEMBERED {
                forgotten.extend(callables.by_object.drain().map(|(_, known)| known));
                forgotten.extend(callables.last.take().map(|(_, known)| known));
            }
            let _function = function.clone().unbind();
            let known = Known { _function, callable: callable.clone(), watched };
            let known = Arc::new(known);
            forgotten.extend(callables.last.replace((key, known.clone())).map(|(_, known)| known));
            forgotten.extend(callables.by_object.insert(key, known));
        }
        drop(callables);
        drop(forgotten); // may run Python code, so not under the lock
        Ok(Some(callable))
    }
}

/// A bound method or a partial may change from call to call; these do not.
fn stands_for_itself(function: &Bound<'_, PyAny>) -> bool {
    function.is_exact_instance_of::<PyFunction>()
        || function.is_exact_instance_of::<PyCFunction>()
        || function.is_instance_of::<PyType>()
}

fn refusal(py: Python<'_>, refused: &Refused) -> PyErr {
    match refused {
        Refused::Closed => {
            let made = py.import("oxgang.concurrent.futures._exit");
            let made = made.and_then(|exit| exit.getattr("closed_error")?.call0());
            made.map_or_else(|error| error, PyErr::from_value)
        }
        Refused::Forked => PyRuntimeError::new_err(
            "this executor belongs to the process that this one was forked from; make another \
             one here",
        ),
        Refused::Broken(why) => {
            let outcome = Outcome::Broken(why.clone());
            match payload::open(py, &outcome, None) {
                Ok(Err(exception)) => PyErr::from_value(exception.into_bound(py)),
                Ok(Ok(_)) => PyTypeError::new_err("not an error"),
                Err(error) => error,
            }
        }
    }
}

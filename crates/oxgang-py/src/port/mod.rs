//! The crossing between futures and event loops.
//!
//! A loop has one *port*: a mailbox and an eventfd. Whoever completes a future (a pool's driver, a
//! thread, without the interpreter) puts into the mailbox what is to be told, and rings if it was
//! empty; the loop, woken once for any number of them, empties it and tells. That is the whole
//! crossing: no lock of Python's, no `call_soon_threadsafe` for each.
//!
//! A loop that is busy need not be woken: while answers keep coming it looks for them by itself, once in
//! each of its rounds, and takes them in from the pool without its driver. Only before it would sleep
//! for longer does it ask to be rung for.
//!
//! | mode | left when | to |
//! |---|---|---|
//! | idle: nothing is outstanding | a future is awaited | looking |
//! | idle | somebody posts a callback | looking, by one `call_soon_threadsafe` |
//! | looking: in each round | the last one is told; after a post, the spin budget later | idle |
//! | | nothing has come for the spin budget | rung: the pools' drivers watch, the loop has the eventfd |
//! | rung | the eventfd is readable | looking |
//! | any | the loop is closed (see [`ticket`]) | idle, for good: nothing is kept for it any more |
//!
//! An idle loop has nothing of ours and closes as it pleases.
//!
//! # What can be told
//!
//! | item | who waits | what is done in the loop |
//! |---|---|---|
//! | `Waiter` | a task that awaits a future | the task goes on, in its own context |
//! | `Chain` | `asyncio.wrap_future`, so `run_in_executor` | its asyncio future is set |
//! | `Call` | other callbacks of asyncio's (`asyncio.wait`) | they are called |
//! | `Post` | nobody: a callback that any thread has sent | it is called, in its context |
//!
//! Everything of a port but `Mailbox::push` and `LoopPort::post` happens in the loop's thread.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use oxgang::spin::{self, Spinner};
use oxgang::{Pool, lock};
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFunction, PyTuple, PyWeakrefMethods, PyWeakrefReference};

pub use self::mailbox::{Item, Mailbox};
use self::ticket::{Call, Ticket};
use crate::future::Future;
use crate::raw;

mod mailbox;
pub mod ticket;

// -- the port ------------------------------------------------------------------------------

/// How a port learns what there is to tell.
enum Mode {
    /// Nothing is outstanding.
    Idle,
    /// The loop looks in each of its rounds; until when, if nothing comes.
    Looking(Option<Instant>),
    /// The loop is rung for, and the pools' drivers see to it.
    Rung,
}

struct Watching {
    mode: Mode,
    /// Those whose futures are outstanding.
    pools: Vec<Arc<Pool>>,
    spinner: Spinner,
    has_reader: bool,
}

/// A loop's port; see `oxgang._loops`.
#[pyclass(frozen, weakref, module = "oxgang._core")]
pub struct LoopPort {
    mailbox: Arc<Mailbox>,
    /// A weak reference to the loop; `None`: its user waits for `fileno` by itself.
    owner: Option<Py<PyWeakrefReference>>,
    /// The loop, when it is closed, drops what it was to call.
    drops: bool,
    outstanding: AtomicUsize,
    /// The loop will look in its next round.
    coming: AtomicBool,
    /// It looks on for a moment although nothing is outstanding.
    lingers: AtomicBool,
    watching: Mutex<Watching>,
}

#[pymethods]
impl LoopPort {
    #[new]
    fn new(owner: Option<Py<PyWeakrefReference>>, drops: bool) -> PyResult<Self> {
        let watching = Watching {
            mode: Mode::Idle,
            pools: Vec::new(),
            spinner: Spinner::new(spin::budget_of_process()),
            has_reader: false,
        };
        Ok(Self {
            mailbox: Mailbox::new().map_err(PyOSError::new_err)?,
            owner,
            drops,
            outstanding: AtomicUsize::new(0),
            coming: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            watching: Mutex::new(watching),
        })
    }

    /// Readable when there is something to tell, if nobody looks.
    fn fileno(&self) -> i32 {
        self.mailbox.bell.as_fd().as_raw_fd()
    }

    /// Makes `fileno` readable when the future is done.
    fn expect(slf: &Bound<'_, Self>, future: &Bound<'_, Future>) -> PyResult<()> {
        Self::listen(slf, future, Item::Nothing)
    }

    /// Tells what there is to tell, when `fileno` is readable.
    fn drain(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        this.mailbox.bell.clear();
        if this.owner.is_none() {
            return this.tell_all(slf.py()).map(|_| ());
        }
        if !matches!(lock(&this.watching).mode, Mode::Rung) {
            return Ok(()); // a late ring
        }
        Self::look(slf)
    }
}

impl LoopPort {
    /// Tells what there is to tell, and sees to it that it is called again while that pays.
    fn look(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let pools = this.begin_to_look(py);
        pools.iter().for_each(|pool| pool.poke());
        let told = match this.tell_all(py) {
            Ok(told) => told,
            Err(error) => {
                // SystemExit or Ctrl-C ends this round, not what is yet to be told
                Self::look_soon(slf)?;
                return Err(error);
            }
        };
        let expected = this.outstanding.load(Ordering::Relaxed) > 0;
        // who has just posted something may be about to post more
        let again = (expected || this.lingers.load(Ordering::Relaxed)) && this.has_patience(told);
        if again || !this.mailbox.leave() {
            return Self::look_soon(slf);
        }
        this.lingers.store(false, Ordering::Relaxed);
        if expected { Self::sleep(slf) } else { this.rest(py) }
    }

    pub fn get_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.owner.as_ref().and_then(|owner| owner.bind(py).upgrade())
    }

    /// Calls something in the loop, `owner`, soon; from any thread.
    fn post(slf: &Bound<'_, Self>, owner: &Bound<'_, PyAny>, item: Item) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        this.outstanding.fetch_add(1, Ordering::Relaxed);
        let announce = this.mailbox.post(item);
        if !announce && this.drops {
            return Ok(());
        }
        // a ticket that the loop does not take, or drops, takes back what was posted
        let look = Ticket::new(slf, Call::Announced);
        // not every loop says so by itself
        if owner.call_method0(intern!(py, "is_closed"))?.is_truthy()? {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        if !announce {
            look.void();
            return Ok(());
        }
        owner.call_method1(intern!(py, "call_soon_threadsafe"), (look,)).map(drop)
    }

    /// The loop has dropped a ticket unused.
    fn dropped(slf: &Bound<'_, Self>, call: Call) {
        let (py, this) = (slf.py(), slf.get());
        let taken = {
            let mut watching = lock(&this.watching);
            call == Call::Ring && !std::mem::take(&mut watching.has_reader)
        };
        if taken {
            return; // it was taken from the loop
        }
        if let Some(owner) = this.get_loop(py)
            && Self::asked_anew(slf, &owner)
        {
            return;
        }
        let (rung, pools) = {
            let mut watching = lock(&this.watching);
            let before = std::mem::replace(&mut watching.mode, Mode::Idle);
            (matches!(before, Mode::Rung), std::mem::take(&mut watching.pools))
        };
        let lost = this.mailbox.close();
        if rung {
            py.detach(|| pools.iter().for_each(|pool| pool.watch_one_less()));
        }
        drop((lost, pools)); // may run anything
    }

    /// A loop that has lost a ticket and is not closed (Ctrl-C came between two steps of its own,
    /// say) is given another. `false`: it is closed.
    fn asked_anew(slf: &Bound<'_, Self>, owner: &Bound<'_, PyAny>) -> bool {
        let py = slf.py();
        let closed = owner.call_method0(intern!(py, "is_closed"));
        if closed.and_then(|closed| closed.is_truthy()).unwrap_or(true) {
            return false;
        }
        slf.get().coming.store(false, Ordering::Relaxed);
        let Ok(look) = Bound::new(py, Ticket::new(slf, Call::Announced)) else { return false };
        let asked = owner.call_method1(intern!(py, "call_soon_threadsafe"), (&look,)).is_ok();
        if !asked {
            look.get().void(); // it is not asked for ever
        }
        asked
    }

    fn look_soon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if let Some(owner) = slf.get().get_loop(py)
            && !slf.get().coming.swap(true, Ordering::Relaxed)
        {
            let look = Ticket::new(slf, Call::Again);
            owner.call_method1(intern!(py, "call_soon"), (look,))?;
        }
        Ok(())
    }

    /// The loop looks, from now on; the pools to look at.
    fn begin_to_look(&self, py: Python<'_>) -> Vec<Arc<Pool>> {
        let (before, pools) = {
            let mut watching = lock(&self.watching);
            let looks = matches!(watching.mode, Mode::Looking(_));
            let mode = if looks { None } else { Some(Mode::Looking(None)) };
            let before = mode.map(|mode| std::mem::replace(&mut watching.mode, mode));
            (before, watching.pools.clone())
        };
        if before.is_some() {
            self.mailbox.attend();
        }
        if matches!(before, Some(Mode::Rung)) {
            py.detach(|| pools.iter().for_each(|pool| pool.watch_one_less()));
        }
        pools
    }

    /// Whether to look again in the next round.
    fn has_patience(&self, told: usize) -> bool {
        let mut watching = lock(&self.watching);
        let Watching { mode: Mode::Looking(until), spinner, .. } = &mut *watching else {
            return false;
        };
        if told > 0 {
            spinner.looked(true);
        }
        if told > 0 || until.is_none() {
            *until = spinner.patience();
        } else if until.is_some_and(|until| Instant::now() >= until) {
            spinner.looked(false);
            *until = None;
        }
        until.is_some()
    }

    /// The loop may sleep: it will be rung for, by each pool that is known of by now. What was told in
    /// this round may have brought further ones.
    fn sleep(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let (pools, has_reader) = {
            let mut watching = lock(&this.watching);
            watching.mode = Mode::Rung;
            (watching.pools.clone(), std::mem::replace(&mut watching.has_reader, true))
        };
        if !has_reader && let Some(owner) = this.get_loop(py) {
            let drain = Ticket::new(slf, Call::Ring);
            owner.call_method1(intern!(py, "add_reader"), (this.fileno(), drain))?;
        }
        py.detach(|| pools.iter().for_each(|pool| pool.watch_one_more()));
        Ok(())
    }

    /// Nothing is outstanding: the loop has nothing of ours any more.
    fn rest(&self, py: Python<'_>) -> PyResult<()> {
        let (pools, has_reader) = {
            let mut watching = lock(&self.watching);
            watching.mode = Mode::Idle;
            (std::mem::take(&mut watching.pools), std::mem::take(&mut watching.has_reader))
        };
        drop(pools);
        if has_reader && let Some(owner) = self.get_loop(py) {
            owner.call_method1(intern!(py, "remove_reader"), (self.fileno(),))?;
        }
        Ok(())
    }

    /// How many were told.
    fn tell_all(&self, py: Python<'_>) -> PyResult<usize> {
        let items = self.mailbox.take();
        let count = items.len();
        self.outstanding.fetch_sub(count, Ordering::Relaxed);
        if items.iter().any(|item| matches!(item, Item::Post { .. })) {
            self.lingers.store(true, Ordering::Relaxed);
        }
        let mut items = items.into_iter();
        while let Some(item) = items.next() {
            let Err(error) = item.tell(py) else { continue };
            if error.is_instance_of::<PyException>(py) {
                self.report(py, error)?;
                continue;
            }
            let rest: Vec<Item> = items.collect();
            self.outstanding.fetch_add(rest.len(), Ordering::Relaxed);
            self.mailbox.put_back(rest);
            return Err(error);
        }
        Ok(count)
    }

    fn report(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        let Some(owner) = self.get_loop(py) else { return Err(error) };
        let context = PyDict::new(py);
        context.set_item("message", "Exception in a callback that oxgang calls")?;
        context.set_item("exception", error.into_value(py))?;
        owner.call_method1(intern!(py, "call_exception_handler"), (context,))?;
        Ok(())
    }

    /// The item will be told in this port's loop when the future is done.
    pub fn listen(slf: &Bound<'_, Self>, future: &Bound<'_, Future>, item: Item) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        this.outstanding.fetch_add(1, Ordering::Relaxed);
        let (begin, watched) = {
            let mut watching = lock(&this.watching);
            let pool = future.get().pool();
            let new = pool.filter(|pool| !watching.pools.iter().any(|one| Arc::ptr_eq(one, pool)));
            watching.pools.extend(new.cloned());
            let rung = matches!(watching.mode, Mode::Rung) || this.owner.is_none();
            let begin = !rung && matches!(watching.mode, Mode::Idle);
            if begin {
                watching.mode = Mode::Looking(None);
            }
            (begin, new.filter(|_| rung))
        };
        if begin {
            this.mailbox.attend();
            Self::look_soon(slf)?;
        }
        if let Some(item) = Future::listen(future, &this.mailbox, item) {
            this.mailbox.push(item);
        }
        if let Some(pool) = watched {
            py.detach(|| pool.watch_one_more());
        }
        Ok(())
    }
}

impl Drop for LoopPort {
    fn drop(&mut self) {
        let watching = self.watching.get_mut().unwrap_or_else(PoisonError::into_inner);
        if matches!(watching.mode, Mode::Rung) || self.owner.is_none() {
            watching.pools.iter().for_each(|pool| pool.watch_one_less());
        }
    }
}

/// What `oxgang._loops` and asyncio have for this.
pub struct Loops {
    running: Py<PyAny>,
    /// `asyncio.current_task`
    pub current_task: Py<PyAny>,
    port_of: Py<PyAny>,
    /// `asyncio.CancelledError`
    pub cancelled: Py<PyAny>,
    /// `asyncio.InvalidStateError`
    pub invalid: Py<PyAny>,
}

pub fn loops(py: Python<'_>) -> PyResult<&Loops> {
    static LOOPS: PyOnceLock<Loops> = PyOnceLock::new();
    LOOPS.get_or_try_init(py, || {
        let (asyncio, ours) = (py.import("asyncio")?, py.import("oxgang._loops")?);
        Ok(Loops {
            running: asyncio.getattr("_get_running_loop")?.unbind(),
            current_task: asyncio.getattr("current_task")?.unbind(),
            port_of: ours.getattr("port_of")?.unbind(),
            cancelled: asyncio.getattr("CancelledError")?.unbind(),
            invalid: asyncio.getattr("InvalidStateError")?.unbind(),
        })
    })
}

/// The asyncio loop that runs in this thread. Nothing is imported for that.
pub fn running(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let modules =
        MODULES.get_or_try_init(py, || py.import("sys")?.getattr("modules").map(Bound::unbind))?;
    if !modules.bind(py).contains(intern!(py, "asyncio"))? {
        return Ok(None);
    }
    let running = loops(py)?.running.bind(py).call0()?;
    Ok(Some(running).filter(|running| !running.is_none()))
}

pub fn port_of<'py>(running: &Bound<'py, PyAny>) -> PyResult<Bound<'py, LoopPort>> {
    let port = loops(running.py())?.port_of.bind(running.py()).call1((running,))?;
    Ok(port.cast_into::<LoopPort>()?)
}

/// Has an asyncio loop call something soon; from any thread. As the loop's own method of that name,
/// but a burst of calls wakes the loop once, and costs a system call once.
///
/// Args:
///     loop: The loop.
///     callback, args: What to call there.
///     context: The `contextvars.Context` to call it in; a copy of the current one if not given.
///
/// Raises:
///     RuntimeError: The loop is closed.
///     TypeError: `callback` cannot be called.
#[pyfunction]
#[pyo3(signature = (r#loop, callback, /, *args, context=None))]
pub fn call_soon_threadsafe(
    r#loop: &Bound<'_, PyAny>,
    callback: Py<PyAny>,
    args: Py<PyTuple>,
    context: Option<Py<PyAny>>,
) -> PyResult<()> {
    // weak: the port lives as long as its loop
    static LAST: Mutex<Option<Py<PyWeakrefReference>>> = Mutex::new(None);
    let py = r#loop.py();
    if !callback.bind(py).is_callable() {
        return Err(PyTypeError::new_err(format!("{} is not callable", callback.bind(py).repr()?)));
    }
    let context = match context {
        Some(context) => context,
        None => raw::copy_context(py)?.unbind(),
    };
    let item = Item::Post { callback, arguments: args, context };
    let last = lock(&LAST).as_ref().map(|port| port.clone_ref(py));
    if let Some(last) = last
        && let Some(port) = last.bind(py).upgrade_as::<LoopPort>()?
        && port.get().get_loop(py).is_some_and(|owner| owner.is(r#loop))
    {
        return LoopPort::post(&port, r#loop, item);
    }
    let port = port_of(r#loop)?;
    let reference = PyWeakrefReference::new(&port)?.unbind();
    let before = lock(&LAST).replace(reference);
    drop(before);
    LoopPort::post(&port, r#loop, item)
}

// -- asyncio's own callbacks -----------------------------------------------------------------

/// Takes a callback of asyncio's over, to be told in the loop that runs here. `false`: it is an
/// ordinary one.
pub fn take_over(future: &Bound<'_, Future>, callback: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = future.py();
    let Ok(function) = callback.cast_exact::<PyFunction>() else { return Ok(false) };
    let module = function.getattr(intern!(py, "__module__"))?;
    let chain = module.eq(intern!(py, "asyncio.futures"))?;
    if !chain && !module.eq(intern!(py, "asyncio.tasks"))? {
        return Ok(false);
    }
    let Some(running) = running(py)? else { return Ok(false) };
    let source = future.clone().unbind();
    let item = if chain {
        let Some((destination, set_state)) = chained(function, &running)? else {
            return Ok(false);
        };
        Item::Chain { source, destination, set_state }
    } else {
        Item::Call { source, callback: callback.clone().unbind() }
    };
    LoopPort::listen(&port_of(&running)?, future, item)?;
    Ok(true)
}

/// What `asyncio.futures._chain_future` has put into its callback: the future of the running loop
/// that is to be set, and how. `None`: it is another function, or another loop's.
fn chained(
    function: &Bound<'_, PyFunction>,
    running: &Bound<'_, PyAny>,
) -> PyResult<Option<(Py<PyAny>, Py<PyAny>)>> {
    let py = function.py();
    let name = function.getattr(intern!(py, "__qualname__"))?;
    if !name.eq(intern!(py, "_chain_future.<locals>._call_set_state"))? {
        return Ok(None);
    }
    let code = function.getattr(intern!(py, "__code__"))?;
    let names = code.getattr(intern!(py, "co_freevars"))?.cast_into::<PyTuple>()?;
    let cells = function.getattr(intern!(py, "__closure__"))?.cast_into::<PyTuple>()?;
    let of = |wanted: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
        for (name, cell) in names.iter().zip(cells.iter()) {
            if name.eq(wanted)? {
                return cell.getattr(intern!(py, "cell_contents")).map(Some);
            }
        }
        Ok(None)
    };
    let (Some(set_state), Some(destination), Some(owner)) =
        (of("_set_state")?, of("destination")?, of("dest_loop")?)
    else {
        return Ok(None); // a newer asyncio: the ordinary way
    };
    Ok(owner.is(running).then(|| (destination.unbind(), set_state.unbind())))
}

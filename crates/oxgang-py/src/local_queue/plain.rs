//! A plain queue where nobody has to wait: `put` and `get` with `mutex` held, by the methods that
//! its class has. Whoever has to wait does that in `oxgang._plain_queue`.
//!
//! A priority queue whose class has no such methods of its own keeps its heap by `heapq` at once.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3::{intern, sync::PyOnceLock};

use super::terms::{names, raise};
use super::{LocalQueue, PRIORITY, SHARED, Shown};
use crate::threading::ThreadCondition;
use crate::wait::may_block;

struct Heap {
    push: Py<PyAny>,
    pop: Py<PyAny>,
}

fn heap(py: Python<'_>) -> PyResult<&Heap> {
    static HEAP: PyOnceLock<Heap> = PyOnceLock::new();
    HEAP.get_or_try_init(py, || {
        let module = py.import("heapq")?;
        let (push, pop) = (module.getattr("heappush")?, module.getattr("heappop")?);
        Ok(Heap { push: push.unbind(), pop: pop.unbind() })
    })
}

/// The queue with its `mutex`, held.
struct Opened<'a, 'py> {
    queue: &'a Bound<'py, LocalQueue>,
    heap: Option<Bound<'py, PyList>>,
}

impl<'py> Opened<'_, 'py> {
    fn py(&self) -> Python<'py> {
        self.queue.py()
    }

    fn size(&self) -> PyResult<usize> {
        match &self.heap {
            Some(heap) => Ok(heap.len()),
            None => self.queue.call_method0(intern!(self.py(), "_qsize"))?.extract(),
        }
    }

    fn put(&self, item: &Py<PyAny>) -> PyResult<()> {
        let py = self.py();
        match &self.heap {
            Some(list) => heap(py)?.push.bind(py).call1((list, item))?,
            None => self.queue.call_method1(intern!(py, "_put"), (item,))?,
        };
        Ok(())
    }

    fn get(&self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        match &self.heap {
            Some(list) => heap(py)?.pop.bind(py).call1((list,)),
            None => self.queue.call_method0(intern!(py, "_get")),
        }
    }

    fn notify(&self, which: impl Fn(&Shown) -> &Option<Py<PyAny>>) -> PyResult<()> {
        let py = self.py();
        let condition = part(self.queue, which)?;
        match condition.cast::<ThreadCondition>() {
            Ok(condition) if condition.get().is_idle(py) => Ok(()),
            _ => condition.call_method0(intern!(py, "notify")).map(drop),
        }
    }
}

fn part<'py>(
    queue: &Bound<'py, LocalQueue>,
    which: impl Fn(&Shown) -> &Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = queue.py();
    let found = which(&queue.get().shown.open(py)).as_ref().map(|one| one.clone_ref(py));
    found.map(|found| found.into_bound(py)).ok_or_else(|| {
        PyAttributeError::new_err(
            "the queue is not set up: a subclass must call super().__init__()",
        )
    })
}

/// Does something with `mutex` held.
fn with_mutex<'py, T>(
    queue: &Bound<'py, LocalQueue>,
    work: impl FnOnce(&Opened<'_, 'py>) -> PyResult<T>,
) -> PyResult<T> {
    let py = queue.py();
    let mutex = part(queue, |shown| &shown.mutex)?;
    mutex.call_method0(intern!(py, "acquire"))?;
    let is_heap = queue.get().kind.load(Ordering::Relaxed) == PRIORITY;
    let heap = is_heap.then(|| part(queue, |shown| &shown.queue)?.cast_into().map_err(Into::into));
    let done = heap.transpose().and_then(|heap| work(&Opened { queue, heap }));
    let released = mutex.call_method0(intern!(py, "release"));
    let done = done?;
    released?;
    Ok(done)
}

pub(super) fn put(
    queue: &Bound<'_, LocalQueue>,
    item: Py<PyAny>,
    block: Option<&Bound<'_, PyAny>>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = queue.py();
    if queue.get().kind.load(Ordering::Relaxed) == SHARED {
        let block = may_block(block)?;
        return LocalQueue::plainly(queue, "put", (item, block, timeout)).map(drop);
    }
    let put = timeout.is_none()
        && with_mutex(queue, |opened| {
            let (most, shut) = {
                let inside = queue.get().books.open(py);
                (inside.most, inside.shut)
            };
            if shut {
                return Err(raise(py, |names| &names.shut_down));
            }
            if most > 0 && opened.size()? >= most as usize {
                return Ok(false);
            }
            opened.put(&item)?;
            queue.get().books.open(py).unfinished += 1;
            opened.notify(|shown| &shown.not_empty)?;
            Ok(true)
        })?;
    if !put {
        let arguments = (queue, item, may_block(block)?, timeout);
        names(py)?.plain.bind(py).getattr(intern!(py, "put"))?.call1(arguments)?;
    }
    Ok(())
}

pub(super) fn get<'py>(
    queue: &Bound<'py, LocalQueue>,
    block: Option<&Bound<'_, PyAny>>,
    timeout: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = queue.py();
    if queue.get().kind.load(Ordering::Relaxed) == SHARED {
        return LocalQueue::plainly(queue, "get", (may_block(block)?, timeout));
    }
    let at_once = |opened: &Opened<'_, 'py>| {
        if opened.size()? == 0 {
            return Ok(None);
        }
        let item = opened.get()?;
        opened.notify(|shown| &shown.not_full)?;
        Ok(Some(item))
    };
    let got = if timeout.is_none() { with_mutex(queue, at_once)? } else { None };
    if let Some(item) = got {
        return Ok(item);
    }
    let arguments = (queue, may_block(block)?, timeout);
    names(py)?.plain.bind(py).getattr(intern!(py, "get"))?.call1(arguments)
}

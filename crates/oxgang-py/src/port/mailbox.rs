//! What is to be told in a loop, and where that waits for it.

use std::sync::{Arc, Mutex};

use oxgang::lock;
use oxgang_os::event::WakeUp;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::awaiting::Waiter;
use crate::future::Future;

/// What is to be told in a loop.
pub enum Item {
    Waiter(Py<Waiter>),
    Chain {
        source: Py<Future>,
        destination: Py<PyAny>,
        set_state: Py<PyAny>,
    },
    Call {
        source: Py<Future>,
        callback: Py<PyAny>,
    },
    Post {
        callback: Py<PyAny>,
        arguments: Py<PyTuple>,
        context: Py<PyAny>,
    },
    /// Was taken back.
    Nothing,
}

impl Item {
    /// Takes a callback back: the item that it was.
    pub fn forget(&mut self, callback: &Bound<'_, PyAny>) -> Option<Item> {
        match self {
            Self::Call { callback: own, .. } if own.is(callback) => {
                Some(std::mem::replace(self, Self::Nothing))
            }
            _ => None,
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Waiter(waiter) => visit.call(waiter),
            Self::Chain { source, destination, set_state } => {
                visit.call(source)?;
                visit.call(destination)?;
                visit.call(set_state)
            }
            Self::Call { source, callback } => {
                visit.call(source)?;
                visit.call(callback)
            }
            Self::Post { callback, arguments, context } => {
                visit.call(callback)?;
                visit.call(arguments)?;
                visit.call(context)
            }
            Self::Nothing => Ok(()),
        }
    }

    pub fn tell(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Waiter(waiter) => waiter.get().fire(waiter.bind(py)),
            Self::Chain { source, destination, set_state } => {
                let destination = destination.bind(py);
                if destination.call_method0(intern!(py, "done"))?.is_truthy()? {
                    return Ok(()); // cancelled meanwhile
                }
                if let Ok(result) = Future::result(source.bind(py), None) {
                    destination.call_method1(intern!(py, "set_result"), (result,))?;
                } else {
                    // errors are translated as asyncio does it
                    set_state.call1(py, (destination, source))?;
                }
                Ok(())
            }
            Self::Call { source, callback } => callback.call1(py, (source,)).map(|_| ()),
            Self::Post { callback, arguments, context } => {
                let (context, run) = (context.bind(py), intern!(py, "run"));
                let arguments = arguments.bind(py);
                if arguments.is_empty() {
                    return context.call_method1(run, (callback,)).map(|_| ());
                }
                let whole = PyTuple::new(py, [callback])?;
                let whole = whole.as_sequence().concat(arguments.as_sequence())?;
                context.call_method1(run, whole.to_tuple()?).map(|_| ())
            }
            Self::Nothing => Ok(()),
        }
    }
}

/// Where items wait for their loop.
pub struct Mailbox {
    content: Mutex<Content>,
    pub bell: WakeUp,
}

#[derive(Default)]
struct Content {
    items: Vec<Item>,
    /// The loop looks by itself: no need to ring.
    attended: bool,
    /// It has been told of posts, and will look.
    announced: bool,
    /// There is no loop any more: nothing is kept.
    closed: bool,
}

impl Mailbox {
    pub fn new() -> oxgang_os::Result<Arc<Self>> {
        Ok(Arc::new(Self { content: Mutex::default(), bell: WakeUp::new()? }))
    }

    /// From any thread, with or without the interpreter.
    pub fn push(&self, item: Item) {
        if self.put(item) {
            self.bell.ring();
        }
    }

    fn put(&self, item: Item) -> bool {
        let mut content = lock(&self.content);
        if content.closed {
            drop(content); // not under the lock: an object's end may run anything
            drop(item);
            return false;
        }
        content.items.push(item);
        content.items.len() == 1 && !content.attended
    }

    /// From any thread, for a loop that may be closed: whether it is to be told that there is something.
    pub fn post(&self, item: Item) -> bool {
        let mut content = lock(&self.content);
        content.items.push(item);
        !content.attended && !std::mem::replace(&mut content.announced, true)
    }

    /// The loop looks since it was told of a post.
    pub fn heard(&self) {
        lock(&self.content).announced = false;
    }

    /// There is no loop any more: everything that there is.
    pub fn close(&self) -> Vec<Item> {
        let left = Content { closed: true, ..Content::default() };
        std::mem::replace(&mut *lock(&self.content), left).items
    }

    pub fn take(&self) -> Vec<Item> {
        std::mem::take(&mut lock(&self.content).items)
    }

    /// The loop looks by itself from now on.
    pub fn attend(&self) {
        lock(&self.content).attended = true;
    }

    /// The loop is to be rung for from now on; `false`: there is something already.
    pub fn leave(&self) -> bool {
        let mut content = lock(&self.content);
        content.attended = !content.items.is_empty();
        !content.attended
    }

    /// Puts back what could not be told, before what has come meanwhile.
    pub fn put_back(&self, items: Vec<Item>) {
        lock(&self.content).items.splice(0..0, items);
    }
}

//! Books of the whole process that threads write without the interpreter's leave, over forks.
//!
//! A fork copies a mutex as it is, and the thread that holds it is not there in the child. So whoever
//! forks takes these books first, and gives them back right after, in the parent and in the child.
//! They are held for moments, and nobody forks, waits or runs code of others meanwhile; who needs both
//! takes those of queues first.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard};

use crate::{lock, queue, region};

/// Some of these books; made when they are first looked into.
pub(crate) struct ForkedBooks<T>(Mutex<Option<T>>);

impl<T: Default> ForkedBooks<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        oxgang_os::fork::around(before, after); // before the first look into any of them
        look(lock(&self.0).get_or_insert_default())
    }
}

type Held = (MutexGuard<'static, Option<queue::Books>>, MutexGuard<'static, Option<region::Books>>);

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

fn before() {
    let held = (lock(&queue::BOOKS.0), lock(&region::BOOKS.0));
    // a thread that is at its end has no such place any more, and does not fork
    let _at_its_end = HELD.try_with(|place| place.replace(Some(held)));
}

fn after() {
    let _at_its_end = HELD.try_with(RefCell::take);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_forks_has_the_books() {
        let (queues, regions) = (&queue::BOOKS.0, &region::BOOKS.0);
        let free =
            || std::thread::spawn(|| (queues.try_lock().is_ok(), regions.try_lock().is_ok()));
        before();
        assert_eq!(free().join().unwrap(), (false, false));
        after();
        drop((lock(queues), lock(regions)));
    }
}

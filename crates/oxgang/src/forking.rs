//! Books of the whole process that threads write without the interpreter's leave, over forks.
//!
//! A fork copies a mutex as it is, and the thread that holds it is not there in the child. So whoever
//! forks takes these books first, and gives them back right after, in the parent and in the child.
//! They are held for moments, and nobody forks, waits or runs code of others meanwhile; who needs both
//! takes those of queues first.

use std::cell::RefCell;
use std::sync::MutexGuard;

use crate::{queue, region};

type Held = (MutexGuard<'static, Option<queue::Books>>, MutexGuard<'static, Option<region::Books>>);

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// To be called before the first look into any of them.
pub(crate) fn watch() {
    oxgang_os::fork::around(before, after);
}

fn before() {
    let held = (queue::lock_books(), region::lock_books());
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
        let free = || std::thread::spawn(|| region::books_are_free() && queue::books_are_free());
        before();
        assert!(!free().join().unwrap());
        after();
        drop((queue::lock_books(), region::lock_books()));
    }
}

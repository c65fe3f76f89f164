//! Forks of this process, counted where none can be missed: by the C library, within `fork` itself,
//! whoever calls it. So the counts have moved before any of the program's own hooks runs in the
//! child, and move once for each fork, whatever was imported.
//!
//! Counting begins with the first look at a count: what was made before that bears no count that a
//! fork could make wrong.
//!
//! Safety: unsafe for one thing: `pthread_atfork`, which takes plain functions. They count, and run
//! what [`around`] was given. Nobody can take them back, so they must stay loaded: Python never
//! unloads an extension.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, OnceLock};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static FORKS: AtomicU64 = AtomicU64::new(0);

/// How many forks lie between the first process that looked and this one.
#[must_use]
pub fn generation() -> u64 {
    watch();
    GENERATION.load(Ordering::Relaxed)
}

/// Forks of this process and of those that it was forked from, each counted before it happens: what
/// was mapped at a smaller count may be looked at by a child.
#[must_use]
pub fn forks() -> u64 {
    watch();
    FORKS.load(Ordering::Relaxed)
}

struct Around {
    before: fn(),
    after: fn(),
}

static AROUND: OnceLock<Around> = OnceLock::new();

/// From now on the thread that forks runs `before` right before, and `after` right after, in the
/// parent and in the child: to take locks that threads may hold which are not there in the child, and
/// to give them back. Neither may panic; `after` runs where no other thread does, so it may do no more
/// than that. The first pair that is given is the one.
pub fn around(before: fn(), after: fn()) {
    AROUND.get_or_init(|| {
        watch();
        Around { before, after }
    });
}

fn watch() {
    extern "C" fn before() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        AROUND.get().inspect(|around| (around.before)());
    }
    extern "C" fn in_parent() {
        AROUND.get().inspect(|around| (around.after)());
    }
    extern "C" fn in_child() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
        in_parent();
    }
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // SAFETY: they are functions of this library, which is never unloaded, that touch no memory
        // but counts and what safe functions may
        let refused =
            unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        // the one reason is that there is no memory left, which ends a Rust program anywhere
        assert_eq!(refused, 0, "no memory to watch forks");
    });
}

/// Held by tests that fork, and by those whose figures a child changes that is there meanwhile.
#[cfg(test)]
pub(crate) static FORKING: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::{Mutex, MutexGuard};

    use super::*;

    static LOCK: Mutex<()> = Mutex::new(());
    thread_local! {
        static HELD: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
    }

    /// The status of a child that does no more than this.
    fn status_of(work: impl FnOnce() -> i32) -> i32 {
        let _forking = FORKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // SAFETY: the child runs `work`, which by the tests' word takes no memory, and ends
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child, with nothing run behind it
            unsafe { libc::_exit(work()) };
        }
        let mut status = 0;
        // SAFETY: `status` is written by the call alone
        let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(reaped, child);
        status
    }

    #[test]
    fn a_lock_that_is_taken_around_a_fork_is_free_in_the_child() {
        let take = || HELD.set(LOCK.lock().ok());
        around(take, || drop(HELD.take()));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(LOCK.lock());
                }
            });
            for _ in 0..50 {
                let free = || i32::from(LOCK.try_lock().is_err());
                assert_eq!(status_of(free), 0);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(LOCK.try_lock().is_ok());
    }

    #[test]
    fn a_fork_is_counted_once_on_each_side() {
        let before = generation();
        assert_eq!(status_of(|| i32::from(generation() != before + 1)), 0);
        assert_eq!(generation(), before);
        // the other test forks too
        let counted = forks();
        let status = status_of(|| i32::from(forks() <= counted));
        assert!(status == 0 && forks() > counted);
    }
}

//! Forks of this process, counted where none can be missed: by the C library, within `fork` itself,
//! whoever calls it. So the counts have moved before any of the program's own hooks runs in the
//! child, and move once for each fork, whatever was imported.
//!
//! Counting begins with the first look at a count: what was made before that bears no count that a
//! fork could make wrong.
//!
//! Safety: unsafe for one thing: `pthread_atfork`, which takes plain functions. They do nothing but
//! count, so they may run in the child of a process with threads. Nobody can take them back, so they
//! must stay loaded: Python never unloads an extension.

#![allow(unsafe_code)]

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

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

fn watch() {
    extern "C" fn before() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    extern "C" fn in_child() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // SAFETY: both are functions of this library, which is never unloaded, and do nothing but
        // add to a number: no lock, no memory
        let refused = unsafe { libc::pthread_atfork(Some(before), None, Some(in_child)) };
        // the one reason is that there is no memory left, which ends a Rust program anywhere
        assert_eq!(refused, 0, "no memory to watch forks");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_counted_once_on_each_side() {
        let (generation_before, forks_before) = (generation(), forks());
        // SAFETY: the child does nothing but load two numbers and end
        let child = unsafe { libc::fork() };
        if child == 0 {
            let counted = generation() == generation_before + 1 && forks() == forks_before + 1;
            // SAFETY: ends the child, with nothing run behind it
            unsafe { libc::_exit(i32::from(!counted)) };
        }
        assert_eq!((generation(), forks()), (generation_before, forks_before + 1));
        let mut status = 0;
        // SAFETY: `status` is written by the call alone
        let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((reaped, status), (child, 0));
    }
}

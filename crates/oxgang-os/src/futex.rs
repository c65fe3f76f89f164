//! Waiting on a word and waking who waits, within a process or across processes.
//!
//! [`wait`] and [`wake`] find each other wherever the word is mapped; [`park`] and [`unpark`] do so
//! within one process only, for less.
//!
//! Unlike the standard library's locks these waits return on a signal, so that a Python
//! caller can run its handlers and go on.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// By a wake, or since the word no longer showed the value, or for no reason.
    Maybe,
    /// The time is up.
    TimeUp,
    /// A signal came.
    Signal,
}

/// Waits while `word` shows `value`, for `limit` at most.
pub fn wait(word: &AtomicU32, value: u32, limit: Option<Duration>) -> Woken {
    wait_as(futex::Flags::empty(), word, value, limit)
}

/// [`wait`] for [`unpark`].
pub fn park(word: &AtomicU32, value: u32, limit: Option<Duration>) -> Woken {
    wait_as(futex::Flags::PRIVATE, word, value, limit)
}

fn wait_as(flags: futex::Flags, word: &AtomicU32, value: u32, limit: Option<Duration>) -> Woken {
    let limit = limit.map(|limit| rustix::time::Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match futex::wait(word, flags, value, limit.as_ref()) {
        Err(Errno::TIMEDOUT) => Woken::TimeUp,
        Err(Errno::INTR) => Woken::Signal,
        _ => Woken::Maybe,
    }
}

/// Wakes up to `count` of those who wait on `word`; how many it were.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    wake_as(futex::Flags::empty(), word, count)
}

/// Wakes up to `count` of those of this process who [`park`]; how many it were.
pub fn unpark(word: &AtomicU32, count: u32) -> usize {
    wake_as(futex::Flags::PRIVATE, word, count)
}

fn wake_as(flags: futex::Flags, word: &AtomicU32, count: u32) -> usize {
    // the only errors are a bad address or bad flags, and a reference is a good address
    // the kernel reads the count as signed, and a negative one as one
    let woken = futex::wake(word, flags, count.min(i32::MAX as u32));
    debug_assert!(woken.is_ok());
    woken.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_wait_ends_by_wake_by_value_and_by_time() {
        let word = AtomicU32::new(0);
        assert_eq!(wait(&word, 1, None), Woken::Maybe, "another value");
        assert_eq!(wait(&word, 0, Some(Duration::from_millis(1))), Woken::TimeUp);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while word.load(Ordering::Acquire) == 0 {
                    wait(&word, 0, None);
                }
            });
            word.store(1, Ordering::Release);
            wake(&word, u32::MAX);
        });
    }

    #[test]
    fn all_means_all() {
        let (word, over) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while over.load(Ordering::Acquire) == 0 {
                        wait(&word, 0, Some(Duration::from_secs(60)));
                    }
                });
            }
            // sooner or later all four sleep at once, and one call must wake them all
            let most = (0..100_000).map(|_| {
                std::thread::yield_now();
                wake(&word, u32::MAX)
            });
            assert!(most.into_iter().any(|woken| woken == 4), "never more than some");
            over.store(1, Ordering::Release);
            word.store(1, Ordering::Release);
            wake(&word, u32::MAX);
        });
    }
}

//! Pools of worker processes that survive the death of any worker.
//!
//! A task is an id, a callable, an opaque payload and somebody to tell; a worker is a process
//! that claims payloads and publishes answers. This crate knows neither Python nor any other
//! codec. It joins the two leaves: what lives in shared memory (`oxgang-shm`) and what the
//! kernel does (`oxgang-os`).
//!
//! | module | holds |
//! |---|---|
//! | [`pool`] | the owner's side: submit, wait, cancel, shut down |
//! | [`supervisor`] | who starts, retires and replaces workers: a pure state machine |
//! | [`limits`] | what a task may take, and what becomes of one that takes more: pure |
//! | [`worker`] | the worker's side: next request, publish |
//! | [`starter`] | how a worker comes to exist |
//! | [`template`] | a process that forks workers on request, both sides of it |
//! | [`task`] | tasks, outcomes, and who is told |
//! | [`parking`] | how threads of one process wait for each other, in line |
//! | [`lane`] | messages one way between processes, in memory that grows |
//! | [`queue`] | such a way, for any number of senders and receivers |
//! | [`pipe`] | one or two of them between two ends, which tell when the other is gone |
//! | [`spin`] | when to spin before sleeping |
//! | [`sync`] | locks and their kin between processes: waiting, life, and where they are kept |
//! | [`line`] | calls of one thread to another process, in turns |
//! | [`segment`] | shared structures over mapped memory; blocks in growing files |

#![forbid(unsafe_code)]

pub mod child;
mod forking;
pub mod lane;
pub mod limits;
pub mod line;
pub mod parking;
pub mod pipe;
pub mod pool;
pub mod queue;
pub mod region;
pub mod segment;
pub mod shelf;
pub mod spin;
pub mod starter;
pub mod store;
pub mod supervisor;
pub mod sync;
pub mod task;
pub mod template;
pub mod wire;
pub mod worker;

pub use limits::{Cause, Death, TaskOptions};
pub use pool::{Pool, PoolOptions};
pub use task::{
    Body, Callable, Completion, Crash, Foreign, JoinHandle, Late, Outcome, Payload, Task, TaskId,
};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic with it held: that is a bug, and what it guards is still the best there
/// is.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many forks lie between the first process and this one: pools of a parent are the parent's
/// alone, and a child must not touch their memory or wait on their locks.
pub use oxgang_os::fork::generation;

/// Forks of this process and of those that it was forked from: what is mapped now is looked at by
/// the child of the next one too.
pub(crate) use oxgang_os::fork::forks;

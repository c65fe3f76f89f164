//! A pool whose one worker is played by a test.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use oxgang_os::event::WakeUp;
use oxgang_os::segment::Segment;
use oxgang_shm::channel::WorkerEnd;
use oxgang_shm::ring::FIRST_INCARNATION;
use oxgang_shm::watch::{WATCH_BYTES, Watch};

use super::core::Core;
use super::life::Life;
use crate::limits::TaskOptions;
use crate::segment::Mapped;
use crate::starter::Invited;
use crate::store::Store;
use crate::supervisor::Event;
use crate::task::{Callable, JoinHandle, Payload, Task};
use crate::worker::Worker;

/// The pool, and the worker's end of its channel.
pub fn core() -> (Core, WorkerEnd<Mapped>) {
    let (core, ..) = made();
    let worker = WorkerEnd::open(core.lives[0].words()).unwrap();
    (core, worker)
}

/// The pool, and a worker in this process.
pub fn core_and_worker() -> (Core, Worker) {
    let (core, pool, bell) = made();
    let (channel, wake) = (copy(core.lives[0].channel()), copy(&*bell));
    let worker = Worker::join(Invited { incarnation: FIRST_INCARNATION, channel, pool, wake });
    (core, worker.unwrap())
}

fn copy(fd: &impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

fn made() -> (Core, OwnedFd, Arc<WakeUp>) {
    let segment = Segment::create("test", WATCH_BYTES as u64).unwrap();
    let watch = Watch::new(Mapped::new(segment.map(0, WATCH_BYTES).unwrap()));
    let pool = copy(&segment);
    let store = Store::new(segment, WATCH_BYTES as u64);
    let bell = Arc::new(WakeUp::new().unwrap());
    let mut core = Core::new(1, None, Vec::new(), 1 << 30, store, bell.clone(), watch);
    core.handle(Event::Wanted);
    core.starts.clear();
    let mut life = Life::new(FIRST_INCARNATION, &Payload::default(), &bell).unwrap();
    life.ready = true;
    core.lives.push(life);
    (core, pool, bell)
}

/// Gives the task to the worker, or back.
pub fn try_send(
    core: &mut Core,
    callable: &Arc<Callable>,
    id: u64,
    payload: impl Into<Payload>,
) -> Result<Arc<JoinHandle>, Task> {
    let handle = JoinHandle::new();
    let task = Task::new(id, callable.clone(), payload, handle.clone());
    core.send(0, task).map_or(Ok(handle), Err)
}

/// Gives the task to the worker, whatever that has already.
pub fn send(
    core: &mut Core,
    callable: &Arc<Callable>,
    id: u64,
    payload: impl Into<Payload>,
) -> Arc<JoinHandle> {
    let handle = JoinHandle::new();
    give(core, Task::new(id, callable.clone(), payload, handle.clone()));
    handle
}

/// Gives it a task with limits.
pub fn send_with(core: &mut Core, options: TaskOptions, id: u64) -> Arc<JoinHandle> {
    let handle = JoinHandle::new();
    let mut task = Task::new(id, Callable::new(vec![1]), Vec::new(), handle.clone());
    task.options = Some(Arc::new(options));
    give(core, task);
    handle
}

fn give(core: &mut Core, task: Task) {
    core.watched += 1;
    core.queue(task);
    let task = core.queue.pop_back().unwrap();
    assert!(core.send(0, task).is_none());
}

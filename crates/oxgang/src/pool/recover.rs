//! What becomes of tasks whose workers end, and of those that are to be tried again.
//!
//! After a death what the worker published counts, the task that it had begun is lost, and what it
//! had not begun goes to others. A lost task that has a try left waits for it (`later`) and is
//! queued again by the driver; see [`limits`](crate::limits).

use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oxgang_os::clock;
use oxgang_os::event::wait_readable;
use oxgang_os::process::{Exit, Process};

use super::Pool;
use super::core::Core;
use super::life::{Life, Sent};
use crate::Death;
use crate::limits::Cause;
use crate::starter::Notice;
use crate::supervisor::Incarnation;
use crate::task::{Crash, Outcome, Task, TaskId};

/// How long a process that has ended may take to be reaped by who started it.
const REAPING: Duration = Duration::from_secs(2);
/// Kills for want of memory that were noticed so short a time ago may be this worker's too.
const SAME_KILLS: u64 = 1_000_000_000;

impl Pool {
    pub(super) fn take_notices(&self) {
        let notices = self.starter.notices();
        if notices.is_empty() {
            return;
        }
        for notice in notices {
            let mut core = self.core();
            match notice {
                Notice::Started(one, process) => core.started(one, process),
                Notice::Refused(one, why) => core.start_refused(one, why),
                Notice::Ended(one, exit) => {
                    if let Some(life) = core.life(one) {
                        life.exit = exit;
                    }
                }
                Notice::Lost(these, why) => core.starts_lost(these, why),
            }
        }
        self.wake_leader(); // a refused start may have broken the pool
    }

    /// How the process ended; if who reaps it has not told yet, waits for that, within bounds.
    pub(super) fn exit_of(&self, one: Incarnation, process: &Process) -> Exit {
        let told = self.core().life(one).map_or(Exit::Unknown, |life| life.exit);
        if told != Exit::Unknown {
            return told;
        }
        if let Some(exit) = self.starter.exit(process) {
            return exit;
        }
        let until = Instant::now() + REAPING;
        loop {
            let told = self.core().life(one).map_or(Exit::Unknown, |life| life.exit);
            let left = until.saturating_duration_since(Instant::now());
            let Some(link) = self.starter.notice_link() else { return told };
            if told != Exit::Unknown || left.is_zero() {
                return told;
            }
            let come = wait_readable(&[link.as_fd()], Some(left));
            self.take_notices();
            if come.is_err() {
                return Exit::Unknown;
            }
        }
    }
}

impl Core {
    /// A worker that may be there or not, and nobody could say when it ends: what it has not begun
    /// is taken from it, what it has begun and not answered is lost, and it is told to end.
    pub fn abandon(&mut self, one: Incarnation) {
        let Some(index) = self.lives.iter().position(|life| life.incarnation == one) else {
            return;
        };
        self.take_in_from(index);
        let mut life = self.lives.swap_remove(index);
        let back = life.take_back(usize::MAX);
        self.counters.moved += back.len() as u64;
        self.requeue(back);
        let sent: Vec<Sent> = life.sent.drain(..).collect();
        for lost in sent {
            self.lost(&life, lost, false);
        }
        life.stop();
        let _nobody = life.settle_debts(); // nonsense there is of no concern any more
    }

    /// The process has ended: what it published counts, the task it had begun is lost, and
    /// what it had not begun goes to others.
    pub fn recover(&mut self, one: Incarnation) {
        let Some(index) = self.lives.iter().position(|life| life.incarnation == one) else {
            return;
        };
        self.take_in_from(index);
        let mut life = self.lives.swap_remove(index);
        self.watch.forget_spinners();
        let orderly = life.retiring && !life.given_up && life.ending.is_none();
        if !orderly && life.ending.is_none() {
            self.counters.crashed += 1;
        }
        let not_begun = life.not_begun();
        let begun = life.sent.len() - not_begun;
        let mut sent: Vec<Sent> = life.sent.drain(..).collect();
        let free = sent.split_off(begun);
        for lost in sent {
            self.lost(&life, lost, orderly);
        }
        if let Some(why) = self.broken.clone() {
            for sent in free {
                self.finish(sent.task, Outcome::Broken(why.clone()));
            }
        } else {
            self.counters.moved += free.len() as u64;
            self.requeue(free.into_iter().rev().collect());
        }
    }

    /// Every task that is left fails; later ones are refused.
    pub fn break_down(&mut self, why: Arc<str>) {
        if self.broken.is_some() {
            return;
        }
        self.broken = Some(why.clone());
        for index in 0..self.lives.len() {
            self.take_in_from(index);
            let sent: Vec<Sent> = self.lives[index].sent.drain(..).collect();
            for sent in sent {
                self.finish(sent.task, Outcome::Broken(why.clone()));
            }
        }
        let later = std::mem::take(&mut self.later).into_values();
        for task in std::mem::take(&mut self.queue).into_iter().chain(later) {
            self.finish(task, Outcome::Broken(why.clone()));
        }
    }

    // -- further tries --------------------------------------------------------------------

    /// A task that a worker had begun and not answered, now that it is dead.
    pub fn lost(&mut self, life: &Life, mut sent: Sent, orderly: bool) {
        if let (Some(why), true) = (&self.broken, orderly) {
            let why = why.clone();
            self.counters.lost += 1;
            return self.finish(sent.task, Outcome::Broken(why));
        }
        let ending = life.ending.as_ref().filter(|ending| ending.position == sent.position);
        let (cause, stack) = match ending {
            Some(ending) => (ending.cause.clone(), life.stacks()),
            None => (Cause::Died(self.kernel_kills(life.exit)), String::new()),
        };
        *(if ending.is_some() { &mut self.counters.stopped } else { &mut self.counters.lost }) += 1;
        let death = Death {
            pid: life.pid().unwrap_or(0),
            exit: life.exit,
            ran: life.ran(&sent, clock::now()),
            cause,
            stack,
            peak: life.peak,
        };
        let earlier = match &mut sent.task.overseen {
            None => Vec::new(),
            Some(overseen) => {
                let earlier = overseen.tries.deaths.clone();
                overseen.tries.deaths.push(death.clone());
                let Some(last) = self.put_off(sent, true) else { return };
                sent = last;
                earlier
            }
        };
        let crash = Crash { task: sent.task.id, death, earlier };
        self.finish(sent.task, Outcome::Crashed(crash));
    }

    /// A task raised what is worth another try. Gives it back if it has none left.
    pub fn try_again(&mut self, mut sent: Sent) -> Option<Sent> {
        if let Some(overseen) = &mut sent.task.overseen {
            overseen.tries.errors += 1;
        }
        self.put_off(sent, false)
    }

    /// Keeps a task for later, if it has a try left.
    fn put_off(&mut self, sent: Sent, died: bool) -> Option<Sent> {
        let Some(overseen) = &sent.task.overseen else { return Some(sent) };
        let (options, tries) = (&overseen.options, &overseen.tries);
        let cause = tries.deaths.last().filter(|_| died).map(|death| &death.cause);
        let chance = RandomState::new().hash_one(sent.task.id);
        let wanted = self.broken.is_none() && sent.task.completion.wanted();
        let Some(pause) = tries.pause(options, cause, chance).filter(|_| wanted) else {
            return Some(sent);
        };
        let moment = clock::now().saturating_add(pause.as_nanos() as u64);
        self.counters.retried += 1;
        self.later.insert((moment, sent.task.id), sent.task);
        self.look_at(moment);
        None
    }

    /// Takes a task back that is to be tried again.
    pub fn take_from_later(&mut self, id: TaskId) -> Option<Task> {
        let key = *self.later.keys().find(|(_, one)| *one == id)?;
        self.later.remove(&key)
    }

    /// Processes that the kernel has killed for want of memory just now; `None`: that cannot be
    /// known, or has nothing to do with this end.
    fn kernel_kills(&mut self, exit: Exit) -> Option<u64> {
        if exit != Exit::Signal(9) {
            return None;
        }
        let (now, fresh) = (clock::now(), self.out_of_memory.look()?);
        if fresh > 0 {
            self.kills = (now, fresh);
        }
        let recent = now.saturating_sub(self.kills.0) <= SAME_KILLS;
        Some(if recent { self.kills.1 } else { 0 })
    }
}

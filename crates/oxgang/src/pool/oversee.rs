//! Limits and further tries: what the pool does about a task that takes too much, that somebody
//! wants ended, or that was lost.
//!
//! A worker is ended for one task only, and must take no other along: before it is ended,
//! everything behind that task is taken back. If that does not succeed, the worker has gone on to
//! another task, so the one that was to be ended is done, and nobody is. From then on the worker
//! can only answer for that task or die, and whichever is seen first under the lock counts.
//!
//! A worker answers a task before it claims the next one, and whoever finds a claim sees what came
//! before it. So one that has claimed a task, by the memory, and not answered the one before it,
//! writes nonsense: it is given up.

use std::hash::{BuildHasher, RandomState};

use oxgang_os::clock;
use oxgang_os::process::Exit;

use super::core::Core;
use super::life::{Ending, Life, Sent};
use crate::Death;
use crate::limits::{Cause, LAST_WORDS, Moment, NEVER, Step};
use crate::supervisor::{Event, Incarnation};
use crate::task::{Crash, Outcome, Task, TaskId};

/// Kills for want of memory that were noticed so short a time ago may be this worker's too.
const SAME_KILLS: u64 = 1_000_000_000;

/// A worker whose memory must be looked at, without the lock.
pub(super) struct Measure {
    pub one: Incarnation,
    pub position: u64,
    pub pid: i32,
    pub limit: u64,
}

/// What a look after the limits came to.
#[derive(Default)]
pub(super) struct Looked {
    /// Whether anything was done.
    pub acted: bool,
    pub measures: Vec<Measure>,
}

impl Core {
    /// The driver must look after limits no later than so long from now.
    pub fn look_within(&mut self, limit: Option<std::time::Duration>) {
        self.overseeing = true;
        let Some(limit) = limit else { return };
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(NEVER);
        self.look_at(clock::now().saturating_add(limit));
    }

    fn look_at(&mut self, moment: Moment) {
        if moment < self.promised {
            self.promised = moment;
            self.hurry = true;
        }
    }

    /// Does what is due, and settles when to look again (`promised`).
    pub fn oversee(&mut self) -> Looked {
        let mut looked = Looked::default();
        if !self.overseeing {
            return looked;
        }
        let now = clock::now();
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let task = entry.remove();
            self.queue.push_front(task);
            looked.acted = true;
        }
        let mut next = self.later.keys().next().map_or(NEVER, |(moment, _)| *moment);
        for index in 0..self.lives.len() {
            next = next.min(self.oversee_one(index, now, &mut looked));
        }
        self.promised = next;
        self.hurry = false;
        looked
    }

    fn oversee_one(&mut self, index: usize, now: Moment, looked: &mut Looked) -> Moment {
        let life = &mut self.lives[index];
        if life.given_up {
            return NEVER; // what it has is sorted out when it is dead
        }
        if let Some(ending) = &life.ending {
            if life.doomed {
                return NEVER; // its process ends, or has yet to be known
            }
            let until = ending.killed_at;
            if now < until {
                return until;
            }
            let one = life.incarnation;
            self.handle(Event::Condemned(one));
            return NEVER;
        }
        if life.sent.iter().all(|sent| sent.overseen.is_none()) {
            return NEVER;
        }
        self.take_in_from(index);
        let life = &mut self.lives[index];
        let rest = life.sent.iter().skip(1).filter_map(Sent::first_look).min();
        let rest = rest.map_or(NEVER, |look| now.saturating_add(look.as_nanos() as u64));
        let Some(began) = life.first_began(now) else {
            let first = life.sent.front().and_then(Sent::first_look);
            return rest.min(first.map_or(NEVER, |l| now.saturating_add(l.as_nanos() as u64)));
        };
        loop {
            let life = &mut self.lives[index];
            let asking = life.asking();
            let Some(first) = life.sent.front_mut() else { return rest };
            let (Some(options), Some(overseen)) = (&first.task.options, &mut first.overseen) else {
                return rest;
            };
            let position = first.position;
            match overseen.limits.step(options, began, now, asking) {
                Step::Wait(until) => return rest.min(until),
                Step::Ask => {
                    looked.acted = true;
                    let limit = options.timeout.unwrap_or_default();
                    // whatever waits behind it need not wait for its grace too
                    let back = life.take_back(usize::MAX);
                    life.ask(limit);
                    self.counters.moved += back.len() as u64;
                    self.requeue(back);
                }
                Step::Measure => {
                    let pid = life.process.as_ref().map(|process| process.pid);
                    let one = life.incarnation;
                    looked.measures.extend(pid.map(|pid| Measure {
                        one,
                        position,
                        pid,
                        limit: options.memory.unwrap_or(NEVER),
                    }));
                }
                Step::End(cause) => {
                    looked.acted = true;
                    if !self.condemn(index, position, cause) {
                        return now; // it is done: look again at what is next
                    }
                    let one = self.lives[index].incarnation;
                    self.handle(Event::Overdue(one));
                    let doomed = self.lives.get(index).is_none_or(|life| life.doomed);
                    let last_words = LAST_WORDS.as_nanos() as u64;
                    return if doomed { NEVER } else { now.saturating_add(last_words) };
                }
            }
        }
    }

    /// A worker has so much memory, as was asked.
    pub fn measured(&mut self, measure: &Measure, used: u64, peak: Option<u64>) {
        let now = clock::now();
        self.look_at(now);
        let Some(life) = self.life(measure.one) else { return };
        life.peak = peak.max(life.peak);
        if let Some(first) = life.sent.front_mut()
            && first.position == measure.position
            && let (Some(options), Some(overseen)) = (&first.task.options, &mut first.overseen)
        {
            overseen.limits.measured(options, used, now);
        }
    }

    /// Prepares the end of a worker for the sake of the task at `position`, its first: nothing
    /// else is to be lost with it. `false`: the task is done.
    fn condemn(&mut self, index: usize, position: u64, cause: Cause) -> bool {
        let back = self.lives[index].take_back(usize::MAX);
        self.counters.moved += back.len() as u64;
        self.requeue(back);
        self.take_in_from(index);
        let life = &mut self.lives[index];
        if life.sent.front().is_none_or(|first| first.position != position) {
            return false;
        }
        // what is behind it and could not be taken back is claimed, so this one should be done, and
        // its answer in
        if life.sent.len() != 1 {
            life.give_up();
            return false;
        }
        life.retiring = true;
        let killed_at = clock::now().saturating_add(LAST_WORDS.as_nanos() as u64);
        life.ending = Some(Ending { position, cause, killed_at });
        true
    }

    /// Ends a task: takes it back if it has not begun, else ends its worker. `false`: it is done.
    pub fn terminate(&mut self, id: TaskId) -> bool {
        loop {
            self.turn();
            if self.cancel(id) {
                return true;
            }
            let there = |life: &Life| life.sent.iter().position(|sent| sent.task.id == id);
            let given_up = |life: &Life| there(life).filter(|_| life.given_up);
            let given_up = |(index, life)| Some((index, given_up(life)?));
            if let Some((index, at)) = self.lives.iter().enumerate().find_map(given_up) {
                self.end_for(index, at); // its worker is being ended already, whatever it says
                return true;
            }
            let here = |life: &Life| life.sent.front().is_some_and(|sent| sent.task.id == id);
            let Some(index) = self.lives.iter().position(here) else {
                let behind = |life: &Life| there(life).is_some();
                let Some(index) = self.lives.iter().position(behind) else { return false };
                // it is claimed, so those before it should be done, and their answers in
                self.take_in_from(index);
                let life = &mut self.lives[index];
                if behind(life) && !here(life) {
                    life.give_up();
                }
                continue;
            };
            let position = self.lives[index].sent[0].position;
            if self.condemn(index, position, Cause::Terminated) {
                self.end_for(index, 0);
                return true;
            }
        }
    }

    /// The outcome of a task that somebody wants ended is told at once; its worker, which dies,
    /// may still be reading its payload.
    fn end_for(&mut self, index: usize, at: usize) {
        let life = &mut self.lives[index];
        let Some(mut sent) = life.sent.remove(at) else { return };
        life.held.extend(sent.task.payload.blocks().cloned());
        let one = life.incarnation;
        let death = Death {
            pid: life.pid().unwrap_or(0),
            exit: Exit::Signal(9),
            ran: life.ran(&sent, clock::now()),
            cause: Cause::Terminated,
            stack: String::new(),
            peak: None,
        };
        self.counters.stopped += 1;
        let earlier = sent.task.tries.take().map(|tries| tries.deaths).unwrap_or_default();
        let crash = Crash { task: sent.task.id, death, earlier };
        self.finish(sent.task, Outcome::Crashed(crash));
        if !self.lives[index].given_up {
            self.handle(Event::Condemned(one));
        }
    }

    // -- what is lost, and further tries -------------------------------------------------

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
        let mut tries = sent.task.tries.take().unwrap_or_default();
        tries.deaths.push(death);
        sent.task.tries = Some(tries);
        let Some(mut sent) = self.put_off(sent, true) else { return };
        let mut deaths = sent.task.tries.take().map(|tries| tries.deaths).unwrap_or_default();
        if let Some(death) = deaths.pop() {
            let crash = Crash { task: sent.task.id, death, earlier: deaths };
            self.finish(sent.task, Outcome::Crashed(crash));
        }
    }

    /// A task raised what is worth another try. Gives it back if it has none left.
    pub fn try_again(&mut self, mut sent: Sent) -> Option<Sent> {
        let mut tries = sent.task.tries.take().unwrap_or_default();
        tries.errors += 1;
        sent.task.tries = Some(tries);
        self.put_off(sent, false)
    }

    /// Keeps a task for later, if it has a try left.
    fn put_off(&mut self, sent: Sent, died: bool) -> Option<Sent> {
        let (Some(options), Some(tries)) = (&sent.task.options, &sent.task.tries) else {
            return Some(sent);
        };
        let cause = tries.deaths.last().filter(|_| died).map(|death| &death.cause);
        let chance = RandomState::new().hash_one(sent.task.id);
        let wanted = self.broken.is_none() && !self.last_tries && sent.task.completion.wanted();
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

impl Sent {
    fn first_look(&self) -> Option<std::time::Duration> {
        self.overseen.as_ref()?;
        self.task.options.as_ref()?.first_look()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oxgang_shm::Words;
    use oxgang_shm::channel::WorkerEnd;
    use oxgang_shm::oversight::{self, Oversight};

    use super::*;
    use crate::limits::TaskOptions;
    use crate::pool::played::{core, send, send_with};
    use crate::segment::Mapped;
    use crate::task::Callable;
    use crate::wire;

    #[test]
    fn who_has_gone_on_to_another_task_is_not_ended() {
        let (mut core, mut worker) = core();
        let callable = Callable::new(vec![1]);
        let mut send = |id| send(&mut core, &callable, id, vec![id as u8]);
        let (first, _second, third) = (send(1), send(2), send(3));
        let (mut payload, mut begun) = (Vec::new(), Vec::new());
        while begun.len() < 2 {
            let request = worker.take(&mut payload).unwrap().unwrap();
            if request.kind == wire::TASK {
                begun.push(request.position);
                if begun.len() == 1 {
                    worker.publish(wire::RESULT, request.id, 0, &[b"done"]).unwrap().unwrap();
                }
            }
        }
        assert!(!core.condemn(0, begun[0], Cause::Terminated), "it is done");
        let life = &core.lives[0];
        assert!(!life.retiring && life.ending.is_none());
        assert!(matches!(first.join(), Some(Outcome::Result(_))));
        assert_eq!((life.sent.len(), life.sent[0].task.id), (1, 2), "what it has begun");
        assert_eq!(core.queue.front().map(|task| task.id), Some(3), "what it has not");
        // and now it can be ended for the second, which takes nobody along
        assert!(core.condemn(0, begun[1], Cause::Terminated));
        assert!(core.lives[0].retiring);
        core.break_down("over".into());
        assert!(matches!(third.join(), Some(Outcome::Broken(_))));
    }

    /// A worker that has begun the first of two tasks with a time limit, and says by one word in the
    /// memory that it has claimed the second.
    fn claims_out_of_turn() -> (Core, WorkerEnd<Mapped>) {
        let (mut core, mut worker) = core();
        let options =
            TaskOptions { timeout: Some(Duration::from_nanos(1)), ..TaskOptions::default() };
        for id in [1, 2] {
            drop(send_with(&mut core, options.clone(), id));
        }
        let mut payload = Vec::new();
        while worker.take(&mut payload).unwrap().unwrap().kind != wire::TASK {}
        let life = &core.lives[0];
        let data = 4096; // of the requests, as the channel lays them out
        let state = data + life.sent[1].position as usize;
        assert!(life.words().compare_exchange(state, 1, life.incarnation).is_ok(), "ready");
        (core, worker)
    }

    #[test]
    fn who_claims_a_task_before_it_has_answered_the_one_before_is_given_up() {
        for id in [1, 2] {
            let (mut core, _worker) = claims_out_of_turn();
            assert!(core.terminate(id), "ended with its worker");
            let life = &core.lives[0];
            assert!(life.given_up && life.sent.len() == 1 && life.sent[0].task.id != id);
        }
        let (mut core, _worker) = claims_out_of_turn();
        let page = Oversight::new(core.lives[0].words());
        page.begin(core.lives[0].sent[0].position, clock::now());
        core.overseeing = true;
        core.oversee();
        assert!(core.lives[0].given_up);
        core.oversee();
        assert_eq!(core.promised, NEVER, "nothing to look at until it is dead");
    }

    #[test]
    fn who_has_all_but_ended_is_not_ended() {
        let (mut core, mut worker) = core();
        let options = TaskOptions {
            timeout: Some(Duration::from_nanos(1)),
            grace: Duration::from_secs(3600),
            ..TaskOptions::default()
        };
        let handle = send_with(&mut core, options, 1);
        core.overseeing = true;
        let mut payload = Vec::new();
        let task = loop {
            let request = worker.take(&mut payload).unwrap().unwrap();
            if request.kind == wire::TASK {
                break request;
            }
        };
        let page = Oversight::new(core.lives[0].words());
        // it learns how to be asked
        assert!(core.oversee().measures.is_empty() && core.lives[0].ending.is_none());
        page.set_skills(oversight::SOFT);
        // it begins, and is not known yet; it ends, and its answer is not out
        page.begin(task.position, clock::now());
        core.oversee();
        assert!(core.lives[0].ending.is_none());
        page.end();
        core.oversee();
        assert!(core.lives[0].ending.is_none() && core.promised < NEVER, "it is looked at again");
        worker.publish(wire::RESULT, task.id, 0, &[b"done"]).unwrap().unwrap();
        core.turn();
        assert!(matches!(handle.join(), Some(Outcome::Result(_))));
    }

    #[test]
    fn the_driver_is_woken_for_what_is_due_before_it_would_look() {
        let (mut core, _worker) = core();
        core.look_within(Some(Duration::from_secs(10)));
        assert!(std::mem::take(&mut core.hurry), "it did not know of any");
        core.look_within(Some(Duration::from_secs(20)));
        assert!(!core.hurry, "it looks before that");
        core.look_within(Some(Duration::from_secs(1)));
        assert!(core.hurry);
    }
}

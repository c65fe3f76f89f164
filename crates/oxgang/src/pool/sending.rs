//! Who gets which task, and when.

use std::cmp::Reverse;
use std::io::ErrorKind;

use super::core::Core;
use super::life::{Life, Sent};
use crate::supervisor::Event;
use crate::task::{Outcome, Task};

/// Work that a worker should have ahead of it, so that it need not wait for the next task.
const AHEAD_NS: u64 = 300_000;
/// Tasks that one worker may have at a time, whatever they cost.
const MOST_AHEAD: u64 = 512;

impl Core {
    /// Tasks that a worker may have at a time: one runs, and others wait in its ring so that it
    /// need not. None do while nobody knows how long tasks take.
    fn credit(&self) -> u64 {
        match self.average_ns {
            None => 1,
            Some(average) => (AHEAD_NS / average.max(1)).clamp(1, MOST_AHEAD) + 1,
        }
    }

    pub fn send_out(&mut self) {
        self.rebalance();
        let mut woken: u64 = 0;
        let mut full = Vec::new();
        while let Some(index) = self.queue.front().and_then(|_| self.hand(&full)) {
            let Some(task) = self.queue.pop_front() else { break };
            if !task.completion.wanted() {
                self.finish(task, Outcome::Cancelled);
                continue;
            }
            if task.payload.is_late().is_some() {
                self.queue.push_front(task); // its payload has yet to be made
                break;
            }
            if let Some(task) = self.send(index, task) {
                // its ring is full, perhaps of tasks that were taken back: the worker tells when
                // there is room
                self.queue.push_front(task);
                full.push(index);
                continue;
            }
            if index < 64 {
                woken |= 1 << index;
            } else {
                self.lives[index].ring();
            }
        }
        for index in 0..self.lives.len().min(64) {
            if woken & 1 << index != 0 {
                self.lives[index].ring();
            }
        }
        let waiting = self.lives.iter().any(|life| life.sent.len() > 1);
        if (!self.queue.is_empty() || waiting) && self.supervisor.has_vacancy() {
            let coming = self.starts.len() + self.lives.iter().filter(|life| !life.ready).count();
            let not_begun = self.lives.iter_mut().map(Life::not_begun).sum::<usize>();
            let wanted = (self.queue.len() + not_begun).saturating_sub(coming);
            for _ in 0..wanted {
                if !self.supervisor.has_vacancy() {
                    break;
                }
                self.handle(Event::Wanted);
            }
        }
    }

    /// The worker that should have the next task, if any may have one: an idle one that is
    /// awake, else an idle one, else the one with the fewest. Not one of those that are `full`.
    fn hand(&self, full: &[usize]) -> Option<usize> {
        let credit = self.credit() as usize;
        let best = self
            .lives
            .iter()
            .enumerate()
            .filter(|(index, life)| {
                !life.retiring
                    && !life.overdue
                    && !full.contains(index)
                    && life.sent.len() < credit
                    && self.tasks_per_worker.is_none_or(|limit| life.accepted < limit)
            })
            .min_by_key(|(_, life)| {
                (life.sent.len(), !life.ready, life.sent.is_empty() && life.seems_asleep())
            });
        best.map(|(index, _)| index)
    }

    /// Sends a task, or gives it back. One that cannot be sent at all is told so.
    pub fn send(&mut self, index: usize, mut task: Task) -> Option<Task> {
        let held = task.payload.held();
        let mut lacking = self.lives[index].lacking(&task);
        let lacked = lacking.iter_mut().flatten().map(|(_, _, payload)| payload);
        let mut settled = std::iter::once(&mut task.payload).chain(lacked);
        let settled = settled.try_for_each(|payload| payload.settle(&self.store));
        self.held -= held - task.payload.held();
        if let Err(error) = settled {
            let size = task.callable.bytes.len().max(task.payload.length());
            let why = match error.kind() {
                ErrorKind::InvalidInput => format!("the call cannot be sent: {error}"),
                _ => format!("no shared memory for a call of {size} bytes: {error}"),
            };
            self.finish(task, Outcome::Broken(why.into()));
            return None;
        }
        if let Some(options) = &task.options {
            let look = options.first_look();
            self.look_within(look);
        }
        self.lives[index].send(task, lacking)
    }

    /// Tasks begin in the order of their submission, as far as anybody can tell: a worker that
    /// has nothing to do must not pass over one that waits behind a long task elsewhere. So
    /// what is older than the queue and has not begun goes back to its front; with nothing
    /// queued, half of what the fullest worker has.
    fn rebalance(&mut self) {
        let limit = self.tasks_per_worker;
        let idle = self.lives.iter().any(|life| {
            life.sent.is_empty()
                && life.ready
                && !life.retiring
                && limit.is_none_or(|limit| life.accepted < limit)
        });
        if !idle {
            return;
        }
        let mut back = Vec::new();
        if let Some(next) = self.queue.front().map(|task| task.id) {
            for index in 0..self.lives.len() {
                if self.lives[index].sent.iter().skip(1).any(|sent| sent.task.id < next) {
                    back.extend(self.lives[index].take_back(usize::MAX));
                }
            }
        } else {
            let fullest = (0..self.lives.len()).max_by_key(|&i| self.lives[i].sent.len());
            if let Some(index) = fullest.filter(|&index| self.lives[index].sent.len() > 1) {
                let half = self.lives[index].not_begun().div_ceil(2);
                back = self.lives[index].take_back(half);
            }
        }
        back.sort_by_key(|sent| Reverse(sent.task.id));
        self.counters.moved += back.len() as u64;
        self.requeue(back);
    }

    /// Puts tasks that have not begun back to the front, in their old order. `back` has the
    /// last one first.
    pub fn requeue(&mut self, back: Vec<Sent>) {
        for sent in back {
            self.queue.push_front(sent.task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::played;
    use crate::task::Callable;

    #[test]
    fn room_that_no_answer_tells_of_is_told() {
        let (mut core, mut worker) = played::core_and_worker();
        let callable = Callable::new(vec![1]);
        let handles: Vec<_> = (1..)
            .map_while(|id| played::try_send(&mut core, &callable, id, vec![7; 1000]).ok())
            .collect();
        assert!(handles.len() > 3, "the ring takes some");
        let sent = core.lives[0].sent.len();
        assert_eq!(core.lives[0].take_back(usize::MAX).len(), sent);
        assert!(played::try_send(&mut core, &callable, 9000, vec![7; 1000]).is_err(), "still full");
        core.watch.lead();
        let bell = core.watch.park();
        while worker.try_next().unwrap().is_some() {} // its set-up, and the function
        assert!(played::try_send(&mut core, &callable, 9001, vec![7; 1000]).is_ok());
        assert_eq!(core.watch.park(), bell, "nobody has said so");
        worker.tell_of_room();
        assert_ne!(core.watch.park(), bell);
        let told = core.watch.park();
        worker.tell_of_room();
        assert_eq!(core.watch.park(), told, "once is enough");
    }
}

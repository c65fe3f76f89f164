//! What unfinished calls hold: payloads that are made late, since there is no room yet, and memory
//! that is given back when nothing happens.

use std::time::{Duration, Instant};

use super::core::Core;
use crate::task::{Late, Outcome, Payload, Task, TaskId};

/// After this long without an answer the pool tidies up.
const TIDY: Duration = Duration::from_secs(1);
/// Of so many tasks at the front of the queue the payloads are made ahead, if there is room.
const MADE_AHEAD: usize = 64;

impl Core {
    /// Queues a task.
    pub fn queue(&mut self, task: Task) {
        self.held += task.payload.held();
        self.late += usize::from(task.payload.is_late().is_some());
        self.queue.push_back(task);
    }

    /// Bytes of unfinished calls.
    pub fn held_bytes(&self) -> u64 {
        self.held + self.store.lent_bytes()
    }

    /// Whether they are as many as may be.
    pub fn is_full(&self) -> bool {
        self.held_bytes() >= self.room
    }

    /// Whether the driver has to hear of something that it has not been told of.
    pub fn needs_driver(&mut self) -> bool {
        let late = !self.late_said && self.due().is_some();
        let untidy = self.untidy && self.quiet.is_none();
        self.late_said |= late;
        let hurry = std::mem::take(&mut self.hurry);
        late || untidy || hurry || !self.attention.is_empty()
    }

    /// When to tidy up, for the driver, if there is anything to; if that is now, it is done.
    pub fn tidy(&mut self) -> Option<Duration> {
        if !self.untidy && !self.lives.iter().any(|life| life.returns.any()) {
            return None;
        }
        let answered = self.counters.answered;
        let quiet = self.quiet.filter(|(_, before)| *before == answered);
        let (since, _) = *self.quiet.insert(quiet.unwrap_or_else(|| (Instant::now(), answered)));
        let left = TIDY.saturating_sub(since.elapsed());
        if left.is_zero() {
            self.tidy_up();
            return None;
        }
        Some(left)
    }

    /// Nothing has happened for a while: blocks that nobody looks at any more go home, and what is
    /// free goes back to the kernel.
    fn tidy_up(&mut self) {
        self.untidy = false;
        self.quiet = None;
        for life in &mut self.lives {
            // the next one is dropped when nobody may be looking
            life.returns.leave();
            if life.settle_debts().is_err() {
                life.give_up();
            }
        }
        let _kept = self.store.trim(); // memory that cannot be given back stays warm
    }

    /// The task whose payload is to be made next: one that could be sent, or one of the next if
    /// there is room.
    pub fn due(&self) -> Option<(TaskId, Late)> {
        if self.late == 0 {
            return None;
        }
        let (index, late) =
            self.queue.iter().take(MADE_AHEAD).enumerate().find_map(|(index, task)| {
                Some((index, (task.id, task.payload.is_late()?.clone())))
            })?;
        (index == 0 || !self.is_full()).then_some(late)
    }

    /// The payload has been made, or cannot be. A task that has been taken back meanwhile needs
    /// neither.
    pub fn encoded(&mut self, id: TaskId, made: std::result::Result<Payload, Outcome>) {
        let Some(index) = self.queue.iter().position(|task| task.id == id) else { return };
        match made {
            Ok(payload) => {
                self.held += payload.held();
                self.late -= 1;
                self.spent_payloads
                    .push(std::mem::replace(&mut self.queue[index].payload, payload));
            }
            Err(outcome) => {
                if let Some(task) = self.queue.remove(index) {
                    self.finish(task, outcome);
                }
            }
        }
    }
}

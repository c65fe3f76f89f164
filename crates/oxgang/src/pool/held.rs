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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use oxgang_shm::channel::WorkerEnd;
    use oxgang_shm::ring::FIRST_INCARNATION;

    use super::*;
    use crate::pool::played;
    use crate::segment::Mapped;
    use crate::store::Store;
    use crate::supervisor::Event;
    use crate::task::{Attached, Callable, JoinHandle};
    use crate::wire;

    const LONG: usize = 300_000;

    /// What the worker does, one after the other; it may die before any of these.
    const STEPS: [&str; 6] = ["begin", "keep", "answer", "answer the next", "release", "none"];

    struct Played {
        core: Core,
        store: Arc<Store>,
        worker: WorkerEnd<Mapped>,
        handles: Vec<Arc<JoinHandle>>,
    }

    /// A pool with one worker, played by the test, and two tasks there that share one block, the
    /// second with a long pickle besides.
    fn play() -> Played {
        let (mut core, worker) = played::core();
        let store = core.store.clone();
        let (callable, array) = (Callable::new(vec![1]), vec![7; LONG]);
        let handles = [(1, vec![1]), (2, vec![2; LONG])].map(|(id, head)| {
            let payload =
                Payload::from(head).with(vec![Attached::Stored(store.share(&array).unwrap())]);
            played::send(&mut core, &callable, id, payload)
        });
        let handles = handles.to_vec();
        Played { core, store, worker, handles }
    }

    impl Played {
        fn step(&mut self, name: &str, offset: u64) {
            let mut payload = Vec::new();
            let mut say = |kind, id, aux| {
                self.worker.publish(kind, id, aux, &[]).unwrap().unwrap();
            };
            match name {
                "keep" => say(wire::KEEP, 1, offset),
                "answer" => say(wire::RESULT, 1, 0),
                "release" => say(wire::RELEASE, 0, offset),
                "answer the next" => say(wire::RESULT, 2, 0),
                "begin" => {
                    let mut tasks = 0;
                    while tasks < 2 {
                        let request = self.worker.take(&mut payload).unwrap().unwrap();
                        tasks += usize::from(request.kind == wire::TASK);
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_block_is_free_exactly_when_nobody_can_look_at_it() {
        let page = |bytes: usize| bytes.next_multiple_of(4096) as u64;
        let (array, pickle) = (page(LONG), page(LONG));
        for (dies_before, next) in STEPS.iter().enumerate() {
            for owner_looks in [false, true] {
                let mut played = play();
                assert_eq!(played.store.lent_bytes(), array + pickle, "one array for both");
                let offset = {
                    let sent = &played.core.lives[0].sent[0];
                    sent.task.payload.attached().next().unwrap().block().offset
                };
                for (number, name) in STEPS.iter().enumerate().take(dies_before) {
                    played.step(name, offset);
                    if owner_looks {
                        played.core.turn();
                        let expected = match number {
                            0..=2 => array + pickle,
                            3 => array, // answered, and still looked at
                            _ => 0,
                        };
                        assert_eq!(played.store.lent_bytes(), expected, "after {name}");
                    }
                }
                // the worker is dead: what it held goes, what it had not begun stays
                played.core.handle(Event::Exited(FIRST_INCARNATION));
                let begun = dies_before > 0;
                let expected = if begun { 0 } else { array + pickle };
                assert_eq!(
                    played.store.lent_bytes(),
                    expected,
                    "death before {next:?}, seen step by step: {owner_looks}"
                );
                assert_eq!(played.core.queue.len(), if begun { 0 } else { 2 });
                played.core.break_down("over".into());
                assert_eq!(played.store.lent_bytes(), 0);
                assert_eq!(played.core.held, 0);
                for (index, handle) in played.handles.drain(..).enumerate() {
                    let answered = dies_before > [2, 3][index];
                    let outcome = handle.join().unwrap();
                    assert_eq!(matches!(outcome, Outcome::Result(_)), answered);
                    assert_eq!(matches!(outcome, Outcome::Crashed(_)), begun && !answered);
                }
            }
        }
    }

    #[test]
    fn what_comes_back_is_the_owners_own_block() {
        for made_up in [false, true] {
            let mut played = play();
            played.step("begin", 0);
            let sent = &played.core.lives[0].sent[0];
            let offset = sent.task.payload.attached().next().unwrap().block().offset;
            let other = offset + if made_up { 4096 } else { 0 };
            let mut answer = Payload::from(vec![9]).with(vec![Attached::Back(other)]);
            answer.settle(&played.store).unwrap();
            let worker = &mut played.worker;
            let push = |kind, parts: &[&[u8]]| worker.publish(kind, 1, 0, parts);
            answer.frame(wire::RESULT, push).unwrap().unwrap();
            played.step("answer the next", 0);
            played.core.turn();
            assert_eq!(played.core.lives[0].given_up, made_up);
            if made_up {
                continue;
            }
            let Some(Outcome::Result(body)) = played.handles.remove(0).join() else { panic!() };
            let array = LONG.next_multiple_of(4096) as u64;
            assert_eq!(played.store.lent_bytes(), array, "the result is in it");
            let mut bytes = vec![0; LONG];
            body.attached()[0].read(0, &mut bytes).unwrap();
            assert!(bytes == vec![7; LONG]);
            drop(body);
            assert_eq!(played.store.lent_bytes(), 0);
        }
    }

    #[test]
    fn who_makes_up_a_release_is_given_up_and_nothing_is_freed_twice() {
        let mut played = play();
        played.step("begin", 0);
        played.step("release", 4096);
        played.core.turn();
        assert!(played.core.lives[0].given_up);
        played.core.handle(Event::Exited(FIRST_INCARNATION));
        assert_eq!(played.store.lent_bytes(), 0);
    }
}

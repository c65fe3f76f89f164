//! What a pool knows, and its every move: queue, workers, sending, taking in, recovery. One
//! lock around it; nothing in here waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use oxgang_os::Result;
use oxgang_os::event::WakeUp;
use oxgang_os::memory::OutOfMemory;
use oxgang_os::process::Process;
use oxgang_os::segment::Segment;
use oxgang_shm::ring::FIRST_INCARNATION;
use oxgang_shm::watch::{Interest, Watch};

use super::life::{Answer, Life, Sent};
use crate::limits::{Moment, NEVER};
use crate::segment::Mapped;
use crate::store::Store;
use crate::supervisor::{Event, Incarnation, Instruction, Phase, Supervisor};
use crate::task::{Completion, Outcome, Payload, Task, TaskId, Told};
use crate::wire;

/// Tasks that may be queued behind others before the queue's state is looked at again.
const LOOK_EVERY: usize = 16;

/// Counters, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks that were submitted.
    pub submitted: u64,
    /// Tasks that were answered, by a result or by an error.
    pub answered: u64,
    /// Tasks that were lost with their worker, each time that they were.
    pub lost: u64,
    /// Tasks whose worker was ended for their sake: by a limit, or since somebody wanted it.
    pub stopped: u64,
    /// Further tries of tasks.
    pub retried: u64,
    /// Tasks that were taken back and sent elsewhere.
    pub moved: u64,
    /// Workers that were started.
    pub started: u64,
    /// Workers that ended without being told to, and without being ended by the pool.
    pub crashed: u64,
    /// Bytes of answered calls and of their answers, as they were encoded.
    pub passed_bytes: u64,
    /// Bytes of long buffers that went along, which stay where they are and are looked at there.
    pub lent_bytes: u64,
}

pub(super) struct Core {
    pub queue: VecDeque<Task>,
    /// Tasks that are to be tried again, by when.
    pub later: BTreeMap<(Moment, TaskId), Task>,
    /// What fails now fails for good.
    pub last_tries: bool,
    /// When the driver will look after limits and later tries, as it knows itself.
    pub promised: Moment,
    /// That has moved: it must be woken.
    pub hurry: bool,
    /// Whether any task has ever had options.
    pub overseeing: bool,
    pub out_of_memory: OutOfMemory,
    /// The kernel's last kills for want of memory, and when they were noticed.
    pub kills: (Moment, u64),
    pub lives: Vec<Life>,
    pub supervisor: Supervisor,
    pub counters: Counters,
    pub broken: Option<Arc<str>>,
    /// Instructions that the driver (or the submitter) has to carry out without the lock.
    pub starts: Vec<(usize, Incarnation)>,
    /// Completions that asked to be told by the driver.
    pub attention: Vec<Arc<dyn Completion>>,
    /// Done with: to be dropped without the lock.
    pub spent: Vec<Arc<dyn Completion>>,
    /// Payloads that were never made: what they were to be made of is somebody's objects.
    pub spent_payloads: Vec<Payload>,
    /// Tasks in the queue whose payload has yet to be made.
    pub late: usize,
    /// The driver has been told of them.
    pub late_said: bool,
    /// Bytes of unfinished calls that may be held; beyond, payloads are made late.
    pub room: u64,
    /// Bytes of unfinished calls outside of the store.
    pub held: u64,
    /// Blocks have been used: when nothing happens for a while, there is something to tidy up.
    pub untidy: bool,
    /// Since when the driver has known of that, and how many answers there were then.
    pub quiet: Option<(Instant, u64)>,
    pub wake: Arc<WakeUp>,
    /// Unfinished tasks that will ask for it, and waiters that do not lead.
    pub watched: isize,
    pub interest: Interest,
    pub store: Arc<Store>,
    /// Every worker reads it.
    pub setup: Payload,
    pub tasks_per_worker: Option<u64>,
    pub average_ns: Option<u64>,
    pub watch: Watch<Mapped>,
}

impl Core {
    pub fn new(
        max_workers: usize,
        tasks_per_worker: Option<u64>,
        setup: Vec<u8>,
        room: u64,
        store: Arc<Store>,
        wake: Arc<WakeUp>,
        watch: Watch<Mapped>,
    ) -> Self {
        Self {
            queue: VecDeque::new(),
            later: BTreeMap::new(),
            last_tries: false,
            promised: NEVER,
            hurry: false,
            overseeing: false,
            out_of_memory: OutOfMemory::watch(),
            kills: (0, 0),
            lives: Vec::new(),
            supervisor: Supervisor::new(max_workers, FIRST_INCARNATION),
            counters: Counters::default(),
            broken: None,
            starts: Vec::new(),
            attention: Vec::new(),
            spent: Vec::new(),
            spent_payloads: Vec::new(),
            late: 0,
            late_said: false,
            room,
            held: 0,
            untidy: false,
            quiet: None,
            wake,
            watched: 0,
            interest: Interest::Idle,
            store,
            setup: setup.into(),
            tasks_per_worker,
            average_ns: None,
            watch,
        }
    }

    // -- the cycle -----------------------------------------------------------------------

    /// Takes in what has come, sends what can be sent, and settles how much the driver wants
    /// to hear. Looks again whenever it has promised more, so that nothing falls between.
    pub fn turn(&mut self) {
        loop {
            self.take_in();
            self.send_out();
            let wanted = self.wanted_interest();
            let raised = wanted > self.interest;
            if wanted != self.interest {
                self.interest = wanted;
                self.watch.set_interest(wanted);
            }
            if !raised {
                return;
            }
        }
    }

    /// A turn after tasks were queued, without what need not be done for each of them: taking
    /// in reads words that the workers write, so it waits until there is a use for it.
    pub fn turn_after_submit(&mut self, added: usize) {
        if self.supervisor.has_vacancy() {
            return self.turn();
        }
        let queued = self.queue.len();
        if queued == added {
            self.send_out();
        }
        // with a backlog the workers ask for more by themselves, once that has been arranged
        let arranged = self.interest >= self.wanted_interest();
        let again = !self.queue.is_empty() && queued / LOOK_EVERY != (queued - added) / LOOK_EVERY;
        if !arranged || again {
            self.turn();
        }
    }

    fn wanted_interest(&self) -> Interest {
        // a worker that gets ready may have to take tasks over from another
        let coming = self.lives.iter().any(|life| !life.ready);
        if self.watched > 0 || coming || self.supervisor.phase() > Phase::Open {
            return Interest::All;
        }
        // so may one that runs dry, while another has a task that waits behind one that runs
        let movable = self.lives.len() > 1 && self.lives.iter().any(|life| life.sent.len() > 1);
        if movable || !self.queue.is_empty() || self.tasks_per_worker.is_some() {
            Interest::Refill
        } else {
            Interest::Idle
        }
    }

    /// Whether any answer waits to be taken in.
    pub fn has_answers(&self) -> bool {
        self.lives.iter().any(Life::has_answer)
    }

    /// Nothing queued, nothing at a worker.
    pub fn is_idle(&self) -> bool {
        let here = self.queue.is_empty() && self.later.is_empty();
        here && self.lives.iter().all(|life| life.sent.is_empty())
    }

    // -- taking in -----------------------------------------------------------------------

    fn take_in(&mut self) {
        for index in 0..self.lives.len() {
            self.take_in_from(index);
        }
        for index in 0..self.lives.len() {
            let life = &self.lives[index];
            let spent = self.tasks_per_worker.is_some_and(|limit| life.accepted >= limit);
            if spent && life.ready && !life.retiring && life.sent.is_empty() {
                let one = life.incarnation;
                self.handle(Event::Spent(one));
            }
        }
        if self.supervisor.phase() == Phase::Closing && self.is_idle() {
            self.handle(Event::Drained);
        }
    }

    pub fn take_in_from(&mut self, index: usize) {
        let mut any = false;
        loop {
            match self.lives[index].answer() {
                Ok(Some(answer)) => {
                    any = true;
                    self.accept(index, answer);
                }
                Ok(None) => break,
                Err(_) => {
                    self.lives[index].give_up();
                    return;
                }
            }
        }
        if any {
            let life = &mut self.lives[index];
            life.forget_callables_read();
            // room has been made; a worker that waits for it must hear of it
            if life.settle_debts().is_err() {
                life.give_up();
            }
            life.ring();
        }
    }

    fn accept(&mut self, index: usize, answer: Answer) {
        let life = &mut self.lives[index];
        match answer.kind {
            wire::RESULT | wire::FAILURE | wire::AGAIN => {
                let Some(sent) = life.answered(answer.id) else {
                    if life.ending.is_none() {
                        life.give_up(); // an answer to nothing
                    }
                    return; // or one that comes too late
                };
                life.overdue = false;
                self.learn(answer.aux);
                let sent = match answer.kind {
                    wire::AGAIN => match self.try_again(sent) {
                        Some(sent) => sent,
                        None => return,
                    },
                    _ => sent,
                };
                self.counters.answered += 1;
                let ((there, lent), (back, returned)) =
                    (sent.task.payload.crossing(), answer.body.crossed());
                self.counters.passed_bytes += there + back;
                self.counters.lent_bytes += lent + returned;
                self.untidy |= answer.body.has_blocks();
                let outcome = if answer.kind == wire::RESULT {
                    Outcome::Result(answer.body)
                } else {
                    Outcome::Failure(answer.body)
                };
                self.finish(sent.task, outcome);
            }
            wire::READY => {
                life.ready = true;
                let one = life.incarnation;
                self.handle(Event::Ready(one));
            }
            wire::SETUP_FAILED => {
                let one = life.incarnation;
                let why = answer.body.to_vec().unwrap_or_default();
                let why = String::from_utf8_lossy(&why).into_owned();
                self.handle(Event::SetupFailed(one, why));
            }
            wire::REGION => {} // kept for the answer that comes next
            wire::KEEP if life.keep(answer.id, answer.aux) => {}
            wire::RELEASE if life.release(answer.aux) => {}
            _ if life.ending.is_some() => {} // of a task that has been told its end
            _ => life.give_up(),
        }
    }

    /// A task took this long. One that was interrupted by the kernel in the middle took a
    /// thousand times as long as its like, and says nothing of them: what is far above the mean
    /// counts as only so far above it. A true change is learned within some ten tasks.
    fn learn(&mut self, nanoseconds: u64) {
        self.average_ns = Some(match self.average_ns {
            None => nanoseconds.min(1 << 40),
            Some(mean) => (mean * 7 + nanoseconds.min(mean * 8 + 1000)) / 8,
        });
    }

    /// The end of a task's way: its blocks are let go, and who waits is told.
    pub fn finish(&mut self, task: Task, outcome: Outcome) {
        let Task { completion, part, payload, .. } = task;
        self.held -= payload.held();
        self.untidy |= payload.blocks().next().is_some();
        if payload.is_late().is_some() {
            self.late -= 1;
            self.spent_payloads.push(payload);
        }
        let told = completion.clone().complete(part, outcome);
        self.watched -= isize::from(told != Told::Nobody);
        if told == Told::ByDriver {
            self.attention.push(completion);
        } else {
            self.spent.push(completion);
        }
    }

    // -- cancelling ----------------------------------------------------------------------

    /// Takes a task back if it has not begun.
    pub fn cancel(&mut self, id: TaskId) -> bool {
        if let Some(index) = self.queue.iter().position(|task| task.id == id) {
            if let Some(task) = self.queue.remove(index) {
                self.finish(task, Outcome::Cancelled);
            }
            return true;
        }
        if let Some(task) = self.take_from_later(id) {
            self.finish(task, Outcome::Cancelled);
            return true;
        }
        let sent = self.lives.iter_mut().find_map(|life| life.take_back_one(id));
        let Some(sent) = sent else { return false };
        self.finish(sent.task, Outcome::Cancelled);
        true
    }

    /// Takes those of these tasks back, sorted by their ids, that have not begun; whether there
    /// were any.
    pub fn cancel_these(&mut self, ids: &[TaskId]) -> bool {
        let wanted = |id: TaskId| ids.binary_search(&id).is_ok();
        let mut back = Vec::new();
        for task in std::mem::take(&mut self.queue) {
            if wanted(task.id) { back.push(task) } else { self.queue.push_back(task) }
        }
        let later: Vec<TaskId> =
            self.later.keys().map(|(_, id)| *id).filter(|id| wanted(*id)).collect();
        back.extend(later.into_iter().filter_map(|id| self.take_from_later(id)));
        for life in &mut self.lives {
            let here: Vec<TaskId> =
                life.sent.iter().map(|sent| sent.task.id).filter(|id| wanted(*id)).collect();
            // the last ones first: with each the worker gets closer to those before it
            let taken = here.into_iter().rev().filter_map(|id| life.take_back_one(id));
            back.extend(taken.map(|sent| sent.task));
        }
        let any = !back.is_empty();
        for task in back {
            self.finish(task, Outcome::Cancelled);
        }
        any
    }

    /// Takes everything back that has not begun, but for the first task of each worker, which
    /// counts as begun: the worker may be on its way to it. If that fails, it is not tried again.
    pub fn cancel_all(&mut self) {
        for index in 0..self.lives.len() {
            let but_one = self.lives[index].sent.len().saturating_sub(1);
            for sent in self.lives[index].take_back(but_one) {
                self.finish(sent.task, Outcome::Cancelled);
            }
        }
        let later = std::mem::take(&mut self.later).into_values();
        for task in std::mem::take(&mut self.queue).into_iter().chain(later) {
            self.finish(task, Outcome::Cancelled);
        }
        self.last_tries = true;
    }

    // -- workers -------------------------------------------------------------------------

    /// Gives the event to the supervisor and does what can be done under the lock.
    pub fn handle(&mut self, event: Event) {
        for instruction in self.supervisor.handle(event) {
            match instruction {
                Instruction::Start(seat, one) => self.starts.push((seat, one)),
                Instruction::Retire(one) => {
                    if let Some(life) = self.life(one) {
                        life.stop();
                        if life.settle_debts().is_err() {
                            life.give_up();
                        }
                    }
                }
                Instruction::Dump(one) => {
                    if let Some(life) = self.life(one) {
                        life.retiring = true;
                        if !life.dump() {
                            self.handle(Event::Condemned(one));
                        }
                    }
                }
                Instruction::Kill(one) => {
                    if let Some(life) = self.life(one) {
                        life.retiring = true;
                        life.kill();
                    }
                }
                Instruction::Recover(one) => self.recover(one),
                Instruction::Break(why) => self.break_down(why.into()),
                Instruction::Finished => {}
            }
        }
    }

    pub fn life(&mut self, one: Incarnation) -> Option<&mut Life> {
        self.lives.iter_mut().find(|life| life.incarnation == one)
    }

    /// Makes the channel of a worker that is to be started. Tasks may be sent to it at once.
    pub fn prepare(&mut self, one: Incarnation) -> Result<Segment> {
        self.setup.settle(&self.store)?;
        let life = Life::new(one, &self.setup, &self.wake)?;
        let channel = {
            use std::os::fd::AsFd;
            Segment::adopt(life.channel().as_fd().try_clone_to_owned()?)?
        };
        self.lives.push(life);
        self.counters.started += 1;
        Ok(channel)
    }

    pub fn started(&mut self, one: Incarnation, process: Process) {
        let killed = self.supervisor.phase() == Phase::Ended;
        match self.life(one) {
            Some(life) => {
                life.process = Some(Arc::new(process));
                // what it was given up for may have come before the word of its start
                if killed || life.doomed {
                    life.kill();
                }
            }
            // given up meanwhile: nobody waits for it
            None => drop(process.kill()),
        }
    }

    pub fn start_refused(&mut self, one: Incarnation, why: String) {
        self.abandon(one);
        self.handle(Event::StartRefused(one, why));
    }

    /// Who was to start workers has ended, and will never say of some how that went.
    pub fn starts_lost(&mut self, these: Vec<Incarnation>, why: String) {
        for one in &these {
            self.abandon(*one);
        }
        self.handle(Event::StartsLost(these, why));
    }

    /// A worker that may be there or not, and nobody could say when it ends: what it has not begun
    /// is taken from it, what it has begun and not answered is lost, and it is told to end.
    fn abandon(&mut self, one: Incarnation) {
        let Some(index) = self.lives.iter().position(|life| life.incarnation == one) else {
            return;
        };
        self.take_in_from(index);
        let mut life = self.lives.swap_remove(index);
        let back = life.take_back(usize::MAX);
        self.counters.moved += back.len() as u64;
        self.requeue(back);
        for lost in std::mem::take(&mut life.sent) {
            self.lost(&life, lost, false);
        }
        life.stop();
        let _nobody = life.settle_debts(); // nonsense there is of no concern any more
    }

    /// The process has ended: what it published counts, the task it had begun is lost, and
    /// what it had not begun goes to others.
    fn recover(&mut self, one: Incarnation) {
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
}

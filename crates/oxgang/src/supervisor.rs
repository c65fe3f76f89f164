//! Who starts, retires and replaces workers. A pure state machine: events in, instructions
//! out; no clock, no process, no lock. The pool's driver carries the instructions out.
//!
//! # A seat
//!
//! A pool has `max_workers` seats. One life of a worker on a seat is an *incarnation*, and
//! incarnations are never used twice, so that a late message of a dead one cannot be taken for
//! its successor's.
//!
//! | state | meaning | event | next | instruction |
//! |---|---|---|---|---|
//! | vacant | nobody | `Wanted` | starting | `Start` |
//! | starting | asked for, not ready | `Ready` | ready | – |
//! | | | `StartRefused` | vacant | `Break` after the third in a row, if no seat is taken |
//! | | | `StartsLost` | vacant | as one `StartRefused` |
//! | | | `SetupFailed` | retiring | `Break` |
//! | | | `Exited` | vacant | `Recover`; as `StartRefused` |
//! | ready | takes tasks | `Spent` | retiring | `Retire` |
//! | | | `Exited` | vacant | `Recover` |
//! | retiring | told to end | `Exited` | vacant | `Recover` |
//! | any but vacant | | `Overdue` | retiring | `Dump` |
//! | | | `Condemned` | retiring | `Kill` |
//!
//! (`Overdue` and `Condemned` come from a task that passed its limits, or that somebody wants
//! ended; see [`limits`](crate::limits).)
//!
//! While any seat is taken, failed starts do not break the pool: it goes on with whom it has, and
//! *holds*: starts nobody, until one is ready or has ended, which may have made room.
//!
//! An incarnation that is not on its seat any more is ignored, whatever is said of it.
//!
//! # The pool
//!
//! | phase | event | next | instruction |
//! |---|---|---|---|
//! | open | `Close` | closing | – |
//! | open, closing | `Break` was given | ended | `Kill` for every seat that is taken |
//! | closing | `Drained` (no task is left) | ending | `Retire` for every seat that is taken |
//! | any | `Kill` | ended | `Kill` for every seat that is taken |
//! | ending, ended | the last `Exited` | the same | `Finished` |

/// One life of one worker.
pub type Incarnation = u64;

/// Starts that may fail one after the other before the pool is given up. One failure can be
/// bad luck (memory, a signal); three are the rule.
const FAILED_STARTS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    Vacant,
    Starting(Incarnation),
    Ready(Incarnation),
    Retiring(Incarnation),
}

impl Seat {
    fn incarnation(self) -> Option<Incarnation> {
        match self {
            Self::Vacant => None,
            Self::Starting(one) | Self::Ready(one) | Self::Retiring(one) => Some(one),
        }
    }
}

/// How far the pool is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Takes tasks.
    Open,
    /// Takes no more, works off what it has.
    Closing,
    /// All is done; the workers are told to end.
    Ending,
    /// Given up, or killed.
    Ended,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is more work than hands.
    Wanted,
    /// The worker is ready for tasks.
    Ready(Incarnation),
    /// The worker cannot get ready; why.
    SetupFailed(Incarnation, String),
    /// No process could be started; why.
    StartRefused(Incarnation, String),
    /// Whoever was to start these workers has ended; why. One failure, not several.
    StartsLost(Vec<Incarnation>, String),
    /// The worker has had as many tasks as it may, and has answered all of them.
    Spent(Incarnation),
    /// Its task is over its limits: the worker shall end, and say where it was.
    Overdue(Incarnation),
    /// The worker shall end at once, for its task's sake or since it did not when overdue.
    Condemned(Incarnation),
    /// The worker's process has ended.
    Exited(Incarnation),
    /// No more tasks will come.
    Close,
    /// No task is left.
    Drained,
    /// End now, whatever runs.
    Kill,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Start a worker on this seat.
    Start(usize, Incarnation),
    /// Tell it to end in order.
    Retire(Incarnation),
    /// Have it write down its stacks and end.
    Dump(Incarnation),
    /// End it at once.
    Kill(Incarnation),
    /// Its process is gone: end its leases, one by one.
    Recover(Incarnation),
    /// The pool cannot go on; why. Every task that is left fails.
    Break(String),
    /// The last worker is gone: the driver may end.
    Finished,
}

/// The state.
#[derive(Debug)]
pub struct Supervisor {
    seats: Vec<Seat>,
    phase: Phase,
    next: Incarnation,
    failed_starts: u32,
    holding: bool,
    finished: bool,
}

impl Supervisor {
    /// A pool of `max_workers` vacant seats; incarnations are counted from `first`.
    #[must_use]
    pub fn new(max_workers: usize, first: Incarnation) -> Self {
        Self {
            seats: vec![Seat::Vacant; max_workers],
            phase: Phase::Open,
            next: first,
            failed_starts: 0,
            holding: false,
            finished: false,
        }
    }

    /// How far the pool is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether `Finished` has been given.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Whether this incarnation, whose start was instructed, is still to be started. It is not
    /// if the pool came to its end meanwhile: `Exited` then takes the place of the start.
    #[must_use]
    pub fn still_wants(&self, one: Incarnation) -> bool {
        self.seats.contains(&Seat::Starting(one))
    }

    /// Whether a `Wanted` would start somebody.
    #[must_use]
    pub fn has_vacancy(&self) -> bool {
        self.phase <= Phase::Closing && !self.holding && self.seats.contains(&Seat::Vacant)
    }

    /// One step.
    pub fn handle(&mut self, event: Event) -> Vec<Instruction> {
        let mut todo = Vec::new();
        match event {
            Event::Wanted => self.start(&mut todo),
            Event::Ready(one) => {
                if let Some(seat) = self.seat_of(one)
                    && self.seats[seat] == Seat::Starting(one)
                {
                    self.seats[seat] = Seat::Ready(one);
                    self.go_on();
                }
            }
            Event::SetupFailed(one, why) => {
                if let Some(seat) = self.seat_of(one) {
                    self.seats[seat] = Seat::Retiring(one);
                    self.give_up(why, &mut todo);
                }
            }
            Event::StartRefused(one, why) => {
                if let Some(seat) = self.seat_of(one) {
                    self.seats[seat] = Seat::Vacant;
                    self.count_failure(why, &mut todo);
                }
            }
            Event::StartsLost(these, why) => {
                let seats: Vec<_> = these.iter().filter_map(|one| self.seat_of(*one)).collect();
                for seat in &seats {
                    self.seats[*seat] = Seat::Vacant;
                }
                if !seats.is_empty() {
                    self.count_failure(why, &mut todo);
                }
            }
            Event::Spent(one) => {
                if let Some(seat) = self.seat_of(one)
                    && self.seats[seat] == Seat::Ready(one)
                {
                    self.seats[seat] = Seat::Retiring(one);
                    todo.push(Instruction::Retire(one));
                }
            }
            Event::Overdue(one) => self.condemn(one, Instruction::Dump(one), &mut todo),
            Event::Condemned(one) => self.condemn(one, Instruction::Kill(one), &mut todo),
            Event::Exited(one) => {
                if let Some(seat) = self.seat_of(one) {
                    let was = std::mem::replace(&mut self.seats[seat], Seat::Vacant);
                    todo.push(Instruction::Recover(one));
                    if matches!(was, Seat::Starting(_)) {
                        let why = "workers end before they are ready for tasks".to_owned();
                        self.count_failure(why, &mut todo);
                    } else {
                        self.go_on();
                    }
                }
            }
            Event::Close => self.phase = self.phase.max(Phase::Closing),
            Event::Drained => {
                if self.phase == Phase::Closing {
                    self.phase = Phase::Ending;
                    for seat in &mut self.seats {
                        if let Some(one) = seat.incarnation() {
                            *seat = Seat::Retiring(one);
                            todo.push(Instruction::Retire(one));
                        }
                    }
                }
            }
            Event::Kill => self.kill_all(&mut todo),
        }
        let empty = self.seats.iter().all(|seat| *seat == Seat::Vacant);
        if self.phase >= Phase::Ending && empty && !self.finished {
            self.finished = true;
            todo.push(Instruction::Finished);
        }
        todo
    }

    fn seat_of(&self, one: Incarnation) -> Option<usize> {
        self.seats.iter().position(|seat| seat.incarnation() == Some(one))
    }

    fn condemn(&mut self, one: Incarnation, how: Instruction, todo: &mut Vec<Instruction>) {
        if let Some(seat) = self.seat_of(one) {
            self.seats[seat] = Seat::Retiring(one);
            todo.push(how);
        }
    }

    fn start(&mut self, todo: &mut Vec<Instruction>) {
        if !self.has_vacancy() {
            return;
        }
        if let Some(seat) = self.seats.iter().position(|seat| *seat == Seat::Vacant) {
            let one = self.next;
            self.next += 1;
            self.seats[seat] = Seat::Starting(one);
            todo.push(Instruction::Start(seat, one));
        }
    }

    fn count_failure(&mut self, why: String, todo: &mut Vec<Instruction>) {
        self.failed_starts += 1;
        if self.failed_starts >= FAILED_STARTS {
            self.holding = self.seats.iter().any(|seat| *seat != Seat::Vacant);
            if !self.holding {
                self.give_up(why, todo);
            }
        }
    }

    fn go_on(&mut self) {
        self.failed_starts = 0;
        self.holding = false;
    }

    fn give_up(&mut self, why: String, todo: &mut Vec<Instruction>) {
        if self.phase < Phase::Ended {
            todo.push(Instruction::Break(why));
            self.kill_all(todo);
        }
    }

    fn kill_all(&mut self, todo: &mut Vec<Instruction>) {
        self.phase = Phase::Ended;
        todo.extend(self.seats.iter().filter_map(|s| s.incarnation()).map(Instruction::Kill));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quiet_life() {
        let mut pool = Supervisor::new(2, 100);
        assert_eq!(pool.handle(Event::Wanted), [Instruction::Start(0, 100)]);
        assert_eq!(pool.handle(Event::Ready(100)), []);
        assert_eq!(pool.handle(Event::Spent(100)), [Instruction::Retire(100)]);
        assert_eq!(pool.handle(Event::Wanted), [Instruction::Start(1, 101)]);
        assert!(!pool.has_vacancy());
        assert_eq!(pool.handle(Event::Exited(100)), [Instruction::Recover(100)]);
        assert!(pool.has_vacancy());
        assert_eq!(pool.handle(Event::Close), []);
        assert_eq!(pool.handle(Event::Drained), [Instruction::Retire(101)]);
        assert_eq!(pool.handle(Event::Wanted), [], "too late");
        let last = [Instruction::Recover(101), Instruction::Finished];
        assert_eq!(pool.handle(Event::Exited(101)), last);
    }

    #[test]
    fn a_start_that_comes_too_late_is_dropped() {
        let mut pool = Supervisor::new(1, 100);
        pool.handle(Event::Wanted);
        assert!(pool.still_wants(100));
        pool.handle(Event::Close);
        assert!(pool.still_wants(100), "there may be tasks for it");
        assert_eq!(pool.handle(Event::Drained), [Instruction::Retire(100)]);
        assert!(!pool.still_wants(100));
        let last = [Instruction::Recover(100), Instruction::Finished];
        assert_eq!(pool.handle(Event::Exited(100)), last);
    }

    #[test]
    fn starts_that_fail_break_the_pool_in_the_end() {
        let mut pool = Supervisor::new(1, 100);
        for one in 100..102 {
            pool.handle(Event::Wanted);
            assert_eq!(pool.handle(Event::Exited(one)), [Instruction::Recover(one)]);
        }
        pool.handle(Event::Wanted);
        let end = pool.handle(Event::StartRefused(102, "no memory".into()));
        assert_eq!(end, [Instruction::Break("no memory".into()), Instruction::Finished]);
    }

    #[test]
    fn a_pool_goes_on_with_whom_it_has() {
        let mut pool = Supervisor::new(2, 100);
        pool.handle(Event::Wanted);
        pool.handle(Event::Ready(100));
        for one in 101..104 {
            assert_eq!(pool.handle(Event::Wanted), [Instruction::Start(1, one)]);
            assert_eq!(pool.handle(Event::StartRefused(one, "no room".into())), []);
        }
        assert!(!pool.has_vacancy());
        assert_eq!(pool.handle(Event::Wanted), [], "it holds");
        assert_eq!(pool.handle(Event::Exited(100)), [Instruction::Recover(100)]);
        assert!(pool.has_vacancy(), "there may be room now");
        for one in 104..106 {
            pool.handle(Event::Wanted);
            assert_eq!(pool.handle(Event::StartRefused(one, "no room".into())), []);
        }
        pool.handle(Event::Wanted);
        let end = pool.handle(Event::StartRefused(106, "no room".into()));
        assert_eq!(end, [Instruction::Break("no room".into()), Instruction::Finished]);
    }

    #[test]
    fn starts_that_are_lost_together_are_one_failure() {
        let mut pool = Supervisor::new(4, 100);
        for round in 0..2 {
            let these: Vec<_> = (0..4).map(|seat| 100 + round * 4 + seat).collect();
            for _ in 0..4 {
                pool.handle(Event::Wanted);
            }
            assert_eq!(pool.handle(Event::StartsLost(these, "gone".into())), []);
        }
        pool.handle(Event::Wanted);
        let end = pool.handle(Event::StartsLost(vec![108, 99], "gone".into()));
        assert_eq!(end, [Instruction::Break("gone".into()), Instruction::Finished]);
    }

    #[test]
    fn a_failed_setup_breaks_the_pool_at_once() {
        let mut pool = Supervisor::new(2, 100);
        pool.handle(Event::Wanted);
        pool.handle(Event::Wanted);
        let end = pool.handle(Event::SetupFailed(101, "boom".into()));
        let killed = [Instruction::Kill(100), Instruction::Kill(101)];
        assert_eq!(end[0], Instruction::Break("boom".into()));
        assert_eq!(end[1..], killed);
        assert_eq!(pool.handle(Event::SetupFailed(100, "boom".into())), [], "told once");
    }

    #[test]
    fn a_condemned_worker_is_replaced_once_it_is_gone() {
        let mut pool = Supervisor::new(1, 100);
        pool.handle(Event::Wanted);
        pool.handle(Event::Ready(100));
        assert_eq!(pool.handle(Event::Overdue(100)), [Instruction::Dump(100)]);
        assert_eq!(pool.handle(Event::Wanted), [], "its seat is taken");
        assert_eq!(pool.handle(Event::Spent(100)), [], "it is on its way out");
        assert_eq!(pool.handle(Event::Condemned(100)), [Instruction::Kill(100)]);
        assert_eq!(pool.handle(Event::Exited(100)), [Instruction::Recover(100)]);
        assert_eq!(pool.handle(Event::Condemned(100)), [], "too late");
        assert_eq!(pool.handle(Event::Wanted), [Instruction::Start(0, 101)]);
    }

    fn event() -> impl Strategy<Value = Event> {
        let one = 100_u64..112;
        prop_oneof![
            4 => Just(Event::Wanted),
            4 => one.clone().prop_map(Event::Ready),
            1 => one.clone().prop_map(|i| Event::SetupFailed(i, "x".into())),
            1 => one.clone().prop_map(|i| Event::StartRefused(i, "x".into())),
            1 => prop::collection::vec(one.clone(), 0..4)
                .prop_map(|these| Event::StartsLost(these, "x".into())),
            2 => one.clone().prop_map(Event::Spent),
            1 => one.clone().prop_map(Event::Overdue),
            1 => one.clone().prop_map(Event::Condemned),
            4 => one.prop_map(Event::Exited),
            1 => Just(Event::Close),
            1 => Just(Event::Drained),
            1 => Just(Event::Kill),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order: *an incarnation is started once*, *recovered at most
        /// once and only after its start*; *who is told to end, or ended, is there*, and *only
        /// its exit gives its seat to another*; *nobody is started after the end*; *the pool
        /// breaks at most once*; *it finishes once, with nobody left*.
        #[test]
        fn invariants(events in prop::collection::vec(event(), 0..60)) {
            let mut pool = Supervisor::new(3, 100);
            let (mut started, mut gone) = (Vec::new(), Vec::new());
            let mut condemned = Vec::new();
            let (mut broken, mut finished) = (0, 0);
            for event in events {
                let refused: Vec<_> = match &event {
                    Event::StartRefused(one, _) => vec![*one],
                    Event::StartsLost(these, _) => these.clone(),
                    _ => Vec::new(),
                };
                let refused: Vec<_> =
                    refused.into_iter().filter(|one| started.contains(one)).collect();
                if let Event::Overdue(one) | Event::Condemned(one) = &event {
                    condemned.extend(started.contains(one).then_some(*one));
                }
                let was_ended = pool.phase() > Phase::Closing;
                for instruction in pool.handle(event) {
                    match instruction {
                        Instruction::Start(seat, one) => {
                            prop_assert!(seat < 3 && !was_ended && !started.contains(&one));
                            started.push(one);
                        }
                        Instruction::Recover(one) => {
                            prop_assert!(started.contains(&one) && !gone.contains(&one));
                            gone.push(one);
                        }
                        Instruction::Retire(one) => {
                            prop_assert!(started.contains(&one) && !gone.contains(&one));
                            prop_assert!(!condemned.contains(&one) || pool.phase() == Phase::Ending);
                        }
                        Instruction::Kill(one) | Instruction::Dump(one) => {
                            prop_assert!(started.contains(&one) && !gone.contains(&one));
                        }
                        Instruction::Break(_) => broken += 1,
                        Instruction::Finished => finished += 1,
                    }
                }
                for one in refused {
                    if !gone.contains(&one) {
                        gone.push(one);
                    }
                }
                prop_assert!(
                    pool.phase() > Phase::Closing
                        || pool.has_vacancy()
                        || pool.seats.iter().any(|seat| *seat != Seat::Vacant),
                    "nobody works, and nobody would be started"
                );
                let alive = started.iter().filter(|one| !gone.contains(one)).count();
                prop_assert!(alive <= 3);
                prop_assert!(finished == 0 || alive == 0);
            }
            prop_assert!(broken <= 1 && finished <= 1);
            // and it can always be ended
            pool.handle(Event::Kill);
            for one in started {
                pool.handle(Event::Exited(one));
            }
            prop_assert!(pool.finished());
        }
    }
}

//! A process dies after every single step of a lock, semaphore, event, condition or barrier, and
//! the others go on.
//!
//! The victim runs over memory that lets only so many steps happen; every load, store and
//! compare-exchange is one, and so is each call of the kernel. Checked for each point of death:
//! nobody waits for ever, nothing is held by the dead, no unit of a semaphore is lost or invented,
//! no call of a condition is lost. And once more with an heir that dies at every step of taking
//! over.

use std::cell::Cell;
use std::panic::panic_any;

use oxgang_shm::sync::barrier::{Barrier, Enter, Passed};
use oxgang_shm::sync::condition::Condition;
use oxgang_shm::sync::event::Event;
use oxgang_shm::sync::layout::{self, SEGMENT_BYTES};
use oxgang_shm::sync::lock::Lock;
use oxgang_shm::sync::semaphore::{MOST, Semaphore};
use oxgang_shm::sync::{Kernel, Rest, Taken, Who};

mod mortals;

use mortals::{Died, Process, World, every_point, quiet, who};

const SLOT: u32 = 1;
const VICTIM: u32 = 100;
const HEIR: u32 = 200;
const OTHER: u32 = 300;

fn at() -> usize {
    layout::slot(SLOT).unwrap()
}

fn lock_of(process: &Process) -> Lock<Process> {
    Lock::new(process.clone(), at())
}

fn semaphore_of(process: &Process) -> Semaphore<Process> {
    Semaphore::new(process.clone(), at(), SLOT, layout::nodes(process.clone()))
}

fn condition_of(process: &Process) -> Condition<Process> {
    Condition::new(process.clone(), at(), SLOT, layout::nodes(process.clone()))
}

fn barrier_of(process: &Process) -> Barrier<Process> {
    Barrier::new(process.clone(), at(), SLOT, layout::nodes(process.clone()))
}

#[test]
fn a_lock_outlives_its_owner() {
    let mut points = 0;
    for tell in [false, true] {
        points += every_point(|steps| {
            let world = World::new(SEGMENT_BYTES);
            let died = world.live(who(VICTIM), steps, |victim| {
                let lock = lock_of(&victim);
                for _ in 0..2 {
                    assert_eq!(lock.take(who(VICTIM), &victim, tell), Taken::Yes);
                    lock.begin();
                    assert!(lock.deepen(who(VICTIM)));
                    lock.ascend(who(VICTIM), &victim).unwrap();
                    lock.ascend(who(VICTIM), &victim).unwrap();
                }
            });
            let other = world.immortal();
            let lock = lock_of(&other);
            match lock.take(who(OTHER), &other, tell) {
                Taken::Yes => {}
                Taken::FromDead(dead) => assert!(died && !tell && dead == who(VICTIM)),
                Taken::Abandoned => {
                    assert!(died && tell);
                    assert_eq!(lock.take(who(OTHER), &other, tell), Taken::Abandoned, "again");
                    assert_eq!(lock.take_now(who(OTHER), &other, tell), Taken::Abandoned);
                    assert_eq!(lock.recover(who(OTHER), &other), Taken::Yes);
                }
                Taken::No => panic!("waited for a dead owner"),
            }
            assert_eq!(lock.owner(), Some(who(OTHER)));
            lock.release(&other).unwrap();
            assert!(lock.is_free());
            died
        });
    }
    println!("lock: {points} points of death");
    assert!(points > 40, "the steps are not counted any more");
}

#[test]
fn an_heir_of_a_lock_may_die_too() {
    let mut points = 0;
    for tell in [false, true] {
        points += every_point(|steps| {
            let world = World::new(SEGMENT_BYTES);
            world.live(who(VICTIM), 2, |victim| {
                lock_of(&victim).take(who(VICTIM), &victim, tell);
                panic_any(Died);
            });
            let died = world.live(who(HEIR), steps, |heir| {
                let lock = lock_of(&heir);
                let taken = lock.take_now(who(HEIR), &heir, tell);
                assert_ne!(taken, Taken::No);
                assert!(taken != Taken::Abandoned || lock.recover(who(HEIR), &heir) == Taken::Yes);
                lock.release(&heir).unwrap();
            });
            let other = world.immortal();
            let lock = lock_of(&other);
            let taken = lock.recover(who(OTHER), &other);
            assert!(matches!(taken, Taken::Yes | Taken::FromDead(_)), "{taken:?}");
            died
        });
    }
    assert!(points > 10);
    println!("heir of a lock: {points} points of death");
}

/// Takes all that there is, without waiting.
fn drain(process: &Process, pid: u32) -> u64 {
    let semaphore = semaphore_of(process);
    let hold = semaphore.holding(who(pid), process);
    let mut count = 0;
    while semaphore.take(who(pid), hold, process, false) != Taken::No {
        count += 1;
    }
    assert_eq!(semaphore.held(hold.unwrap()), count, "what is held is written down");
    count
}

#[test]
fn units_are_neither_lost_nor_invented() {
    let mut points = 0;
    for first in [1, 2, 3] {
        points += every_point(|steps| {
            let world = World::new(SEGMENT_BYTES);
            let other = world.immortal();
            let semaphore = semaphore_of(&other);
            semaphore.set_up(first + 1);
            let hold = semaphore.holding(who(OTHER), &other);
            assert_eq!(semaphore.take(who(OTHER), hold, &other, true), Taken::Yes);
            let died = world.live(who(VICTIM), steps, |victim| {
                let semaphore = semaphore_of(&victim);
                let hold = semaphore.holding(who(VICTIM), &victim);
                for _ in 0..first {
                    assert_eq!(semaphore.take(who(VICTIM), hold, &victim, true), Taken::Yes);
                }
                for _ in 0..first {
                    semaphore.give(who(VICTIM), hold, MOST, &victim).unwrap();
                }
            });
            assert_eq!(semaphore.held(hold.unwrap()), 1);
            semaphore.give(who(OTHER), hold, MOST, &other).unwrap();
            assert!(!semaphore.are_signals());
            assert_eq!(drain(&other, OTHER), first + 1);
            died
        });
    }
    println!("semaphore: {points} points of death");
    assert!(points > 150, "the steps are not counted any more");
}

#[test]
fn who_takes_back_units_may_die_too() {
    let mut points = 0;
    for first_death in 0..60 {
        points += every_point(|steps| {
            let world = World::new(SEGMENT_BYTES);
            semaphore_of(&world.immortal()).set_up(2);
            world.live(who(VICTIM), first_death, |victim| {
                let semaphore = semaphore_of(&victim);
                let hold = semaphore.holding(who(VICTIM), &victim);
                semaphore.take(who(VICTIM), hold, &victim, true);
                semaphore.take(who(VICTIM), hold, &victim, true);
                semaphore.give(who(VICTIM), hold, MOST, &victim).unwrap();
                panic_any(Died);
            });
            let died = world.live(who(HEIR), steps, |heir| {
                assert_eq!(drain(&heir, HEIR), 2);
            });
            assert_eq!(drain(&world.immortal(), OTHER), 2, "after {first_death} and {steps}");
            died
        });
    }
    println!("heir of a semaphore: {points} points of death");
    assert!(points > 2000, "the steps are not counted any more");
}

#[test]
fn signals_do_not_come_back() {
    let world = World::new(SEGMENT_BYTES);
    let other = world.immortal();
    let producer = semaphore_of(&other);
    let hold = producer.holding(who(OTHER), &other);
    producer.give(who(OTHER), hold, MOST, &other).unwrap();
    producer.give(who(OTHER), hold, MOST, &other).unwrap();
    assert!(producer.are_signals());
    world.live(who(VICTIM), usize::MAX, |consumer| {
        let semaphore = semaphore_of(&consumer);
        let hold = semaphore.holding(who(VICTIM), &consumer);
        assert_eq!(semaphore.take(who(VICTIM), hold, &consumer, true), Taken::Yes);
    });
    assert_eq!(producer.take(who(OTHER), hold, &other, false), Taken::Yes);
    assert_eq!(producer.take(who(OTHER), hold, &other, false), Taken::No, "one was consumed");
}

#[test]
fn what_was_held_before_it_was_a_signal_does_not_come_back() {
    let world = World::new(SEGMENT_BYTES);
    let other = world.immortal();
    let producer = semaphore_of(&other);
    producer.set_up(1);
    let hold = producer.holding(who(OTHER), &other);
    world.live(who(VICTIM), usize::MAX, |consumer| {
        let semaphore = semaphore_of(&consumer);
        let hold = semaphore.holding(who(VICTIM), &consumer);
        assert_eq!(semaphore.take(who(VICTIM), hold, &consumer, true), Taken::Yes);
    });
    producer.give(who(OTHER), hold, MOST, &other).unwrap();
    assert_eq!(producer.take(who(OTHER), hold, &other, false), Taken::Yes);
    assert_eq!(producer.take(who(OTHER), hold, &other, false), Taken::No);
}

#[test]
fn a_setter_that_dies_has_set_or_not() {
    let points = every_point(|steps| {
        let world = World::new(SEGMENT_BYTES);
        let other = world.immortal();
        let event = Event::new(other.clone(), at());
        let epoch = event.epoch();
        assert!(!event.wait(epoch, &other), "unset");
        let died = world.live(who(VICTIM), steps, |victim| {
            let event = Event::new(victim.clone(), at());
            event.set(&victim);
            event.clear();
        });
        let other = world.immortal();
        let event = Event::new(other.clone(), at());
        let went_on = event.wait(epoch, &other);
        assert!(went_on || died, "a set that was cleared at once was missed");
        event.set(&other);
        assert!(event.wait(epoch, &other));
        died
    });
    println!("event: {points} points of death");
    assert!(points > 4);
}

#[test]
fn a_call_outlives_the_waiter_that_it_was_for() {
    let mut points = 0;
    for called_before_death in [false, true] {
        points += every_point(|steps| {
            let world = World::new(SEGMENT_BYTES);
            let (caller, other) = (world.immortal(), world.immortal());
            let (left, mine) = (Cell::new(Some(false)), Cell::new(None));
            let died = world.live(who(VICTIM), steps, |victim| {
                let condition = condition_of(&victim);
                let node = condition.enter(who(VICTIM), &victim).unwrap();
                let own = condition_of(&other).enter(who(OTHER), &other).unwrap();
                mine.set(Some(own));
                if called_before_death {
                    condition_of(&caller).call(1, who(HEIR), &caller);
                }
                assert!(condition.wait(node, who(VICTIM), &victim));
                left.set(None); // a death from here on may count as before or after
                condition.leave(node);
                left.set(Some(true));
            });
            let condition = condition_of(&other);
            let enter = || condition.enter(who(OTHER), &other).unwrap();
            let called = called_before_death && mine.get().is_some();
            let own = mine.get().unwrap_or_else(enter);
            if !called {
                condition_of(&caller).call(1, who(HEIR), &caller);
            }
            let went_on = condition.wait(own, who(OTHER), &other);
            if let Some(left) = left.get() {
                assert_eq!(went_on, !left, "the call is the one's or the other's");
            }
            condition.leave(own);
            died
        });
    }
    println!("waiter of a condition: {points} points of death");
    assert!(points > 10);
}

#[test]
fn a_caller_that_dies_calls_all_or_nobody() {
    let points = every_point(|steps| {
        let world = World::new(SEGMENT_BYTES);
        let waiters: Vec<Process> = (0..3).map(|_| world.immortal()).collect();
        let enter = |index: usize| {
            condition_of(&waiters[index]).enter(who(OTHER + index as u32), &waiters[index]).unwrap()
        };
        let nodes: Vec<_> = (0..3).map(enter).collect();
        let died = world.live(who(VICTIM), steps, |victim| {
            condition_of(&victim).call(u64::MAX, who(VICTIM), &victim);
        });
        let went_on: Vec<bool> = (0..3)
            .map(|index| {
                let condition = condition_of(&waiters[index]);
                let called =
                    condition.wait(nodes[index], who(OTHER + index as u32), &waiters[index]);
                condition.leave(nodes[index]);
                called
            })
            .collect();
        assert!(went_on == [true; 3] || (died && went_on == [false; 3]), "{went_on:?}");
        died
    });
    println!("caller of a condition: {points} points of death");
    assert!(points > 15);
}

#[test]
fn an_heir_of_a_call_may_die_too() {
    let points = every_point(|steps| {
        let world = World::new(SEGMENT_BYTES);
        let other = world.immortal();
        let condition = condition_of(&other);
        let mut nodes = Vec::new();
        // the first dies called; the heir, a waiter, dies at every step of taking the call over
        for pid in [VICTIM, HEIR, OTHER] {
            nodes.push(condition.enter(who(pid), &other).unwrap());
        }
        condition.call(1, who(OTHER), &other);
        world.live(who(VICTIM), 0, |_| panic_any(Died));
        let left = Cell::new(false);
        let died = world.live(who(HEIR), steps, |heir| {
            let awake = heir.for_ever();
            let condition = condition_of(&heir);
            // its first sleep is a slice, not its death
            assert!(condition.wait(nodes[1], who(HEIR), &Sleeper { process: heir.clone(), awake }));
            left.set(true);
            condition.leave(nodes[1]);
        });
        let went_on = condition.wait(nodes[2], who(OTHER), &other);
        assert!(went_on || left.get(), "a call was lost");
        died
    });
    println!("heir of a call: {points} points of death");
    assert!(points > 8);
}

/// Mortal, but for its sleep.
struct Sleeper {
    process: Process,
    awake: Process,
}

impl Kernel for Sleeper {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        self.process.step();
        self.awake.sleep(at, seen)
    }
    fn wake(&self, at: usize, all: bool) {
        self.process.wake(at, all);
    }
    fn alive(&self, who: Who) -> bool {
        self.process.alive(who)
    }
}

/// One party's way through a barrier; whether it came through well.
fn pass(barrier: &Barrier<Process>, me: Who, kernel: &impl Kernel) -> Option<bool> {
    let (arrival, well) = match barrier.enter(me, kernel) {
        Enter::Wait(arrival) => (arrival, barrier.wait(&arrival, kernel)),
        Enter::Act(arrival) => {
            let open = barrier.open(&arrival, kernel);
            (arrival, if open { Passed::Well } else { Passed::Broken(None) })
        }
        Enter::Broken => return Some(false),
        Enter::Stopped | Enter::Full => return None,
    };
    barrier.leave(&arrival);
    match well {
        Passed::Well => Some(true),
        Passed::Broken(_) => Some(false),
        Passed::Stopped => None,
    }
}

#[test]
fn a_barrier_breaks_or_opens_when_a_party_dies() {
    let mut points = 0;
    for victim_is_last in [false, true] {
        points += every_point(|steps| {
            let world = World::new(SEGMENT_BYTES);
            let other = world.immortal();
            let barrier = barrier_of(&other);
            barrier.set_up(2);
            let before = victim_is_last.then(|| match barrier.enter(who(OTHER), &other) {
                Enter::Wait(arrival) => arrival,
                strange => panic!("{strange:?}"),
            });
            let through = Cell::new(false);
            let died = world.live(who(VICTIM), steps, |victim| {
                assert_eq!(pass(&barrier_of(&victim), who(VICTIM), &victim), Some(true));
                through.set(true);
            });
            match before {
                Some(arrival) => {
                    let passed = barrier.wait(&arrival, &other);
                    barrier.leave(&arrival);
                    // a party that never arrived is nobody that the barrier could know
                    assert!(passed == Passed::Well || !through.get(), "{passed:?}");
                }
                None => {
                    // with the other dead there is no second party: it must not be let through
                    // but by an arrival that was whole
                    let _any_end_but_a_hang = pass(&barrier, who(OTHER), &other);
                }
            }
            // and afterwards it is as good as new
            let (one, two) = (world.immortal(), world.immortal());
            barrier_of(&one).reset(who(OTHER), &one);
            let first = match barrier_of(&one).enter(who(OTHER), &one) {
                Enter::Wait(arrival) => arrival,
                strange => panic!("{strange:?} after a reset"),
            };
            assert_eq!(barrier_of(&two).waiting(), 1);
            assert_eq!(pass(&barrier_of(&two), who(HEIR), &two), Some(true));
            assert_eq!(barrier_of(&one).wait(&first, &one), Passed::Well);
            barrier_of(&one).leave(&first);
            died
        });
    }
    println!("barrier: {points} points of death");
    assert!(points > 30);
}

proptest::proptest! {
    /// Any history of takes, gives and deaths, beside a model of three numbers. A step is a process
    /// (which is born again when it has died), what it does, and after how many steps it dies at it.
    #[test]
    fn any_history_keeps_the_units(
        total in 1_u64..4,
        history in proptest::collection::vec((0_usize..3, 0_usize..3, 0_usize..45), 1..60),
    ) {
        quiet();
        let world = World::new(SEGMENT_BYTES);
        semaphore_of(&world.immortal()).set_up(total);
        let mut held = [0_u64; 3];
        let mut lives = [0_u32; 3];
        for (process, does, steps) in history {
            let me = who(1000 * (process as u32 + 1) + lives[process]);
            let able = world.immortal();
            let semaphore = semaphore_of(&able);
            let hold = semaphore.holding(me, &able);
            match does {
                0 => {
                    let taken = semaphore.take(me, hold, &able, false) != Taken::No;
                    proptest::prop_assert_eq!(taken, held.iter().sum::<u64>() < total);
                    held[process] += u64::from(taken);
                }
                1 if held[process] > 0 => {
                    semaphore.give(me, hold, total, &able).unwrap();
                    held[process] -= 1;
                }
                1 => {}
                _ => {
                    let gives = held[process] > 0;
                    world.live(me, steps, |mortal| {
                        let semaphore = semaphore_of(&mortal);
                        if gives {
                            semaphore.give(me, hold, total, &mortal).unwrap();
                        }
                        semaphore.take(me, hold, &mortal, false);
                    });
                    held[process] = 0;
                    lives[process] += 1;
                }
            }
        }
        let last = world.immortal();
        let left = total - held.iter().sum::<u64>();
        proptest::prop_assert_eq!(drain(&last, 9), left);
    }
}

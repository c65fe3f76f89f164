//! Locks, semaphores, events, conditions, barriers: all interleavings of a few threads. Sleeps
//! have no slices here, so a wake-up that is lost is a deadlock, which loom reports.

use std::collections::BTreeMap;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use oxgang_shm::Words;
use oxgang_shm::sync::barrier::{Barrier, Enter, Passed};
use oxgang_shm::sync::condition::Condition;
use oxgang_shm::sync::event::Event;
use oxgang_shm::sync::lock::Lock;
use oxgang_shm::sync::nodes::{NODE_BYTES, Nodes};
use oxgang_shm::sync::semaphore::Semaphore;
use oxgang_shm::sync::{Kernel, Rest, Taken, Who};

use super::{LoomWords, Shared};

/// Objects lie below, nodes from here on.
const MARK: usize = 128;
const FIRST_NODE: usize = 136;
const NODES: u32 = 2;
const OBJECT: u32 = 1;
/// A second object's place, for those that need a lock beside them.
const BESIDE: usize = 64;

struct Futexes {
    words: Shared,
    asleep: Mutex<()>,
    beds: BTreeMap<usize, Condvar>,
}

#[derive(Clone)]
struct Model(Arc<Futexes>);

impl Model {
    fn new() -> Self {
        let offsets: Vec<usize> =
            (0..FIRST_NODE + NODES as usize * NODE_BYTES).step_by(8).collect();
        let words = Shared(LoomWords::new(offsets.iter().copied(), true));
        let beds = [0, 8, BESIDE].into_iter().chain((0..NODES as usize).map(node_at));
        let beds = beds.map(|at| (at, Condvar::new())).collect();
        Self(Arc::new(Futexes { words, asleep: Mutex::new(()), beds }))
    }

    fn words(&self) -> Shared {
        self.0.words.clone()
    }

    fn nodes(&self) -> Nodes<Shared> {
        Nodes::new(self.words(), MARK, FIRST_NODE, NODES)
    }
}

fn node_at(number: usize) -> usize {
    FIRST_NODE + number * NODE_BYTES
}

impl Kernel for Model {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        let asleep = self.0.asleep.lock().unwrap();
        // as the kernel does it: the look at the word and the sleep are one step
        if self.0.words.load(at, std::sync::atomic::Ordering::SeqCst) as u32 == seen {
            drop(self.0.beds[&at].wait(asleep).unwrap());
        }
        Rest::Over
    }
    fn wake(&self, at: usize, all: bool) {
        drop(self.0.asleep.lock().unwrap());
        if all {
            self.0.beds[&at].notify_all();
        } else {
            self.0.beds[&at].notify_one();
        }
    }
    fn alive(&self, _who: Who) -> bool {
        true
    }
    fn pause(&self) {
        thread::yield_now();
    }
}

fn who(number: u32) -> Who {
    Who::new(7, 1, number)
}

fn check(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(model);
}

/// A cell that loom watches: two accesses at once fail the model.
struct Guarded(UnsafeCell<u32>);

impl Guarded {
    fn touch(&self) {
        self.0.with_mut(|_pointer| ());
    }
}

// loom's cell checks accesses itself; the pointer that it lends is never followed
fn guarded() -> Arc<Guarded> {
    Arc::new(Guarded(UnsafeCell::new(0)))
}

fn one_lock_many_threads(threads: u32) {
    check(2, move || {
        let (model, cell) = (Model::new(), guarded());
        let at_work = move |model: &Model, cell: &Guarded, number| {
            let lock = Lock::new(model.words(), 0);
            assert_eq!(lock.take(who(number), model, false), Taken::Yes);
            cell.touch();
            lock.release(model).unwrap();
        };
        let others: Vec<_> = (1..threads)
            .map(|number| {
                let (model, cell) = (model.clone(), cell.clone());
                thread::spawn(move || at_work(&model, &cell, number))
            })
            .collect();
        at_work(&model, &cell, threads);
        for other in others {
            other.join().unwrap();
        }
        assert!(Lock::new(model.words(), 0).is_free());
    });
}

#[test]
fn a_lock_excludes_and_everybody_gets_it() {
    one_lock_many_threads(2);
    one_lock_many_threads(3);
}

/// A kernel that only writes down who would sleep, and whether a wake-up came after that.
struct Diary {
    words: Shared,
    /// Whether the word is compared again before the sleep.
    looks: bool,
    asleep: Mutex<(bool, bool)>,
}

impl Kernel for &Diary {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        let mut asleep = self.asleep.lock().unwrap();
        if self.looks && self.words.load(at, std::sync::atomic::Ordering::SeqCst) as u32 != seen {
            return Rest::Over;
        }
        asleep.0 = true;
        Rest::Stop
    }
    fn wake(&self, _at: usize, _all: bool) {
        let mut asleep = self.asleep.lock().unwrap();
        asleep.1 |= asleep.0;
    }
    fn alive(&self, _who: Who) -> bool {
        true
    }
}

/// The same, for the one who sleeps: what it does when it gives up is not counted.
struct Sleeper(Arc<Diary>);

impl Kernel for Sleeper {
    fn sleep(&self, at: usize, seen: u32) -> Rest {
        (&*self.0).sleep(at, seen)
    }
    fn wake(&self, _at: usize, _all: bool) {}
    fn alive(&self, _who: Who) -> bool {
        true
    }
}

fn who_sleeps_is_woken(looks: bool) {
    loom::model(move || {
        let words = Model::new().words();
        let diary = Arc::new(Diary { words: words.clone(), looks, asleep: Mutex::default() });
        let lock = Lock::new(words.clone(), 0);
        assert!(lock.try_take(who(1)));
        let other = {
            let (diary, lock) = (diary.clone(), lock.clone());
            thread::spawn(move || lock.take(who(2), &Sleeper(diary), false))
        };
        lock.release(&&*diary).unwrap();
        let taken = other.join().unwrap();
        let (slept, woken) = *diary.asleep.lock().unwrap();
        // whether it got the lock by its last look is luck: a real sleeper has none
        assert!(taken == Taken::Yes || slept);
        assert!(!slept || woken, "it sleeps for ever");
    });
}

#[test]
fn a_lock_wakes_who_sleeps_for_it() {
    who_sleeps_is_woken(true);
}

#[test]
#[should_panic(expected = "it sleeps for ever")]
fn without_a_second_look_it_does_not() {
    who_sleeps_is_woken(false);
}

#[test]
fn every_unit_that_is_given_is_taken() {
    check(2, || {
        let model = Model::new();
        let takers: Vec<_> = (1..3)
            .map(|number| {
                let model = model.clone();
                thread::spawn(move || {
                    let semaphore = Semaphore::new(model.words(), 0, OBJECT, model.nodes());
                    assert_eq!(semaphore.take(who(number), None, &model, true), Taken::Yes);
                })
            })
            .collect();
        let semaphore = Semaphore::new(model.words(), 0, OBJECT, model.nodes());
        semaphore.give(who(3), None, 9, &model).unwrap();
        semaphore.give(who(3), None, 9, &model).unwrap();
        for taker in takers {
            taker.join().unwrap();
        }
        assert_eq!(semaphore.count(), 0);
    });
}

#[test]
fn a_set_is_seen_even_if_it_is_cleared() {
    check(3, || {
        let model = Model::new();
        let event = Event::new(model.words(), 0);
        let epoch = event.epoch();
        let waiter = {
            let model = model.clone();
            thread::spawn(move || Event::new(model.words(), 0).wait(epoch, &model))
        };
        event.set(&model);
        event.clear();
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn who_waits_for_a_condition_is_called() {
    check(2, || {
        let (model, cell) = (Model::new(), guarded());
        let waiter = {
            let (model, cell) = (model.clone(), cell.clone());
            thread::spawn(move || {
                let lock = Lock::new(model.words(), BESIDE);
                let condition = Condition::new(model.words(), 0, OBJECT, model.nodes());
                let me = who(1);
                assert_eq!(lock.take(me, &model, false), Taken::Yes);
                // the flag that it waits for
                while model.words().load(24, std::sync::atomic::Ordering::Relaxed) == 0 {
                    let node = condition.enter(me, &model).unwrap();
                    lock.release(&model).unwrap();
                    assert!(condition.wait(node, me, &model));
                    assert_eq!(lock.take(me, &model, false), Taken::Yes);
                    condition.leave(node);
                }
                cell.touch();
                lock.release(&model).unwrap();
            })
        };
        let lock = Lock::new(model.words(), BESIDE);
        assert_eq!(lock.take(who(2), &model, false), Taken::Yes);
        cell.touch();
        model.words().store(24, 1, std::sync::atomic::Ordering::Relaxed);
        Condition::new(model.words(), 0, OBJECT, model.nodes()).call(1, who(2), &model);
        lock.release(&model).unwrap();
        waiter.join().unwrap();
    });
}

#[test]
fn a_barrier_lets_all_go_on() {
    check(2, || {
        let model = Model::new();
        Barrier::new(model.words(), 0, OBJECT, model.nodes()).set_up(2);
        let party = |model: &Model, number| {
            let barrier = Barrier::new(model.words(), 0, OBJECT, model.nodes());
            match barrier.enter(who(number), model) {
                Enter::Wait(arrival) => {
                    assert_eq!(barrier.wait(&arrival, model), Passed::Well);
                    barrier.leave(&arrival);
                    arrival.place
                }
                Enter::Act(arrival) => {
                    assert!(barrier.open(&arrival, model));
                    barrier.leave(&arrival);
                    arrival.place
                }
                strange => panic!("{strange:?}"),
            }
        };
        let other = {
            let model = model.clone();
            thread::spawn(move || party(&model, 1))
        };
        let own = party(&model, 2);
        assert_eq!(own + other.join().unwrap(), 1, "one was first, one second");
    });
}

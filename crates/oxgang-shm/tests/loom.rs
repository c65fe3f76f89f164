//! All interleavings of the small protocols, with weak memory: run with
//! `RUSTFLAGS="--cfg loom" cargo test -p oxgang-shm --test loom --release`.
//!
//! Each waking protocol is also run with its fences taken out, and must then fail: that shows
//! that the model would notice.

#![cfg(loom)]

#[path = "loom_parts/line.rs"]
mod line;
#[path = "loom_parts/queue.rs"]
mod queue;
#[path = "loom_parts/sync.rs"]
mod sync;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering as StdOrdering;

use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use oxgang_shm::Words;
use oxgang_shm::channel::{OwnerEnd, Shape, WorkerEnd};
use oxgang_shm::oversight::{self, Oversight};
use oxgang_shm::ring::{Consumer, FIRST_INCARNATION, Full, Producer, RingAt};
use oxgang_shm::watch::{self, Interest, WATCH_BYTES, Wake, Watch};
use oxgang_shm::words::{read_by_words, write_by_words};

/// Loom's atomics, only where the protocol touches memory.
struct LoomWords {
    words: BTreeMap<usize, AtomicU64>,
    fences: bool,
    futex: (Mutex<()>, Condvar),
}

impl LoomWords {
    fn new(offsets: impl IntoIterator<Item = usize>, fences: bool) -> Arc<Self> {
        let words = offsets.into_iter().map(|at| (at, AtomicU64::new(0))).collect();
        Arc::new(Self { words, fences, futex: (Mutex::new(()), Condvar::new()) })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.words.get(&at).unwrap_or_else(|| panic!("no word at {at}"))
    }

    /// As the kernel does it: the look at the word and the sleep are one step.
    fn futex_wait(&self, at: usize, seen: u64) {
        let guard = self.futex.0.lock().unwrap();
        if self.word(at).load(Ordering::SeqCst) == seen {
            drop(self.futex.1.wait(guard).unwrap());
        }
    }

    fn futex_wake(&self) {
        drop(self.futex.0.lock().unwrap());
        self.futex.1.notify_all();
    }
}

#[derive(Clone)]
struct Shared(Arc<LoomWords>);

impl Words for Shared {
    fn len(&self) -> usize {
        1 << 20
    }
    fn load(&self, at: usize, order: StdOrdering) -> u64 {
        self.0.word(at).load(order)
    }
    fn store(&self, at: usize, value: u64, order: StdOrdering) {
        self.0.word(at).store(value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64> {
        let word = self.0.word(at);
        word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.0.word(at).fetch_add(by, Ordering::AcqRel)
    }
    fn fence(&self) {
        if self.0.fences {
            fence(Ordering::SeqCst);
        }
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        let store = |at, value| self.0.word(at).store(value, Ordering::Relaxed);
        write_by_words(at, bytes, store, |at| self.0.word(at).load(Ordering::Relaxed));
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        read_by_words(at, into, |at| self.0.word(at).load(Ordering::Relaxed));
    }
}

fn ring(capacity: usize) -> (Shared, RingAt) {
    let at = RingAt { tail: 0, head: 8, data: 16, capacity };
    (Shared(LoomWords::new((0..16 + capacity).step_by(8), true)), at)
}

#[test]
fn frames_arrive_whole_and_in_order_across_a_wrap() {
    loom::model(|| {
        let (words, at) = ring(48); // one frame of 40, then a pad of 8
        let mut producer = Producer::new(words.clone(), at);
        let mut consumer = Consumer::new(words, at);
        let sender = thread::spawn(move || {
            for id in [7_u64, 8] {
                while producer.push(1, id, 0, &[&[id as u8; 8]]).unwrap() == Err(Full) {
                    thread::yield_now();
                }
            }
        });
        for id in [7_u64, 8] {
            let frame = loop {
                match consumer.peek().unwrap() {
                    Some(frame) => break frame,
                    None => thread::yield_now(),
                }
            };
            let mut bytes = Vec::new();
            consumer.read(&frame, &mut bytes);
            assert_eq!((frame.id, bytes), (id, vec![id as u8; 8]));
            assert!(consumer.claim(&frame, FIRST_INCARNATION));
            consumer.advance(&frame);
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_frame_is_claimed_or_revoked_never_both_never_neither() {
    loom::model(|| {
        let (words, at) = ring(80);
        let mut producer = Producer::new(words.clone(), at);
        let mut consumer = Consumer::new(words, at);
        let position = producer.push(1, 7, 0, &[]).unwrap().unwrap();
        let owner = thread::spawn(move || producer.revoke(position).unwrap());
        let frame = consumer.peek().unwrap().unwrap();
        let claimed = consumer.claim(&frame, FIRST_INCARNATION);
        consumer.advance(&frame);
        assert_ne!(claimed, owner.join().unwrap());
    });
}

fn channel_words(fences: bool) -> Shared {
    let header = [0, 8, 16, 24, 128, 256, 384, 512, 640, 648];
    Shared(LoomWords::new(header.into_iter().chain((4096..4160).step_by(8)), fences))
}

const SHAPE: Shape = Shape { requests: 4096, responses: 4096 };

#[test]
fn no_worker_sleeps_through_a_task() {
    loom::model(|| {
        let words = channel_words(true);
        let mut owner = OwnerEnd::create(words.clone(), SHAPE, FIRST_INCARNATION);
        let mut worker = WorkerEnd::open(words.clone()).unwrap();
        let sleeper = {
            let words = words.clone();
            thread::spawn(move || {
                let mut payload = Vec::new();
                while worker.take(&mut payload).unwrap().is_none() {
                    let bell = worker.prepare_sleep();
                    if !worker.has_request() {
                        words.0.futex_wait(640, bell);
                    }
                    worker.wake();
                }
            })
        };
        owner.requests.push(1, 7, 0, &[]).unwrap().unwrap();
        if owner.ring_needed() {
            words.0.futex_wake();
        }
        sleeper.join().unwrap(); // a lost wake-up is a deadlock, which loom reports
    });
}

/// The moment of falling asleep alone: either the worker sees the task or it is rung.
fn a_worker_falls_asleep(fences: bool) {
    loom::model(move || {
        let words = channel_words(fences);
        let mut owner = OwnerEnd::create(words.clone(), SHAPE, FIRST_INCARNATION);
        let worker = WorkerEnd::open(words).unwrap();
        let sleeper = thread::spawn(move || {
            worker.prepare_sleep();
            worker.has_request()
        });
        owner.requests.push(1, 7, 0, &[]).unwrap().unwrap();
        let rung = owner.ring_needed();
        assert!(sleeper.join().unwrap() || rung, "asleep with a task before it");
    });
}

#[test]
fn a_task_is_seen_or_rung_for() {
    a_worker_falls_asleep(true);
}

#[test]
#[should_panic(expected = "asleep with a task before it")]
fn without_fences_it_is_neither() {
    a_worker_falls_asleep(false);
}

/// Two tasks, one after the other: the owner reads no task's time as the other's.
fn times_are_their_own(fences: bool) {
    loom::model(move || {
        let words = Shared(LoomWords::new(oversight::WORDS, fences));
        let worker = Oversight::new(words.clone());
        let runner = thread::spawn(move || {
            worker.begin(0, 100);
            worker.end();
            worker.begin(40, 200);
            worker.end();
        });
        let owner = Oversight::new(words);
        assert!(matches!(owner.began(0), None | Some(100)), "another task's time");
        runner.join().unwrap();
    });
}

#[test]
fn a_task_has_its_own_time() {
    times_are_their_own(true);
}

#[test]
#[should_panic(expected = "another task's time")]
fn without_fences_it_may_have_anothers() {
    times_are_their_own(false);
}

#[test]
fn an_interrupt_meets_its_task_or_nobody() {
    loom::model(|| {
        let words = Shared(LoomWords::new(oversight::WORDS, true));
        let worker = Oversight::new(words.clone());
        let owner = Oversight::new(words);
        let asker = thread::spawn(move || {
            let running = owner.began(0).is_some();
            if running {
                owner.interrupt(0, 5);
            }
            running
        });
        worker.begin(0, 100);
        let during = worker.interrupted(0);
        worker.end();
        worker.begin(40, 200);
        assert_eq!(worker.interrupted(40), None, "meant for the task before");
        worker.end();
        let asked = asker.join().unwrap();
        assert!(during.is_none_or(|limit| asked && limit == 5));
    });
}

const FLAG: usize = 4096;

fn watch_words(fences: bool) -> Shared {
    let offsets = [watch::AT_BELL, 256, 384, 512, 520, FLAG];
    assert!(FLAG >= WATCH_BYTES);
    Shared(LoomWords::new(offsets, fences))
}

fn publish(words: &Shared) -> Wake {
    words.store(FLAG, 1, StdOrdering::Release);
    let wake = Watch::new(words.clone()).after_publish(true, false);
    if wake == Wake::Leader {
        words.0.futex_wake();
    }
    wake
}

#[test]
fn no_leader_sleeps_through_an_answer() {
    loom::model(|| {
        let words = watch_words(true);
        let leader = {
            let words = words.clone();
            thread::spawn(move || {
                let watch = Watch::new(words.clone());
                let published = || words.load(FLAG, StdOrdering::Acquire) == 1;
                watch.lead();
                while !published() {
                    let bell = watch.park();
                    if published() {
                        break;
                    }
                    words.0.futex_wait(watch::AT_BELL, bell);
                    watch.lead();
                }
                watch.leave();
            })
        };
        publish(&words);
        leader.join().unwrap();
    });
}

fn a_leader_parks(fences: bool) {
    loom::model(move || {
        let words = watch_words(fences);
        let watch = Watch::new(words.clone());
        watch.lead();
        let publisher = {
            let words = words.clone();
            thread::spawn(move || publish(&words))
        };
        watch.park();
        let seen = words.load(FLAG, StdOrdering::Acquire) == 1;
        let woken = publisher.join().unwrap() == Wake::Leader;
        assert!(seen || woken, "parked beside an answer");
    });
}

#[test]
fn an_answer_is_seen_or_wakes_the_leader() {
    a_leader_parks(true);
}

#[test]
#[should_panic(expected = "parked beside an answer")]
fn without_fences_it_does_neither() {
    a_leader_parks(false);
}

fn a_leader_that_leaves(fences: bool) {
    loom::model(move || {
        let words = watch_words(fences);
        let watch = Watch::new(words.clone());
        watch.set_interest(Interest::All);
        watch.lead();
        let publisher = {
            let words = words.clone();
            thread::spawn(move || publish(&words))
        };
        watch.leave();
        let seen = words.load(FLAG, StdOrdering::Acquire) == 1;
        let woken = publisher.join().unwrap() == Wake::Driver;
        assert!(seen || woken, "nobody looks after the answer");
    });
}

#[test]
fn an_answer_finds_the_leader_or_the_driver() {
    a_leader_that_leaves(true);
}

#[test]
#[should_panic(expected = "nobody looks")]
fn without_fences_an_answer_is_forgotten() {
    a_leader_that_leaves(false);
}

#[test]
fn interest_that_is_raised_misses_nothing() {
    loom::model(|| {
        let words = watch_words(true);
        let publisher = {
            let words = words.clone();
            thread::spawn(move || publish(&words))
        };
        Watch::new(words.clone()).set_interest(Interest::All);
        let seen = words.load(FLAG, StdOrdering::Acquire) == 1;
        let woken = publisher.join().unwrap() == Wake::Driver;
        assert!(seen || woken);
    });
}

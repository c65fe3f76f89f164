//! A process dies after every single step of sending, receiving, settling a queue down, telling of
//! what it holds, and shutting it; and the others go on.
//!
//! Checked for each point of death: nobody waits for ever; every message comes out whole, once, and in
//! order; what was sent is there, what was received is not; the counts are right; the descriptor
//! tells the truth when the next one has been there. And once more with an heir that dies at every
//! step.

use std::cell::{Cell, RefCell};
use std::io::Result;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use oxgang_shm::queue::token::Doorbell;
use oxgang_shm::queue::{Got, HEAD_BYTES, Patience, Queue, Rings, Sent, Shape, Shown};
use oxgang_shm::sync::Who;
use oxgang_shm::{HeapWords, Words};

mod mortals;

use mortals::{Process, World, every_point, who};

const SHAPE: Shape = Shape { most: 0, limit: 0, first: 64, rings: 6, slots: 0 };
const VICTIM: u32 = 100;
const HEIR: u32 = 200;
const OTHER: u32 = 300;

/// A ring in the memory of a process.
struct Lot(Process, usize, usize);

impl Words for Lot {
    fn len(&self) -> usize {
        self.2
    }
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.0.load(self.1 + at, order)
    }
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.0.store(self.1 + at, value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> std::result::Result<u64, u64> {
        self.0.compare_exchange(self.1 + at, current, new)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.0.fetch_add(self.1 + at, by)
    }
    fn fence(&self) {
        self.0.fence();
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        self.0.write(self.1 + at, bytes);
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        self.0.read(self.1 + at, into);
    }
}

/// The rings lie behind the head.
struct Own(Process);

impl Rings for Own {
    type Memory = Lot;
    fn ring(&self, number: u32) -> Result<Lot> {
        let from = HEAD_BYTES + SHAPE.bytes_before(number);
        Ok(Lot(self.0.clone(), from, SHAPE.bytes(number)))
    }
    fn release(&self, number: u32) {
        self.0.step();
        // as the kernel does it: what was there is gone
        let from = HEAD_BYTES + SHAPE.bytes_before(number);
        self.0.memory.write(from, &vec![0; SHAPE.bytes(number)]);
    }
}

type Own6 = Queue<Process, Own>;

fn world() -> World {
    let world = World::new(HEAD_BYTES + SHAPE.bytes_before(SHAPE.rings));
    Own6::create(&world.immortal(), 0, SHAPE);
    world
}

fn queue_of(process: &Process) -> Own6 {
    Queue::open(process.clone(), 0, Own(process.clone())).unwrap()
}

/// A process with its queue.
struct User {
    process: Process,
    queue: Own6,
    me: Who,
}

impl User {
    fn new(process: Process, pid: u32) -> Self {
        Self { queue: queue_of(&process), process, me: who(pid) }
    }

    fn send(&self, message: &[u8]) {
        let (one, other) = message.split_at(message.len() / 2);
        let sent = self.queue.send(
            self.me,
            &self.process,
            Patience::Some,
            true,
            (&[one, other][..]).into(),
        );
        assert_eq!(sent.unwrap(), Sent::Yes);
    }

    fn receive(&self) -> Option<Vec<u8>> {
        let mut into = vec![9; 3];
        let (me, kernel) = (self.me, &self.process);
        let take = |shown: Shown<'_>| shown.copy(&mut into);
        match self.queue.receive(me, kernel, Patience::Some, usize::MAX, take).unwrap() {
            Got::Message => Some(into),
            Got::Nothing => None,
            other => panic!("{other:?}"),
        }
    }

    fn receive_all(&self) -> Vec<Vec<u8>> {
        let count = self.queue.count();
        let all: Vec<_> = std::iter::from_fn(|| self.receive()).collect();
        assert_eq!(all.len() as u64, count, "as many as were counted");
        assert_eq!(self.queue.count(), 0);
        all
    }
}

/// The n-th message: short ones, one that needs another ring, one that needs the longest.
fn message(number: usize) -> Vec<u8> {
    let length = [5, 30, 0, 200, 11, 20_000, 47][number % 7];
    (0..length).map(|at| (at * 3 + number) as u8).collect()
}

fn messages(numbers: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    numbers.map(message).collect()
}

#[test]
fn what_a_sender_has_sent_is_there() {
    let points = every_point(|steps| {
        let (world, returned) = (world(), Cell::new(0));
        User::new(world.immortal(), OTHER).send(&message(0));
        let died = world.live(who(VICTIM), steps, |victim| {
            let victim = User::new(victim, VICTIM);
            for number in 1..8 {
                victim.send(&message(number));
                returned.set(number);
            }
        });
        let other = User::new(world.immortal(), OTHER);
        let arrived = other.queue.count() as usize;
        // one more than it knows of: it may have died between the two
        assert!((returned.get() + 1..=returned.get() + 2).contains(&arrived), "{arrived}");
        other.send(b"after");
        let mut expected = messages(0..arrived);
        expected.push(b"after".to_vec());
        assert!(other.receive_all() == expected);
        died
    });
    assert!(points > 150, "{points}");
}

#[test]
fn what_a_receiver_has_not_received_is_there() {
    let points = every_point(|steps| {
        let (world, received) = (world(), RefCell::new(Vec::new()));
        let other = User::new(world.immortal(), OTHER);
        (0..8).for_each(|number| other.send(&message(number)));
        let died = world.live(who(VICTIM), steps, |victim| {
            let victim = User::new(victim, VICTIM);
            while let Some(message) = victim.receive() {
                received.borrow_mut().push(message);
            }
        });
        let had = received.into_inner();
        assert!(had == messages(0..had.len()), "whole and in order");
        let left = other.queue.count() as usize;
        // one less than nobody had: it may have died with it
        assert!((7..=8).contains(&(had.len() + left)), "{left}");
        other.send(b"after");
        let mut expected = messages(8 - left..8);
        expected.push(b"after".to_vec());
        assert!(other.receive_all() == expected);
        // and it goes on as ever: through the rings that were left
        for _ in 0..2 {
            (0..8).for_each(|number| other.send(&message(number)));
            assert!(other.receive_all() == messages(0..8));
        }
        died
    });
    assert!(points > 150, "{points}");
}

#[test]
fn an_heir_that_dies_leaves_what_any_dead_leaves() {
    // the two short ones, and the move to another ring
    for sends in [true, false] {
        let points = every_point(|steps| {
            let mut died = false;
            every_point(|steps_of_heir| {
                let world = world();
                let other = User::new(world.immortal(), OTHER);
                (0..3).for_each(|number| other.send(&message(number)));
                let life = |pid: u32| {
                    move |process: Process| {
                        let user = User::new(process, pid);
                        if sends {
                            user.send(&message(3));
                        } else {
                            let _message = user.receive();
                        }
                    }
                };
                died = world.live(who(VICTIM), steps, life(VICTIM));
                let heir_died = world.live(who(HEIR), steps_of_heir, life(HEIR));
                let left = other.queue.count() as usize;
                other.send(b"after");
                let mut expected = if sends {
                    assert!((3..=5).contains(&left), "{left}");
                    let mut expected = messages(0..3);
                    expected.resize(left, message(3));
                    expected
                } else {
                    assert!((1..=3).contains(&left), "{left}");
                    messages(3 - left..3)
                };
                expected.push(b"after".to_vec());
                assert!(other.receive_all() == expected);
                heir_died
            });
            died
        });
        assert!(points > 20, "{points}");
    }
}

#[test]
fn what_is_done_and_shut_is_one_step_each() {
    let points = every_point(|steps| {
        let (world, returned) = (world(), Cell::new(0));
        let other = User::new(world.immortal(), OTHER);
        (0..3).for_each(|number| other.send(&message(number)));
        let died = world.live(who(VICTIM), steps, |victim| {
            let victim = User::new(victim, VICTIM);
            for number in 1..=3 {
                victim.queue.task_done(&victim.process).unwrap();
                returned.set(number);
            }
            victim.queue.shut(false, &victim.process);
            returned.set(4);
        });
        let done = returned.get().min(3);
        let left = other.queue.unfinished();
        assert!(left == 3 - done || (done < 3 && left == 2 - done), "{left} with {done} done");
        assert!(returned.get() < 4 || other.queue.is_shut());
        for _ in 0..left {
            other.queue.task_done(&other.process).unwrap();
        }
        assert!(other.queue.wait_finished(&other.process));
        died
    });
    assert!(points > 20, "{points}");
}

/// A descriptor, whose every use is a step.
struct Bell(Process, Rc<Cell<usize>>);

impl Doorbell for Bell {
    fn ring(&self) -> bool {
        self.0.step();
        self.1.set(self.1.get() + 1);
        self.0.step();
        true
    }
    fn clear(&self) {
        self.0.step();
        self.1.set(0);
        self.0.step();
    }
}

#[test]
fn a_descriptor_that_is_watched_tells_the_truth() {
    let points = every_point(|steps| {
        let (world, bytes) = (world(), Rc::new(Cell::new(0)));
        let live = |user: &User, numbers: std::ops::Range<usize>| {
            let bell = Bell(user.process.clone(), bytes.clone());
            for number in numbers {
                user.queue.herald(user.me, &user.process, &bell);
                user.send(&message(number));
                assert!(user.queue.announce(user.me, &user.process, &bell));
                user.receive();
                user.queue.denounce(user.me, &user.process, &bell, false);
            }
        };
        let other = User::new(world.immortal(), OTHER);
        other.queue.watch();
        let died = world.live(who(VICTIM), steps, |victim| live(&User::new(victim, VICTIM), 0..2));
        let there = other.queue.count() != 0;
        assert!(!there || bytes.get() > 0, "a message, and nobody is told");
        // whoever comes next puts it right
        live(&other, 0..1);
        assert_eq!(bytes.get() > 0, other.queue.count() != 0);
        while other.receive().is_some() {}
        let bell = Bell(other.process.clone(), bytes.clone());
        other.queue.denounce(other.me, &other.process, &bell, true);
        assert_eq!(bytes.get(), 0);
        died
    });
    assert!(points > 100, "{points}");
}

#[test]
fn who_rests_is_rung_for_again_after_a_death() {
    let points = every_point(|steps| {
        let (world, bytes) = (world(), Rc::new(Cell::new(0)));
        let other = User::new(world.immortal(), OTHER);
        let own_bell = Bell(other.process.clone(), bytes.clone());
        other.queue.start_resting();
        let died = world.live(who(VICTIM), steps, |victim| {
            let victim = User::new(victim, VICTIM);
            let bell = Bell(victim.process.clone(), bytes.clone());
            victim.send(&message(0));
            assert!(victim.queue.announce(victim.me, &victim.process, &bell));
        });
        other.queue.stop_resting();
        // what a slice's end does, should nobody have rung
        other.queue.wake_up(other.me, &other.process, &own_bell);
        let _message = other.receive();
        assert_eq!(bytes.get(), 0);
        other.queue.start_resting();
        other.send(&message(1));
        assert!(other.queue.announce(other.me, &other.process, &own_bell));
        assert_eq!(bytes.get(), 1, "rung");
        other.queue.stop_resting();
        died
    });
    assert!(points > 20, "{points}");
}

/// The harness itself: memory is the same for all processes.
#[test]
fn the_memory_is_one() {
    let world = world();
    let memory: &Arc<HeapWords> = &world.immortal().memory;
    assert_eq!(memory.len(), HEAD_BYTES + SHAPE.bytes_before(SHAPE.rings));
}

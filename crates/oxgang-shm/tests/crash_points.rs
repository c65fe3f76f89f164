//! A worker dies after every single step of its protocol, and the owner recovers.
//!
//! The worker runs over memory that lets only so many steps happen; every load, store and
//! word of a copy is one. After the death the owner sorts the tasks by what it knows and what
//! the memory shows. Checked for each point of death: every task is exactly one of done, lost
//! and free; what is free has never run; at most one task is lost; what is done has run once;
//! and nothing in the memory, torn as it may be, makes the owner fail. The tasks are overseen: a
//! time that the memory gives for one is that task's own, and one that is done has none.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oxgang_shm::channel::{OwnerEnd, Shape, WorkerEnd};
use oxgang_shm::oversight::Oversight;
use oxgang_shm::{HeapWords, Words};

const SHAPE: Shape = Shape { requests: 4096, responses: 4096 };

/// What a worker that has died panics with.
struct Died;

#[derive(Clone)]
struct Mortal {
    memory: Arc<HeapWords>,
    steps_left: Arc<AtomicUsize>,
}

impl Mortal {
    fn step(&self) {
        if self.steps_left.fetch_sub(1, Ordering::Relaxed) == 0 {
            panic_any(Died);
        }
    }
}

impl Words for Mortal {
    fn len(&self) -> usize {
        self.memory.len()
    }
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.step();
        self.memory.load(at, order)
    }
    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.step();
        self.memory.store(at, value, order);
    }
    fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.step();
        self.memory.compare_exchange(at, current, new)
    }
    fn fetch_add(&self, at: usize, by: u64) -> u64 {
        self.step();
        self.memory.fetch_add(at, by)
    }
    fn fence(&self) {
        self.memory.fence();
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        for (index, word) in bytes.chunks(8).enumerate() {
            self.step();
            self.memory.write(at + index * 8, word);
        }
    }
    fn read(&self, at: usize, into: &mut [u8]) {
        for (index, word) in into.chunks_mut(8).enumerate() {
            self.step();
            self.memory.read(at + index * 8, word);
        }
    }
}

/// A worker's life: greet, then take, run and publish until nothing is left.
fn live(memory: Mortal, ran: &RefCell<Vec<u64>>) {
    let page = Oversight::new(memory.clone());
    let mut worker = WorkerEnd::open(memory).expect("a sound channel");
    page.set_skills(3);
    let mut payload = Vec::new();
    while let Some(request) = worker.take(&mut payload).expect("a sound channel") {
        assert_eq!(payload, payload_of(request.id), "a payload that is not whole was begun");
        page.begin(request.position, time_of(request.id));
        ran.borrow_mut().push(request.id);
        assert_eq!(page.interrupted(request.position), None);
        page.end();
        worker.publish(1, request.id, 0, &[&payload, b"!"]).unwrap().unwrap();
    }
    worker.prepare_sleep();
    worker.wake();
}

fn time_of(id: u64) -> u64 {
    1000 * id
}

fn payload_of(id: u64) -> Vec<u8> {
    vec![id as u8; 5 + 9 * id as usize]
}

/// One death; `false` if the worker came to its natural end within the steps.
fn die_after(steps: usize, revoked: Option<usize>) -> bool {
    let memory = Arc::new(HeapWords::new(SHAPE.bytes()));
    let mut owner = OwnerEnd::create(memory.clone(), SHAPE, 99);
    let page = Oversight::new(memory.clone());
    let sent: Vec<(u64, u64)> = (1..=4)
        .map(|id| (id, owner.requests.push(1, id, 0, &[&payload_of(id)]).unwrap().unwrap()))
        .collect();
    if let Some(index) = revoked {
        assert!(owner.requests.revoke(sent[index].1).unwrap());
    }

    let ran = RefCell::new(Vec::new());
    let mortal = Mortal { memory, steps_left: Arc::new(AtomicUsize::new(steps)) };
    let life = catch_unwind(AssertUnwindSafe(|| live(mortal, &ran)));
    let died = match life {
        Ok(()) => false,
        Err(cause) if cause.is::<Died>() => true,
        Err(cause) => std::panic::resume_unwind(cause),
    };

    let mut done = Vec::new();
    while let Some(frame) = owner.responses.peek().expect("readable after any death") {
        let mut body = Vec::new();
        owner.responses.read(&frame, &mut body);
        owner.responses.advance(&frame);
        assert_eq!(body, [payload_of(frame.id).as_slice(), b"!"].concat(), "a torn answer");
        done.push(frame.id);
    }
    let ran = ran.into_inner();
    let mut lost = 0;
    for (index, (id, position)) in sent.into_iter().enumerate() {
        let runs = ran.iter().filter(|one| **one == id).count();
        if let Some(began) = page.began(position) {
            assert_eq!(began, time_of(id), "another task's time");
            assert!(!done.contains(&id) && owner.requests.begun(position).unwrap());
        }
        if revoked == Some(index) {
            assert_eq!(runs, 0, "a revoked task ran");
        } else if done.contains(&id) {
            assert_eq!(runs, 1);
        } else if owner.requests.begun(position).expect("readable after any death") {
            lost += 1;
            assert!(runs <= 1);
        } else {
            assert_eq!(runs, 0, "a task that would run again elsewhere has run");
        }
    }
    assert!(lost <= 1, "one death cost {lost} tasks");
    assert!(died || lost == 0);
    died
}

#[test]
fn every_point_of_death_is_recovered() {
    std::panic::set_hook(Box::new(|info| {
        if !info.payload().is::<Died>() {
            eprintln!("{info}");
        }
    }));
    let mut points = 0;
    for revoked in [None, Some(0), Some(2), Some(3)] {
        let mut steps = 0;
        while die_after(steps, revoked) {
            steps += 1;
        }
        points += steps;
    }
    println!("{points} points of death");
    assert!(points > 200, "the steps are not counted any more");
}

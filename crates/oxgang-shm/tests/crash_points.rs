//! A worker dies after every single step of its protocol, and the owner recovers.
//!
//! The worker runs over memory that lets only so many steps happen; every load, store and
//! word of a copy is one. After the death the owner sorts the tasks by what it knows and what
//! the memory shows. Checked for each point of death: every task is exactly one of done, lost
//! and free; what is free has never run; at most one task is lost; what is done has run once;
//! and nothing in the memory, torn as it may be, makes the owner fail. The tasks are overseen: a
//! time that the memory gives for one is that task's own, and one that is done has none.

#[path = "dying/mod.rs"]
mod dying;

use std::cell::RefCell;
use std::sync::Arc;

use dying::Mortal;

use oxgang_shm::HeapWords;
use oxgang_shm::channel::{OwnerEnd, Shape, WorkerEnd};
use oxgang_shm::oversight::Oversight;

const SHAPE: Shape = Shape { requests: 4096, responses: 4096 };

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
    let died = dying::after(steps, memory, |mortal| live(mortal, &ran));

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
    dying::quietly();
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

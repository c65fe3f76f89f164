//! Processes die with nodes of every kind of object, and whoever finds the table full takes them
//! back; it too dies after every single step of that, and the next one finishes.
//!
//! Checked for each point of death: no node of a dead process stays, no unit of a semaphore is lost
//! or invented, no call of a condition is lost, a barrier breaks whose party has died.

use std::panic::panic_any;

use oxgang_shm::sync::barrier::{Barrier, Enter};
use oxgang_shm::sync::condition::Condition;
use oxgang_shm::sync::layout::{self, NODES, SEGMENT_BYTES};
use oxgang_shm::sync::nodes::{BUSY, WAITING};
use oxgang_shm::sync::reclaim::reclaim;
use oxgang_shm::sync::semaphore::{MOST, Semaphore};
use oxgang_shm::sync::{Taken, Who};

mod mortals;

use mortals::{Died, Process, World, every_point, quiet, who};

const SEMAPHORE: u32 = 1;
const CONDITION: u32 = 2;
const OLD: u32 = 3;
const YOUNG: u32 = 4;
const LOCK: u32 = 5;
const UNITS: u64 = 4;
const HEIR: u32 = 200;
const OTHER: u32 = 300;

fn semaphore_of(process: &Process) -> Semaphore<Process> {
    let at = layout::slot(SEMAPHORE).unwrap();
    Semaphore::new(process.clone(), at, SEMAPHORE, layout::nodes(process.clone()))
}

fn condition_of(process: &Process) -> Condition<Process> {
    let at = layout::slot(CONDITION).unwrap();
    Condition::new(process.clone(), at, CONDITION, layout::nodes(process.clone()))
}

fn barrier_of(process: &Process, slot: u32) -> Barrier<Process> {
    let at = layout::slot(slot).unwrap();
    Barrier::new(process.clone(), at, slot, layout::nodes(process.clone()))
}

/// A segment with one of each, and two barriers.
fn set_up() -> World {
    let world = World::new(SEGMENT_BYTES);
    let process = world.immortal();
    for (slot, kind) in [
        (SEMAPHORE, layout::SEMAPHORE),
        (CONDITION, layout::CONDITION),
        (OLD, layout::BARRIER),
        (YOUNG, layout::BARRIER),
        (LOCK, layout::LOCK),
    ] {
        layout::set_up(&process, layout::slot(slot).unwrap(), kind, 0);
    }
    semaphore_of(&process).set_up(UNITS);
    barrier_of(&process, OLD).set_up(2);
    barrier_of(&process, YOUNG).set_up(2);
    world
}

/// Lets a process do this, and die.
fn die_after(world: &World, pid: u32, life: impl FnOnce(&Process, Who)) {
    world.live(who(pid), usize::MAX, |process| {
        life(&process, who(pid));
        panic_any(Died);
    });
}

/// Everything that the dead can leave; `called`: one of the condition's waiters was.
fn leave_nodes(world: &World, called: bool) {
    let (process, nodes) = (world.immortal(), layout::nodes(world.immortal()));
    die_after(world, 1, |process, me| {
        let hold = semaphore_of(process).holding(me, process);
        for _ in 0..2 {
            assert_eq!(semaphore_of(process).take(me, hold, process, true), Taken::Yes);
        }
    });
    die_after(world, 2, |process, me| {
        let hold = semaphore_of(process).holding(me, process);
        assert_eq!(semaphore_of(process).take(me, hold, process, true), Taken::Yes);
        semaphore_of(process).give(me, hold, MOST, process).unwrap();
    });
    for pid in [3, 4] {
        die_after(world, pid, |process, me| {
            condition_of(process).enter(me, process).unwrap();
        });
    }
    if called {
        condition_of(&process).call(1, who(OTHER), &process);
    }
    let arrive = |pid, slot| {
        die_after(world, pid, |process, me| {
            let entered = barrier_of(process, slot).enter(me, process);
            assert!(matches!(entered, Enter::Wait(_)), "{entered:?}");
        });
    };
    arrive(5, OLD);
    barrier_of(&process, OLD).reset(who(OTHER), &process);
    arrive(6, YOUNG);
    for (pid, state) in [(7, WAITING), (8, BUSY)] {
        die_after(world, pid, |process, me| {
            nodes.claim(me, LOCK, 0, state, process).unwrap();
        });
    }
}

/// Nodes that still belong to an object.
fn left(process: &Process) -> usize {
    layout::nodes(process.clone()).all().count()
}

#[test]
fn what_the_dead_left_is_taken_back_whoever_dies_at_it() {
    let mut points = 0;
    for (called, somebody_waits) in [(false, false), (false, true), (true, false), (true, true)] {
        points += every_point(|steps| {
            let world = set_up();
            leave_nodes(&world, called);
            let other = world.immortal();
            let own =
                somebody_waits.then(|| condition_of(&other).enter(who(OTHER), &other).unwrap());
            let died = world.live(who(HEIR), steps, |heir| reclaim(&heir, who(HEIR), &heir));
            reclaim(&other, who(OTHER), &other);
            if let Some(own) = own {
                let went_on = condition_of(&other).wait(own, who(OTHER), &world.immortal());
                // an heir that dies may leave a call too many, never one too few
                assert!(if called { went_on } else { died || !went_on });
                condition_of(&other).leave(own);
                reclaim(&other, who(OTHER), &other);
            }
            assert_eq!(left(&other), 0, "after {steps}");
            assert!(!barrier_of(&other, OLD).is_broken(), "its party died in an earlier round");
            assert!(barrier_of(&other, YOUNG).is_broken());
            let hold = semaphore_of(&other).holding(who(OTHER), &other);
            for _ in 0..UNITS {
                assert_eq!(semaphore_of(&other).take(who(OTHER), hold, &other, false), Taken::Yes);
            }
            assert_eq!(semaphore_of(&other).take(who(OTHER), hold, &other, false), Taken::No);
            died
        });
    }
    println!("reclaim: {points} points of death");
    assert!(points > 400, "the steps are not counted any more");
}

#[test]
fn the_living_keep_theirs() {
    let world = set_up();
    let process = world.immortal();
    let hold = semaphore_of(&process).holding(who(OTHER), &process);
    semaphore_of(&process).take(who(OTHER), hold, &process, true);
    let node = condition_of(&process).enter(who(OTHER), &process).unwrap();
    leave_nodes(&world, false);
    let entered = barrier_of(&process, OLD).enter(who(OTHER), &process);
    assert!(matches!(entered, Enter::Wait(_)), "{entered:?}");
    reclaim(&process, who(HEIR), &process);
    assert_eq!((left(&process), semaphore_of(&process).held(hold.unwrap())), (3, 1));
    assert_eq!(barrier_of(&process, OLD).waiting(), 1);
    condition_of(&process).call(1, who(HEIR), &process);
    assert!(condition_of(&process).wait(node, who(OTHER), &process));
}

#[test]
fn a_table_full_of_the_dead_has_room_again() {
    quiet();
    let world = set_up();
    for pid in 0..NODES {
        die_after(&world, 1000 + pid, |process, me| {
            assert!(semaphore_of(process).holding(me, process).is_some());
        });
    }
    let process = world.immortal();
    assert!(semaphore_of(&process).holding(who(OTHER), &process).is_none());
    assert!(condition_of(&process).enter(who(OTHER), &process).is_none());
    assert_eq!(barrier_of(&process, OLD).enter(who(OTHER), &process), Enter::Full);
    reclaim(&process, who(OTHER), &process);
    assert_eq!(left(&process), 0);
    assert!(semaphore_of(&process).holding(who(OTHER), &process).is_some());
}

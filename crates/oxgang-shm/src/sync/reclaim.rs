//! Room in the table of nodes, made by those who find it full: what the dead left with any object of
//! the segment is taken back.
//!
//! A dead user's node means something to the others of its object, so each kind has its rule:
//!
//! | node of a dead process | with | what becomes of it |
//! |---|---|---|
//! | what it held | a semaphore | under the guard, after the journal: the units come back, the node is free |
//! | its arrival | a barrier | its round breaks if it is needed there; then the node is free |
//! | `WAITING` | a condition | free: nobody called it, or the call goes to another |
//! | `CALLED`, `BUSY` | a condition | free if nobody waits; else whoever waits takes the call for its own |
//! | any | a lock, while debugging | free: what it told of the dead is forgotten |
//!
//! Where there is no guard, a node is adopted (its tag becomes the heir's, `BUSY`) before it is freed,
//! so that of several heirs one frees it. An heir that dies between leaves a dead `BUSY` node: at a
//! condition a call that may be one too many, elsewhere nothing.
//!
//! The caller must hold no guard: heirs with a guard each, who want the other's, would wait for each
//! other. A semaphore whose guard somebody living holds is passed over.
//!
//! A slot that dead processes know was shown to them, so it never holds anything else.

use super::barrier::Barrier;
use super::condition::Condition;
use super::nodes::Nodes;
use super::semaphore::Semaphore;
use super::{Kernel, Who, layout};
use crate::Words;

/// Takes back what dead processes left in a segment.
pub fn reclaim<W: Words + Clone>(words: &W, me: Who, kernel: &impl Kernel) {
    let nodes = layout::nodes(words.clone());
    let mut objects: Vec<u32> = nodes.all().map(|(object, _)| object).collect();
    objects.sort_unstable();
    objects.dedup();
    for object in objects {
        let Some(at) = layout::slot(object) else { continue };
        let (words, nodes) = (words.clone(), nodes.clone());
        match layout::kind(&words, at) {
            layout::SEMAPHORE => Semaphore::new(words, at, object, nodes).reclaim(me, kernel),
            layout::CONDITION => Condition::new(words, at, object, nodes).reclaim(me, kernel),
            layout::BARRIER => Barrier::new(words, at, object, nodes).reclaim(me, kernel),
            _ => forget_dead(&nodes, object, me, kernel),
        }
    }
}

fn forget_dead<W: Words>(nodes: &Nodes<W>, object: u32, me: Who, kernel: &impl Kernel) {
    for seen in nodes.dead(object, kernel) {
        nodes.bury(&seen, me);
    }
}

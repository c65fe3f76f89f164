//! Who waits for whom, and which lock was taken while which was held: for debugging.
//!
//! Locks use no nodes of their segment's table, so while debugging the nodes that belong to one say:
//!
//! | state | name | value | means |
//! |---|---|---|---|
//! | `WAITING` | a thread | – | it waits for this lock |
//! | `BUSY` | a process | slot of another lock | it took that one while it held this one |
//!
//! Everything that a look at the whole takes is in shared memory, so no process is asked; a look
//! sees a moment that may never have been. Whoever reports a deadlock looks twice.

use std::sync::{Arc, Weak};

use oxgang_shm::sync::layout;
use oxgang_shm::sync::nodes::{BUSY, Node, WAITING};

use super::{Known, Lock, Place, Shared, Wait, Who, known, me};

/// More locks than this one after the other are not followed.
const LONGEST: usize = 64;

/// One part of a circle: `who` holds this lock, and waits for the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The holder.
    pub who: Who,
    /// The lock, as [`Place::identity`] has it.
    pub lock: (u64, u32),
}

impl Place {
    /// Says that this thread waits for this lock. `None`: there is no room to say so.
    #[must_use]
    pub fn announce(&self) -> Option<Node> {
        let kernel = Wait::steadfast(self.words());
        self.find_room(|| self.nodes().claim(me(), self.slot, 0, WAITING, &kernel))
    }

    /// It waits no more.
    pub fn retract(&self, node: Node) {
        self.nodes().free(node);
    }

    /// The circle that this thread would close by waiting for this lock: the lock's holder first,
    /// this thread last.
    #[must_use]
    pub fn circle(&self) -> Option<Vec<Link>> {
        let mut found = Vec::new();
        let (mut shared, mut slot) = (self.shared.clone(), self.slot);
        let segments: Vec<Arc<Shared>> =
            Known::of_now(&mut known()).all.values().filter_map(Weak::upgrade).collect();
        while found.len() < LONGEST {
            let who = Lock::new(shared.words.clone(), layout::slot(slot)?).owner()?;
            found.push(Link { who, lock: (shared.serial, slot) });
            if who == me() {
                return Some(found);
            }
            (shared, slot) =
                segments.iter().find_map(|segment| awaited(segment, who, self.kind))?;
        }
        None
    }

    /// Notes that `then` is taken while this one is held; `false`: that is known, or cannot be
    /// noted, since the two are not in one segment or the table is full.
    #[must_use]
    pub fn precedes(&self, then: &Self) -> bool {
        if !Arc::ptr_eq(&self.shared, &then.shared) {
            return false;
        }
        let nodes = self.nodes();
        let known = |seen: oxgang_shm::sync::nodes::Seen| {
            seen.state() == BUSY && seen.value == u64::from(then.slot)
        };
        if nodes.of(self.slot).any(known) {
            return false;
        }
        let kernel = Wait::steadfast(self.words());
        let note = || nodes.claim(me().process(), self.slot, then.slot.into(), BUSY, &kernel);
        self.find_room(note).is_some()
    }

    /// Whether `last` was ever taken while this one was held, or by way of others; who did the
    /// first step.
    #[must_use]
    pub fn leads_to(&self, last: &Self) -> Option<Who> {
        if !Arc::ptr_eq(&self.shared, &last.shared) {
            return None;
        }
        let nodes = self.nodes();
        let mut seen = vec![self.slot];
        let mut ways = vec![(self.slot, None)];
        while let Some((slot, first)) = ways.pop() {
            for step in nodes.of(slot).filter(|step| step.state() == BUSY) {
                let first = first.unwrap_or(step.who());
                let next = step.value as u32;
                if next == last.slot {
                    return Some(first);
                }
                if !seen.contains(&next) {
                    seen.push(next);
                    ways.push((next, Some(first)));
                }
            }
        }
        None
    }
}

/// The lock of a segment that a thread waits for.
fn awaited(segment: &Arc<Shared>, who: Who, kind: u64) -> Option<(Arc<Shared>, u32)> {
    let is_lock = |slot: u32| {
        layout::slot(slot).is_some_and(|at| layout::constant(&segment.words, at, kind).is_ok())
    };
    let nodes = layout::nodes(segment.words.clone());
    nodes
        .all()
        .filter(|(_, seen)| seen.tag == who.with(WAITING))
        .find_map(|(slot, _)| is_lock(slot).then(|| (segment.clone(), slot)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_when_it_is_closed() {
        let (one, two) = (Place::make(1, 0).unwrap(), Place::make(1, 0).unwrap());
        let lock = |place: &Place| Lock::new(place.words().clone(), place.at);
        let other = Who::new(1, 1, 1);
        assert!(lock(&one).try_take(me()));
        assert!(lock(&two).try_take(other));
        assert_eq!(two.circle(), None, "the other waits for nothing");
        let kernel = Wait::steadfast(one.words());
        let node = one.nodes().claim(other, one.slot, 0, WAITING, &kernel).unwrap();
        let circle = two.circle().unwrap();
        assert_eq!(circle[0], Link { who: other, lock: two.identity() });
        assert_eq!(circle[1], Link { who: me(), lock: one.identity() });
        one.retract(node);
        assert_eq!(two.circle(), None);
        assert_eq!(one.circle().map(|circle| circle.len()), Some(1), "with itself");
    }

    #[test]
    fn orders_are_followed() {
        let made: Vec<Place> = (0..3).map(|_| Place::make(1, 0).unwrap()).collect();
        assert!(made[0].precedes(&made[1]));
        assert!(!made[0].precedes(&made[1]), "known");
        assert!(made[1].precedes(&made[2]));
        assert_eq!(made[0].leads_to(&made[2]), Some(me().process()));
        assert_eq!(made[2].leads_to(&made[0]), None);
    }
}

//! Long bytes beside the messages of a line: slots as those of queues ([`crate::shelf`]), in the line's
//! own file, so many for each side to write.
//!
//! The two talk in turns, so nothing has to be written down of which slots messages name. Who is
//! about to say something has heard the answer to what it said before, and who answers takes hold
//! of what came before it answers: a slot that nobody holds is free. Who says something holds its
//! slot until that is said whole; the other side takes hold of it before its own turn is over.

use std::io::Result;
use std::sync::Arc;

use oxgang_os::hold::Holder;
use oxgang_os::segment::{PrivateMapping, Segment};
use oxgang_shm::queue::shelf::{Unnamed, first_free};

use crate::shelf::{self, Apart, FIRST_SLOT, KEPT_WARM, PAGE, SLOT, SLOTS, WORTH_SLOT};

/// The slots of a line, as one side sees them.
#[derive(Debug)]
pub(super) struct Shelf {
    segment: Arc<Segment>,
    /// Which of the two sides this is: 0 or 1.
    side: usize,
    /// Up to where the slots of either side may have memory, as far as is known here.
    pub(super) warm: [Vec<u64>; 2],
}

/// Bytes in a slot, held.
pub(super) struct Packed {
    pub slot: u32,
    _holder: Holder,
}

impl Shelf {
    pub fn new(segment: Arc<Segment>, side: usize) -> Self {
        let warm = || vec![0; SLOTS as usize];
        Self { segment, side, warm: [warm(), warm()] }
    }

    fn place(side: usize, slot: usize) -> u64 {
        FIRST_SLOT + (side * SLOTS as usize + slot) as u64 * SLOT
    }

    /// Writes the parts into a free slot; `None` if they are to go in line.
    pub fn pack(&mut self, apart: &[&[u8]]) -> Option<Packed> {
        if apart.iter().map(|part| part.len()).sum::<usize>() < WORTH_SLOT {
            return None;
        }
        // whatever is missing, a descriptor or memory or the kernel's consent: in line is a way, too
        self.packed(apart).ok().flatten()
    }

    fn packed(&mut self, apart: &[&[u8]]) -> Result<Option<Packed>> {
        let (places, bytes) = shelf::places_of(apart);
        if bytes > SLOT {
            return Ok(None);
        }
        let side = self.side;
        let holder = Holder::of(&self.segment, true)?;
        let slots = (0..SLOTS).zip(&self.warm[side]);
        let slots = slots.map(|(slot, warm)| Unnamed { slot, warm: *warm, used: *warm > 0 });
        let hold = |Unnamed { slot, .. }: Unnamed| {
            let held = holder.try_hold(Self::place(side, slot as usize), SLOT)?;
            Ok(held.then_some(slot))
        };
        let Some(slot) = first_free(slots.collect(), bytes, hold)? else { return Ok(None) };
        let warm = &mut self.warm[side][slot as usize];
        *warm = bytes.next_multiple_of(PAGE).max(*warm);
        let from = Self::place(side, slot as usize);
        shelf::fill(&self.segment, from, apart, &places)?;
        holder.share(from, SLOT)?;
        self.tidy(side, KEPT_WARM)?;
        Ok(Some(Packed { slot, _holder: holder }))
    }

    /// What the other side has put into a slot.
    pub fn look(&mut self, slot: u32, bytes: usize) -> Result<Apart> {
        let other = 1 - self.side;
        let wrong = || std::io::Error::other("a slot that there is not");
        let warm = self.warm[other].get_mut(slot as usize).ok_or_else(wrong)?;
        *warm = (bytes as u64).next_multiple_of(PAGE).max(*warm);
        let from = Self::place(other, slot as usize);
        match shelf::held(&self.segment, from, bytes) {
            Ok(mapping) => Ok(Apart::of_line(mapping, &self.segment, from)),
            Err(_) => PrivateMapping::copy_of(&self.segment, from, bytes).map(Apart::copied),
        }
    }

    /// Gives the memory of a side's free slots back, but for so many bytes.
    fn tidy(&mut self, side: usize, keep: u64) -> Result<()> {
        if self.warm[side].iter().sum::<u64>() <= keep {
            return Ok(());
        }
        let holder = Holder::of(&self.segment, true)?;
        let mut kept = 0;
        for (slot, warm) in self.warm[side].iter_mut().enumerate().filter(|(_, warm)| **warm > 0) {
            let from = Self::place(side, slot);
            if kept + *warm <= keep {
                kept += *warm;
            } else if holder.try_hold(from, SLOT)? {
                self.segment.release(from, *warm)?;
                *warm = 0;
                holder.let_go(from, SLOT)?;
            }
        }
        Ok(())
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        // what somebody still looks at keeps the file, and should not keep more than itself
        for side in 0..2 {
            let _left = self.tidy(side, 0);
        }
    }
}

//! Who holds which part of a growing file: blocks for payloads that are too long for a frame.
//!
//! The side that writes payloads owns the arena and keeps all of this in private memory; in
//! the shared file there are only the bytes. A reader that dies can therefore corrupt nothing,
//! and what it held is known. The file grows by *extents*; a block never spans two, so both
//! sides can map extents one by one and never move them.
//!
//! First fit by address among free ranges, neighbours merge at once; low addresses are used
//! again first, which keeps warm pages warm.

use std::collections::BTreeMap;

/// Blocks start and end at multiples of this: one page, so that a block can be mapped alone.
pub const ALIGNMENT: u64 = 4096;

/// Extents start at this size and double with each growth, up to [`LARGEST_STEP`].
const FIRST_STEP: u64 = 1 << 20;
const LARGEST_STEP: u64 = 256 << 20;

/// A loan: where a payload is. Plain numbers, as they travel in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Start of the extent in the file.
    pub extent: u64,
    /// Bytes of the extent.
    pub extent_length: u64,
    /// Start of the block in the file.
    pub offset: u64,
    /// Bytes of payload.
    pub length: u64,
}

impl Block {
    /// Bytes of a block's description in a frame.
    pub const BYTES: usize = 32;

    /// As it travels.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (into, number) in bytes.chunks_exact_mut(8).zip([
            self.extent,
            self.extent_length,
            self.offset,
            self.length,
        ]) {
            into.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// From a frame, if the numbers fit each other and a file of `file_length` bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], file_length: u64) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let mut numbers = bytes
            .chunks_exact(8)
            .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        let block = Self {
            extent: numbers.next()?,
            extent_length: numbers.next()?,
            offset: numbers.next()?,
            length: numbers.next()?,
        };
        let extent_end = block.extent.checked_add(block.extent_length)?;
        let end = block.offset.checked_add(block.length)?;
        let sound = block.extent.is_multiple_of(ALIGNMENT)
            && block.extent_length > 0
            && block.offset >= block.extent
            && end <= extent_end
            && extent_end <= file_length;
        sound.then_some(block)
    }
}

/// The books of one arena.
#[derive(Debug, Default)]
pub struct Arena {
    /// Where the file ends.
    end: u64,
    /// Start and length of each extent.
    extents: BTreeMap<u64, u64>,
    /// Start and length of each free range.
    free: BTreeMap<u64, u64>,
    lent: BTreeMap<u64, u64>,
    lent_bytes: u64,
    next_step: u64,
}

impl Arena {
    /// An arena in a file whose first `start` bytes are used otherwise.
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self { end: start.next_multiple_of(ALIGNMENT), next_step: FIRST_STEP, ..Self::default() }
    }

    /// Lends a block of `length` bytes, or `None` if the file must [`grow`](Self::grow) first.
    pub fn lend(&mut self, length: u64) -> Option<Block> {
        let size = length.max(1).next_multiple_of(ALIGNMENT);
        let (&offset, &room) = self.free.iter().find(|(_, room)| **room >= size)?;
        self.free.remove(&offset);
        if room > size {
            self.free.insert(offset + size, room - size);
        }
        self.lent.insert(offset, size);
        self.lent_bytes += size;
        let (&extent, &extent_length) = self.extents.range(..=offset).next_back()?;
        Some(Block { extent, extent_length, offset, length })
    }

    /// How long the file must be for a block of `length` to fit, whatever else is lent.
    #[must_use]
    pub fn grown_for(&self, length: u64) -> u64 {
        self.end + length.max(1).next_multiple_of(ALIGNMENT).max(self.next_step)
    }

    /// The file has been made `file_length` long (as [`grown_for`](Self::grown_for) said).
    pub fn grow(&mut self, file_length: u64) {
        let added = file_length - self.end;
        self.extents.insert(self.end, added);
        self.free.insert(self.end, added);
        self.end = file_length;
        self.next_step = (self.next_step * 2).min(LARGEST_STEP);
    }

    /// Takes a block back; `false` if it was not lent (a stale or made-up offset).
    pub fn take_back(&mut self, offset: u64) -> bool {
        let Some(mut size) = self.lent.remove(&offset) else {
            return false;
        };
        self.lent_bytes -= size;
        let mut start = offset;
        if let Some((&before, &room)) = self.free.range(..offset).next_back()
            && before + room == offset
            && !self.extents.contains_key(&offset)
        {
            self.free.remove(&before);
            start = before;
            size += room;
        }
        let after = start + size;
        if !self.extents.contains_key(&after)
            && let Some(room) = self.free.remove(&after)
        {
            size += room;
        }
        self.free.insert(start, size);
        true
    }

    /// Bytes lent now, whole pages.
    #[must_use]
    pub fn lent_bytes(&self) -> u64 {
        self.lent_bytes
    }

    /// Start and length of each free range.
    pub fn free_ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.free.iter().map(|(&offset, &length)| (offset, length))
    }

    /// Where the last lent block ends; 0 if none is lent.
    #[must_use]
    pub fn lent_end(&self) -> u64 {
        self.lent.last_key_value().map_or(0, |(offset, size)| offset + size)
    }

    /// Bytes of all extents.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.extents.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lend(arena: &mut Arena, length: u64) -> Block {
        arena.lend(length).unwrap_or_else(|| {
            let file = arena.grown_for(length);
            arena.grow(file);
            arena.lend(length).expect("grown for it")
        })
    }

    #[test]
    fn descriptions_are_checked() {
        let block = Block { extent: 4096, extent_length: 8192, offset: 8192, length: 100 };
        let bytes = block.to_bytes();
        assert_eq!(Block::from_bytes(&bytes, 12288), Some(block));
        assert_eq!(Block::from_bytes(&bytes, 12287), None, "beyond the file");
        assert_eq!(Block::from_bytes(&bytes[1..], 12288), None, "cut");
        let huge = Block { length: u64::MAX, ..block };
        assert_eq!(Block::from_bytes(&huge.to_bytes(), 12288), None, "overflow");
        let before = Block { offset: 0, ..block };
        assert_eq!(Block::from_bytes(&before.to_bytes(), 12288), None, "before its extent");
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_all_comes_back(
            steps in prop::collection::vec((0_u64..3_000_000, any::<bool>(), any::<prop::sample::Index>()), 1..80)
        ) {
            let mut arena = Arena::new(10_000);
            let mut held: Vec<Block> = Vec::new();
            for (length, give_back, which) in steps {
                if give_back && !held.is_empty() {
                    let block = held.swap_remove(which.index(held.len()));
                    prop_assert!(arena.take_back(block.offset));
                    prop_assert!(!arena.take_back(block.offset), "only once");
                } else {
                    let block = lend(&mut arena, length);
                    prop_assert_eq!(
                        Block::from_bytes(&block.to_bytes(), arena.end), Some(block));
                    for other in &held {
                        prop_assert!(
                            block.offset + block.length <= other.offset
                            || other.offset + other.length <= block.offset);
                    }
                    held.push(block);
                }
            }
            for block in held {
                prop_assert!(arena.take_back(block.offset));
            }
            prop_assert_eq!((arena.lent_bytes(), arena.lent_end()), (0, 0));
            // merged again: every extent is one free range
            prop_assert_eq!(&arena.free, &arena.extents);
        }
    }
}

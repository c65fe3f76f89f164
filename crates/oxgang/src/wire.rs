//! What frames of a channel mean: the kinds that owner and worker agree on.

/// Owner to worker: run the callable in slot [`slot`]`(aux)` on this payload. If `aux` has
/// [`OVERSEEN`], write down when it begins; if it has a [`filter`], the callable in that slot
/// tells which errors are worth another try.
pub const TASK: u8 = 1;
/// Owner to worker: the payload is the callable for slot `aux`; `id` is its number.
pub const DEFINE: u8 = 2;
/// Owner to worker: the payload says how to get ready. Always the first frame.
pub const SETUP: u8 = 3;
/// Owner to worker: nothing more will come; end in order.
pub const STOP: u8 = 4;
/// Owner to worker: the result block at offset `aux` is yours again. Once for each time that it
/// was sent.
pub const FREED: u8 = 5;

/// Worker to owner: the task `id` returned; `aux` is its run time in nanoseconds.
pub const RESULT: u8 = 1;
/// Worker to owner: the task `id` raised.
pub const FAILURE: u8 = 2;
/// Worker to owner: ready for tasks.
pub const READY: u8 = 3;
/// Worker to owner: cannot get ready; the payload says why. The pool is broken.
pub const SETUP_FAILED: u8 = 4;
/// Worker to owner: something still looks at the block at offset `aux`, which came with the task
/// `id`; always before that task's answer.
pub const KEEP: u8 = 5;
/// Worker to owner: nothing looks at the block at offset `aux` any more, of which [`KEEP`] was said.
pub const RELEASE: u8 = 6;

/// Worker to owner: the task `id` raised what is worth another try, if it has one left.
pub const AGAIN: u8 = 7;

/// Callables that a worker keeps; the owner decides which slot holds which.
pub const SLOTS: usize = 256;
/// Slots behind those, for what tells errors apart.
pub const FILTERS: usize = 16;

/// In a task's `aux`: somebody watches how long it runs.
pub const OVERSEEN: u64 = 1 << 32;

/// The slot of a task's callable.
#[must_use]
pub fn slot(aux: u64) -> usize {
    (aux & 0xffff) as usize % (SLOTS + FILTERS)
}

/// The slot of what tells a task's errors apart, if it has that.
#[must_use]
pub fn filter(aux: u64) -> Option<usize> {
    Some((aux >> 16 & 0xffff) as usize).filter(|slot| (SLOTS..SLOTS + FILTERS).contains(slot))
}

/// Where in its channel's segment a worker writes down its stacks: far behind everything else. It
/// ends with that, so nothing is ever put there again.
pub const STACKS: u64 = 1 << 40;

/// Blocks that may belong to one frame.
pub const MOST_ATTACHED: usize = 512;

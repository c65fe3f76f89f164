//! What frames of a channel mean: the kinds that owner and worker agree on.

/// Owner to worker: run the callable in slot `aux` on this payload.
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

/// Callables that a worker keeps; the owner decides which slot holds which.
pub const SLOTS: usize = 256;

/// Blocks that may belong to one frame.
pub const MOST_ATTACHED: usize = 512;

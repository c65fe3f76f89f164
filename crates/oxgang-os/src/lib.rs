//! What the kernel does for oxgang: memory that processes share, waiting and waking across
//! processes, processes and their deaths. The only crate with system calls in it.
//!
//! Safety: this is a room for unsafe code, in five modules, each of which allows it at its top and
//! says why. `segment` turns mappings into words and copied bytes; `process` and `hold` make the few
//! calls that rustix lacks; `heap` and `fork` tell the C library what to keep, and what to call in a
//! fork. They give out only safe functions; each block carries its proof.
//!
//! Nothing here knows what is kept in the memory, or why a process is started.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "oxgang runs on Linux only for now: oxgang-os needs memfd, futex and pidfd, and has no twin \
     for this platform yet"
);

pub mod bell;
pub mod clock;
pub mod cpus;
pub mod event;
pub mod fork;
pub mod futex;
pub mod heap;
pub mod hold;
pub mod link;
pub mod memory;
pub mod process;
pub mod segment;

/// What the kernel answered when it refused.
pub type Result<T> = std::io::Result<T>;

/// The error for a call without which there is no oxgang: it says which one, and who may have
/// forbidden it.
fn refused(call: &str, errno: rustix::io::Errno) -> std::io::Error {
    use rustix::io::Errno;
    let error = std::io::Error::from(errno);
    let hint = match errno {
        Errno::NOSYS | Errno::PERM | Errno::ACCESS => {
            "; oxgang needs it: Linux 5.3 or later, in a sandbox that allows it"
        }
        _ => "",
    };
    std::io::Error::new(error.kind(), format!("{call} was refused: {error}{hint}"))
}

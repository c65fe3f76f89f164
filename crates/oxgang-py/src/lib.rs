//! The extension module `oxgang._core`: the border between Python and the engine.
//!
//! Python has signatures, pickling and parity with the standard library; here is what moves
//! bytes, waits and keeps state. One file per part of `_core.pyi`.

#![allow(missing_docs, reason = "what Python sees is described in _core.pyi")]

mod awaiting;
mod batch;
mod calls;
mod child;
mod cli;
mod codec;
mod connection;
mod future;
mod gather;
mod importing;
mod inbox;
mod items;
mod limits;
mod line;
mod local_queue;
mod message;
mod payload;
mod picklers;
mod pool;
mod port;
mod python;
mod queue;
mod raw;
mod reducers;
mod results;
mod run;
mod sink;
mod sync;
mod template;
mod threading;
mod threads;
mod timer;
mod wait;
mod worker;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::awaiting::{Awaiting, Terminating, Waiter};
    #[pymodule_export]
    use crate::batch::{Batch, BatchResults};
    #[pymodule_export]
    use crate::child::Child;
    #[pymodule_export]
    use crate::cli::{CliStop, MapJob, Progress, run_options};
    #[pymodule_export]
    use crate::connection::PipeEnd;
    #[pymodule_export]
    use crate::future::Future;
    #[pymodule_export]
    use crate::future::settling::{launch, settle};
    #[pymodule_export]
    use crate::gather::{SharedBarrier, SharedCondition, SharedEvent};
    #[pymodule_export]
    use crate::importing::Importer;
    #[pymodule_export]
    use crate::inbox::Inbox;
    #[pymodule_export]
    use crate::items::{SharedItems, SharedNumber};
    #[pymodule_export]
    use crate::limits::Options;
    #[pymodule_export]
    use crate::line::{Line, LinePlaces};
    #[pymodule_export]
    use crate::local_queue::LocalQueue;
    #[pymodule_export]
    use crate::picklers::dump;
    #[pymodule_export]
    use crate::pool::{PoolHandle, ProcessPool, Sendable};
    #[pymodule_export]
    use crate::port::{LoopPort, call_soon_threadsafe};
    #[pymodule_export]
    use crate::queue::SharedQueue;
    #[pymodule_export]
    use crate::raw::{Buffer, SharedRegion, Unlocked};
    #[pymodule_export]
    use crate::results::{ResultIterator, ResultLine};
    #[pymodule_export]
    use crate::run::{Run, RunDesk, are_plain};
    #[pymodule_export]
    use crate::sink::{NeedsValue, Pickle, Sink, stop_at_main};
    #[pymodule_export]
    use crate::sync::{SharedLock, SharedSemaphore};
    #[pymodule_export]
    use crate::template::{Held, Invitation, Lifeline, Template, TemplateServer, hold_lifeline};
    #[pymodule_export]
    use crate::threading::{RLock, ThreadBarrier, ThreadCondition, ThreadEvent, ThreadSemaphore};
    #[pymodule_export]
    use crate::threads::ThreadQueue;
    #[pymodule_export]
    use crate::threads::pool::ThreadPool;
    #[pymodule_export]
    use crate::timer::ThreadOptions;
    #[pymodule_export]
    use crate::worker::{Interrupt, work};
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

//! The engine's decoders before a peer that writes anything: for property tests
//! (`tests/hostile.rs`) and fuzzers (`fuzz/`). See also `oxgang-shm/tests/hostile`.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oxgang::segment::Mapped;
use oxgang::starter::{Invitation, Invited, Starter};
use oxgang::wire;
use oxgang::worker::Worker;
use oxgang::{Callable, Outcome, Pool, PoolOptions, TaskOptions};
use oxgang_os::Result;
use oxgang_os::event::WakeUp;
use oxgang_os::link::Link;
use oxgang_os::process::{Exit, Process, spawn};
use oxgang_os::segment::Segment;
use oxgang_shm::Words;
use oxgang_shm::arena::Block;
use oxgang_shm::channel::{ATTACHED, IN_BLOCK, OwnerEnd, Shape, WorkerEnd};
use oxgang_shm::ring::{FIRST_INCARNATION, READY};
use oxgang_shm::watch::WATCH_BYTES;

/// The bytes that say what happens next; zeroes at their end.
#[derive(Default)]
pub struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    pub fn new(data: &[u8]) -> Self {
        Self { bytes: data.to_vec(), at: 0 }
    }

    fn over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn byte(&mut self) -> u8 {
        self.at += 1;
        self.bytes.get(self.at - 1).copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        match self.byte() % 6 {
            0 => u64::from(self.byte()),
            1 => u64::from(self.byte()) * 4096,
            2 => u64::MAX - u64::from(self.byte()),
            3 => 1 << (self.byte() % 64),
            4 => u64::from(self.byte()) * 8,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// The bytes of a frame: a table of blocks, a block's description, or just bytes.
    fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        match self.byte() % 4 {
            0 => {}
            1 => body.extend((0..self.byte() % 64).map(|_| 0).collect::<Vec<u8>>()),
            2 => {
                let count = self.byte() % 4;
                let said =
                    if self.byte().is_multiple_of(8) { self.number() } else { u64::from(count) };
                body.extend(said.to_le_bytes());
                (0..count).for_each(|_| body.extend(self.block()));
            }
            _ => body.extend(self.block()),
        }
        (0..self.byte() % 16).for_each(|_| body.push(self.byte()));
        body
    }

    fn block(&mut self) -> [u8; Block::BYTES] {
        let [extent, extent_length, offset, length] = std::array::from_fn(|_| self.number());
        Block { extent, extent_length, offset, length }.to_bytes()
    }

    /// Writes a few words where they matter.
    fn scribble(&mut self, words: &impl Words) {
        let places = [0, 8, 16, 24, 128, 256, 384, 512, 640, 648, 4096, 4104, 4112, 4120];
        for _ in 0..self.byte() % 4 {
            let place = places[usize::from(self.byte()) % places.len()];
            words.store(place, self.number(), Ordering::Relaxed);
        }
    }
}

fn copy_of(segment: &Segment) -> std::os::fd::OwnedFd {
    segment.as_fd().try_clone_to_owned().unwrap()
}

/// A worker whose owner writes anything into channel and pool.
pub fn worker(data: &[u8]) {
    let mut script = Script::new(data);
    let shape = Shape { requests: 4096, responses: 4096 };
    let channel = Segment::create("hostile channel", shape.bytes() as u64).unwrap();
    let pool = Segment::create("hostile pool", WATCH_BYTES as u64 + 8192).unwrap();
    let words = Mapped::new(channel.map(0, shape.bytes()).unwrap());
    let mut owner = OwnerEnd::create(words.clone(), shape, FIRST_INCARNATION);
    let invited = Invited {
        incarnation: FIRST_INCARNATION,
        channel: copy_of(&channel),
        pool: copy_of(&pool),
        wake: WakeUp::new().unwrap().as_fd().try_clone_to_owned().unwrap(),
    };
    if script.byte().is_multiple_of(8) {
        script.scribble(&words);
    }
    let Ok(mut worker) = Worker::join(invited) else { return };
    while !script.over() {
        let kind = [wire::TASK, wire::DEFINE, wire::SETUP, wire::STOP, wire::FREED, 99];
        let kind = kind[usize::from(script.byte()) % kind.len()];
        let flags = [0, IN_BLOCK, ATTACHED, IN_BLOCK | ATTACHED][usize::from(script.byte()) % 4];
        let (id, aux, body) = (script.number(), script.number(), script.body());
        let Ok(Ok(_)) = owner.requests.push(kind | flags, id, aux, &[&body]) else { return };
        if script.byte().is_multiple_of(16) {
            script.scribble(&words);
        }
        let request = match worker.try_next() {
            Err(_) => return, // the worker ends
            Ok(None) => continue,
            Ok(Some(request)) => request,
        };
        let mut first = [0; 4];
        let _short = worker.read_payload(0, &mut first);
        for received in worker.attached() {
            let _short = received.read(0, &mut first);
        }
        if worker.payload_length() < 1 << 20 && worker.fetch_payload().is_err() {
            return;
        }
        let mut answer = body.into();
        if worker.publish_now(wire::RESULT, request.id, 0, &mut answer).is_err() {
            return;
        }
    }
}

/// Starts workers that write what the script says, and end, or stay until they are killed. After some
/// of them it refuses.
struct Hostile {
    script: Mutex<Script>,
    started: AtomicU64,
    /// What keeps those there that stay.
    stay: Option<Mutex<Vec<Link>>>,
}

const MOST_STARTS: u64 = 5;

const KINDS: [u8; 9] = [
    wire::RESULT,
    wire::FAILURE,
    wire::READY,
    wire::KEEP,
    wire::RELEASE,
    wire::AGAIN,
    wire::REGION,
    wire::SETUP_FAILED,
    77,
];

/// Says of every frame near the beginning that it is claimed, in whatever order.
fn claim_all(words: &Mapped, incarnation: u64) {
    for at in (4096..8192).step_by(8) {
        let _another_word = words.compare_exchange(at, READY, incarnation);
    }
}

impl Starter for Hostile {
    fn start(&self, invitation: Invitation<'_>) -> Result<Option<Process>> {
        if self.started.fetch_add(1, Ordering::Relaxed) >= MOST_STARTS {
            return Err(std::io::Error::other("enough"));
        }
        let segment = Segment::adopt(invitation.channel.try_clone_to_owned()?)?;
        let length = segment.length()? as usize;
        let words = Mapped::new(segment.map(0, length)?);
        let mut end = WorkerEnd::open(words.clone()).unwrap();
        let mut script = self.script.lock().unwrap();
        for _ in 0..script.byte() % 12 {
            let kind = KINDS[usize::from(script.byte()) % KINDS.len()];
            let flags = [0, 0, IN_BLOCK, ATTACHED][usize::from(script.byte()) % 4];
            let mut id = script.number();
            if script.byte().is_multiple_of(2) {
                // it begins something, and tells what it wants of it
                let begun = end.take(&mut Vec::new()).ok().flatten();
                id = begun.filter(|_| script.byte().is_multiple_of(2)).map_or(id, |task| task.id);
            }
            if script.byte().is_multiple_of(4) {
                claim_all(&words, invitation.incarnation);
            }
            let (aux, body) = (script.number(), script.body());
            if end.publish(kind | flags, id, aux, &[&body]).is_err() {
                break;
            }
            if script.byte().is_multiple_of(16) {
                script.scribble(&words);
            }
        }
        let program = if self.stay.is_some() { "cat" } else { "true" };
        let (process, link) = spawn(program.as_ref(), &[])?;
        if let Some(links) = &self.stay {
            links.lock().unwrap().push(link);
        }
        Ok(Some(process))
    }

    fn exit(&self, process: &Process) -> Option<Exit> {
        process.exit(true)
    }
}

/// An owner whose workers write anything: every task is resolved, and the pool ends.
pub fn owner(data: &[u8]) {
    let mut script = Script::new(data);
    let (how, mut orders) = (script.byte(), Script::new(&data[data.len() / 2..]));
    let stay = how.is_multiple_of(2).then(Mutex::default);
    let stays = stay.is_some();
    let starter = Hostile { script: Mutex::new(script), started: AtomicU64::new(0), stay };
    let options = PoolOptions {
        max_workers: 2,
        eager: false,
        tasks_per_worker: None,
        setup: b"x".to_vec(),
        room: 1 << 20,
    };
    let pool = Pool::new(options, Box::new(starter)).unwrap();
    let callable = Callable::new(vec![1]);
    std::thread::scope(|scope| {
        let driver = scope.spawn(|| pool.drive());
        let mut handles = Vec::new();
        for size in [0, 10, 100_000, 3] {
            let options = TaskOptions {
                timeout: how.is_multiple_of(3).then_some(Duration::from_millis(1)),
                retries: u32::from(orders.byte() % 2),
                retry_timeouts: true,
                ..TaskOptions::default()
            };
            match pool.spawn_with(Some(Arc::new(options)), &callable, vec![7; size]) {
                Ok((id, handle)) => handles.push((id, handle)),
                Err(_) => break, // it is broken already
            }
        }
        let (mut answered, mut cancelled) = (0, 0);
        let handed_in = handles.len() as u64;
        for (id, _) in &handles {
            match orders.byte() % 3 {
                0 => drop(pool.cancel(*id)),
                1 => drop(pool.terminate(*id)),
                _ => {}
            }
        }
        for (id, handle) in handles {
            if stays {
                pool.terminate(id); // nobody else would end it
            }
            let outcome = handle.join().expect("asked once");
            answered += u64::from(matches!(outcome, Outcome::Result(_) | Outcome::Failure(_)));
            cancelled += u64::from(matches!(outcome, Outcome::Cancelled));
        }
        pool.kill("the test is over");
        driver.join().unwrap().unwrap();
        let counters = pool.counters();
        assert_eq!(counters.submitted, handed_in);
        assert_eq!(counters.answered, answered);
        let tries = counters.lost + counters.stopped + answered;
        assert!(tries + cancelled <= handed_in + counters.retried, "{counters:?}");
    });
}

//! The engine with real processes and no Python: this program is the owner, and, started with
//! the argument `worker`, the worker.
//!
//! A task's callable is a word: `echo`, `reverse`, `fail`, `sleep`, `die`, `exit`, `fill`, `once`.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use oxgang::starter::SpawnProgram;
use oxgang::worker::Worker;
use oxgang::{Callable, Cause, JoinHandle, Outcome, Pool, PoolOptions, TaskOptions};
use oxgang_os::process::Exit;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        Worker::from_stdin().and_then(|worker| worker.serve(run)).expect("a sound channel");
        return;
    }
    let tests: [(&str, fn()); 16] = [
        ("callables of every size cross", callables_of_every_size_cross),
        ("results and errors come back", results_and_errors_come_back),
        ("payloads of every size cross", payloads_of_every_size_cross),
        ("a death costs one task", a_death_costs_one_task),
        ("many deaths, exact accounts", many_deaths_exact_accounts),
        ("what has not begun can be cancelled", what_has_not_begun_can_be_cancelled),
        ("many can be cancelled at once", many_can_be_cancelled_at_once),
        ("a closed pool finishes its tasks", a_closed_pool_finishes_its_tasks),
        ("a killed pool fails its tasks", a_killed_pool_fails_its_tasks),
        ("workers are replaced after their limit", workers_are_replaced_after_their_limit),
        ("a time limit ends one task", a_time_limit_ends_one_task),
        ("a memory limit ends one task", a_memory_limit_ends_one_task),
        ("a running task can be terminated", a_running_task_can_be_terminated),
        ("results and terminations race", results_and_terminations_race),
        ("a lost task is tried again", a_lost_task_is_tried_again),
        ("what waits for its next try can be taken back", what_waits_can_be_taken_back),
    ];
    watchdog();
    for (name, test) in tests {
        println!("test {name} ...");
        test();
    }
    println!("test result: ok. {} passed; 0 failed", tests.len());
}

/// A hang is the worst bug: it ends the run with a message, not the builder's patience.
fn watchdog() {
    thread::spawn(|| {
        thread::park_timeout(Duration::from_secs(120));
        eprintln!("the tests hang");
        std::process::abort();
    });
}

#[expect(clippy::disallowed_methods, reason = "a worker that leaves in the middle of a task")]
fn run(callable: &[u8], payload: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    match callable {
        b"echo" => Ok(payload.to_vec()),
        b"reverse" => Ok(payload.iter().rev().copied().collect()),
        long if long.len() > 100_000 => Ok(long.len().to_le_bytes().to_vec()),
        b"fail" => Err(payload.to_vec()),
        b"sleep" => {
            thread::park_timeout(Duration::from_millis(u64::from(payload[0])));
            Ok(Vec::new())
        }
        b"die" => std::process::abort(),
        b"once" => {
            // dies the first time only
            let path = String::from_utf8(payload.to_vec()).expect("a path");
            match std::fs::File::create_new(path) {
                Ok(_) => std::process::abort(),
                Err(_) => Ok(payload.to_vec()),
            }
        }
        b"fill" => {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1_u8; 1 << 20]);
                thread::park_timeout(Duration::from_micros(100));
            }
        }
        b"exit" => std::process::exit(i32::from(payload[0])),
        _ => Err(b"no such callable".to_vec()),
    }
}

struct Running {
    pool: Arc<Pool>,
    driver: thread::JoinHandle<std::io::Result<()>>,
}

impl Running {
    fn new(max_workers: usize) -> Self {
        Self::with(max_workers, None)
    }

    fn with(max_workers: usize, tasks_per_worker: Option<u64>) -> Self {
        let program = std::env::current_exe().expect("this program");
        let starter = Box::new(SpawnProgram::new(program, &["worker"]));
        let options = PoolOptions {
            max_workers,
            eager: false,
            tasks_per_worker,
            setup: Vec::new(),
            room: 1 << 20,
        };
        let pool = Arc::new(Pool::new(options, starter).expect("a pool"));
        let driver = {
            let pool = pool.clone();
            thread::spawn(move || pool.drive())
        };
        Self { pool, driver }
    }

    fn submit(&self, callable: &Arc<Callable>, payload: &[u8]) -> (u64, Arc<JoinHandle>) {
        self.pool.spawn(callable, payload.to_vec()).expect("an open pool")
    }

    fn end(self) {
        self.pool.close(false);
        self.driver.join().expect("no panic").expect("a sound pool");
        assert_eq!(self.pool.workers(), []);
    }
}

fn word(text: &str) -> Arc<Callable> {
    Callable::new(text.as_bytes().to_vec())
}

fn result(handle: Arc<JoinHandle>) -> Vec<u8> {
    match handle.join() {
        Some(Outcome::Result(body)) => body.to_vec().expect("readable"),
        other => panic!("not a result: {other:?}"),
    }
}

fn results_and_errors_come_back() {
    let running = Running::new(2);
    let (echo, reverse, fail) = (word("echo"), word("reverse"), word("fail"));
    let handles: Vec<_> = (0..1000_u32)
        .map(|i| running.submit(if i % 2 == 0 { &echo } else { &reverse }, &i.to_le_bytes()).1)
        .collect();
    for (i, handle) in handles.into_iter().enumerate() {
        let mut expected = (i as u32).to_le_bytes();
        if i % 2 == 1 {
            expected.reverse();
        }
        assert_eq!(result(handle), expected);
    }
    let (_, failed) = running.submit(&fail, b"why");
    assert!(matches!(failed.join(), Some(Outcome::Failure(text)) if text.inline() == Some(b"why")));
    running.end();
}

fn payloads_of_every_size_cross() {
    let running = Running::new(2);
    let reverse = word("reverse");
    for size in [0, 1, 4095, 60_000, 70_000, 1 << 20, 9_000_000] {
        let payload: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
        let handles: Vec<_> = (0..3).map(|_| running.submit(&reverse, &payload).1).collect();
        let expected: Vec<u8> = payload.iter().rev().copied().collect();
        for handle in handles {
            assert!(result(handle) == expected, "{size} bytes");
        }
    }
    running.end();
}

fn callables_of_every_size_cross() {
    let running = Running::new(2);
    let long: Vec<_> = (0..4).map(|i| Callable::new(vec![i; 200_000 + usize::from(i)])).collect();
    for round in 0..50 {
        let callable = &long[round % 4];
        let handles: Vec<_> = (0..3).map(|_| running.submit(callable, b"").1).collect();
        for handle in handles {
            assert_eq!(result(handle), (200_000 + round % 4).to_le_bytes());
        }
    }
    running.end();
}

fn a_death_costs_one_task() {
    let running = Running::new(1);
    let (echo, die, exit) = (word("echo"), word("die"), word("exit"));
    let before = running.submit(&echo, b"1").1;
    let (id, lost) = running.submit(&die, b"");
    let after: Vec<_> = (0..100_u8).map(|i| running.submit(&echo, &[i]).1).collect();
    assert_eq!(result(before), b"1");
    match lost.join() {
        Some(Outcome::Crashed(crash)) => {
            assert_eq!((crash.task, crash.death.exit), (id, Exit::Signal(6)));
            assert!(crash.death.pid > 0);
        }
        other => panic!("not a crash: {other:?}"),
    }
    for (i, handle) in after.into_iter().enumerate() {
        assert_eq!(result(handle), [i as u8]);
    }
    let (_, lost) = running.submit(&exit, &[7]);
    assert!(
        matches!(lost.join(), Some(Outcome::Crashed(crash)) if crash.death.exit == Exit::Code(7))
    );
    assert_eq!(running.pool.counters().crashed, 2);
    running.end();
}

fn many_deaths_exact_accounts() {
    let running = Running::new(3);
    let (echo, die) = (word("echo"), word("die"));
    let handles: Vec<_> = (0..600_u32)
        .map(|i| (i, running.submit(if i % 60 == 30 { &die } else { &echo }, &i.to_le_bytes()).1))
        .collect();
    let mut lost = Vec::new();
    for (i, handle) in handles {
        match handle.join() {
            Some(Outcome::Result(body)) => {
                assert_eq!(body.inline(), Some(i.to_le_bytes().as_slice()));
            }
            Some(Outcome::Crashed(_)) => lost.push(i),
            other => panic!("task {i}: {other:?}"),
        }
    }
    assert_eq!(lost, (0..10).map(|i| i * 60 + 30).collect::<Vec<_>>());
    let counters = running.pool.counters();
    assert_eq!((counters.submitted, counters.answered, counters.lost), (600, 590, 10));
    running.end();
}

fn what_has_not_begun_can_be_cancelled() {
    let running = Running::new(1);
    let (echo, sleep) = (word("echo"), word("sleep"));
    result(running.submit(&echo, b"").1); // it is up
    let (long, first) = running.submit(&sleep, &[200]);
    let waiting: Vec<_> = (0..10).map(|_| running.submit(&echo, b"")).collect();
    while !running.pool.has_begun(long) {
        thread::yield_now();
    }
    assert!(!running.pool.cancel(long));
    for (id, handle) in waiting {
        assert!(running.pool.cancel(id));
        assert!(!running.pool.cancel(id), "only once");
        assert!(matches!(handle.join(), Some(Outcome::Cancelled)));
    }
    result(first);
    running.end();
}

fn many_can_be_cancelled_at_once() {
    let running = Running::new(2);
    let (echo, sleep) = (word("echo"), word("sleep"));
    let warm: Vec<_> = (0..100).map(|_| running.submit(&echo, b"").1).collect();
    warm.into_iter().for_each(|handle| drop(result(handle))); // many are sent ahead from now on
    let long: Vec<_> = (0..2).map(|_| running.submit(&sleep, &[200])).collect();
    let waiting: Vec<_> = (0..2000).map(|_| running.submit(&echo, b"")).collect();
    let unwanted: Vec<_> = waiting.iter().map(|(id, _)| *id).step_by(2).collect();
    assert!(running.pool.cancel_these(&unwanted));
    assert!(!running.pool.cancel_these(&unwanted), "only once");
    for (index, (_, handle)) in waiting.into_iter().enumerate() {
        let cancelled = matches!(handle.join(), Some(Outcome::Cancelled));
        assert_eq!(cancelled, index % 2 == 0, "{index}");
    }
    long.into_iter().for_each(|(_, handle)| drop(result(handle)));
    running.end();
}

fn a_closed_pool_finishes_its_tasks() {
    let running = Running::new(2);
    let sleep = word("sleep");
    let handles: Vec<_> = (0..10).map(|_| running.submit(&sleep, &[10]).1).collect();
    let pool = running.pool.clone();
    running.end();
    handles.into_iter().for_each(|handle| drop(result(handle)));
    assert!(pool.spawn(&sleep, vec![1]).is_err());
}

fn a_killed_pool_fails_its_tasks() {
    let running = Running::new(2);
    let sleep = word("sleep");
    let handles: Vec<_> = (0..10).map(|_| running.submit(&sleep, &[255]).1).collect();
    running.pool.kill("enough");
    for handle in handles {
        assert!(matches!(handle.join(), Some(Outcome::Broken(why)) if &*why == "enough"));
    }
    running.end();
}

fn limit(timeout_ms: u64) -> TaskOptions {
    TaskOptions { timeout: Some(Duration::from_millis(timeout_ms)), ..TaskOptions::default() }
}

/// What it was lost by, and how often before.
fn lost(handle: Arc<JoinHandle>) -> (Cause, usize) {
    match handle.join() {
        Some(Outcome::Crashed(crash)) => {
            assert!(crash.death.pid > 0);
            (crash.death.cause, crash.earlier.len())
        }
        other => panic!("not lost: {other:?}"),
    }
}

fn a_time_limit_ends_one_task() {
    let running = Running::new(2);
    let (echo, sleep) = (word("echo"), word("sleep"));
    for _ in 0..200 {
        result(running.submit(&echo, b"").1); // short tasks: the next are sent far ahead
    }
    let options = Arc::new(limit(30));
    let with = |callable: &Arc<Callable>, payload: &[u8]| {
        running.pool.spawn_with(Some(options.clone()), callable, payload.to_vec()).unwrap().1
    };
    for round in 0..5_u8 {
        let before: Vec<_> = (0..50).map(|i| with(&echo, &[i])).collect();
        let stuck = with(&sleep, &[255]);
        let after: Vec<_> = (0..50).map(|i| with(&echo, &[i + round])).collect();
        let (cause, earlier) = lost(stuck);
        assert_eq!((cause, earlier), (Cause::TimeUp(Duration::from_millis(30)), 0));
        for (i, handle) in before.into_iter().enumerate() {
            assert_eq!(result(handle), [i as u8]);
        }
        for (i, handle) in after.into_iter().enumerate() {
            assert_eq!(result(handle), [i as u8 + round]);
        }
    }
    let counters = running.pool.counters();
    assert_eq!((counters.stopped, counters.lost, counters.crashed), (5, 0, 0));
    running.end();
}

fn a_memory_limit_ends_one_task() {
    let running = Running::new(1);
    let (echo, fill) = (word("echo"), word("fill"));
    let options = Arc::new(TaskOptions { memory: Some(100 << 20), ..TaskOptions::default() });
    let modest = running.pool.spawn_with(Some(options.clone()), &echo, vec![1]).unwrap().1;
    let greedy = running.pool.spawn_with(Some(options), &fill, vec![]).unwrap().1;
    let after = running.submit(&echo, b"2").1;
    match greedy.join() {
        Some(Outcome::Crashed(crash)) => {
            let Cause::Memory(limit, used) = crash.death.cause else { panic!("{crash:?}") };
            assert!(limit == 100 << 20 && used > limit && crash.death.peak.unwrap() >= used);
        }
        other => panic!("not lost: {other:?}"),
    }
    assert_eq!((result(modest), result(after)), (vec![1], b"2".to_vec()));
    running.end();
}

fn a_running_task_can_be_terminated() {
    let running = Running::new(1);
    let (echo, sleep) = (word("echo"), word("sleep"));
    result(running.submit(&echo, b"").1);
    let large = vec![255; 200_000]; // in a block, which the worker may be reading yet
    let (long, first) = running.submit(&sleep, &large);
    let (waiting, second) = running.submit(&sleep, &large);
    let after = running.submit(&echo, b"3").1;
    while !running.pool.has_begun(long) {
        thread::yield_now();
    }
    assert!(running.pool.terminate(waiting));
    assert!(matches!(second.join(), Some(Outcome::Cancelled)));
    assert!(running.pool.terminate(long));
    assert_eq!(lost(first), (Cause::Terminated, 0));
    assert!(!running.pool.terminate(long), "only once");
    assert_eq!(result(after), b"3");
    let counters = running.pool.counters();
    assert_eq!((counters.stopped, counters.lost, counters.crashed), (1, 0, 0));
    running.end();
}

fn results_and_terminations_race() {
    let running = Running::new(2);
    let echo = word("echo");
    let (mut done, mut ended) = (0, 0);
    for round in 0..300_u32 {
        let tasks: Vec<_> = (0..4).map(|_| running.submit(&echo, &round.to_le_bytes())).collect();
        for (spins, (id, handle)) in tasks.into_iter().enumerate() {
            (0..spins as u32 * (round % 50) * 20).for_each(|_| std::hint::spin_loop());
            let told = running.pool.terminate(id);
            match handle.join() {
                Some(Outcome::Result(bytes)) => {
                    assert!(!told && bytes.inline() == Some(&round.to_le_bytes()));
                    done += 1;
                }
                Some(Outcome::Cancelled) => assert!(told),
                Some(Outcome::Crashed(crash)) => {
                    assert!(told && crash.death.cause == Cause::Terminated);
                    ended += 1;
                }
                other => panic!("round {round}: {other:?}"),
            }
        }
    }
    let counters = running.pool.counters();
    assert_eq!((counters.answered, counters.stopped, counters.lost), (done, ended, 0));
    running.end();
}

fn a_lost_task_is_tried_again() {
    let running = Running::new(2);
    let (echo, die, once) = (word("echo"), word("die"), word("once"));
    let options = Arc::new(TaskOptions { retries: 2, ..TaskOptions::default() });
    let path = std::env::temp_dir().join(format!("oxgang-once-{}", std::process::id()));
    let path = path.to_str().expect("a plain name").as_bytes().to_vec();
    let spawn = |callable: &Arc<Callable>, payload: Vec<u8>| {
        running.pool.spawn_with(Some(options.clone()), callable, payload).unwrap().1
    };
    let poison = spawn(&die, vec![]);
    let lucky = spawn(&once, path.clone());
    let plain = spawn(&echo, vec![7]);
    assert_eq!(lost(poison), (Cause::Died(None), 2));
    assert_eq!((result(lucky), result(plain)), (path.clone(), vec![7]));
    std::fs::remove_file(std::str::from_utf8(&path).unwrap()).unwrap();
    let counters = running.pool.counters();
    assert_eq!((counters.lost, counters.crashed, counters.retried), (4, 4, 3));
    running.end();
}

fn what_waits_can_be_taken_back() {
    let running = Running::new(1);
    let die = word("die");
    let options = Arc::new(TaskOptions { retries: 1000, ..TaskOptions::default() });
    for how in [Pool::cancel, Pool::terminate] {
        let (id, handle) = running.pool.spawn_with(Some(options.clone()), &die, vec![]).unwrap();
        while running.pool.counters().retried == 0 || !how(&running.pool, id) {
            thread::yield_now();
        }
        match handle.join() {
            Some(Outcome::Cancelled) => {}
            // the pause may be over, and the next try have begun
            Some(Outcome::Crashed(crash)) => assert_eq!(crash.death.cause, Cause::Terminated),
            other => panic!("not taken back: {other:?}"),
        }
    }
    // a pool that closes still does what it has to do again, unless that is cancelled
    let (_, handle) = running.pool.spawn_with(Some(options), &die, vec![]).unwrap();
    while running.pool.counters().retried < 5 {
        thread::yield_now();
    }
    running.pool.close(true);
    assert!(matches!(handle.join(), Some(Outcome::Cancelled | Outcome::Crashed(_))));
    running.end();
}

fn workers_are_replaced_after_their_limit() {
    let running = Running::with(1, Some(5));
    let echo = word("echo");
    let handles: Vec<_> = (0..23_u8).map(|i| running.submit(&echo, &[i]).1).collect();
    for (i, handle) in handles.into_iter().enumerate() {
        assert_eq!(result(handle), [i as u8]);
    }
    let counters = running.pool.counters();
    assert_eq!((counters.started, counters.crashed), (5, 0));
    running.end();
}

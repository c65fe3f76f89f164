//! A line: nobody sleeps through a message, however it sleeps.

use loom::thread;
use oxgang_shm::Words;
use oxgang_shm::line::{DOZES, End, SLEEPS, Wake};

use super::{LoomWords, Shared};

/// Stands for the socket.
const BELL: usize = 1024;
const RING: usize = 4096;

fn words(fences: bool) -> Shared {
    let header = [0, 8, 128, 256, 384, 512, 640, 768, BELL];
    let offsets = header.into_iter().chain((4096..4160).step_by(8));
    Shared(LoomWords::new(offsets, fences))
}

/// The answerer dozes for a moment, and then sleeps in earnest; the moment is any.
#[test]
fn no_answerer_sleeps_through_a_question() {
    for dozes in [true, false] {
        loom::model(move || {
            let words = words(true);
            let answerer = End::create(words.clone(), RING);
            let mut asker = End::open(words.clone()).unwrap();
            let sleeper = {
                let words = words.clone();
                thread::spawn(move || {
                    answerer.prepare_sleep(DOZES);
                    if dozes && !answerer.has_more() {
                        words.0.futex_wait(answerer.own_word(), DOZES);
                    }
                    answerer.wake();
                    // or its time was up, and it goes on to the other sleep
                    while !answerer.has_more() {
                        let bell = words.load(BELL, std::sync::atomic::Ordering::Acquire);
                        answerer.prepare_sleep(SLEEPS);
                        if !answerer.has_more() {
                            words.0.futex_wait(BELL, bell);
                        }
                        answerer.wake();
                    }
                })
            };
            asker.begin();
            asker.say(&[], 0).unwrap();
            match asker.wake_needed() {
                Wake::Not => {}
                Wake::Word => words.0.futex_wake(),
                Wake::Bell => {
                    words.fetch_add(BELL, 1);
                    words.0.futex_wake();
                }
            }
            sleeper.join().unwrap(); // a lost wake-up is a deadlock, which loom reports
        });
    }
}

/// The moment of falling asleep alone: either the message is seen or its sender wakes.
fn a_side_falls_asleep(fences: bool) {
    loom::model(move || {
        let words = words(fences);
        let answerer = End::create(words.clone(), RING);
        let mut asker = End::open(words).unwrap();
        let sleeper = thread::spawn(move || {
            answerer.prepare_sleep(SLEEPS);
            answerer.has_more()
        });
        asker.begin();
        asker.say(&[], 0).unwrap();
        let woken = asker.wake_needed() != Wake::Not;
        assert!(sleeper.join().unwrap() || woken, "asleep with a message before it");
    });
}

#[test]
fn a_message_is_seen_or_woken_for() {
    a_side_falls_asleep(true);
}

#[test]
#[should_panic(expected = "asleep with a message before it")]
fn without_fences_a_line_loses_wake_ups() {
    a_side_falls_asleep(false);
}

//! Either side of a line dies after every single step, in the middle of any turn: the other one
//! finds no answer or a whole one, its own turn's, and its line readable.

#[path = "dying/mod.rs"]
mod dying;

use std::sync::Arc;

use dying::Mortal;
use oxgang_shm::line::{DOZES, End, Found, bytes};
use oxgang_shm::{HeapWords, Words};

const RING: usize = 4096;
const LENGTHS: [usize; 4] = [5, 0, 1500, 300];

fn message(turn: usize, length: usize) -> Vec<u8> {
    vec![turn as u8 + 1; length]
}

/// All that fits is said; here it always does.
fn say<W: Words + Clone>(end: &mut End<W>, whole: &[u8]) {
    end.begin();
    let mut at = 0;
    while let (count, false) = end.say(&whole[at..], 0).unwrap() {
        at += count;
    }
    end.wake_needed();
}

/// What is there, and whether that is a whole message.
fn hear<W: Words + Clone>(end: &mut End<W>) -> (Vec<u8>, bool) {
    let mut heard = Vec::new();
    loop {
        match end.hear(&mut heard).expect("readable after any death") {
            Found::Message(_) => return (heard, true),
            Found::Nothing => return (heard, false),
            Found::Part(_) => {}
        }
    }
}

fn sleep_and_wake<W: Words + Clone>(end: &End<W>) {
    end.prepare_sleep(DOZES);
    end.has_more();
    end.wake();
}

/// One life of as many steps, in turns with a sound other side: who dies is the one that `asks`, or
/// the one that answers. `false` if it came to its natural end.
fn die_after(steps: usize, asks: bool) -> bool {
    let memory = Arc::new(HeapWords::new(bytes(RING)));
    let mut answerer = End::create(memory.clone(), RING);
    let mut asker = End::open(memory.clone()).unwrap();
    let (mut done, mut open) = (0, false);
    let died = dying::after(steps, memory, |mortal: Mortal| {
        // what is made anew is as it was: nothing has been said
        let mut mine = if asks { End::open(mortal).unwrap() } else { End::create(mortal, RING) };
        for (turn, length) in LENGTHS.into_iter().enumerate() {
            let question = message(turn, length);
            if asks {
                say(&mut mine, &question);
                open = true;
                assert_eq!(hear(&mut answerer), (question.clone(), true));
                say(&mut answerer, &question);
            } else {
                say(&mut asker, &question);
                open = true;
            }
            sleep_and_wake(&mine);
            assert_eq!(hear(&mut mine), (question.clone(), true));
            if !asks {
                say(&mut mine, &question);
                assert_eq!(hear(&mut asker), (question, true));
            }
            (done, open) = (turn + 1, false);
        }
    });
    let expected = LENGTHS.get(done).map(|length| message(done, *length)).unwrap_or_default();
    if asks && !open {
        // it died before, while or after it asked
        let (heard, whole) = hear(&mut answerer);
        assert!(heard == expected || !whole, "a torn question");
        assert!(expected.starts_with(&heard));
        say(&mut answerer, b"to nobody");
    } else if !asks && open {
        let (heard, whole) = hear(&mut asker);
        assert!(heard == expected || !whole, "a torn answer");
        assert!(expected.starts_with(&heard));
    }
    assert!(died || done == LENGTHS.len());
    died
}

#[test]
fn every_point_of_death_leaves_no_answer_or_a_whole_one() {
    dying::quietly();
    for asks in [false, true] {
        let mut steps = 0;
        while die_after(steps, asks) {
            steps += 1;
        }
        println!("{steps} points of death");
        assert!(steps > 200, "the steps are not counted any more");
    }
}

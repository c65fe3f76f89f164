//! What a stranger may write into a channel, as property tests. The same functions are fuzzed,
//! see `fuzz/`.

#[path = "hostile/mod.rs"]
mod hostile;

use std::time::Duration;

use proptest::prelude::*;

/// A hang is a failure too: it ends the run with a message, not the builder's patience.
fn watchdog() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            std::thread::park_timeout(Duration::from_secs(300));
            eprintln!("the tests hang");
            std::process::abort();
        });
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_worker_bears_any_owner(script in prop::collection::vec(any::<u8>(), 0..300)) {
        watchdog();
        hostile::worker(&script);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_owner_bears_any_worker(script in prop::collection::vec(any::<u8>(), 0..300)) {
        watchdog();
        hostile::owner(&script);
    }
}

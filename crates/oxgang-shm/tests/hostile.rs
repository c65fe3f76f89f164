//! What a stranger may write, as property tests. The same functions are fuzzed, see `fuzz/`.

#[path = "hostile/mod.rs"]
mod hostile;

use proptest::prelude::*;

fn scripts() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_consumer_bears_any_producer(script in scripts()) {
        hostile::consumer(&script);
    }

    #[test]
    fn a_producer_bears_any_consumer(script in scripts()) {
        hostile::producer(&script);
    }

    #[test]
    fn a_worker_bears_any_owner(script in scripts()) {
        hostile::worker(&script);
    }

    #[test]
    fn an_owner_bears_any_worker(script in scripts()) {
        hostile::owner(&script);
    }

    #[test]
    fn a_block_is_inside_of_its_file(script in scripts()) {
        hostile::block(&script);
    }

    #[test]
    fn a_line_bears_any_other_side(script in scripts()) {
        hostile::line(&script);
    }
}

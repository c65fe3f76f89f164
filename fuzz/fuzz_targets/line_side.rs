//! See `oxgang-shm/tests/hostile/mod.rs`.

#![no_main]

#[allow(dead_code)]
#[path = "../../crates/oxgang-shm/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile::line(data));

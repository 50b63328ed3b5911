//! Measured numbers of criterion, hyperfine and of a team's own: no panic, and numbers only.
#![no_main]

use andon_validation::measured::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(numbers) = read(bytes, "bench.json") {
        assert!(numbers.iter().all(|number| number.value.is_finite()));
    }
});

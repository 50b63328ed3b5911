//! Unified diffs: no panic, ranges in order.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let diff = andon_validation::diff::read(text);
    for added in diff.files.values() {
        assert!(added.ranges.iter().all(|(first, last)| first <= last));
        assert!(added.code.iter().all(|line| added.has(*line)));
    }
});

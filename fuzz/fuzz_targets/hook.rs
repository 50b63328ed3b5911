//! Frames of git's `proc-receive`: no panic, and never more frames than a push may have.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = bytes;
    while let Ok(frames) = andon_git::hook::section(&mut input) {
        assert!(frames.len() <= 100);
    }
});

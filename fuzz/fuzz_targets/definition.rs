//! `andon.yaml`: no panic, and every refusal says what is wrong and what to do.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = andon_pipeline::check::read(text) {
        assert!(!problems.is_empty() && problems.iter().all(|p| !p.what.is_empty() && !p.hint.is_empty()));
    }
});

//! The stream of Ansible's callback plugin, and the plan that is made of it: no panic, nothing that could move a terminal.
#![no_main]

use andon_provision::ansible::{plan, stream::Said};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(said) = Said::of(bytes) else { return };
    let plan = plan::of(&said, "ansible");
    for drift in plan::drifts(&plan) {
        for text in [drift.what, drift.before, drift.after] {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
    assert!(!plan::unknowns(&plan).iter().flat_map(|text| text.chars()).any(char::is_control));
});

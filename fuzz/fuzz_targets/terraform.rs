//! Plans and streams of the infrastructure tool: no panic, nothing that could move a terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = andon_provision::terraform::plan::read(bytes);
    if let Ok(said) = andon_provision::terraform::stream::Said::of(&String::from_utf8_lossy(bytes)) {
        assert!(!said.last.chars().any(char::is_control));
    }
});

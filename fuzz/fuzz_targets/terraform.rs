//! Plans, streams and states of the infrastructure tool: no panic, nothing that could move a terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = andon_provision::terraform::plan::read(bytes);
    if let Ok(said) = andon_provision::terraform::stream::Said::of(&String::from_utf8_lossy(bytes)) {
        let made = said.made.iter().flat_map(|made| [made.address.as_str(), &made.id]);
        for text in made.chain(said.making.iter().map(String::as_str)).chain([said.last.as_str()]) {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
    let _ = andon_provision::terraform::document::known(bytes);
});

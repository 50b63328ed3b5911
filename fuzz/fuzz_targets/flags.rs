//! flagd files and evaluation requests: no panic, and what was imported exports and imports to itself.
#![no_main]

use andon_flags::{Context, FlagSet, ofrep, transfer};
use andon_model::{Actor, Recorded, Time};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (file, body) = input;
    let context = ofrep::request(body, None).unwrap_or_else(|_| Context::of("user"));
    let Ok(events) = transfer::import(&FlagSet::default(), file) else { return };
    let mut set = FlagSet::default();
    for (n, event) in events.into_iter().enumerate() {
        set.evolve(&Recorded { seq: n as u64 + 1, at: Time(0), by: Actor::line("fuzz"), project: None, event });
    }
    let _ = serde_json::to_string(&ofrep::bulk(&set, &context, Time(0), None)).map(|text| text.len());
    set.iter().for_each(|flag| drop(andon_flags::describe::describe(flag)));
    assert_eq!(transfer::import(&set, &transfer::export(&set).to_string()), Ok(vec![]));
});

//! Bodies of flag evaluations: no panic, an answer or a failure for each.
#![no_main]

use andon_flags::{FlagSet, ofrep};
use andon_model::Time;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(context) = ofrep::request(bytes, Some("key")) {
        let flags = FlagSet::default();
        assert_eq!(ofrep::single(&flags, "key", &context, Time(0)).0, 404);
        let _ = ofrep::etag(&flags, &context, Time(0), None);
    }
});

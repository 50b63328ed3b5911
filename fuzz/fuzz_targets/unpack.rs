//! Artifacts: whatever the archive says, nothing comes to lie outside of the folder.
#![no_main]

use andon_runtime::{Limits, unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let room = tempfile::tempdir().expect("a folder");
    let into = room.path().join("release");
    std::fs::create_dir(&into).expect("a folder");
    let _ = unpack(bytes, &into, Limits { entries: 100, bytes: 1 << 20 });
    assert_eq!(std::fs::read_dir(room.path()).expect("the folder").count(), 1);
});

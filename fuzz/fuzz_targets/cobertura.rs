//! Cobertura XML: no panic, no path out of the working copy.
#![no_main]

use andon_validation::cobertura::read;
use andon_validation::places::Places;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let reading = read(std::io::BufReader::with_capacity(13, bytes), &Places::at("/work"));
    assert!(reading.coverage.files.keys().all(|path| !path.starts_with('/') && !path.split('/').any(|part| part == "..")));
    assert!((0.0..=100.0).contains(&reading.coverage.percent()));
});

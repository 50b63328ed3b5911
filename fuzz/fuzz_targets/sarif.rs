//! SARIF: no panic, no path out of the working copy.
#![no_main]

use andon_validation::places::Places;
use andon_validation::sarif::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(found) = read(bytes, &Places::at("/work")) else { return };
    assert!(found.all.iter().flat_map(|finding| &finding.path).all(|path| !path.starts_with('/') && !path.split('/').any(|part| part == "..")));
});

//! Coverage of any format: no panic, no path out of the working copy, never more covered than there is.
#![no_main]

use andon_validation::coverage::read;
use andon_validation::places::Places;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let places = Places::with_files("/work", ["src/a.c", "src/main/java/com/acme/Foo.java"].map(str::to_owned));
    let Ok(reading) = read(bytes, &places) else { return };
    andon_fuzz::holds(&reading.coverage);
});

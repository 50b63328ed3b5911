//! Coverage as JSON of llvm-cov, SimpleCov and coverage.py: no panic, no path out of the working copy, never more covered than there is.
#![no_main]

use andon_validation::coverage_json::read;
use andon_validation::places::Places;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(reading) = read(bytes, &Places::with_files("/work", ["src/a.c", "lib/a.rb"].map(str::to_owned))) else { return };
    andon_fuzz::holds(&reading.coverage);
});

//! Go cover profiles: no panic, no path out of the working copy, never more covered than there is.
#![no_main]

use andon_validation::places::Places;
use andon_validation::gocover::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let places = Places::with_files("/work", ["src/a.c", "src/main/java/com/acme/Foo.java"].map(str::to_owned));
    let reading = read(std::io::BufReader::with_capacity(13, bytes), &places);
    andon_fuzz::holds(&reading.coverage);
});

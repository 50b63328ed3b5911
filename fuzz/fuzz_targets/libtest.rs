//! libtest's JSON: no panic, memory within the limits, counts that agree with the cases.
#![no_main]

use andon_validation::tests::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { cases: 100, detail: 1000, name: 100, details: 10_000 };
    // A small buffer puts its edges inside of lines and tags.
    let input = std::io::BufReader::with_capacity(13, bytes);
    {
        let report = andon_validation::libtest::read(input, limits);
        let red = report.cases.iter().filter(|case| case.outcome.is_red()).count() as u32;
        assert!(red <= report.counts.failed && report.cases.len() as u32 <= report.counts.total());
        assert!(report.cases.iter().all(|case| case.name.len() <= limits.name));
    }
});

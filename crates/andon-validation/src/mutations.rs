//! Foreign bytes never make a reader panic: arbitrary ones, and real-shaped samples with seeded damage.

use proptest::prelude::*;

use crate::{Places, coverage, detect, diff, junit};

const SAMPLES: [&str; 6] = [
    "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><testsuites><testsuite name='s' failures='1' time='2,503.1'><testcase \
     classname='a.b' name='c&#x41;' time='0.1'><failure message='m&lt;'><![CDATA[x]]>y</failure><rerunFailure/></testcase></testsuite></testsuites>",
    "<testsuite><testcase name='ä'><skipped/></testcase><error>e</error><testcase name='n'><flakyError>x</flakyError></testcase>",
    "TN:\r\nSF:./a/b.py\r\nDA:1,18446744073709551615,xx\r\nDA:2,-3\r\nFNL:1,2\r\nend_of_record\r\nSF:/x/y\r\nDA:4294967295,1e99",
    "<?xml version='1.0'?><coverage line-rate='1'><sources><source>/w/src</source></sources><packages><package><classes><class \
     filename='a.py'><lines><line number='1' hits='1'/><line number='99999999999' hits='-1'/></lines></class></classes>",
    "diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ \"b/\\303\\244\"\n@@ -0,0 +4294967295,4294967295 @@\n+a\n+b\n",
    "+++ b/a\n@@ -1,3 +1,4 @@ f\n a\n-b\n+c\n\\ No newline\n",
];

/// What a report reader does with foreign bytes, all at once.
fn all_readers(bytes: &[u8]) {
    let limits = junit::Limits { cases: 5, detail: 20, name: 10, details: 50 };
    if let Ok(report) = junit::read(std::io::BufReader::with_capacity(7, bytes), limits) {
        let red = report.cases.iter().filter(|case| case.outcome.is_red()).count() as u32;
        assert!(red <= report.counts.failed && report.cases.len() as u32 <= report.counts.total());
    }
    let _ = detect(bytes);
    let places = Places::with_files("/w", ["src/a/b.py".to_owned()]);
    let _ = coverage::read(bytes, &places);
    let _ = crate::lcov::read(bytes, &places);
    let _ = crate::cobertura::read(bytes, &places);
    let _ = diff::read(&String::from_utf8_lossy(bytes));
}

proptest! {
    #[test]
    fn no_reader_panics_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        all_readers(&bytes);
    }

    #[test]
    fn no_reader_panics_on_damaged_samples(
        sample in 0..SAMPLES.len(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8, any::<prop::sample::Index>()), 1..8),
    ) {
        let mut bytes = SAMPLES[sample].as_bytes().to_vec();
        for (at, byte, what, other) in cuts {
            if bytes.is_empty() { break }
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => {
                    let from = other.index(bytes.len());
                    let piece = bytes[from..].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        all_readers(&bytes);
    }
}

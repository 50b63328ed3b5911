//! Foreign bytes never make a reader panic: arbitrary ones, and real-shaped samples with seeded damage.

use proptest::prelude::*;

use crate::{Places, coverage, detect, diff, junit, tests};

const SAMPLES: [&str; 16] = [
    "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><testsuites><testsuite name='s' failures='1' time='2,503.1'><testcase \
     classname='a.b' name='c&#x41;' time='0.1'><failure message='m&lt;'><![CDATA[x]]>y</failure><rerunFailure/></testcase></testsuite></testsuites>",
    "<testsuite><testcase name='ä'><skipped/></testcase><error>e</error><testcase name='n'><flakyError>x</flakyError></testcase>",
    "TN:\r\nSF:./a/b.py\r\nDA:1,18446744073709551615,xx\r\nDA:2,-3\r\nFNL:1,2\r\nend_of_record\r\nSF:/x/y\r\nDA:4294967295,1e99",
    "<?xml version='1.0'?><coverage line-rate='1'><sources><source>/w/src</source></sources><packages><package><classes><class \
     filename='a.py'><lines><line number='1' hits='1'/><line number='99999999999' hits='-1'/></lines></class></classes>",
    "diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ \"b/\\303\\244\"\n@@ -0,0 +4294967295,4294967295 @@\n+a\n+b\n",
    "+++ b/a\n@@ -1,3 +1,4 @@ f\n a\n-b\n+c\n\\ No newline\n",
    "TAP version 14\n# Subtest: a\n    ok 1 - x\n      ---\n      duration_ms: 1\n      error: |-\n        no\n      ...\n    1..1\nnot ok 1 - a # TODO \\# b\n1..2\nBail out! x\n",
    "{\"Action\":\"run\",\"Package\":\"p\",\"Test\":\"T/ü\"}\nFAIL\tp [build failed]\n{\"Action\":\"output\",\"Package\":\"p\",\"Test\":\"T/ü\",\"Output\":\"x\\u001b[3\\n\"}\n\
     {\"Action\":\"fail\",\"Package\":\"p\",\"Test\":\"T/ü\",\"Elapsed\":1e9}\n{\"Action\":\"fail\",\"Package\":\"p\",\"FailedBuild\":\"p\"}\n",
    "{\"type\":\"suite\",\"event\":\"started\"}\n{\"type\":\"test\",\"event\":\"started\",\"name\":\"c::c$t#2\"}\n{\"type\":\"test\",\"event\":\"failed\",\"name\":\"c::c$t#2\",\
     \"exec_time\":\"0.1s\",\"stdout\":\"panicked at a:\\nb\"}\n{\"type\":\"suite\",\"event\":\"failed\",\"failed\":9}",
    "\u{feff}<TestRun><Results><UnitTestResult testId='a' testName='A.B' duration='99:00:01.5' outcome='Failed' resultType='DataDrivenTest'><Output><ErrorInfo><Message>m</Message>\
     </ErrorInfo></Output><InnerResults><UnitTestResult outcome='Timeout'/></InnerResults></UnitTestResult></Results><UnitTest id='a'><TestMethod className='A,B'/></UnitTest></TestRun>",
    "<report><package name='a/b'><class name='a/b/C' sourcefilename='C.java'><method name='m' line='4'><counter type='METHOD' covered='1'/></method><counter type='LINE' missed='1' \
     covered='18446744073709551615'/></class><sourcefile name='C.java'><line nr='4' ci='1' mb='4294967295' cb='9'/></sourcefile></package></report>",
    "<coverage clover='3'><project><file path='/w/a.js'><class name='C'><metrics statements='3' coveredstatements='9'/></class><metrics conditionals='4'/><line num='1' type='cond' \
     truecount='3' falsecount='18446744073709551615'/><line num='2' type='method' count='1'/></file></project></coverage>",
    "mode: count\nexample.org/x/a/b.py:1.2,3.4 2 1\nx:4294967295.1,4294967295.9 18446744073709551615 1\nx:0.1,2.2 1 1\n",
    "{\"data\":[{\"files\":[{\"filename\":\"/w/a.c\",\"segments\":[[1,1,2,true,true,false],[4294967295,1,0,false,false]],\"branches\":[[4,1,4,2,1,0]]}],\"functions\":[{\"name\":\"f\",\
     \"count\":1,\"filenames\":[\"/w/a.c\"],\"regions\":[[1,1,2,2]]}]}]}",
    "{\"RSpec\":{\"coverage\":{\"/w/a.rb\":{\"lines\":[1,null,\"ignored\",-4],\"branches\":{\"[:if, 0, 3, 4]\":{\"[:then]\":1e300}}}}},\"files\":{\"a.py\":{\"executed_lines\":[1],\
     \"missing_branches\":[[1,-1]],\"functions\":{\"f\":{}}}}}",
    "{\"runs\":[{\"tool\":{\"driver\":{\"name\":\"x\",\"rules\":[{\"id\":\"r\"}]}},\"results\":[{\"ruleId\":\"r\",\"message\":{\"text\":\"m\"},\"locations\":[{\"physicalLocation\":\
     {\"artifactLocation\":{\"uri\":\"a%2fb%\",\"uriBaseId\":\"S\"},\"region\":{\"startLine\":4294967295}}}]}],\"originalUriBaseIds\":{\"S\":{\"uri\":\"file:///w/\"}}}]}",
];

/// What a report reader does with foreign bytes, all at once.
fn all_readers(bytes: &[u8]) {
    let limits = junit::Limits { cases: 5, detail: 20, name: 10, details: 50 };
    let small = || std::io::BufReader::with_capacity(7, bytes);
    // Whatever a report looks like, each reader gets it.
    let all = [
        tests::read(small(), limits).ok(),
        junit::read(small(), limits).ok(),
        crate::trx::read(small(), limits).ok(),
        Some(crate::tap::read(small(), limits)),
        Some(crate::gotest::read(small(), limits)),
        Some(crate::libtest::read(small(), limits)),
    ];
    for report in all.into_iter().flatten() {
        let red = report.cases.iter().filter(|case| case.outcome.is_red()).count() as u32;
        assert!(red <= report.counts.failed && report.cases.len() as u32 <= report.counts.total());
        assert!(report.cases.iter().all(|case| case.outcome.message().len() <= limits.name.max(60)));
    }
    let _ = detect(bytes);
    let places = Places::with_files("/w", ["src/a/b.py".to_owned()]);
    let _ = coverage::read(bytes, &places);
    let mut readings = vec![
        crate::lcov::read(bytes, &places),
        crate::cobertura::read(bytes, &places),
        crate::jacoco::read(bytes, &places),
        crate::clover::read(bytes, &places),
        crate::gocover::read(bytes, &places),
    ];
    readings.extend(crate::coverage_json::read(bytes, &places));
    for reading in readings {
        let totals = reading.coverage.totals();
        for share in [totals.lines, totals.branches, totals.functions, totals.classes] {
            assert!(share.covered <= share.total);
        }
        let outside = |path: &String| path.starts_with('/') || path.split('/').any(|part| part == "..");
        assert!(!reading.coverage.files.keys().any(outside));
    }
    let _ = crate::sarif::read(bytes, &places);
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

//! Measures how quickly reports are read, and that bombs are not: one figure as JSON a line, for `cargo xtask bench validation`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it only says what it measured")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use andon_validation::places::Places;
use andon_validation::tests::{self, Limits};
use andon_validation::{coverage, sarif};

/// Bytes of each report.
const SIZE: usize = 110_000_000;
/// Megabytes a second that every reader has to reach.
const SPEED: f64 = 200.0;
/// Milliseconds that a bomb may take.
const BOMB: f64 = 100.0;

fn main() {
    let wanted = std::env::args().nth(1);
    let chosen = |name: &str| wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()));
    for (name, begin, piece, end) in shapes().into_iter().filter(|shape| chosen(shape.0)) {
        let mut text = begin.to_owned();
        let mut n = 0u32;
        while text.len() < SIZE {
            piece(&mut text, n);
            n += 1;
        }
        text.push_str(end);
        let mut best = f64::MAX;
        for _ in 0..3 {
            let begun = busy();
            read(name, text.as_bytes());
            best = best.min(busy() - begun);
        }
        figure(&format!("{name}: read"), text.len() as f64 / 1e6 / best, "MB/s", SPEED, "higher");
    }
    for (name, text) in bombs().into_iter().filter(|bomb| chosen(bomb.0)) {
        // Too short for the clock of the thread: the best of three by the one on the wall.
        let mut best = f64::MAX;
        for _ in 0..3 {
            let begun = Instant::now();
            let _ = black_box(tests::read(text.as_bytes(), Limits::default()));
            let _ = black_box(coverage::read(text.as_bytes(), &Places::at("/w")));
            let _ = black_box(sarif::read(text.as_bytes(), &Places::at("/w")));
            best = best.min(begun.elapsed().as_secs_f64() * 1000.0);
        }
        figure(&format!("{name}: refused by all readers"), best, "ms", BOMB, "lower");
    }
}

/// Seconds that this thread has been running on a core: other work on the machine does not count.
fn busy() -> f64 {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    said.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn figure(name: &str, value: f64, unit: &str, bar: f64, better: &str) {
    let value = (value * 100.0).round() / 100.0;
    let met = if better == "higher" { value >= bar } else { value <= bar };
    println!(
        "{{\"name\":\"{name}\",\"value\":{value},\"unit\":\"{unit}\",\"bar\":{bar},\"better\":\"{better}\",\"met\":{met}}}"
    );
}

fn read(name: &str, bytes: &[u8]) {
    let places = Places::at("/w");
    if name.starts_with("tests") {
        let report = tests::read(bytes, Limits::default()).unwrap();
        assert!(report.counts.total() > 1000, "{name}: {:?}", report.counts);
        black_box(report);
    } else if name.starts_with("coverage") {
        let reading = coverage::read(bytes, &places).unwrap();
        assert!(reading.coverage.sums().1 > 1000, "{name}: {:?}", reading.warnings);
        black_box(reading);
    } else {
        let found = sarif::read(bytes, &places).unwrap();
        assert!(found.all.len() > 1000, "{name}");
        black_box(found);
    }
}

type Shape = (&'static str, &'static str, fn(&mut String, u32), &'static str);

/// Reports as the tools write them, over and over: most tests are green, one in a hundred is red with a trace; files have 200 lines.
fn shapes() -> Vec<Shape> {
    let visual_studio =
        "<TestRun xmlns=\"http://microsoft.com/schemas/VisualStudio/TeamTest/2010\"><Results>";
    let suite = "{\"type\":\"suite\",\"event\":\"started\",\"test_count\":1}\n";
    let classes = ("<coverage><packages><package><classes>", "</classes></package></packages></coverage>");
    vec![
        ("tests: JUnit XML", "<testsuites><testsuite name=\"s\">", junit, "</testsuite></testsuites>"),
        ("tests: TRX", visual_studio, trx, "</Results></TestRun>"),
        ("tests: TAP", "TAP version 14\n", tap, ""),
        ("tests: go test -json", "", go, ""),
        ("tests: libtest JSON", suite, libtest, ""),
        ("coverage: LCOV", "TN:\n", lcov, ""),
        ("coverage: Cobertura", classes.0, cobertura, classes.1),
        ("coverage: JaCoCo", "<report name=\"x\"><package name=\"com/acme\">", jacoco, "</package></report>"),
        (
            "coverage: Clover",
            "<coverage generated=\"1\"><project timestamp=\"1\">",
            clover,
            "</project></coverage>",
        ),
        ("coverage: Go profile", "mode: count\n", gocover, ""),
        (
            "coverage: llvm-cov JSON",
            "{\"data\":[{\"files\":[",
            llvm,
            "{\"filename\":\"z.c\",\"segments\":[]}]}]}",
        ),
        (
            "coverage: SimpleCov JSON",
            "{\"RSpec\":{\"coverage\":{",
            simplecov,
            "\"/w/z.rb\":{\"lines\":[1]}}}}",
        ),
        ("coverage: coverage.py JSON", "{\"files\":{", coverage_py, "\"z.py\":{}}}"),
        ("findings: SARIF", "{\"runs\":[{\"results\":[", sarif_result, "{\"message\":{\"text\":\"z\"}}]}]}"),
    ]
}

const TRACE: &str = "Traceback (most recent call last):\n  File \"tests/test_cart.py\", line 9, in test_add\n    assert add(1, 2) == 4\n\
    AssertionError: assert 3 == 4\n +  where 3 = add(1, 2)\n";

fn red(n: u32) -> bool {
    n % 100 == 99
}

/// Writing to a string does not fail.
macro_rules! put {
    ($text:expr, $($arg:tt)*) => { let _ = write!($text, $($arg)*); };
}

fn junit(text: &mut String, n: u32) {
    put!(
        text,
        "<testcase classname=\"tests.test_cart.TestCart\" name=\"test_adds_item_{n}\" time=\"0.0{}\"",
        n % 100
    );
    if red(n) {
        put!(text, "><failure message=\"assert 3 == 4\">{TRACE}</failure></testcase>\n");
    } else {
        text.push_str(" />\n");
    }
}

fn trx(text: &mut String, n: u32) {
    put!(
        text,
        "<UnitTestResult executionId=\"8a2c{n:08x}-0000-4000-8000-000000000000\" testId=\"7b1d{n:08x}-0000-4000-8000-000000000000\" \
         testName=\"Acme.Tests.CartTests.Adds{n}\" computerName=\"box\" duration=\"00:00:00.0012345\" \
         startTime=\"2026-01-01T00:00:00.0000000+00:00\" outcome=\"{}\"",
        if red(n) { "Failed" } else { "Passed" }
    );
    if red(n) {
        put!(
            text,
            "><Output><ErrorInfo><Message>Assert.Equal() Failure</Message><StackTrace>{TRACE}</StackTrace></ErrorInfo></Output></UnitTestResult>\n"
        );
    } else {
        text.push_str(" />\n");
    }
}

fn tap(text: &mut String, n: u32) {
    if red(n) {
        put!(
            text,
            "not ok {n} - cart adds item {n}\n  ---\n  duration_ms: 1.25\n  error: |-\n    assert 3 == 4\n  stack: |-\n"
        );
        for line in TRACE.lines() {
            put!(text, "    {line}\n");
        }
        text.push_str("  ...\n");
    } else {
        put!(
            text,
            "# Subtest: cart adds item {n}\nok {n} - cart adds item {n}\n  ---\n  duration_ms: 0.{n}\n  type: 'test'\n  ...\n"
        );
    }
}

fn go(text: &mut String, n: u32) {
    let head = "{\"Time\":\"2026-01-01T00:00:00.000000001Z\",";
    let of = format!("\"Package\":\"example.org/shop/cart\",\"Test\":\"TestAdds/item_{n}\"");
    put!(
        text,
        "{head}\"Action\":\"run\",{of}}}\n{head}\"Action\":\"output\",{of},\"Output\":\"=== RUN   TestAdds/item_{n}\\n\"}}\n"
    );
    let (end, word) = if red(n) { ("fail", "FAIL") } else { ("pass", "PASS") };
    if red(n) {
        put!(
            text,
            "{head}\"Action\":\"output\",{of},\"Output\":\"    cart_test.go:9: want 3, got 4\\n\"}}\n"
        );
    }
    put!(
        text,
        "{head}\"Action\":\"output\",{of},\"Output\":\"    --- {word}: TestAdds/item_{n} (0.00s)\\n\"}}\n"
    );
    put!(text, "{head}\"Action\":\"{end}\",{of},\"Elapsed\":0.01}}\n");
}

fn libtest(text: &mut String, n: u32) {
    put!(text, "{{\"type\":\"test\",\"event\":\"started\",\"name\":\"cart::cart$tests::adds_item_{n}\"}}\n");
    let end = if red(n) { "failed" } else { "ok" };
    let panic = ",\"stdout\":\"thread 'a' panicked at src/lib.rs:9:5:\\nassertion failed: 1 == 2\\nnote: run with\\n\"";
    let said = if red(n) { panic } else { "" };
    put!(
        text,
        "{{\"type\":\"test\",\"event\":\"{end}\",\"name\":\"cart::cart$tests::adds_item_{n}\",\"exec_time\":0.0{n}{said}}}\n"
    );
}

/// Beyond so many files the same ones come again, as in the reports of many shards.
fn file(n: u32) -> u32 {
    n % 5000
}

fn lcov(text: &mut String, n: u32) {
    put!(text, "SF:src/module_{}/file.c\n", file(n));
    for f in 1..=8 {
        put!(text, "FN:{},function_{f}\nFNDA:{},function_{f}\n", f * 20, f % 3);
    }
    for b in 1..=40 {
        put!(text, "BRDA:{},0,{},{}\n", b / 2 * 8 + 1, b % 2, b % 3);
    }
    for line in 1..=200 {
        put!(text, "DA:{line},{}\n", line % 7);
    }
    text.push_str("LF:200\nLH:172\nend_of_record\n");
}

fn cobertura(text: &mut String, n: u32) {
    let file = file(n);
    put!(
        text,
        "<class name=\"file.py\" filename=\"src/module_{file}/file.py\" complexity=\"0\" line-rate=\"0.9\" branch-rate=\"0\"><methods/><lines>\n"
    );
    for line in 1..=200 {
        let branch = " branch=\"true\" condition-coverage=\"50% (1/2)\" missing-branches=\"9\"";
        put!(
            text,
            "\t\t\t\t\t\t<line number=\"{line}\" hits=\"{}\"{}/>\n",
            line % 7,
            if line % 10 == 0 { branch } else { "" }
        );
    }
    text.push_str("</lines></class>\n");
}

fn jacoco(text: &mut String, n: u32) {
    put!(text, "<sourcefile name=\"File{}.java\">", file(n));
    for line in 1..=200 {
        put!(
            text,
            "<line nr=\"{line}\" mi=\"{}\" ci=\"{}\" mb=\"0\" cb=\"{}\"/>",
            line % 2,
            line % 7,
            line % 10 / 9 * 2
        );
    }
    text.push_str("<counter type=\"LINE\" missed=\"20\" covered=\"180\"/></sourcefile>");
}

fn clover(text: &mut String, n: u32) {
    put!(text, "    <file name=\"/w/src/module_{}/File.php\">\n", file(n));
    for line in 1..=200 {
        put!(text, "      <line num=\"{line}\" type=\"stmt\" count=\"{}\"/>\n", line % 7);
    }
    text.push_str("      <metrics loc=\"250\" ncloc=\"210\" statements=\"200\" coveredstatements=\"170\"/>\n    </file>\n");
}

fn gocover(text: &mut String, n: u32) {
    let line = n % 200 * 4 + 1;
    put!(text, "example.org/shop/module_{}/file.go:{line}.20,{}.3 2 {}\n", n / 200 % 5000, line + 2, n % 7);
}

fn llvm(text: &mut String, n: u32) {
    put!(
        text,
        "{{\"branches\":[],\"expansions\":[],\"filename\":\"/w/src/module_{}/file.c\",\"segments\":[",
        file(n)
    );
    for line in 1..=200 {
        put!(text, "[{line},{},{},true,true,false],", line % 60 + 1, line % 7 * 1000);
    }
    text.push_str("[201,2,0,false,false,false]],\"summary\":{\"lines\":{\"count\":200,\"covered\":170,\"percent\":85.0}}},");
}

fn simplecov(text: &mut String, n: u32) {
    put!(text, "\"/w/lib/module_{}/file.rb\":{{\"lines\":[\n", file(n));
    for line in 1..=200 {
        put!(text, "          {},\n", if line % 3 == 0 { "null" } else { "12" });
    }
    text.push_str("          0\n]},");
}

fn coverage_py(text: &mut String, n: u32) {
    put!(text, "\"src/module_{}/file.py\": {{\"executed_lines\": [1", file(n));
    for line in 2..=170 {
        put!(text, ", {line}");
    }
    text.push_str(
        "], \"summary\": {\"covered_lines\": 170, \"num_statements\": 200}, \"missing_lines\": [171",
    );
    for line in 172..=200 {
        put!(text, ", {line}");
    }
    text.push_str("], \"excluded_lines\": []},");
}

fn sarif_result(text: &mut String, n: u32) {
    let (file, line) = (file(n), n % 200 + 1);
    put!(
        text,
        "{{\"ruleId\":\"no-unused-vars\",\"ruleIndex\":0,\"level\":\"warning\",\"message\":{{\"text\":\"'item_{n}' is assigned a value but never \
         used.\"}},\"locations\":[{{\"physicalLocation\":{{\"artifactLocation\":{{\"uri\":\"file:///w/src/module_{file}/file.js\",\"index\":0}},\
         \"region\":{{\"startLine\":{line},\"startColumn\":7,\"endLine\":{line},\"endColumn\":13}}}}}}]}},"
    );
}

/// What would take a careless reader down.
fn bombs() -> Vec<(&'static str, String)> {
    let mut entities = String::from("<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a0 \"lol\">");
    for n in 1..60 {
        put!(entities, "<!ENTITY a{n} \"{}\">", format!("&a{};", n - 1).repeat(10));
    }
    let entities = |root: &str| format!("{entities}]><{root}>&a59;</{root}>");
    let deep = |open: &str, close: &str, begin: &str| {
        begin.to_owned() + &open.repeat(1_000_000) + &close.repeat(1_000_000)
    };
    vec![
        ("bomb: entities in JUnit", entities("testsuite")),
        ("bomb: entities in Cobertura", entities("coverage")),
        ("bomb: 100,000 suites inside each other", "<testsuite name='x'>".repeat(100_000)),
        (
            "bomb: 100,000 packages inside each other",
            "<report>".to_owned() + &"<package name='x'>".repeat(100_000),
        ),
        ("bomb: a million lists inside each other", deep("[", "]", "{\"data\":")),
        ("bomb: a million objects inside each other", deep("{\"runs\":", "}", "")),
        (
            "bomb: subtests a column deeper in each of 2,000 lines",
            (0..2000).map(|n| " ".repeat(n) + "ok 1\n").collect(),
        ),
        (
            "bomb: Go blocks of four milliard lines",
            "mode: set\n".to_owned() + &"x/y.go:1.1,4294967295.1 1 1\n".repeat(10_000),
        ),
    ]
}

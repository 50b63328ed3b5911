//! Reports that real tools wrote are read with the totals that the tools themselves printed (`tools/make-reports` makes both).

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use andon_validation::coverage::{self, Share};
use andon_validation::findings::Level;
use andon_validation::measured;
use andon_validation::places::Places;
use andon_validation::sarif;
use andon_validation::tests::{self, Limits};

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

struct Row {
    file: String,
    kind: String,
    root: String,
    totals: BTreeMap<String, String>,
}

fn table() -> Vec<Row> {
    let text = std::fs::read_to_string(data().join("totals.tsv")).unwrap();
    let row = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        let [file, kind, _, root, totals] = parts[..] else { panic!("{line:?} has no five columns") };
        let totals = totals.split(' ').map(|pair| pair.split_once('=').unwrap());
        let totals = totals.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Row { file: file.to_owned(), kind: kind.to_owned(), root: root.to_owned(), totals }
    };
    text.lines().skip(1).map(row).collect()
}

fn bytes(row: &Row) -> Vec<u8> {
    std::fs::read(data().join(&row.file)).unwrap()
}

/// Where JaCoCo and Go name packages and modules, the files of the subject are known as they are in a run.
fn places(row: &Row) -> Places {
    let files = ["src/main/java/org/example/Cart.java", "cart/cart.go"].map(str::to_owned);
    Places::with_files(&row.root, files)
}

#[test]
fn totals_of_tests_equal_the_tools_own() {
    let rows: Vec<Row> = table().into_iter().filter(|row| row.kind == "tests").collect();
    assert!(rows.len() >= 12, "only {} files of tests are kept", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let report = tests::read(bytes(&row).as_slice(), Limits::default()).unwrap();
        let read = [report.counts.passed, report.counts.failed, report.counts.skipped].map(|n| n.to_string());
        let said = ["passed", "failed", "skipped"].map(|key| row.totals[key].clone());
        if read != said || !report.warnings.is_empty() {
            wrong.push(format!("{}: read {read:?}, the tool says {said:?}; {:?}", row.file, report.warnings));
        }
        if let Some(flaky) = row.totals.get("flaky") {
            let read = report.cases.iter().filter(|case| case.flaky).count();
            assert_eq!(read.to_string(), *flaky, "{}", row.file);
        }
        let silent =
            report.cases.iter().filter(|case| case.outcome.is_red() && case.outcome.message().is_empty());
        assert_eq!(silent.count(), 0, "{}: every red test says why", row.file);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn totals_of_coverage_equal_the_tools_own() {
    let rows: Vec<Row> = table().into_iter().filter(|row| row.kind == "coverage").collect();
    assert!(rows.len() >= 12, "only {} files of coverage are kept", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let reading = coverage::read(&bytes(&row), &places(&row)).unwrap();
        let totals = reading.coverage.totals();
        for (key, said) in &row.totals {
            let share = |share: Share| format!("{}/{}", share.covered, share.total);
            let read = match key.as_str() {
                "lines" => share(totals.lines),
                "branches" => share(totals.branches),
                "functions" => share(totals.functions),
                "classes" => share(totals.classes),
                "statements_percent" => {
                    let (covered, all) = reading.statements.unwrap();
                    format!("{:.1}", covered as f64 * 100.0 / all as f64)
                }
                other => panic!("{other} is not counted"),
            };
            if read != *said {
                wrong.push(format!("{}: {key} read as {read}, the tool says {said}", row.file));
            }
        }
        if !reading.warnings.is_empty() {
            wrong.push(format!("{}: {:?}", row.file, reading.warnings));
        }
        let inside = |path: &String| !path.starts_with('/') && !path.contains("..");
        assert!(
            reading.coverage.files.keys().all(inside),
            "{}: {:?}",
            row.file,
            reading.coverage.files.keys()
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn totals_of_findings_equal_the_tools_own() {
    let rows: Vec<Row> = table().into_iter().filter(|row| row.kind == "findings").collect();
    assert!(!rows.is_empty());
    for row in rows {
        let found = sarif::read(&bytes(&row), &places(&row)).unwrap();
        let count = |level| found.all.iter().filter(|finding| finding.level == level).count().to_string();
        assert_eq!(count(Level::Error), row.totals["errors"], "{}", row.file);
        assert_eq!(count(Level::Warning), row.totals["warnings"], "{}", row.file);
        assert!(found.all.iter().all(|finding| finding.path.is_some() && finding.lines.0 > 0), "{found:?}");
    }
}

#[test]
fn every_number_that_was_measured_is_read() {
    let rows: Vec<Row> = table().into_iter().filter(|row| row.kind == "measured").collect();
    assert!(!rows.is_empty());
    for row in rows {
        let numbers = measured::read(&bytes(&row), &row.file).unwrap();
        assert_eq!(numbers.len().to_string(), row.totals["numbers"], "{}", row.file);
        assert!(numbers.iter().all(|number| number.value > 0.0 && number.unit == "ms"), "{numbers:?}");
    }
}

#[test]
fn a_report_cut_off_anywhere_gives_no_more_than_the_whole_one() {
    for row in table() {
        let whole = bytes(&row);
        for at in (0..whole.len()).step_by((whole.len() / 97).max(1)) {
            let part = &whole[..at];
            match row.kind.as_str() {
                "tests" => {
                    let Ok(all) = tests::read(whole.as_slice(), Limits::default()) else { continue };
                    if let Ok(read) = tests::read(part, Limits::default()) {
                        // What began and did not end is red, so only green ones may not grow.
                        assert!(read.counts.passed <= all.counts.passed + 1, "{} cut at {at}", row.file);
                    }
                }
                "coverage" => {
                    let all = coverage::read(&whole, &places(&row)).unwrap().coverage.totals().lines;
                    if let Ok(read) = coverage::read(part, &places(&row)) {
                        assert!(read.coverage.totals().lines.total <= all.total, "{} cut at {at}", row.file);
                    }
                }
                _ => drop(sarif::read(part, &places(&row))),
            }
        }
    }
}

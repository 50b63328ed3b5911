//! Coverage is judged whole, carried with its age, shown line by line; findings count on lines of the change; on the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use serde_json::Value;
use support::Server;

/// Two jobs that measure; the second one only runs for changes of its own folder. What they report stands in files of the repository.
const YAML: &str = r#"
version: 1
pipeline:
  jobs:
    unit:
      run: cp unit.txt unit.tap && cp unit.cov cov.lcov && cp found.json lint.sarif
      reports: { tests: unit.tap, coverage: cov.lcov, findings: lint.sarif }
    whole:
      stage: acceptance
      when: { paths: ["shop/**"] }
      run: cp shop/whole.cov whole.lcov && cp shop/whole.txt whole.json
      reports: { tests: whole.json, coverage: whole.lcov }
validation:
  coverage:
    lines: 60
    classes_with_tests: 50
    paths: { "shop/core/**": { lines: 75 } }
    layers: { unit: { lines: 25 } }
    carry_at_most: AGE
  findings: { errors: 0 }
"#;

const CART: &str = "def add(items, price):\n    items.append(price)\n    return items\n\ndef total(items):\n    return sum(items)\n";
const TAP: &str = "TAP version 14\n1..2\nok 1 - adds\nok 2 - sums\n";
const GO: &str = "{\"Action\":\"run\",\"Package\":\"shop\",\"Test\":\"TestAll\"}\n{\"Action\":\"pass\",\"Package\":\"shop\",\"Test\":\"TestAll\",\"Elapsed\":0.5}\n";
const UNIT: &str = "SF:shop/core/cart.py\nFN:1,add\nFNDA:1,add\nBRDA:2,0,0,1\nBRDA:2,0,1,0\nDA:1,1\nDA:2,1\nDA:3,1\nDA:6,0\nend_of_record\n";
const WHOLE: &str = "SF:shop/core/cart.py\nDA:1,1\nDA:2,0\nDA:3,0\nDA:6,1\nend_of_record\n";

fn found(level: &str, line: u32) -> String {
    format!(
        "{{\"version\":\"2.1.0\",\"runs\":[{{\"tool\":{{\"driver\":{{\"name\":\"lint\"}}}},\"results\":[{{\"ruleId\":\"no-sum\",\"level\":\"{level}\",\
         \"message\":{{\"text\":\"sum is slow\"}},\"locations\":[{{\"physicalLocation\":{{\"artifactLocation\":{{\"uri\":\"shop/core/cart.py\"}},\
         \"region\":{{\"startLine\":{line}}}}}}}]}}]}}]}}"
    )
}

fn project(age: &str) -> (Server, support::Repo) {
    Server::with_project(&[
        ("andon.yaml", &YAML.replace("AGE", age)),
        ("shop/core/cart.py", CART),
        ("shop/whole.cov", WHOLE),
        ("shop/whole.txt", GO),
        ("unit.txt", TAP),
        ("unit.cov", UNIT),
        ("found.json", &found("error", 6)),
    ])
}

fn run_of(view: &Value) -> u64 {
    view["runs"][0]["number"].as_u64().unwrap()
}

#[test]
fn a_job_that_is_not_needed_carries_its_coverage_with_its_age() {
    let (server, repo) = project("1d");
    // Given a first change that both jobs measured; what it brings along is not what a change adds, so the error in it counts for nobody.
    let first = server.decided(repo.propose("Begin"));
    assert_eq!(first["row"]["standing"], "landed", "{first}");
    let begun = run_of(&first);
    // When a change needs only the first job,
    repo.write("README.md", "A shop\n");
    let second = server.decided(repo.propose("Say what it is"));
    assert_eq!(second["row"]["standing"], "landed", "{second}");
    // Then the other's coverage is that of the run before, and the page says so.
    let view = server.view(&format!("/coverage/{}", run_of(&second)));
    let note = view["notes"][0].as_str().unwrap();
    assert!(note.starts_with(&format!("coverage of whole is carried from run-{begun}, ")), "{note}");
    assert_eq!(
        (&view["totals"]["lines"]["covered"], &view["totals"]["lines"]["total"]),
        (&4.into(), &4.into())
    );
    assert_eq!(view["totals"]["branches"]["covered"], 1, "{view}");
    assert_eq!(view["course"].as_array().unwrap().len(), 2);
    assert_eq!(view["rows"][0]["path"], "shop");
    let layers: Vec<&str> =
        view["layers"].as_array().unwrap().iter().map(|l| l["layer"].as_str().unwrap()).collect();
    assert_eq!(layers, ["unit", "integration"]);
    // And the file has a mark on every line.
    let source = server.view("/coverage/newest/file?path=shop/core/cart.py");
    let marks: Vec<&str> =
        source["lines"].as_array().unwrap().iter().map(|l| l["mark"].as_str().unwrap_or("-")).collect();
    assert_eq!(marks, ["covered", "partly", "covered", "-", "-", "covered"]);
    let run = run_of(&second);
    for page in ["", "/missing", "/name/shop", "/branches/shop/core"] {
        let path = format!("/shop/coverage/{run}{page}");
        assert_eq!(server.get(&path).0, 200, "{path}");
    }
    assert_eq!(server.get(&format!("/shop/source/{run}/shop/core/cart.py")).0, 200);
    assert_eq!(server.get(&format!("/shop/source/{run}/README.md")).0, 404, "nobody measured it");
    let said = server.cli(&["coverage", "shop/core/cart.py"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(" ▲     2      1     items.append(price)"), "{said}");
    let all = server.cli(&["coverage"]);
    assert!(
        String::from_utf8_lossy(&all.stdout).contains("100.0\u{a0}% of the lines ran in tests"),
        "{all:?}"
    );
}

#[test]
fn a_carried_figure_that_is_too_old_passes_no_limit() {
    let (server, repo) = project("0s");
    assert_eq!(server.decided(repo.propose("Begin"))["row"]["standing"], "landed");
    repo.write("README.md", "A shop\n");
    let second = server.decided(repo.propose("Say what it is"));
    let words = second["row"]["words"].as_str().unwrap();
    assert!(
        words.contains("coverage of whole is carried from run-1") && words.contains("let the job run again"),
        "{words}"
    );
}

#[test]
fn a_number_that_became_worse_than_it_scatters_is_red() {
    let yaml = "version: 1\npipeline:\n  jobs:\n    bench:\n      run: cp numbers bench.json\n      reports: { performance: bench.json }\n\
        validation: { performance: { worse_by: 10% } }\n";
    let numbers = |ms: f64| format!("[{{ \"name\": \"start\", \"value\": {ms}, \"unit\": \"ms\" }}]");
    let (server, repo) = Server::with_project(&[("andon.yaml", yaml), ("numbers", &numbers(100.0))]);
    for (n, ms) in [100.0, 101.0, 99.0, 100.5, 100.2].into_iter().enumerate() {
        repo.write("numbers", &numbers(ms));
        let view = server.decided(repo.propose(&format!("Measure {n}")));
        assert_eq!(view["row"]["standing"], "landed", "a first value has nothing to be worse than: {view}");
    }
    repo.write("numbers", &numbers(105.0));
    assert_eq!(server.decided(repo.propose("A little slower"))["row"]["standing"], "landed");
    repo.write("numbers", &numbers(140.0));
    let words = server.decided(repo.propose("Much slower"))["row"]["words"].to_string();
    assert!(words.contains("1 measured number is worse by more than 10.0 %"), "{words}");
    assert!(
        words.contains("start: 140.0 ms, 40 % worse than 100.3 ms, the median of the last 6 landings"),
        "{words}"
    );
}

#[test]
fn every_broken_limit_lists_its_lines_and_a_finding_counts_where_the_change_adds_it() {
    let (server, repo) = project("1d");
    assert_eq!(server.decided(repo.propose("Begin"))["row"]["standing"], "landed");
    // A pattern's limit is broken although the project's is kept.
    let half = WHOLE.replace("DA:6,1", "DA:6,0") + "SF:shop/a.py\nDA:1,1\nDA:2,1\nDA:3,1\nend_of_record\n";
    repo.write("shop/whole.cov", &half);
    repo.write("unit.cov", &UNIT.replace("DA:3,1", "DA:3,0"));
    let red = repo.propose("Lose a test");
    let view = server.decided(red);
    let words = view["row"]["words"].as_str().unwrap();
    assert!(
        words.starts_with("50 % of all lines ran in tests in shop/core/**; the limit is 75 %"),
        "{words}"
    );
    assert!(words.contains("shop/core/cart.py:3,6"), "{words}");
    // An error on a line that the change adds is red, one elsewhere is shown.
    repo.git(&["reset", "-q", "--hard", "HEAD~1"]);
    repo.follow();
    repo.write("shop/core/cart.py", &CART.replace("return sum(items)", "return sum(list(items))"));
    let red = server.decided(repo.propose("Sum a list"));
    let words = red["row"]["words"].as_str().unwrap();
    assert!(words.starts_with("1 error found on lines that the change adds; 0 are allowed"), "{words}");
    assert!(words.contains("shop/core/cart.py:6: no-sum: sum is slow"), "{words}");
    let run = server.view(&format!("/runs/{}", run_of(&red)));
    assert_eq!(run["findings"][0]["on_change"], true, "{run}");
}

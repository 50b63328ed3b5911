//! What a smaller selection of tests would have missed, observed on a small project with coverage by test, on the real binary and the real tools.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "a test that cannot be made says so")]

mod support;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::{Server, of_type};

const YAML: &str = r#"
version: 1
pipeline:
  jobs:
    unit:
      steps:
        - name: install
          run: |
            [ -e "$HOME/venv" ] || { python3 -m venv "$HOME/venv"; "$HOME/venv/bin/pip" install -q pytest pytest-cov; }
        - name: test
          run: |
            red=0
            "$HOME/venv/bin/python" -m pytest -q --junitxml=unit.xml --cov=shop --cov-context=test || red=1
            "$HOME/venv/bin/coverage" json --show-contexts -q -o cov.json
            exit $red
      reports: { tests: unit.xml, coverage: cov.json }
"#;

#[test]
fn each_change_says_what_its_own_tests_alone_would_have_missed() {
    let there = Command::new("sh")
        .args(["-c", "python3 -m pip download -q --no-deps -d \"$(mktemp -d)\" pytest-cov"])
        .output()
        .is_ok_and(|out| out.status.success());
    if !there {
        println!("SKIPPED: what a selection would have missed (PyPI cannot be reached)");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
        return;
    }
    let (mut server, repo) = Server::with_project(&[
        ("andon.yaml", YAML),
        ("shop/__init__.py", ""),
        ("shop/pay.py", "def refund(sum):\n    return -sum\n"),
        ("shop/cart.py", "def add(cart, what):\n    return cart + [what]\n"),
        ("prices.json", "{}\n"),
        ("tests/__init__.py", ""),
        (
            "tests/test_pay.py",
            "from shop.pay import refund\n\n\ndef test_refund():\n    assert refund(1) == -1\n",
        ),
        (
            "tests/test_cart.py",
            "import pathlib\nfrom shop.cart import add\n\n\ndef test_add():\n    assert add([], 1) == [1]\n    assert 'TODO' not in pathlib.Path('shop/pay.py').read_text()\n",
        ),
    ]);
    server.patience = Duration::from_secs(180);
    let seen = |server: &Server| -> Value {
        of_type(&server.journal(), "impact_seen").last().unwrap()["event"].clone()
    };
    let landed = |change: u32| assert_eq!(server.decided(change)["row"]["standing"], "landed");
    // Given a first landing that says which test ran which file,
    landed(repo.propose("Begin"));
    // When a change touches one file, its own test is all that it can touch.
    repo.follow();
    repo.write("shop/pay.py", "def refund(sum):\n    return 0 - sum\n");
    landed(repo.propose("Refund otherwise"));
    let one = seen(&server);
    assert_eq!((&one["tests"], &one["selected"], &one["misses"]), (&2.into(), &1.into(), &0.into()), "{one}");
    // When a file that no coverage knows is changed, it may touch everything.
    repo.follow();
    repo.write("prices.json", "{ \"tea\": 2 }\n");
    landed(repo.propose("Tea"));
    assert_eq!(seen(&server)["selected"], 2);
    // When a test fails that reads a file in a way that no coverage sees, it is said that it would have been missed; the run was red all the same.
    repo.follow();
    repo.write("shop/pay.py", "def refund(sum):\n    return 0 - sum  # TODO\n");
    let red = repo.propose("Leave a note");
    assert_eq!(server.decided(red)["row"]["standing"], "refused");
    let missed = seen(&server);
    assert_eq!((&missed["failed"], &missed["misses"]), (&1.into(), &1.into()), "{missed}");
    assert!(missed["missed"][0].as_str().unwrap().contains("test_add"), "{missed}");
    // And whoever asks is told not to rely on it.
    let said = server.cli(&["tests", "impact"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("Not to be relied on: it would have missed 1 of 1 red tests"), "{said}");
    let view = server.view("/tests");
    assert_eq!(view["impact"]["rows"].as_array().unwrap().len(), 3, "{view}");
}

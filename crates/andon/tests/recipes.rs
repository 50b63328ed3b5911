//! The recipes of docs/tests.md, with the real runners: what is remembered decides what runs first and in which shard.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "a test that cannot be made says so")]

use std::path::Path;
use std::process::{Command, Output};

/// In a folder with these files and this history, by `sh`, with `andon` on the PATH.
fn run(dir: &Path, script: &str) -> Output {
    let own = Path::new(env!("CARGO_BIN_EXE_andon")).parent().unwrap();
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command
        .args(["-e", "-c", script])
        .current_dir(dir)
        .env("PATH", path)
        .env("ANDON_TESTS", dir.join("history"));
    // What the run of these tests set for itself is not meant for theirs.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("NEXTEST") || name.starts_with("CARGO_"))
    {
        if name != "CARGO_HOME" {
            command.env_remove(name);
        }
    }
    command.output().unwrap()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// `c` failed last, `a` is quick, `b` is slow; none of them is new.
fn history(keys: [&str; 3]) -> String {
    let [a, b, c] = keys;
    format!(
        "[\"{a}\",{{\"q\":0.0,\"s\":0.0,\"ms\":10.0,\"n\":5}}]\n[\"{b}\",{{\"q\":0.0,\"s\":0.0,\"ms\":90000.0,\"n\":5}}]\n[\"{c}\",{{\"q\":0.7,\"s\":0.2,\"ms\":500.0,\"n\":5,\"f\":1,\"r\":1}}]\n"
    )
}

/// Where these stand in a text, in the order in which they stand there.
fn order_in(text: &str, names: &[&str]) -> Vec<String> {
    let mut found: Vec<(usize, &str)> =
        names.iter().filter_map(|name| Some((text.find(name)?, *name))).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name.to_owned()).collect()
}

fn missing(what: &str, how: &str) -> bool {
    let there = Command::new("sh").args(["-c", how]).output().is_ok_and(|out| out.status.success());
    if !there {
        println!("SKIPPED: the recipe for {what} ({what} cannot be had)");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
    }
    !there
}

#[test]
fn pytest_runs_in_the_order_that_is_printed() {
    let test = "def test_it():\n    pass\n";
    let dir = files(&[
        ("tests/test_a.py", test),
        ("tests/test_b.py", test),
        ("tests/test_c.py", test),
        ("history", &history(["tests.test_a.test_it", "tests.test_b.test_it", "tests.test_c.test_it"])),
    ]);
    let room = dir.path().join("venv");
    if missing("pytest", &format!("python3 -m venv {0} && {0}/bin/pip install -q pytest", room.display())) {
        return;
    }
    let out = run(
        dir.path(),
        ". venv/bin/activate; pytest --collect-only -q tests | grep :: | andon tests order > order; pytest -v @order",
    );
    let said = said(&out);
    let names = [
        "tests/test_a.py::test_it PASSED",
        "tests/test_b.py::test_it PASSED",
        "tests/test_c.py::test_it PASSED",
    ];
    assert_eq!(order_in(&said, &names), [names[2], names[0], names[1]], "{said}");
    let out = run(
        dir.path(),
        ". venv/bin/activate; pytest --collect-only -q tests | grep :: | andon tests split --index 0 --total 2 > own; pytest -v @own",
    );
    let shard = self::said(&out);
    assert_eq!(order_in(&shard, &names), [names[1]], "the slow one is a shard of its own: {shard}");
}

#[test]
fn nodes_test_runner_runs_the_fast_lane_and_then_the_rest() {
    if missing("node", "node --version") {
        return;
    }
    let test = |name: &str| format!("require('node:test').test('it is {name}', () => {{}});\n");
    let dir = files(&[
        ("test/a.test.js", &test("a")),
        ("test/b.test.js", &test("b")),
        ("test/c.test.js", &test("c")),
        ("history", &history(["test.a.test.it is a", "test.b.test.it is b", "test.c.test.it is c"])),
    ]);
    let names = ["it is a", "it is b", "it is c"];
    let lane = |which: &str| {
        let script = format!(
            "ls test/*.test.js | andon tests order {which} 60s > lane; node --test --test-reporter=tap $(cat lane)"
        );
        said(&run(dir.path(), &script))
    };
    let (fast, rest) = (lane("--first"), lane("--after"));
    assert_eq!(order_in(&fast, &names), ["it is a", "it is c"], "{fast}");
    assert_eq!(order_in(&rest, &names), ["it is b"], "{rest}");
}

#[test]
fn nextest_runs_the_fast_lane_and_then_the_rest() {
    if missing("cargo-nextest", "cargo nextest --version") {
        return;
    }
    let dir = files(&[
        ("Cargo.toml", "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n"),
        (
            "src/lib.rs",
            "#[cfg(test)]\nmod tests {\n    #[test]\n    fn a() {}\n    #[test]\n    fn b() {}\n    #[test]\n    fn c() {}\n}\n",
        ),
        ("history", &history(["shop.tests.a", "shop.tests.b", "shop.tests.c"])),
    ]);
    let lane = |which: &str| {
        let script = format!(
            "cargo nextest list -T oneline | andon tests order {which} 60s --as nextest > lane; cargo nextest run -E \"$(cat lane)\""
        );
        let out = run(dir.path(), &script);
        (said(&out), out.status.success())
    };
    let (fast, green) = lane("--first");
    assert!(
        green
            && fast.contains("2 tests run: 2 passed")
            && fast.contains("tests::c")
            && !fast.contains("tests::b"),
        "{fast}"
    );
    let (rest, green) = lane("--after");
    assert!(green && rest.contains("1 test run: 1 passed") && rest.contains("tests::b"), "{rest}");
}

//! Tests of comparing two `andon.yaml`, of the stricter limits and of trunk's questions.

use super::*;
use crate::{Plan, read};

const BEFORE: &str = "version: 1
pipeline:
  jobs:
    unit: { run: pytest }
    ask: { stage: late, needs: [unit], approve: { roles: [releaser], why: 'fine?' } }
    publish: { stage: late, needs: [ask], run: ./publish }
validation: { coverage: { lines: 80, ratchet: true }, findings: { errors: 0 } }
environments: { production: { release: careful } }
releases: { careful: { canary: [ { weight: 10, for: 1m } ] } }
cord: { pull_on: [trunk] }
";

fn says(after: &str) -> Vec<(String, bool)> {
    compare(BEFORE, after).into_iter().map(|edit| (edit.says, edit.loosens)).collect()
}

fn one(is: &str, becomes: &str) -> (String, bool) {
    assert!(BEFORE.contains(is), "{is}");
    let said = says(&BEFORE.replacen(is, becomes, 1));
    assert_eq!(said.len(), 1, "{said:?}");
    said[0].clone()
}

#[test]
fn what_takes_a_guard_away_loosens_and_what_adds_one_does_not() {
    for (is, becomes, words, loosens) in [
        (
            "    ask: { stage: late, needs: [unit], approve: { roles: [releaser], why: 'fine?' } }\n",
            "",
            "the job ask is gone",
            true,
        ),
        ("approve: { roles: [releaser], why: 'fine?' }", "run: 'true'", "asks nobody any more", true),
        ("[releaser]", "[developer]", "whom the job ask asks", true),
        ("lines: 80", "lines: 40", "coverage.lines: `80` becomes `40`", true),
        ("lines: 80", "lines: 90", "coverage.lines", false),
        ("ratchet: true", "ratchet: false", "ratchet", true),
        (", ratchet: true", "", "ratchet: `true` becomes nothing", true),
        ("errors: 0", "errors: 3", "findings.errors", true),
        ("errors: 0", "errors: 0, warnings: 5", "findings.warnings", false),
        ("run: pytest", "run: 'true'", "run of the job unit: `pytest` becomes `true`", true),
        ("    unit:", "    lint: { run: ruff }\n    unit:", "the job lint is new", false),
        ("release: careful", "release: all-at-once", "release of the environment production", true),
        ("production: {", "backdoor: {}, production: {", "the environment backdoor is new: `{}`", false),
        (
            "environments: { production: { release: careful } }\n",
            "",
            "the environment production is gone",
            true,
        ),
        ("weight: 10", "weight: 50", "how careful releases", true),
        ("[trunk]", "[]", "when the cord is pulled", true),
        ("cord:", "definition: { approve: none }\ncord:", "who approves andon.yaml", true),
    ] {
        let said = if words.contains("asks nobody") {
            let said = says(&BEFORE.replacen(is, becomes, 1));
            said.into_iter().find(|(says, _)| says.contains(words)).unwrap()
        } else {
            one(is, becomes)
        };
        assert!(said.0.contains(words) && said.1 == loosens, "{is} → {becomes}: {said:?}");
    }
}

#[test]
fn words_and_order_are_told_as_that_and_many_differences_are_cut() {
    let said = says(&format!("# words\n{BEFORE}"));
    assert_eq!(said, [("words or the order of what it says, and nothing else".to_owned(), false)]);
    let many: String = (0..200).map(|n| format!("    j{n}: {{ run: x }}\n")).collect();
    let said = says(&BEFORE.replacen("    unit: { run: pytest }\n", &many, 1));
    assert_eq!(said.len(), MOST + 1);
    assert_eq!(said[0], ("the job unit is gone".to_owned(), true), "what loosens stands first");
    assert!(compare(BEFORE, "a: [").iter().any(|edit| edit.loosens));
}

fn validation(text: &str) -> Validation {
    let file = format!("version: 1\npipeline: {{ jobs: {{ a: {{ run: x }} }} }}\nvalidation: {text}\n");
    read(&file).unwrap_or_else(|problems| panic!("{problems:?}")).validation
}

#[test]
fn of_two_sets_of_limits_the_stricter_holds_one_by_one() {
    let one = validation(
        "{ coverage: { lines: 80, diff: 50, paths: { 'a/**': { lines: 90 } } }, findings: { errors: 3 } }",
    );
    let other = validation("{ coverage: { lines: 40, diff: 90, ratchet: true, carry_at_most: 1h } }");
    for both in [one.stricter(&other), other.stricter(&one)] {
        let coverage = both.coverage.unwrap();
        assert_eq!((coverage.lines, coverage.diff, coverage.ratchet), (Some(80.0), Some(90.0), true));
        assert_eq!(coverage.paths["a/**"].lines, Some(90.0));
        assert_eq!(coverage.carry_at_most, andon_model::Span::secs(3600));
        assert_eq!(both.findings.unwrap().errors, Some(3));
    }
    assert!(Validation::default().stricter(&one).coverage.is_some());
}

fn planned(text: &str) -> Vec<PlannedJob> {
    Plan::of(&read(text).unwrap_or_else(|problems| panic!("{problems:?}"))).jobs(None)
}

fn names(jobs: &[PlannedJob]) -> Vec<String> {
    jobs.iter()
        .map(|job| {
            format!("{}<{}", job.name, job.needs.iter().map(JobName::as_str).collect::<Vec<_>>().join(","))
        })
        .collect()
}

#[test]
fn whom_trunk_asks_is_asked_whatever_the_change_makes_of_it() {
    let trunk = planned(BEFORE);
    let kept = |after: &str| {
        let mut jobs = planned(after);
        keep_asking(&mut jobs, &trunk);
        names(&jobs)
    };
    assert_eq!(kept(BEFORE), ["unit<", "ask<unit", "publish<ask"], "the same question is asked once");
    // Gone: it is there again, and what was behind it is.
    let ask = "    ask: { stage: late, needs: [unit], approve: { roles: [releaser], why: 'fine?' } }\n";
    let gone = BEFORE.replacen(ask, "", 1).replacen("needs: [ask], ", "", 1);
    assert_eq!(kept(&gone), ["unit<", "ask<unit", "publish<ask"]);
    // Its name is taken by something that asks nobody, or others.
    let taken = BEFORE.replacen("approve: { roles: [releaser], why: 'fine?' }", "run: 'true'", 1);
    assert_eq!(kept(&taken), ["unit<", "trunk-ask-1<unit", "ask<unit", "publish<ask,trunk-ask-1"]);
    let others = BEFORE.replacen("[releaser]", "[developer]", 1);
    assert_eq!(kept(&others)[1], "trunk-ask-1<unit");
    // The whole stage is gone.
    let first = gone.replace("stage: late, ", "");
    assert_eq!(kept(&first), ["ask<unit", "unit<", "publish<ask"]);
}

#[test]
fn a_question_of_trunk_never_waits_for_what_waits_for_it() {
    let trunk = planned(BEFORE);
    let ask = "    ask: { stage: late, needs: [unit], approve: { roles: [releaser], why: 'fine?' } }\n";
    // The author turned it round: unit needs publish now, which trunk keeps behind the question.
    let round = BEFORE
        .replacen(ask, "", 1)
        .replacen("unit: { run: pytest }", "unit: { stage: late, needs: [publish], run: pytest }", 1)
        .replacen("needs: [ask], ", "", 1);
    let mut jobs = planned(&round);
    keep_asking(&mut jobs, &trunk);
    let said = names(&jobs);
    assert!(said.contains(&"ask<".to_owned()) && said.contains(&"publish<ask".to_owned()), "{said:?}");
}

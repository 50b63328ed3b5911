//! Checks of what `validation` says: shares are percent, patterns can be read. Judges no report.

use crate::check::{Problem, whole};
use crate::definition::{Definition, Shares};
use crate::planned::globs;

pub(crate) fn problems(definition: &Definition) -> Vec<Problem> {
    let Some(limits) = &definition.validation.coverage else { return Vec::new() };
    let mut problems = Vec::new();
    let own = [
        ("lines", limits.lines),
        ("branches", limits.branches),
        ("functions", limits.functions),
        ("classes_with_tests", limits.classes_with_tests),
        ("per_file", limits.per_file),
        ("diff", limits.diff),
    ];
    let of = |shares: &Shares| {
        [("lines", shares.lines), ("branches", shares.branches), ("functions", shares.functions)]
    };
    let nested = limits.paths.values().chain(limits.layers.values()).flat_map(of);
    for (key, share) in own.into_iter().chain(nested) {
        // Written so that what is no number is refused, too.
        if share.is_some_and(|share| !(0.0..=100.0).contains(&share)) {
            problems.push(whole(
                format!("{} of validation.coverage.{key} is no percentage", share.unwrap_or_default()),
                "write a number from 0 to 100",
            ));
        }
    }
    for (pattern, shares) in &limits.paths {
        if let Err(error) = globs(std::slice::from_ref(pattern)) {
            let what =
                format!("{pattern:?} of validation.coverage.paths is no pattern of paths: {}", error.kind());
            problems.push(whole(what, "write it like `src/**` or `src/core/*.py`"));
        }
        if of(shares).iter().all(|(_, share)| share.is_none()) {
            let what = format!("{pattern:?} of validation.coverage.paths limits nothing");
            problems.push(whole(what, "write it like `\"src/**\": { lines: 90 }`"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use crate::check::read;

    #[test]
    fn limits_that_cannot_be_meant_are_told() {
        let with = |limits: &str| {
            let text = format!(
                "version: 1\npipeline: {{ jobs: {{ unit: {{ run: 'true' }} }} }}\nvalidation: {{ coverage: {limits} }}\n"
            );
            read(&text)
                .map(drop)
                .map_err(|problems| problems.iter().map(|p| p.what.clone()).collect::<Vec<_>>())
        };
        let good = "{ lines: 80, branches: 60, classes_with_tests: 80, paths: { \"src/core/**\": { lines: 90 } }, layers: { unit: { lines: 70 } }, \
            carry_at_most: 3d }";
        assert_eq!(with(good), Ok(()));
        assert!(with("{ diff: 101 }").unwrap_err()[0].contains("validation.coverage.diff is no percentage"));
        assert!(
            with("{ paths: { \"src/[\": { lines: 1 } } }").unwrap_err()[0].contains("no pattern of paths")
        );
        assert!(with("{ paths: { \"src/**\": {} } }").unwrap_err()[0].contains("limits nothing"));
        assert!(with("{ layers: { manual: { lines: 1 } } }").is_err());
    }
}

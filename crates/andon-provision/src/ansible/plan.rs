//! What a check says, as the typed plan that the guard, drift and the readable diff know. A task of which a check can say nothing is
//! unknown: it is never taken for clean.

use std::collections::BTreeMap;

use andon_environment::blueprint::{Action, Attribute, Plan, ResourceChange, SENSITIVE};
use andon_environment::upkeep::HOST;
use andon_model::event::Drift;

use super::stream::{Diff, Outcome, Part, Said, Side, Status, short};

/// Longest side of a difference that is shown, in characters.
const SHOWN: usize = 400;
/// Stands for a line's end inside of a shown difference.
const BREAK: &str = "⏎";

/// What would be done, and what nobody can know.
pub fn of(said: &Said, version: &str) -> Plan {
    let mut changes: Vec<ResourceChange> = said.outcomes.iter().flat_map(changes).collect();
    for (host, sums) in said.sums.iter().flatten() {
        let told = said.outcomes.iter().filter(|one| one.host == *host && one.changed).count();
        let untold = (sums.changed as usize).saturating_sub(told);
        if untold > 0 {
            changes.push(unknown(host.clone(), "", format!("{untold} of its changes were not told")));
        }
    }
    if said.lost > 0 {
        changes.push(unknown(
            "the output".into(),
            "",
            format!("{} of its lines could not be read", said.lost),
        ));
    }
    let applyable = !changes.is_empty();
    Plan { version: version.to_owned(), changes, drift: Vec::new(), outputs: Vec::new(), applyable }
}

/// Reality against code, where this plan was made from the code that is in force.
pub fn drifts(plan: &Plan) -> Vec<Drift> {
    let mut found: BTreeMap<String, Drift> = BTreeMap::new();
    for change in plan.changes.iter().filter(|change| !change.is_unknown()) {
        let mut see = |what: String, before: String, after: String| {
            found.entry(what.clone()).or_insert(Drift { service: None, instance: None, what, before, after });
        };
        if change.attributes.is_empty() {
            see(format!("{HOST}{}", change.address), "as the task says".into(), "other".into());
        }
        for Attribute { path, before, after } in &change.attributes {
            let words = |text: &Option<String>| text.clone().unwrap_or_else(|| "not there".into());
            let what = format!("{HOST}{} {path}", change.address);
            see(what.trim().to_owned(), words(after), words(before));
        }
    }
    found.into_values().collect()
}

/// What the check could say nothing of, in words.
pub fn unknowns(plan: &Plan) -> Vec<String> {
    let found = plan.changes.iter().filter(|change| change.is_unknown());
    found
        .map(|change| match &change.reason {
            Some(reason) => format!("{}: {reason}", change.address),
            None => change.address.clone(),
        })
        .collect()
}

fn unknown(address: String, module: &str, reason: String) -> ResourceChange {
    ResourceChange {
        address,
        kind: kind(module),
        actions: vec![Action::Unknown("not checked".into())],
        reason: Some(reason),
        replaced_by: Vec::new(),
        deposed: false,
        attributes: Vec::new(),
    }
}

fn kind(module: &str) -> String {
    module.rsplit('.').next().unwrap_or_default().to_owned()
}

fn changes(outcome: &Outcome) -> Vec<ResourceChange> {
    let address = format!("{}: {}", outcome.host, outcome.task);
    let mut all = Vec::new();
    if let Some(reason) = why_unknown(outcome) {
        all.push(unknown(address.clone(), &outcome.module, reason));
    }
    if outcome.changed && !outcome.really {
        let parts: Vec<&Part> = outcome.parts.iter().filter(|part| part.changed).collect();
        let hidden = outcome.hidden || parts.iter().any(|part| part.hidden);
        let mut attributes: Vec<Attribute> = parts
            .iter()
            .filter(|part| !part.hidden)
            .flat_map(|part| &part.diffs)
            .flat_map(attributes)
            .collect();
        if hidden {
            let (before, after) = (Some(SENSITIVE.to_owned()), Some(SENSITIVE.to_owned()));
            attributes.push(Attribute { path: String::new(), before, after });
        }
        let diffs = || parts.iter().flat_map(|part| &part.diffs);
        let action = match () {
            () if diffs().any(|diff| state(&diff.after) == Some("absent")) => Action::Delete,
            () if diffs().any(|diff| state(&diff.before) == Some("absent")) => Action::Create,
            () => Action::Update,
        };
        all.push(ResourceChange {
            address,
            kind: kind(&outcome.module),
            actions: vec![action],
            reason: None,
            replaced_by: Vec::new(),
            deposed: false,
            attributes,
        });
    }
    all
}

/// Why a check says nothing of this task; none: it says how things are.
fn why_unknown(outcome: &Outcome) -> Option<String> {
    // A part that was skipped for no reason of its own was skipped because it cannot be checked.
    let left_out =
        |part: &Part| (part.skipped || outcome.status == Status::Skipped) && part.reason.is_empty();
    match outcome.status {
        Status::Unreachable => Some(format!("the host cannot be reached: {}", outcome.message)),
        Status::Failed if outcome.hidden => Some("it fails when it is only checked".into()),
        Status::Failed => Some(format!(
            "it fails when it is only checked, and nothing after it was looked at: {}",
            outcome.message
        )),
        Status::Ignored => Some("it fails when it is only checked".into()),
        _ if outcome.really => Some("it is done even when it is only checked".into()),
        Status::Skipped if outcome.asks_for_check => Some("it is left out when it is only checked".into()),
        _ if outcome.more > 0 => Some(format!("{} of its items were not told", outcome.more)),
        _ if outcome.parts.iter().any(left_out) => Some("it cannot be checked".into()),
        Status::Skipped if outcome.parts.is_empty() => Some("it cannot be checked".into()),
        Status::Ok | Status::Skipped => None,
    }
}

fn state(side: &Option<Side>) -> Option<&str> {
    match side {
        Some(Side::Table(table)) => table.get("state")?.as_deref(),
        _ => None,
    }
}

fn attributes(diff: &Diff) -> Vec<Attribute> {
    let path = short(&diff.path);
    let empty = BTreeMap::new();
    match (&diff.before, &diff.after) {
        (Some(Side::Table(before)), Some(Side::Table(after))) => of_tables(&path, before, after),
        (Some(Side::Table(before)), None) => of_tables(&path, before, &empty),
        (None, Some(Side::Table(after))) => of_tables(&path, &empty, after),
        (None, None) if diff.prepared.is_empty() => Vec::new(),
        (None, None) => vec![Attribute { path, before: None, after: Some(shown(diff.prepared.lines())) }],
        (before, after) if before == after => Vec::new(),
        (before, after) => {
            let text = |side: &Option<Side>| match side {
                Some(Side::Text(text)) => text.clone(),
                Some(Side::Table(table)) => format!("{table:?}"),
                None => String::new(),
            };
            let (before, after) = differing(&text(before), &text(after));
            vec![Attribute { path, before: Some(before), after: Some(after) }]
        }
    }
}

fn of_tables(
    path: &str,
    before: &BTreeMap<String, Option<String>>,
    after: &BTreeMap<String, Option<String>>,
) -> Vec<Attribute> {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ = keys.into_iter().filter(|key| *key != "path" && before.get(*key) != after.get(*key));
    let value = |side: &BTreeMap<String, Option<String>>, key: &String| {
        side.get(key).cloned().flatten().map(|text| shown(text.lines()))
    };
    let one = |key: &String| Attribute {
        path: format!("{path} {}", short(key)).trim().to_owned(),
        before: value(before, key),
        after: value(after, key),
    };
    differ.map(one).collect()
}

/// The lines in which two texts differ, without what both begin and end with.
fn differing(before: &str, after: &str) -> (String, String) {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
    if a.is_empty() && b.is_empty() {
        return ("other line ends".into(), "line ends as the task says".into());
    }
    (shown(a.iter().copied()), shown(b.iter().copied()))
}

fn shown<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let text = lines.map(short).collect::<Vec<_>>().join(BREAK);
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A check by ansible-core 2.14.18 of two hosts on which somebody worked by hand.
    const CHECK: &str = include_str!("recorded/check.jsonl");

    fn plan(text: &str) -> Plan {
        of(&Said::of(text.as_bytes()).unwrap(), "ansible 2.14.18")
    }

    fn drift(plan: &Plan, what: &str) -> (String, String) {
        let found = drifts(plan).into_iter().find(|drift| drift.what == what);
        let found = found.unwrap_or_else(|| panic!("{what} is not in {:?}", drifts(plan)));
        (found.before, found.after)
    }

    #[test]
    fn what_was_changed_by_hand_is_told_by_host_task_and_path_with_both_sides() {
        let plan = plan(CHECK);
        let page = drift(&plan, "host web1: Write the page /srv/web1/page");
        assert_eq!(page, ("hello one {{ 1+1 }}⏎second".into(), "tampered".into()));
        assert_eq!(drift(&plan, "host web2: A folder /srv/web2 mode"), ("0755".into(), "0777".into()));
        assert_eq!(drift(&plan, "host web1: Old /srv/old state"), ("absent".into(), "file".into()));
        assert!(drifts(&plan).iter().any(|drift| drift.what.starts_with("host web2: A guarded command")));
    }

    #[test]
    fn what_no_log_hides_is_drift_without_its_values() {
        let hidden = drift(&plan(CHECK), "host web1: Write the password");
        assert_eq!(hidden, (SENSITIVE.into(), SENSITIVE.into()));
        assert!(!CHECK.contains("s3cret"));
    }

    #[test]
    fn a_task_that_is_not_safe_to_check_is_unknown_and_a_condition_that_is_false_is_not() {
        let unknown = unknowns(&plan(CHECK));
        for task in ["A command", "Not in check", "Really"] {
            assert_eq!(unknown.iter().filter(|what| what.contains(task)).count(), 2, "{task}: {unknown:?}");
        }
        assert_eq!(unknown.len(), 6, "{unknown:?}");
    }

    #[test]
    fn what_a_task_would_remove_is_an_end_and_what_is_unknown_is_guarded_as_one() {
        let plan = plan(CHECK);
        let old = plan.changes.iter().find(|change| change.address == "web1: Old").unwrap();
        assert_eq!(old.actions, [Action::Delete]);
        assert!(plan.changes.iter().filter(|change| change.is_unknown()).all(ResourceChange::ends));
        assert_eq!(plan.counts().unknown, 6);
    }

    #[test]
    fn a_change_that_only_the_sums_tell_of_is_unknown() {
        let cut: Vec<&str> = CHECK.lines().filter(|line| !line.contains("\"task\": \"Old\"")).collect();
        let unknown = unknowns(&plan(&cut.join("\n")));
        assert!(unknown.iter().any(|what| what == "web1: 1 of its changes were not told"), "{unknown:?}");
    }

    #[test]
    fn a_host_that_fails_or_is_not_reached_is_unknown_and_blind() {
        for (status, sum) in [("failed", "failures"), ("unreachable", "unreachable")] {
            let text = format!(
                "{{\"andon\":1,\"kind\":\"result\",\"host\":\"web1\",\"task\":\"A\",\"status\":\"{status}\",\"message\":\"no\"}}\n{{\"andon\":1,\"kind\":\"stats\",\"hosts\":{{\"web1\":{{\"{sum}\":1}}}}}}\n"
            );
            let said = Said::of(text.as_bytes()).unwrap();
            assert!(!said.is_whole() && said.blind().contains("web1"));
            assert_eq!(unknowns(&of(&said, "")).len(), 1);
            assert_eq!(said.errors.len(), 1);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_counted_and_never_taken_for_good() {
        let long = format!("{{\"andon\":1,\"kind\":\"task\",\"name\":\"{}\"}}\n", "x".repeat(9 << 20));
        let said = Said::of((long + CHECK).as_bytes()).unwrap();
        assert_eq!((said.lost, said.blind().len()), (1, 2));
        assert!(unknowns(&of(&said, "")).iter().any(|what| what.contains("could not be read")));
    }

    #[test]
    fn another_form_is_refused_and_plain_errors_are_kept() {
        assert!(Said::of(&b"{\"andon\":2,\"kind\":\"play\"}\n"[..]).is_err());
        let said = Said::of(&b"ERROR! the role 'x' was not found\nin /a\n"[..]).unwrap();
        assert_eq!((said.errors, said.sums), (vec!["the role 'x' was not found in /a".to_owned()], None));
    }

    proptest! {
        #[test]
        fn a_damaged_stream_makes_no_panic_and_no_control_characters(text in "\\PC{0,40}|[\\x00-\\x7f]{0,100}", at in 0usize..9000) {
            let damaged: String = CHECK.chars().take(at).chain(text.chars()).chain(CHECK.chars().skip(at + 3)).collect();
            if let Ok(said) = Said::of(damaged.as_bytes()) {
                let plan = of(&said, "");
                let texts = drifts(&plan).into_iter().flat_map(|drift| [drift.what, drift.before, drift.after]);
                prop_assert!(!texts.chain(unknowns(&plan)).any(|text| text.chars().any(char::is_control)));
            }
        }
    }
}

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
        changes.push(unknown("the output".into(), "", format!("{} of its lines could not be read", said.lost)));
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
        let mut attributes: Vec<Attribute> =
            parts.iter().filter(|part| !part.hidden).flat_map(|part| &part.diffs).flat_map(attributes).collect();
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
    let left_out = |part: &Part| (part.skipped || outcome.status == Status::Skipped) && part.reason.is_empty();
    match outcome.status {
        Status::Unreachable => Some(format!("the host cannot be reached: {}", outcome.message)),
        Status::Failed if outcome.hidden => Some("it fails when it is only checked".into()),
        Status::Failed => {
            Some(format!("it fails when it is only checked, and nothing after it was looked at: {}", outcome.message))
        }
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

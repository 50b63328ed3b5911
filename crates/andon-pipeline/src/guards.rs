//! Two `andon.yaml` held against each other: what a change makes of what guards trunk and users, the stricter of two sets of limits, and
//! the people whom trunk asks whatever the change says. Who may approve the difference is no business of this file.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::JobName;
use andon_model::event::{DefinitionEdit, PlannedJob};
use serde_json::Value;

use crate::definition::{CoverageLimits, FindingLimits, FindingsOn, PerformanceLimits, Shares, Validation};

/// Differences that are told one by one.
const MOST: usize = 60;
/// Characters of a value that are told.
const SHOWN: usize = 60;
/// Limits of which more is stricter.
const LEAST: [&str; 7] =
    ["lines", "branches", "functions", "classes_with_tests", "per_file", "diff", "ratchet"];

/// What the second file makes of the first: what loosens it first. Texts that cannot be read are not compared.
pub fn compare(before: &str, after: &str) -> Vec<DefinitionEdit> {
    let read = |text| serde_saphyr::from_str::<Value>(text).ok();
    let (Some(before), Some(after)) = (read(before), read(after)) else {
        return vec![edit("the whole file: it cannot be compared", true)];
    };
    let mut edits = Vec::new();
    walk(&mut Vec::new(), Some(&before), Some(&after), &mut edits);
    if edits.is_empty() {
        edits.push(edit("words or the order of what it says, and nothing else", false));
    }
    edits.sort_by_key(|edit| !edit.loosens);
    let more = edits.len().saturating_sub(MOST);
    let loosens = edits.iter().skip(MOST).any(|edit| edit.loosens);
    edits.truncate(MOST);
    if more > 0 {
        edits.push(edit(format!("{more} more differences"), loosens));
    }
    edits
}

fn edit(says: impl Into<String>, loosens: bool) -> DefinitionEdit {
    DefinitionEdit { says: says.into(), loosens }
}

/// How far one goes into the file before a difference is told as a whole.
fn is_told_here(path: &[&str]) -> bool {
    match path {
        ["pipeline", "jobs" | "templates", _, ..] => path.len() >= 4,
        ["services" | "environments" | "databases" | "releases", ..] => path.len() >= 3,
        _ => false,
    }
}

fn walk<'a>(
    path: &mut Vec<&'a str>,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
    edits: &mut Vec<DefinitionEdit>,
) {
    if before == after {
        return;
    }
    let empty = serde_json::Map::new();
    let parts = |value: Option<&'a Value>| value.and_then(Value::as_object);
    let named = matches!(path[..], ["pipeline", "jobs" | "templates", _] | ["environments", _]);
    // What has no parts is a difference by being there: `{}`.
    let bare = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
    let whole =
        named && (before.is_none() || after.is_none()) || (bare(before) && bare(after)) || is_told_here(path);
    match (parts(before), parts(after)) {
        (None, None) => edits.push(tell(path, before, after)),
        _ if whole => edits.push(tell(path, before, after)),
        (one, other) => {
            let (one, other) = (one.unwrap_or(&empty), other.unwrap_or(&empty));
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                // Keys live as long as their maps, which the empty one does not: it has none.
                let of =
                    |value: Option<&'a Value>| parts(value).and_then(|map| map.get_key_value(key.as_str()));
                let (was, is) = (of(before), of(after));
                let Some((name, _)) = was.or(is) else { continue };
                path.push(name);
                walk(path, was.map(|(_, value)| value), is.map(|(_, value)| value), edits);
                path.pop();
            }
        }
    }
}

fn tell(path: &[&str], before: Option<&Value>, after: Option<&Value>) -> DefinitionEdit {
    let becomes = || format!("{} becomes {}", shown(before), shown(after));
    match path {
        ["pipeline", "jobs", job] => match after {
            None => edit(format!("the job {job} is gone"), true),
            Some(_) => edit(format!("the job {job} is new"), false),
        },
        ["pipeline", "jobs", job, "approve"] => match (before, after) {
            (None, _) => edit(format!("the job {job} asks people: {}", shown(after)), false),
            (_, None) => edit(format!("the job {job} asks nobody any more: {} is gone", shown(before)), true),
            _ => edit(format!("whom the job {job} asks: {}", becomes()), true),
        },
        ["pipeline", "jobs", job, key] => edit(format!("{key} of the job {job}: {}", becomes()), true),
        ["validation", .., name] => {
            let at_most = matches!(*name, "errors" | "warnings" | "worse_by" | "carry_at_most");
            let number = |value: Option<&Value>| match value {
                Some(Value::Bool(yes)) => Some(f64::from(u8::from(*yes))),
                Some(Value::Number(number)) => number.as_f64(),
                _ => None,
            };
            let loosens = match (before, after, number(before), number(after)) {
                // A limit that is new, except on the age of what is carried, which has one by itself.
                (None, ..) => *name == "carry_at_most",
                (_, _, Some(was), Some(is)) if LEAST.contains(name) => is < was,
                (_, _, Some(was), Some(is)) if at_most => is > was,
                _ => true,
            };
            edit(format!("the limit {}: {}", path[1..].join("."), becomes()), loosens)
        }
        ["cord", ..] => edit(format!("when the cord is pulled, {}: {}", path.join("."), becomes()), true),
        ["definition", ..] => {
            edit(format!("who approves andon.yaml, {}: {}", path.join("."), becomes()), true)
        }
        ["environments", name, key] => {
            edit(format!("{key} of the environment {name}: {}", becomes()), before.is_some())
        }
        ["environments", name] if after.is_none() => edit(format!("the environment {name} is gone"), true),
        ["environments", name] if before.is_none() => {
            edit(format!("the environment {name} is new: {}", shown(after)), false)
        }
        ["environments", name] => edit(format!("the environment {name}: {}", becomes()), before.is_some()),
        ["releases", name, ..] => edit(format!("how {name} releases: {}", becomes()), before.is_some()),
        _ => edit(format!("{}: {}", path.join("."), becomes()), false),
    }
}

/// A value in a few characters.
fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".into() };
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let plain: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match plain.chars().count() > SHOWN {
        true => format!("`{}…`", plain.chars().take(SHOWN).collect::<String>()),
        false => format!("`{plain}`"),
    }
}

impl Validation {
    /// Limits that keep both.
    pub fn stricter(&self, other: &Validation) -> Validation {
        let both = |one: Option<PerformanceLimits>, other: Option<PerformanceLimits>| match (one, other) {
            (Some(one), Some(other)) => {
                Some(if one.worse_by.fraction() <= other.worse_by.fraction() { one } else { other })
            }
            (one, other) => one.or(other),
        };
        Validation {
            coverage: match (&self.coverage, &other.coverage) {
                (Some(one), Some(other)) => Some(one.stricter(other)),
                (one, other) => one.clone().or_else(|| other.clone()),
            },
            findings: match (self.findings, other.findings) {
                (Some(one), Some(other)) => Some(FindingLimits {
                    errors: least(one.errors, other.errors),
                    warnings: least(one.warnings, other.warnings),
                    on: if one.on == FindingsOn::All { one.on } else { other.on },
                }),
                (one, other) => one.or(other),
            },
            performance: both(self.performance, other.performance),
        }
    }
}

impl CoverageLimits {
    fn stricter(&self, other: &CoverageLimits) -> CoverageLimits {
        let mut made = CoverageLimits {
            lines: most(self.lines, other.lines),
            branches: most(self.branches, other.branches),
            functions: most(self.functions, other.functions),
            classes_with_tests: most(self.classes_with_tests, other.classes_with_tests),
            per_file: most(self.per_file, other.per_file),
            diff: most(self.diff, other.diff),
            ratchet: self.ratchet || other.ratchet,
            paths: self.paths.clone(),
            layers: self.layers.clone(),
            carry_at_most: self.carry_at_most.min(other.carry_at_most),
        };
        for (path, shares) in &other.paths {
            let own = made.paths.entry(path.clone()).or_default();
            *own = own.stricter(*shares);
        }
        for (layer, shares) in &other.layers {
            let own = made.layers.entry(*layer).or_default();
            *own = own.stricter(*shares);
        }
        made
    }
}

impl Shares {
    fn stricter(self, other: Shares) -> Shares {
        Shares {
            lines: most(self.lines, other.lines),
            branches: most(self.branches, other.branches),
            functions: most(self.functions, other.functions),
        }
    }
}

/// The higher of two limits, or the only one.
fn most(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

/// The lower of two limits, or the only one.
fn least(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Puts every question that trunk's jobs ask people into a run whose own file does not ask it the same way. What trunk keeps behind the
/// question stays behind it.
pub fn keep_asking(jobs: &mut Vec<PlannedJob>, trunk: &[PlannedJob]) {
    for ask in trunk.iter().filter(|job| job.approve.is_some()) {
        if jobs.iter().any(|own| own.name == ask.name && own.approve == ask.approve) {
            continue;
        }
        let behind: BTreeSet<JobName> =
            trunk.iter().filter(|job| job.needs.contains(&ask.name)).map(|job| job.name.clone()).collect();
        let places = stages(jobs);
        // Its stage may be gone: then it stands where the first of those behind it does.
        let first = jobs.iter().position(|job| behind.contains(&job.name));
        let stage = match (places.contains_key(ask.stage.as_str()), first.map(|at| jobs[at].stage.clone())) {
            (false, Some(stage)) => stage,
            _ => ask.stage.clone(),
        };
        let at = match jobs.iter().position(|job| job.stage == stage) {
            Some(first) => first,
            None => jobs.len(),
        };
        let place = places.get(stage.as_str()).copied().unwrap_or(places.len());
        let Some(name) = free_name(jobs, &ask.name) else { continue };
        let waits_for_it =
            |job: &PlannedJob| behind.contains(&job.name) && places.get(job.stage.as_str()) >= Some(&place);
        let waiting: BTreeSet<JobName> =
            jobs.iter().filter(|job| waits_for_it(job)).map(|job| job.name.clone()).collect();
        let needs = ask.needs.iter().filter(|need| {
            let known = jobs.iter().find(|job| job.name == **need);
            known.is_some_and(|job| places.get(job.stage.as_str()) <= Some(&place))
                && !reaches(jobs, need, &waiting)
        });
        let needs = needs.cloned().collect();
        for job in jobs.iter_mut().filter(|job| waiting.contains(&job.name)) {
            job.needs.push(name.clone());
        }
        jobs.insert(at, PlannedJob { name, needs, stage, not_needed: None, ..ask.clone() });
    }
}

/// Stages in the order of their first mention.
fn stages(jobs: &[PlannedJob]) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for job in jobs {
        let next = places.len();
        places.entry(job.stage.clone()).or_insert(next);
    }
    places
}

/// The name, or one like it where a job of the change took it.
fn free_name(jobs: &[PlannedJob], name: &JobName) -> Option<JobName> {
    let taken = |name: &JobName| jobs.iter().any(|job| job.name == *name);
    let others = (1..100)
        .filter_map(|n| format!("trunk-{}-{n}", &name.as_str()[..name.as_str().len().min(30)]).parse().ok());
    std::iter::once(name.clone()).chain(others).find(|name| !taken(name))
}

/// Whether a job is one of these or needs one of them, directly or not.
fn reaches(jobs: &[PlannedJob], from: &JobName, these: &BTreeSet<JobName>) -> bool {
    let (mut due, mut seen) = (vec![from], BTreeSet::new());
    while let Some(name) = due.pop() {
        if these.contains(name) {
            return true;
        }
        if seen.insert(name) {
            due.extend(jobs.iter().filter(|job| job.name == *name).flat_map(|job| &job.needs));
        }
    }
    false
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;

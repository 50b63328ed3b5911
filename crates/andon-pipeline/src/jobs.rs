//! What can be wrong with jobs that each for itself is well written: needs, paths, groups, conditions. Points at it; mends nothing.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::{GroupName, JobName, LabelName, Span};
use serde_saphyr::Location;

use crate::Definition;
use crate::check::{Problem, at, inside, unknown, whole};
use crate::definition::{ENVIRONMENT_STAGE, Job};
use crate::planned::globs;
use crate::steps;

/// The most times that something is run again.
const RETRIES: u32 = 20;
/// The most labels that a job may ask for.
const LABELS: usize = 10;

/// The most that one token is for.
const AUDIENCES: usize = 10;

/// Everything that is wrong with the jobs.
pub(crate) fn problems(definition: &Definition) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, job) in &definition.pipeline.jobs {
        // A job that asks people runs nothing.
        if job.approve.is_none() {
            problems.extend(steps::problems(name, job));
        }
        problems.extend(needs(definition, name, job));
        problems.extend(paths(name, job));
        problems.extend(words(name, job));
    }
    let with_artifact: Vec<&JobName> =
        definition.gate_jobs().filter(|(_, j)| j.artifact.is_some()).map(|(name, _)| name).collect();
    if let [first, second, ..] = with_artifact[..] {
        let what = format!("{first} and {second} both make an artifact");
        problems.push(whole(
            what,
            "a change becomes one artifact: put everything that is deployed into one folder",
        ));
    }
    problems.extend(cycles(definition));
    // What is wrong with a job is wrong with all that its matrix makes of it: said once.
    let mut seen = BTreeSet::new();
    problems.retain(|problem| problem.line == 0 || seen.insert((problem.line, problem.column)));
    problems
}

fn needs(definition: &Definition, name: &JobName, job: &Job) -> Vec<Problem> {
    let mut problems = Vec::new();
    let jobs = &definition.pipeline.jobs;
    let environment = |job: &Job| job.stage.as_str() == ENVIRONMENT_STAGE;
    for need in &job.needs {
        match jobs.get(&need.value) {
            None => problems.push(unknown("job", &need.value, need.referenced, jobs.keys())),
            Some(other) if environment(other) != environment(job) => problems.push(at(
                need.referenced,
                format!("{name} needs {}, which is not run at the same time", need.value),
                "jobs of the stage `environment` run after a deployment",
            )),
            Some(_) => {}
        }
    }
    for take in &job.takes {
        if jobs.get(&take.value).is_some_and(|other| other.outputs.is_empty()) {
            let hint =
                format!("write `outputs: [dist/]` at {}, or `needs: [{}]` here", take.value, take.value);
            problems.push(at(
                take.referenced,
                format!("{name} takes from {}, which hands nothing on", take.value),
                hint,
            ));
        }
    }
    let only_gate: [(bool, &str); 8] = [
        (job.approve.is_some(), "approve"),
        (job.when.is_some(), "when"),
        (job.group.is_some(), "group"),
        (!job.reads.is_empty(), "reads"),
        (!job.outputs.is_empty(), "outputs"),
        (!job.takes.is_empty(), "takes"),
        (job.cache.is_some(), "cache"),
        (!job.runs_on.is_empty(), "runs_on"),
    ];
    if environment(job)
        && let Some((_, key)) = only_gate.iter().find(|(said, _)| *said)
    {
        problems.push(whole(
            format!("{name} tests an environment and says `{key}`"),
            "that is for jobs that gate a change: take it out, or give the job another stage",
        ));
    }
    problems
}

fn paths(name: &JobName, job: &Job) -> Vec<Problem> {
    let mut problems = Vec::new();
    let cache = job.cache.iter().flat_map(|cache| cache.key.iter().chain(&cache.paths));
    let written = job.reports.all().chain(job.artifact.as_deref());
    for path in written.chain(job.outputs.iter().map(String::as_str)).chain(cache.map(String::as_str)) {
        if !inside(path) {
            problems.push(whole(
                format!("{path:?} of job {name} leads out of the working copy"),
                "give a path relative to the repository, without `..`",
            ));
        }
    }
    let when = job.when.iter().flat_map(|when| when.paths.iter().chain(&when.not_paths));
    let keys = job.cache.iter().flat_map(|cache| cache.key.iter());
    for pattern in when.chain(&job.reads).chain(keys).chain(&job.outputs) {
        if let Err(error) = globs(std::slice::from_ref(pattern)) {
            problems.push(whole(
                format!("{pattern:?} of job {name} is no pattern of paths: {}", error.kind()),
                "write it like `src/**`, `*.lock` or `docs/`",
            ));
        }
    }
    if job.when.as_ref().is_some_and(|when| when.paths.is_empty() && when.not_paths.is_empty()) {
        problems.push(whole(
            format!("`when` of job {name} says nothing"),
            "write when: { paths: [\"src/**\"] }, or take it out",
        ));
    }
    if job.cache.as_ref().is_some_and(|cache| cache.paths.is_empty() || cache.key.is_empty()) {
        problems.push(whole(
            format!("the cache of job {name} has no key or no paths"),
            "write cache: { key: [Cargo.lock], paths: [target/] }",
        ));
    }
    problems
}

fn words(name: &JobName, job: &Job) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut bad = |what: String, hint: &str| problems.push(whole(what, hint));
    match &job.approve {
        Some(_) if !job.all_steps().is_empty() || job.artifact.is_some() || !job.outputs.is_empty() => {
            bad(
                format!("job {name} asks a person and runs something"),
                "make two jobs of it: the second `needs` the first",
            );
        }
        Some(approve) if approve.why.trim().is_empty() || approve.why.chars().any(char::is_control) => {
            bad(
                format!("`approve` of job {name} does not say what is asked"),
                "write why: \"…\" in a few words",
            );
        }
        Some(approve) if approve.within < Span::secs(1) => {
            bad(format!("`approve` of job {name} gives nobody time"), "write within: 24h");
        }
        _ => {}
    }
    for (service, beside) in &job.services {
        if beside.run.trim().is_empty() || beside.port == Some(0) || beside.within < Span::secs(1) {
            bad(
                format!("the service {service} of job {name} cannot be meant"),
                "write services: { db: { run: ./db, port: 5432, within: 30s } }",
            );
        }
    }
    if job.approve.is_some() && !job.services.is_empty() {
        bad(format!("job {name} asks a person and has services"), "take them out: nothing runs there");
    }
    if let Some(identity) = &job.identity {
        let plain =
            |one: &String| !one.is_empty() && one.len() <= 200 && one.chars().all(|c| c.is_ascii_graphic());
        if !(1..=AUDIENCES).contains(&identity.audience.len()) || !identity.audience.iter().all(plain) {
            bad(
                format!("`identity` of job {name} does not say for whom"),
                "write identity: { audience: [sts.example] }, with one to ten names",
            );
        }
    }
    if let Some(group) = &job.group
        && let Err(error) = group.parse::<GroupName>()
    {
        bad(format!("group of job {name}: {error}"), "write it like group: deploy-db");
    }
    if let Some(image) = &job.image {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        if !image.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !image.chars().all(plain)
            || image.len() > 255
        {
            bad(format!("{image:?} of job {name} is no image"), "write it like image: python:3.12-slim");
        }
        if job.docker {
            bad(
                format!("job {name} has an image and reaches the container engine"),
                "take one of `image` and `docker` out: a container gets no engine",
            );
        }
        if job.approve.is_some() {
            bad(format!("job {name} asks a person and has an image"), "take it out: nothing runs there");
        }
    }
    for label in &job.runs_on {
        if let Err(error) = label.parse::<LabelName>() {
            bad(format!("runs_on of job {name}: {error}"), "write it like runs_on: [gpu, arm64]");
        }
    }
    if job.runs_on.len() > LABELS {
        bad(
            format!("job {name} asks for more than {LABELS} labels"),
            "give that machine one label for all of them",
        );
    }
    if job.approve.is_some() && !job.runs_on.is_empty() {
        bad(format!("job {name} asks a person and says `runs_on`"), "take it out: nothing runs there");
    }
    if job.retries.is_some_and(|retries| retries.red > RETRIES || retries.broken > RETRIES) {
        bad(
            format!("job {name} is retried more than {RETRIES} times"),
            "a job that needs that is broken: mend it",
        );
    }
    if job.timeout.is_some_and(|timeout| timeout < Span::secs(1)) {
        bad(format!("timeout of job {name} is too short for anything"), "write 1s or more, or leave it out");
    }
    let variable = |name: &String| {
        !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    if let Some(key) = job.env.keys().find(|key| !variable(key)) {
        bad(format!("{key:?} of job {name} is no environment variable"), "use letters, digits and `_`");
    }
    problems
}

fn cycles(definition: &Definition) -> Vec<Problem> {
    // Jobs are taken away as long as one needs nothing that is left; what remains waits for itself.
    let jobs = &definition.pipeline.jobs;
    let mut open: BTreeMap<&JobName, usize> = BTreeMap::new();
    let mut waiting: BTreeMap<&JobName, Vec<&JobName>> = BTreeMap::new();
    for (name, job) in jobs {
        let needs: BTreeSet<&JobName> =
            job.needs.iter().map(|need| &need.value).filter(|need| jobs.contains_key(*need)).collect();
        open.insert(name, needs.len());
        needs.into_iter().for_each(|need| waiting.entry(need).or_default().push(name));
    }
    let mut free: Vec<&JobName> = open.iter().filter(|(_, n)| **n == 0).map(|(name, _)| *name).collect();
    while let Some(name) = free.pop() {
        open.remove(name);
        for other in waiting.remove(name).unwrap_or_default() {
            if let Some(left) = open.get_mut(other) {
                *left -= 1;
                if *left == 0 {
                    free.push(other);
                }
            }
        }
    }
    let Some((name, job)) = open.keys().next().and_then(|name| jobs.get_key_value(*name)) else {
        return Vec::new();
    };
    let place = job.needs.first().map_or(Location::UNKNOWN, |need| need.referenced);
    vec![at(
        place,
        format!("{name} waits for itself through `needs`"),
        "take one of the `needs` of the circle out",
    )]
}

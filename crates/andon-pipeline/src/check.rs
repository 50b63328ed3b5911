//! Reading `andon.yaml` and saying what is wrong with it: line, column, what, and how to mend it. Touches no file.

use std::collections::BTreeSet;
use std::fmt;

use andon_model::RuntimeKind;
use serde::Serialize;
use serde_saphyr::{Location, Spanned};

use crate::definition::{Definition, ENVIRONMENT_STAGE};
use crate::expand::expand;
use crate::{jobs, rules};

/// The largest file that is read, in bytes. A hand-written one is a hundredth of it.
pub const LARGEST: usize = 256 * 1024;

/// A mistake in the file, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line, from 1; 0 when the whole file is meant.
    pub line: u64,
    /// Column, from 1; 0 when the whole line is meant.
    pub column: u64,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "andon.yaml:{}:{}: {}\nhint: {}", self.line, self.column, self.what, self.hint)
    }
}

/// The definition in this text with its jobs [expanded](crate::expand), or everything that is wrong with it.
pub fn read(text: &str) -> Result<Definition, Vec<Problem>> {
    if text.len() > LARGEST {
        let what = format!("the file has {} bytes, more than the {LARGEST} that are read", text.len());
        return Err(vec![whole(
            what,
            "move long scripts into files of the repository and call them from `run`",
        )]);
    }
    let mut definition: Definition = serde_saphyr::from_str(text).map_err(|error| vec![syntax(&error)])?;
    let mut problems = expand(&mut definition);
    if problems.is_empty() {
        problems = meaning(&definition);
    }
    if problems.is_empty() { Ok(definition) } else { Err(problems) }
}

/// The JSON Schema that editors use, as JSON.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Definition).to_value();
    schema["title"] = "andon.yaml".into();
    schema
}

fn syntax(error: &serde_saphyr::Error) -> Problem {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let text = error.without_snippet().to_string();
    let what = text.lines().next().unwrap_or("the file cannot be read");
    // The place is told apart already.
    let what = what.split(&format!(" at line {line},")).next().unwrap_or(what).to_owned();
    let hint = if what.contains("unknown field") {
        "take the key out or correct it; `andon schema` prints all keys"
    } else if what.contains("budget") || what.contains("limit") {
        "the file repeats itself by aliases beyond what is read: write it out"
    } else if what.contains("missing field") {
        "add the key; `andon init` writes an example and `andon schema` prints all keys"
    } else {
        "compare with the example that `andon init` writes; `andon schema` prints all keys"
    };
    Problem { line, column, what, hint: hint.to_owned() }
}

pub(crate) fn whole(what: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { line: 0, column: 0, what: what.into(), hint: hint.into() }
}

pub(crate) fn at(place: Location, what: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { line: place.line(), column: place.column(), what: what.into(), hint: hint.into() }
}

fn meaning(definition: &Definition) -> Vec<Problem> {
    let mut problems = Vec::new();
    if definition.version != 1 {
        let what = format!("version {} is not known", definition.version);
        problems.push(whole(what, "write `version: 1`"));
    }
    if definition.gate_jobs().next().is_none() {
        problems.push(whole("no job gates a change", "add a job under pipeline.jobs that runs the tests"));
    }
    problems.extend(jobs::problems(definition));
    problems.extend(services(definition));
    problems.extend(environments(definition));
    problems.extend(rules::problems(definition));
    problems.extend(crate::limits::problems(definition));
    problems
}

/// Whether a path stays inside the folder it is taken relative to.
pub(crate) fn inside(path: &str) -> bool {
    use std::path::{Component, Path};
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && path.components().next().is_some()
}

fn services(definition: &Definition) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, database) in &definition.databases {
        for path in database.migrations.iter().chain(&database.mask).filter(|path| !inside(path)) {
            let what = format!("{path:?} of database {name} leads out of the repository");
            problems.push(whole(what, "give a path relative to the repository, without `..`"));
        }
    }
    // An image brings its own command.
    let mut places = definition.environments.keys().filter_map(|name| definition.resolve(name)).peekable();
    let of_images = places.peek().is_some() && places.all(|place| place.runtime == RuntimeKind::Docker);
    for (name, service) in &definition.services {
        if service.command.is_empty() && !of_images {
            problems.push(whole(
                format!("service {name} has an empty command"),
                "write command: [\"./serve\", \"$PORT\"]; only images in environments of `runtime: docker` need none",
            ));
        }
        if service.port == Some(0) {
            problems
                .push(whole(format!("service {name} has port 0"), "write a port from 1 to 65535, or none"));
        }
        if !(1..=64).contains(&service.replicas) {
            problems
                .push(whole(format!("service {name} has {} replicas", service.replicas), "write 1 to 64"));
        }
        if service
            .health
            .as_deref()
            .is_some_and(|path| !path.starts_with('/') || path.contains([' ', '\r', '\n']))
        {
            problems.push(whole(format!("health of {name} is not a path"), "write it like /healthz"));
        }
        if service.protocol == andon_model::Spoken::Http2 && service.health.is_some() {
            problems.push(whole(
                format!("service {name} speaks http2, and its health would be asked for in HTTP/1.1"),
                "leave health out: an open port is enough",
            ));
        }
        for database in
            service.databases.iter().filter(|name| !definition.databases.contains_key(&name.value))
        {
            problems.push(unknown(
                "database",
                &database.value,
                database.referenced,
                definition.databases.keys(),
            ));
        }
        for host in &service.hosts {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
                problems.push(whole(
                    format!("{host:?} of {name} is not a host name"),
                    "write it like shop.example.org",
                ));
            }
        }
    }
    let deploys = definition.gate_jobs().any(|(_, job)| job.artifact.is_some());
    if !definition.services.is_empty() && !definition.environments.is_empty() && !deploys {
        problems.push(whole(
            "there are services but no job makes an artifact",
            "add `artifact: .` (or a folder) to the job that builds what is deployed",
        ));
    }
    problems
}

fn environments(definition: &Definition) -> Vec<Problem> {
    let mut problems = Vec::new();
    let all = &definition.environments;
    for (name, environment) in all {
        if let Some(like) = environment.like.as_ref().filter(|like| !all.contains_key(&like.value)) {
            problems.push(unknown("environment", &like.value, like.referenced, all.keys()));
        } else if definition.resolve(name).is_none() {
            let place = environment.like.as_ref().map_or(Location::UNKNOWN, |like| like.referenced);
            problems.push(at(
                place,
                format!("{name} is like itself"),
                "one environment of the circle has to stand alone",
            ));
        }
        for test in &environment.tests {
            match definition.pipeline.jobs.get(&test.value) {
                None => problems.push(unknown(
                    "job",
                    &test.value,
                    test.referenced,
                    definition.pipeline.jobs.keys(),
                )),
                Some(job) if job.stage.as_str() != ENVIRONMENT_STAGE => problems.push(at(
                    test.referenced,
                    format!("{} tests a change, not an environment", test.value),
                    "give that job `stage: environment`",
                )),
                Some(_) => {}
            }
        }
        if let Some(release) = &environment.release
            && release.value.as_str() != "all-at-once"
            && !definition.releases.contains_key(&release.value)
        {
            problems.push(unknown("release", &release.value, release.referenced, definition.releases.keys()));
        }
    }
    problems
}

pub(crate) fn unknown<'a, N: fmt::Display + 'a>(
    kind: &str,
    name: &impl fmt::Display,
    place: Location,
    known: impl Iterator<Item = &'a N>,
) -> Problem {
    let known: BTreeSet<String> = known.map(ToString::to_string).collect();
    let known =
        if known.is_empty() { "none".into() } else { known.into_iter().collect::<Vec<_>>().join(", ") };
    at(place, format!("there is no {kind} {name}"), format!("declared are: {known}"))
}

/// A name whose place in the file is known, for tests and callers that make definitions themselves.
pub fn placed<T>(value: T) -> Spanned<T> {
    Spanned::new(value, Location::UNKNOWN, Location::UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_model::Strategy;

    const GOOD: &str = "version: 1
pipeline:
  jobs:
    unit: { run: pytest }
    package: { needs: [unit], run: make, artifact: dist/ }
    smoke: { stage: environment, run: ./smoke.sh }
services:
  web: { command: [./serve, $PORT], health: /healthz, replicas: 2 }
environments:
  staging: { like: production, tests: [smoke], replicas: 1 }
  production: { deploy: on-green, env: { MODE: live } }
";

    /// A file that says everything that is unfolded.
    const RICH: &str = "version: 1
pipeline:
  env: { A: a }
  templates:
    t: { parameters: { m: , n: x }, job: { run: 'echo $WITH_M', reports: { tests: $WITH_M.xml }, cache: { key: [l], paths: [d/] } } }
  jobs:
    unit: { use: t, with: { m: cart }, matrix: { p: ['3.1', 3.2], include: [{ p: z }], exclude: [{ p: 3.2 }] }, retries: { red: 1 } }
    ask: { approve: { why: on, roles: [releaser] }, needs: [unit], when: { paths: ['src/**'] } }
    build: { run: make, outputs: [o], reads: ['src/**'], group: g, retries: 2 }
    use: { run: make, takes: [build], timeout: 5m, stage: late }
";

    #[test]
    fn a_file_that_says_everything_is_read() {
        assert_eq!(read(RICH).map(|definition| definition.pipeline.jobs.len()).unwrap(), 5);
    }

    fn first(text: &str) -> Problem {
        read(text).expect_err("it was accepted").remove(0)
    }

    #[test]
    fn an_environment_takes_what_it_does_not_say_from_the_one_it_is_like() {
        let definition = read(GOOD).unwrap();
        let staging = definition.resolve(&"staging".parse().unwrap()).unwrap();
        assert_eq!(staging.services[0].replicas, 1);
        assert_eq!(staging.services[0].env["MODE"], "live");
        assert_eq!(definition.stages(), ["commit"]);
    }

    #[test]
    fn an_unknown_job_is_pointed_at_by_line_and_column() {
        let problem = first(&GOOD.replace("[unit]", "[unti]"));
        assert_eq!((problem.line, problem.column), (5, 24), "{problem}");
        assert!(problem.hint.contains("unit"), "{problem}");
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let problem = first(&GOOD.replace("replicas: 2", "replica: 2"));
        assert_eq!(problem.line, 8, "{problem}");
        assert!(problem.what.contains("replica"), "{problem}");
    }

    #[test]
    fn a_bad_strategy_is_pointed_at_where_it_stands() {
        let with = |strategy: &str| format!("{GOOD}releases:\n  careful:\n{strategy}");
        assert!(read(&with("    canary: [{weight: 0.5%, for: 2s}, {weight: 25, for: 1s}]\n")).is_ok());
        for (strategy, line, says) in [
            (
                "    canary:\n      - {weight: 5, for: 2s}\n      - {weight: 500, for: 2s}\n",
                16,
                "share of users",
            ),
            ("    canary:\n      - {weight: 5, fro: 2s}\n", 15, "fro"),
            (
                "    canary: [{weight: 5, for: 2s}]\n    analysis: {errors: {worse_by: x}}\n",
                15,
                "not a percentage",
            ),
            ("    canary: [{weight: 5, for: 2s}]\n    dark: {}\n", 14, "exactly one of"),
            ("    canary: [{weight: 5}]\n", 14, "never ends"),
        ] {
            let problem = first(&with(strategy));
            assert!(problem.what.contains(says), "{problem}");
            assert!(!problem.what.contains("at line"), "{problem}");
            assert_eq!(problem.line, line, "{problem}");
            assert!(problem.column > 0, "{problem}");
        }
        let definition =
            read(&format!("{GOOD}releases: {{ plain: all-at-once, way: {{ all-at-once: {{}} }} }}")).unwrap();
        assert!(definition.releases.values().all(|s| *s == Strategy::AllAtOnce));
    }

    #[test]
    fn circles_of_needs_and_of_likes_are_refused() {
        assert!(
            first(&GOOD.replace("unit: { run", "unit: { needs: [package], run"))
                .what
                .contains("waits for itself")
        );
        assert!(
            first(&GOOD.replace("production: {", "production: { like: staging,"))
                .what
                .contains("like itself")
        );
    }

    #[test]
    fn a_path_out_of_the_working_copy_is_refused() {
        for path in ["../x", "/etc", "a/../../b", "''"] {
            let problem = first(&GOOD.replace("artifact: dist/", &format!("artifact: {path}")));
            assert!(problem.what.contains("leads out"), "{problem}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused_and_not_unfolded() {
        let mut bomb = String::from("a: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","));
        }
        assert!(read(&bomb).is_err());
        assert!(read(&"[".repeat(200_000)).is_err());
    }

    #[test]
    fn the_schema_names_every_top_level_key() {
        let schema = schema();
        for key in ["version", "pipeline", "validation", "services", "environments", "releases", "cord"] {
            assert!(schema["properties"][key].is_object(), "{key} is missing");
        }
    }

    /// A small generator of its own, so that a failure names the seed that gives it again.
    fn next(seed: &mut u64) -> usize {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize
    }

    #[test]
    fn whatever_is_done_to_a_file_it_is_read_or_refused_with_a_place_and_a_hint() {
        for seed in 0..4_000u64 {
            let mut state = seed;
            let mut bytes = [GOOD, RICH][seed as usize % 2].as_bytes().to_vec();
            for _ in 0..=next(&mut state) % 6 {
                if bytes.is_empty() {
                    break;
                }
                let at = next(&mut state) % bytes.len();
                match next(&mut state) % 5 {
                    0 => drop(bytes.remove(at)),
                    1 => bytes.insert(at, b"{}[]&*:-|>!%@`\"'#\n\t \0"[next(&mut state) % 21]),
                    2 => bytes[at] = next(&mut state) as u8,
                    3 => bytes.truncate(at.max(1)),
                    _ => {
                        let piece = bytes[at..(at + 20).min(bytes.len())].to_vec();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            if let Err(problems) = read(&text) {
                assert!(!problems.is_empty(), "seed {seed}");
                assert!(
                    problems.iter().all(|p| !p.what.is_empty() && !p.hint.is_empty()),
                    "seed {seed}: {problems:?}"
                );
            }
        }
    }
}

//! What a run is going to do, as a value with a name: the plan is the expanded jobs in canonical JSON, its hash their SHA-256. Whoever has
//! the same file has the same plan: the server and a developer's machine. Which of the jobs a change needs is decided apart from it.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{PlannedApproval, PlannedJob, Role};
use andon_model::{Digest, JobName};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Serialize;

use crate::definition::{Definition, Job};
use crate::job::When;

/// Form of the plan's JSON. Another number wherever the same jobs would be written otherwise.
const FORM: u32 = 1;
/// The file whose change needs every job.
const FILE: &str = "andon.yaml";

/// The jobs of a run, as they are run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    form: u32,
    /// In the order of stages, then as written.
    pub jobs: Vec<PlanJob>,
}

/// A job of the plan: its environment is whole, its names are those of the run.
#[derive(Debug, Clone, Serialize)]
pub struct PlanJob {
    /// Its name in the run.
    pub name: JobName,
    /// Everything that was said of it.
    #[serde(flatten)]
    pub job: Job,
}

impl Plan {
    /// The plan of the jobs that gate a change.
    pub fn of(definition: &Definition) -> Plan {
        let stages = definition.stages();
        let mut jobs: Vec<PlanJob> = definition
            .gate_jobs()
            .map(|(name, job)| PlanJob { name: name.clone(), job: whole(definition, job) })
            .collect();
        // The order of stages is the order of their first mention; jobs of one stage stand together.
        let place: BTreeMap<&str, usize> =
            stages.iter().enumerate().map(|(at, stage)| (*stage, at)).collect();
        jobs.sort_by_key(|job| place.get(job.job.stage.as_str()).copied());
        Plan { form: FORM, jobs }
    }

    /// Canonical JSON: keys in a fixed order, no white space.
    pub fn json(&self) -> Vec<u8> {
        // Structs, strings and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The plan's name.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.json())
    }

    /// The jobs as a run records them, for a change of these files; none: everything counts as changed.
    pub fn jobs(&self, changed: Option<&[String]>) -> Vec<PlannedJob> {
        let spared = self.spared(changed);
        let planned = |PlanJob { name, job }: &PlanJob| {
            let retries = job.retries.unwrap_or_default();
            PlannedJob {
                needs: job.needs.iter().map(|need| need.value.clone()).collect(),
                retries: retries.red,
                broken: retries.broken,
                timeout: job.timeout,
                // Checked when the file was read.
                group: job.group.as_ref().and_then(|group| group.parse().ok()),
                approve: job.approve.as_ref().map(|approve| PlannedApproval {
                    roles: match approve.roles.is_empty() && approve.people.is_empty() {
                        true => vec![Role::Releaser],
                        false => approve.roles.clone(),
                    },
                    people: approve.people.clone(),
                    within: approve.within,
                    why: approve.why.clone(),
                    not_author: approve.not_author,
                }),
                not_needed: spared.get(name).cloned(),
                keyed: !job.reads.is_empty(),
                // Checked when the file was read.
                runs_on: job.runs_on.iter().filter_map(|label| label.parse().ok()).collect(),
                ..PlannedJob::new(name.clone(), job.stage.as_str())
            }
        };
        self.jobs.iter().map(planned).collect()
    }

    /// Jobs that this change does not need, each with the reason.
    fn spared(&self, changed: Option<&[String]>) -> BTreeMap<JobName, String> {
        let Some(changed) = changed.filter(|changed| !changed.iter().any(|path| path == FILE)) else {
            return BTreeMap::new();
        };
        let mut spared: BTreeMap<JobName, String> = self
            .jobs
            .iter()
            .filter_map(|PlanJob { name, job }| Some((name.clone(), untouched(job.when.as_ref()?, changed)?)))
            .collect();
        // Whoever is needed and takes something needs those that make it.
        let takes: BTreeMap<&JobName, &Job> = self.jobs.iter().map(|job| (&job.name, &job.job)).collect();
        let mut due: Vec<&JobName> =
            takes.keys().filter(|name| !spared.contains_key(**name)).copied().collect();
        let mut seen: BTreeSet<&JobName> = BTreeSet::new();
        while let Some(name) = due.pop() {
            let makers = takes.get(name).into_iter().flat_map(|job| &job.takes).map(|take| &take.value);
            for maker in makers.filter(|maker| seen.insert(maker)) {
                spared.remove(maker);
                due.push(maker);
            }
        }
        spared
    }
}

fn whole(definition: &Definition, job: &Job) -> Job {
    let mut job = job.clone();
    job.env = definition.pipeline.env.clone().into_iter().chain(job.env).collect();
    job.retries = Some(job.retries.unwrap_or_default());
    job
}

/// Why none of these files is one that the job is about; none: one is.
fn untouched(when: &When, changed: &[String]) -> Option<String> {
    // Checked when the file was read.
    let (Ok(paths), Ok(not_paths)) = (globs(&when.paths), globs(&when.not_paths)) else { return None };
    let counts = |path: &String| (when.paths.is_empty() || paths.is_match(path)) && !not_paths.is_match(path);
    if changed.iter().any(counts) {
        return None;
    }
    let named = |paths: &[String]| paths.join(", ");
    Some(match (when.paths.is_empty(), when.not_paths.is_empty()) {
        (false, true) => format!("no file of {} changed", named(&when.paths)),
        (false, false) => {
            format!("no file of {} outside of {} changed", named(&when.paths), named(&when.not_paths))
        }
        _ => format!("no file outside of {} changed", named(&when.not_paths)),
    })
}

/// Patterns of paths in the repository: `*` stays inside a folder, `**` does not, `docs/` is all below it.
pub fn globs(patterns: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.trim_start_matches("./");
        let whole = if pattern.ends_with('/') { format!("{pattern}**") } else { pattern.to_owned() };
        set.add(GlobBuilder::new(&whole).literal_separator(true).build()?);
    }
    set.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read;

    fn plan(text: &str) -> Plan {
        Plan::of(
            &read(&format!("version: 1\npipeline:\n{text}"))
                .unwrap_or_else(|problems| panic!("{problems:?}")),
        )
    }

    const PATHS: &str = "  env: { A: pipeline, B: pipeline }
  jobs:
    docs: { run: make docs, when: { paths: [docs/, '*.md'] } }
    build: { run: make, when: { paths: ['src/**'] }, outputs: [dist/] }
    unit: { run: pytest, env: { B: job }, needs: [docs] }
    check: { stage: late, run: ./check, takes: [build], when: { not_paths: ['**/*.md'] } }
";

    fn needed(changed: &[&str]) -> Vec<String> {
        let changed: Vec<String> = changed.iter().map(|path| (*path).to_owned()).collect();
        let jobs = plan(PATHS).jobs(Some(&changed));
        jobs.iter().filter(|job| job.not_needed.is_none()).map(|job| job.name.to_string()).collect()
    }

    #[test]
    fn a_job_is_needed_when_a_file_of_its_paths_changed() {
        assert_eq!(
            needed(&["docs/a/b.txt"]),
            ["docs", "build", "unit", "check"],
            "check takes what build makes"
        );
        assert_eq!(needed(&["README.md"]), ["docs", "unit"]);
        assert_eq!(needed(&["a/README.md"]), ["unit"], "a star stays inside its folder");
        assert_eq!(needed(&["src/a/b.rs"]), ["build", "unit", "check"]);
        assert_eq!(needed(&[]), ["unit"]);
        assert_eq!(needed(&["andon.yaml"]).len(), 4, "the file itself needs every job");
        assert_eq!(plan(PATHS).jobs(None).iter().filter(|job| job.not_needed.is_some()).count(), 0);
    }

    #[test]
    fn what_is_not_needed_says_why() {
        let jobs = plan(PATHS).jobs(Some(&["a.md".to_owned()]));
        assert_eq!(jobs[1].not_needed.as_deref(), Some("no file of src/** changed"));
        assert_eq!(jobs[3].not_needed.as_deref(), Some("no file outside of **/*.md changed"));
    }

    #[test]
    fn the_plan_has_one_name_whatever_is_written_differently_and_another_for_anything_that_is_run_otherwise()
    {
        let file = "  jobs: { unit: { run: pytest, env: { B: '2', A: '1' } }, lint: { run: ruff } }\n";
        let hash = plan(file).hash();
        let same = "  # words\n  env: { A: '0' }\n  jobs:\n    unit:\n      env: { A: '1', B: '2' }\n      run: pytest\n      retries: 0\n    lint: { env: { A: '0' }, run: ruff }\n";
        let other = plan("  jobs: { unit: { run: pytest, env: { B: '2', A: '1' } }, lint: { run: ruff, env: { A: '0' } } }\n").hash();
        assert_eq!(plan(same).hash(), other);
        for (is, becomes) in [
            ("pytest", "pytest -q"),
            ("'1'", "'3'"),
            ("unit", "units"),
            ("ruff", "ruff, timeout: 1m"),
            ("lint:", "lint:"),
        ] {
            let changed = plan(&file.replacen(is, becomes, 1)).hash();
            assert_eq!(changed == hash, is == becomes, "{is} → {becomes}");
        }
        assert_eq!(hash.hex().len(), 64);
    }

    #[test]
    fn the_environment_has_three_levels_and_the_nearest_wins() {
        let plan = plan(PATHS);
        assert_eq!(
            (plan.jobs[2].job.env["A"].as_str(), plan.jobs[2].job.env["B"].as_str()),
            ("pipeline", "job")
        );
    }
}

//! What is remembered of a project's tests, learned from each attempt once it is recorded; tests in quarantine. What a result teaches is
//! decided in andon-validation; it is kept where it can be derived again.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use andon_model::event::{Event, JobEnd, Purpose, Role};
use andon_model::{Digest, JobName, Oid, RunId, Span, Time, UserName};
use andon_pipeline::Run;
use andon_validation::diff;
use andon_validation::junit::TestCase;
use andon_validation::memory::{self, Attempt, Test};
use andon_validation::order::Known;
use andon_validation::quarantine::Quarantine;
use tokio_util::sync::CancellationToken;

use super::Pulse;
use super::pipeline::Gathered;
use crate::{Caller, Line, Project, Refusal};

/// The station's name in the journal.
const MEMORY: &str = "tests";
/// Events read at once.
const PAGE: u32 = 2_000;
/// Events after which it is noted how far the memory is true, though nothing was learned.
const NOTED_AFTER: u64 = 5_000;
/// Largest report that is learned from, in bytes.
const LARGEST: u64 = 512 << 20;
/// How often quarantines are looked at that end by themselves.
const LOOK: Duration = Duration::from_secs(30);

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    let mut pulse = Pulse::new(&line, &project, stop, LOOK);
    loop {
        let done = step(&line, &project).await;
        if !pulse.beat(done, MEMORY).await {
            return;
        }
    }
}

async fn step(line: &Arc<Line>, project: &Arc<Project>) -> Result<(), Refusal> {
    learn(line, project).await?;
    let now = line.now();
    if project.state().quarantine.over(now).is_empty() {
        return Ok(());
    }
    line.decide(project, andon_model::Actor::line(MEMORY), |state, now| Ok((state.quarantine.over(now), ())))
        .await
}

/// A recorded attempt that has something to teach.
struct Lesson {
    run: RunId,
    job: JobName,
    tree: Oid,
    at: Time,
    report: Digest,
}

/// Reads on in the journal, attempt by attempt.
async fn learn(line: &Line, project: &Project) -> Result<(), Refusal> {
    let shelf = shelf(project);
    let mut known = line.derived.progress(&shelf).await?;
    loop {
        let page = line.history(known, PAGE).await?;
        let Some(last) = page.last().map(|recorded| recorded.seq) else { return Ok(()) };
        let lessons: Vec<Lesson> = {
            let state = project.state();
            let own = page.iter().filter(|recorded| recorded.project.as_ref() == Some(&project.name));
            own.filter_map(|recorded| match &recorded.event {
                Event::JobFinished { run, job, ended, report: Some(report), .. }
                    if !matches!(ended, JobEnd::Broken { .. }) =>
                {
                    let tree = state.runs.all.get(run)?.tree.clone();
                    Some(Lesson {
                        run: *run,
                        job: job.clone(),
                        tree,
                        at: recorded.at,
                        report: report.clone(),
                    })
                }
                _ => None,
            })
            .collect()
        };
        if !lessons.is_empty() || last - known > NOTED_AFTER {
            let entries = taught(line, &shelf, lessons).await?;
            line.derived.keep(&shelf, last, &entries).await?;
        }
        if page.len() < PAGE as usize {
            return Ok(());
        }
        known = last;
    }
}

async fn taught(line: &Line, shelf: &str, lessons: Vec<Lesson>) -> Result<Vec<(String, String)>, Refusal> {
    let blobs = line.blobs.clone();
    let read = move || {
        let cases = |lesson: &Lesson| -> Vec<TestCase> {
            let bytes = blobs.read(&lesson.report, LARGEST).unwrap_or_default();
            let gathered: Gathered = serde_json::from_slice(&bytes).unwrap_or_default();
            gathered.tests.into_iter().flat_map(|report| report.cases).collect()
        };
        lessons.into_iter().map(|lesson| (cases(&lesson), lesson)).collect::<Vec<_>>()
    };
    let lessons =
        tokio::task::spawn_blocking(read).await.map_err(|error| Refusal::Broken(error.to_string()))?;
    let mut keys: Vec<String> = lessons.iter().flat_map(|(cases, _)| cases.iter().map(memory::key)).collect();
    keys.sort_unstable();
    keys.dedup();
    let stored = line.derived.some(shelf, &keys).await?;
    let mut tests: HashMap<String, Test> =
        stored.into_iter().filter_map(|(key, body)| Some((key, serde_json::from_str(&body).ok()?))).collect();
    for (cases, lesson) in &lessons {
        let attempt = Attempt { run: lesson.run, job: &lesson.job, tree: &lesson.tree, at: lesson.at };
        memory::learn(&mut tests, &attempt, cases.iter());
    }
    let body = |(key, test): (String, Test)| Some((key, serde_json::to_string(&test).ok()?));
    Ok(tests.into_iter().filter_map(body).collect())
}

fn shelf(project: &Project) -> String {
    format!("tests of {}", project.name)
}

impl Line {
    /// All that is remembered of a project's tests, by key.
    pub async fn tests(&self, project: &Project) -> Result<BTreeMap<String, Test>, Refusal> {
        let all = self.derived.all(&shelf(project)).await?;
        Ok(all.into_iter().filter_map(|(key, body)| Some((key, serde_json::from_str(&body).ok()?))).collect())
    }

    /// What the order of tests is made from.
    pub async fn known_tests(&self, project: &Project) -> Result<Known, Refusal> {
        Ok(Known::of(self.tests(project).await?.into_iter().map(|(key, test)| (key, test.history))))
    }

    /// Writes what is remembered of the tests, and the paths that the change touches, to where a job finds them by its variables; `andon` itself is
    /// in the last place of its `PATH`, so that it can ask for the order.
    pub(crate) async fn hand_tests(
        &self,
        project: &Project,
        run: &Run,
        room: &Path,
        env: &mut BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let (tests, changed) = (room.join("andon-tests"), room.join("andon-changed"));
        tokio::fs::write(&tests, self.known_tests(project).await?.write()).await?;
        let paths = match (&run.purpose, &run.parent) {
            (Purpose::Gate { .. }, Some(parent)) => {
                let text = project.repository.diff(Some(parent), &run.commit).await?;
                diff::read(&text).files.into_keys().collect::<Vec<_>>().join("\n")
            }
            _ => String::new(),
        };
        tokio::fs::write(&changed, paths).await?;
        env.insert("ANDON_TESTS".into(), tests.display().to_string());
        env.insert("ANDON_CHANGED".into(), changed.display().to_string());
        let own = self.settings.exe.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let path = env.entry("PATH".into()).or_default();
        if !path.split(':').any(|folder| folder == own) {
            *path = format!("{path}:{own}").trim_matches(':').to_owned();
        }
        Ok(())
    }

    /// Puts a test into quarantine. Returns what was done, in a sentence.
    pub async fn quarantine(
        &self,
        project: &Project,
        caller: &Caller,
        test: &str,
        owner: Option<UserName>,
        why: &str,
        lasts: Span,
    ) -> Result<String, Refusal> {
        caller.may(Role::Developer)?;
        let owner = owner.unwrap_or_else(|| caller.user.clone());
        let there = self.access().0.users.contains_key(&owner);
        if !there {
            return Err(Refusal::Bad(format!(
                "{owner} has no account here\nhint: name somebody who makes the test reliable again, with --owner"
            )));
        }
        self.decide(project, caller.actor(), |state, now| {
            let event = state.quarantine.begin(test, &owner, why, lasts, now).map_err(Refusal::Bad)?;
            Ok((
                vec![event],
                format!("{} is in quarantine for {lasts}; {owner} makes it reliable again", test.trim()),
            ))
        })
        .await
    }

    /// Ends a quarantine before its time.
    pub async fn end_quarantine(
        &self,
        project: &Project,
        caller: &Caller,
        test: &str,
    ) -> Result<String, Refusal> {
        caller.may(Role::Developer)?;
        self.decide(project, caller.actor(), |state, _| {
            let quarantine: &Quarantine = &state.quarantine;
            let event = quarantine.end(test, &caller.actor()).map_err(Refusal::Unknown)?;
            Ok((vec![event], format!("{} counts again", test.trim())))
        })
        .await
    }
}

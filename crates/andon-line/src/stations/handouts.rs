//! Tests handed out to jobs while they run: the token by which a job asks, the list that its run shares, the next piece. Who gets what is decided in
//! andon-validation; a piece is in the journal before the job hears of it.

use andon_model::event::{Event, Role};
use andon_model::{Actor, Digest, JobName, ProjectName, RunId};
use andon_pipeline::JobState;
use andon_validation::handouts::{Asker, MOST, Next};
use andon_validation::order::split;
use serde::{Deserialize, Serialize};

use crate::{Caller, Line, Project, Refusal, State};

/// Tests in one list.
const TESTS: usize = 200_000;
/// The longest name of a test, in bytes.
const NAME: usize = 4096;
/// Largest stored list, in bytes.
const LARGEST: u64 = 1 << 30;
/// Shards of one list.
const SHARDS: u32 = 10_000;
/// What a token of a job begins with.
const MARK: &str = "job_";
/// Who a job acts as before the guard.
const SYSTEM: &str = "job";

/// What an attempt of a job may do while it runs: ask for its tests, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobScope {
    /// Its project.
    pub project: ProjectName,
    /// Its run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// Which attempt.
    pub attempt: u32,
}

impl JobScope {
    /// Whether this path is its door.
    pub fn opens(&self, path: &str) -> bool {
        path == format!("/api/v1/{}/tests/next", self.project)
    }

    /// As the guard and the handlers know it.
    pub fn caller(&self) -> Option<Caller> {
        Some(Caller { user: SYSTEM.parse().ok()?, roles: [Role::Viewer].into(), token: None, kind: None })
    }

    fn runs(&self, state: &State) -> bool {
        let job = state.runs.all.get(&self.run).and_then(|run| run.job(&self.job));
        job.is_some_and(|job| job.attempts == self.attempt && matches!(job.state, JobState::Running { .. }))
    }
}

/// A question for tests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Which list of the run.
    pub name: String,
    /// What this question is known by, should it come twice.
    pub ask: String,
    /// Shards that ask at the same time.
    pub shards: u32,
    /// SHA-256 of all names, sorted, one a line.
    pub names: Digest,
    /// The names; needed by the first who asks.
    pub tests: Option<Vec<String>>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// The list is not known yet: ask again with the names.
    pub unknown: bool,
    /// What to run now; none: all is given out.
    pub tests: Vec<String>,
    /// How many nobody has yet.
    pub left: u32,
}

/// As it is kept: longest first.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    tests: Vec<String>,
    millis: Vec<f64>,
}

impl Line {
    /// The token by which an attempt of a job asks. It is not kept: it can be computed, and is worth nothing once the attempt has ended.
    pub(crate) fn job_token(&self, project: &ProjectName, run: RunId, job: &JobName, attempt: u32) -> String {
        let secret = self.vault.derive(&format!("tests {project} {run} {job} {attempt}"));
        format!("{MARK}{project}.{}.{attempt}.{secret}.{job}", run.0)
    }

    /// What this secret opens, if it is the token of an attempt that runs.
    pub fn job_scope(&self, secret: &str) -> Option<JobScope> {
        // The name of a job may have dots in it.
        let mut parts = secret.strip_prefix(MARK)?.splitn(5, '.');
        let (project, run, attempt) = (parts.next()?, parts.next()?, parts.next()?);
        let job: JobName = parts.nth(1)?.parse().ok()?;
        let project = self.project(project).ok()?;
        let (run, attempt) = (RunId(run.parse().ok()?), attempt.parse().ok()?);
        let right = self.job_token(&project.name, run, &job, attempt);
        // Compared by digest: the time that it takes says nothing about the secret.
        if Digest::of(right.as_bytes()) != Digest::of(secret.as_bytes()) {
            return None;
        }
        let scope = JobScope { project: project.name.clone(), run, job, attempt };
        scope.runs(&project.state()).then_some(scope)
    }

    /// What an attempt is to run next.
    pub async fn next_tests(
        &self,
        project: &Project,
        scope: &JobScope,
        wanted: Wanted,
    ) -> Result<Given, Refusal> {
        let plain = |text: &str| !text.is_empty() && text.len() <= 100 && !text.contains(char::is_control);
        if !plain(&wanted.name) || !plain(&wanted.ask) || wanted.shards == 0 || wanted.shards > SHARDS {
            return Err(Refusal::Bad(
                "this is no question for tests\nhint: `andon tests next` asks rightly".into(),
            ));
        }
        let known = |state: &State| state.handouts.get(scope.run, &wanted.name).cloned();
        let mut handout = known(&project.state());
        if handout.is_none() {
            let Some(tests) = &wanted.tests else {
                return Ok(Given { unknown: true, tests: Vec::new(), left: 0 });
            };
            self.open_list(project, scope, &wanted, tests).await?;
            handout = known(&project.state());
        }
        let Some(handout) = handout else {
            return Err(Refusal::Conflict(format!("{} is over", scope.run)));
        };
        if handout.names != wanted.names {
            return Err(Refusal::Conflict(format!(
                "the jobs that share `{}` found other tests than this one: {} were found first\nhint: all of them must list the same tests; jobs with other tests share another list: --name",
                wanted.name, handout.tests
            )));
        }
        let (blobs, digest) = (self.blobs.clone(), handout.list);
        let read = move || {
            serde_json::from_slice::<List>(&blobs.read(&digest, LARGEST)?).map_err(std::io::Error::other)
        };
        let list =
            tokio::task::spawn_blocking(read).await.map_err(|error| Refusal::Broken(error.to_string()))??;
        let (piece, left) = self
            .decide(project, Actor::line("tests"), |state, _| {
                let Some(handout) = state.handouts.get(scope.run, &wanted.name).filter(|_| scope.runs(state))
                else {
                    return Err(Refusal::Conflict(format!("this attempt of {} is over", scope.job)));
                };
                let asker = Asker {
                    job: &scope.job,
                    attempt: scope.attempt,
                    ask: &wanted.ask,
                    shards: wanted.shards,
                };
                let left = handout.left();
                Ok(match handout.next(asker, &list.millis) {
                    Next::Nothing => (Vec::new(), (0..0, 0)),
                    Next::Before(piece) => (Vec::new(), (piece, left)),
                    Next::Piece(piece) => {
                        let handed = Event::TestsHanded {
                            run: scope.run,
                            name: wanted.name.clone(),
                            job: scope.job.clone(),
                            attempt: scope.attempt,
                            ask: wanted.ask.clone(),
                            from: piece.start,
                            to: piece.end,
                        };
                        let left = left - (piece.end - piece.start);
                        (vec![handed], (piece, left))
                    }
                })
            })
            .await?;
        let own = list.tests.get(piece.start as usize..piece.end as usize).unwrap_or_default();
        Ok(Given { unknown: false, tests: own.to_vec(), left })
    }

    /// Opens the list, unless another was quicker.
    async fn open_list(
        &self,
        project: &Project,
        scope: &JobScope,
        wanted: &Wanted,
        tests: &[String],
    ) -> Result<(), Refusal> {
        let bad =
            |why: &str| Err(Refusal::Bad(format!("{why}\nhint: `andon tests next` reads one name a line")));
        let named =
            |name: &String| !name.is_empty() && name.len() <= NAME && !name.contains(char::is_control);
        if tests.len() > TESTS {
            return bad(&format!("{} tests are more than the {TESTS} that one list holds", tests.len()));
        }
        if !tests.iter().all(named) || !tests.windows(2).all(|pair| pair[0] < pair[1]) {
            return bad("names of tests are sorted lines, none twice");
        }
        if Digest::of(tests.join("\n").as_bytes()) != wanted.names {
            return bad("these are other names than said");
        }
        let known = self.known_tests(project).await?;
        let (blobs, tests) = (self.blobs.clone(), tests.to_vec());
        let kept = tokio::task::spawn_blocking(move || {
            let names: Vec<&str> = tests.iter().map(String::as_str).collect();
            let expected = split::expected(&names, &known);
            let order = split::longest_first(&expected);
            let list = List {
                tests: order.iter().map(|at| tests[*at].clone()).collect(),
                millis: order.iter().map(|at| expected[*at]).collect(),
            };
            let bytes = serde_json::to_vec(&list).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>((blobs.put(&bytes[..])?.0, tests.len() as u32))
        });
        let (list, tests) = kept.await.map_err(|error| Refusal::Broken(error.to_string()))??;
        self.decide(project, Actor::line("tests"), |state, _| {
            if state.handouts.get(scope.run, &wanted.name).is_some() || !scope.runs(state) {
                return Ok((Vec::new(), ()));
            }
            if state.handouts.of_run(scope.run).count() >= MOST {
                return Err(Refusal::Conflict(format!("a run shares at most {MOST} lists")));
            }
            let (name, names) = (wanted.name.clone(), wanted.names.clone());
            Ok((vec![Event::HandoutOpened { run: scope.run, name, names, list: list.clone(), tests }], ()))
        })
        .await
    }
}

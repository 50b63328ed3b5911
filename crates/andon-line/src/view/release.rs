//! Releases: two revisions side by side, what is watched, what it says, what can be done.

use std::sync::PoisonError;

use andon_model::event::{Event, ReleaseEnd};
use andon_model::strategy::Strategy;
use andon_model::{ReleaseId, Time};
use andon_release::analysis::Metric;
use andon_release::state::stages;
use andon_release::{Explanation, Outcome, Release, waits_for};
use andon_traffic::Lack;
use serde::{Deserialize, Serialize};

use super::{Fact, Frame, Mark, Moment, ago, count, fact, frame, moments};
use crate::stations::dark::differences;
pub use crate::stations::dark::{DifferenceRow, Sample};
use crate::stations::release::{Point, observe};
use crate::words::percent;
use crate::{Line, Project, Refusal, State};

/// What to do where there is no way back.
const FORWARD: &str = " Everybody stays where they are. What to do: go forward – land a change that mends it, and its release takes it to users.";
/// Releases that the list shows.
const LIST: usize = 60;

/// The page of all releases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleasesView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// What they are.
    pub sentence: String,
    /// Newest first.
    pub rows: Vec<ReleaseRow>,
}

/// A release in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseRow {
    /// `R88`.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// Of which service.
    pub service: String,
    /// Where.
    pub environment: String,
    /// The revision before, short.
    pub from: Option<String>,
    /// The new one, short.
    pub to: String,
    /// The strategy's name.
    pub strategy: String,
    /// Its kind.
    pub kind: String,
    /// Its state.
    pub mark: Mark,
    /// What it waits for, or what became of it.
    pub words: String,
    /// `under_way`, `paused`, `frozen`, `released`, `taken_back`, `aborted`, `dark_ended`.
    pub state: String,
    /// Share of users on the new revision, in basis points.
    pub weight_bp: u16,
    /// When it started.
    pub started: Time,
    /// When it ended.
    pub ended: Option<Time>,
}

/// The page of a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Over every page.
    pub frame: Frame,
    /// The answer.
    pub heading: String,
    /// How, since when, by whom, with which changes.
    pub sentence: String,
    /// As in the list.
    pub row: ReleaseRow,
    /// Changes that are new with it.
    pub changes: Vec<u32>,
    /// Numbers that decide.
    pub facts: Vec<Fact>,
    /// Steps: what each is, and how far it is.
    pub steps: Vec<(String, Mark)>,
    /// What is watched.
    pub signals: Vec<SignalRow>,
    /// What the newest look says, in a sentence.
    pub says: Option<String>,
    /// The whole look with its counts, for programs: it can be made again from them.
    pub look: Option<serde_json::Value>,
    /// Evidence so far and evidence that takes it back.
    pub evidence: Option<(f64, f64)>,
    /// One point a second.
    pub curve: Vec<Point>,
    /// Where answers differ in a dark launch, field by field, with samples.
    pub differences: Vec<DifferenceRow>,
    /// What can be done now: `promote`, `pause`, `resume`, `approve`, `abort`, `rollback`.
    pub commands: Vec<String>,
    /// What happened, newest first.
    pub timeline: Vec<Moment>,
}

/// A signal of both revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalRow {
    /// What is counted.
    pub name: String,
    /// Old revision.
    pub stable: String,
    /// New revision.
    pub canary: String,
    /// Ratio with its band.
    pub ratio: String,
    /// Its state.
    pub mark: Mark,
    /// What it says.
    pub says: String,
}

/// All releases at this moment.
pub fn releases(line: &Line, project: &Project) -> ReleasesView {
    let (state, now) = (project.state(), line.now());
    let rows: Vec<ReleaseRow> =
        state.releases.iter().rev().take(LIST).map(|r| row(line, project, &state, r, now)).collect();
    let moving = state.releases.under_way().count();
    let heading = match moving {
        0 => "No users are being moved".to_owned(),
        n => format!("{} under way", count(n, "release")),
    };
    ReleasesView {
        frame: frame(&state, project.name.as_str(), now),
        heading,
        sentence: "Deploying moves nobody; releasing builds nothing. What hurts users is taken back without a person.".into(),
        rows,
    }
}

fn row(line: &Line, project: &Project, state: &State, release: &Release, now: Time) -> ReleaseRow {
    let (mark, name) = match (&release.ended, release.paused.as_ref().or(release.frozen.as_ref())) {
        (Some(end), _) => match end.how {
            ReleaseEnd::Released if release.frozen.is_some() => (Mark::Wait, "frozen"),
            ReleaseEnd::Released => (Mark::Go, "released"),
            ReleaseEnd::DarkEnded => (Mark::Go, "dark_ended"),
            ReleaseEnd::TakenBack => (Mark::Stop, "taken_back"),
            ReleaseEnd::Aborted => (Mark::Stop, "aborted"),
        },
        (None, Some(_)) if release.frozen.is_some() => (Mark::Stop, "frozen"),
        (None, Some(_)) => (Mark::Wait, "paused"),
        (None, None) => (Mark::Live, "under_way"),
    };
    ReleaseRow {
        id: release.id.to_string(),
        number: release.id.0,
        service: release.service.to_string(),
        environment: release.environment.to_string(),
        from: release.from.as_ref().map(|from| from.commit().to_owned()),
        to: release.to.commit().to_owned(),
        strategy: release.strategy_name.clone(),
        kind: release.strategy.kind().to_owned(),
        mark,
        words: match release.ended {
            Some(_) => waits_for(release, &observe(line, project, state, release), now),
            None => match waits_for(release, &observe(line, project, state, release), now) {
                words if words.starts_with("for ") || words.starts_with("until ") => format!("waits {words}"),
                words => words,
            },
        },
        state: name.to_owned(),
        weight_bp: release.weight_bp,
        started: release.started,
        ended: release.ended.as_ref().map(|end| end.at),
    }
}

/// One release at this moment.
pub fn release(line: &Line, project: &Project, id: ReleaseId) -> Result<ReleaseView, Refusal> {
    let (state, now) = (project.state(), line.now());
    let found = state.releases.get(id);
    let found = found.ok_or_else(|| {
        Refusal::Unknown(format!("there is no release {id}\nhint: `andon release list` shows them"))
    })?;
    let row = row(line, project, &state, found, now);
    let watched = project.watched.lock().unwrap_or_else(PoisonError::into_inner);
    let look = watched.looks.get(&id).cloned().or_else(|| ended_look(&state, id));
    let curve = watched.curves.get(&id).map(|curve| curve.iter().cloned().collect()).unwrap_or_default();
    drop(watched);
    let deployment = state.estate.deployments.get(&found.deployment);
    let changes: Vec<u32> = deployment.map(|d| d.changes.iter().map(|c| c.0).collect()).unwrap_or_default();
    let who = match &row.from {
        Some(from) => format!("{from} → {}", row.to),
        None => row.to.clone(),
    };
    let mut facts = vec![Fact {
        mark: row.mark,
        ..fact(format!("{} %", percent(found.weight_bp)), format!("of users on {}", row.to))
    }];
    if let Some(look) = &look {
        facts.extend(look_facts(look));
    }
    let differing = differences(line, project, &state, found);
    if let Some(found) = &differing {
        let mark = if found.different > 0 { Mark::Stop } else { Mark::Go };
        facts.push(Fact {
            mark,
            ..fact(found.different.to_string(), format!("of {} mirrored answers differ", found.compared))
        });
        let more =
            [(found.noisy, "differ by themselves: noise"), (found.unanswered, "copies without an answer")];
        let more = more.into_iter().filter(|(number, _)| *number > 0);
        facts.extend(more.map(|(number, what)| fact(number.to_string(), what)));
    }
    let about = |event: &&andon_model::Recorded| match &event.event {
        Event::ReleaseStarted { release, .. }
        | Event::ReleaseMoved { release, .. }
        | Event::WeightChanged { release, .. }
        | Event::ReleaseFinished { release, .. } => *release == id,
        Event::DeploymentStarted { deployment, .. }
        | Event::DeploymentFinished { deployment, .. }
        | Event::EnvironmentTested { deployment, .. } => *deployment == found.deployment,
        _ => false,
    };
    Ok(ReleaseView {
        frame: frame(&state, project.name.as_str(), now),
        heading: format!("{} in {}: {who}", found.service, found.environment),
        sentence: format!(
            "Release {id}, {} “{}”, started {}. {}.{}",
            row.kind,
            row.strategy,
            ago(now, found.started),
            capital(&row.words),
            if found.frozen.is_some() { FORWARD } else { "" }
        ) + &through(line, found),
        changes,
        facts,
        steps: steps(found),
        signals: look.as_ref().map(signals).unwrap_or_default(),
        says: look.as_ref().map(|look| look.sentence.clone()),
        evidence: look.as_ref().map(|look| (look.highest, look.evidence_needed)),
        look: look.and_then(|look| serde_json::to_value(look).ok()),
        curve,
        differences: differing.map(|found| found.fields).unwrap_or_default(),
        commands: commands(found),
        timeline: moments(state.feed.iter().filter(about), 100),
        row,
    })
}

/// What a plane that is not our router does not do for this release, and what keeps it from doing what it should.
fn through(line: &Line, release: &Release) -> String {
    if release.ended.is_some() {
        return String::new();
    }
    let (plane, dark) = (line.plane(), matches!(release.strategy, Strategy::Dark(_)));
    let asked = release.strategy.guard().is_some_and(|guard| !guard.routes.is_empty());
    let matters = |lack: &&Lack| match lack {
        Lack::Mirror => dark,
        Lack::Asked => asked,
        Lack::Users | Lack::Latency => release.strategy.guard().is_some(),
    };
    let lacks =
        plane.lacks().iter().filter(matters).map(|lack| format!(" Through {}: {lack}.", plane.name()));
    let behind = plane.behind().map(|why| format!(" {} is behind: {why}.", plane.name()));
    lacks.chain(behind).collect()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default() + chars.as_str()
}

fn ended_look(state: &State, id: ReleaseId) -> Option<Explanation> {
    serde_json::from_value(state.explanations.get(&id)?.clone()).ok()
}

fn look_facts(look: &Explanation) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(errors) = look.metrics.iter().find(|metric| metric.metric == Metric::Errors) {
        facts.push(fact(
            errors.canary.of.to_string(),
            format!("users on it, {} saw an error", errors.canary.users),
        ));
        if let Some(ratio) = errors.ratio {
            let to = errors.ratio_to.map_or("…".to_owned(), |to| format!("{to:.1}"));
            facts.push(fact(
                format!("{ratio:.1} ×"),
                format!("errors against the old one (band {:.1} – {to})", errors.ratio_from),
            ));
        }
    }
    let mark = match look.outcome {
        Outcome::Regression => Mark::Stop,
        Outcome::Certified => Mark::Go,
        Outcome::Inconclusive => Mark::Live,
    };
    facts.push(Fact {
        mark,
        ..fact(
            format!("{:.0} : 1", look.highest.max(1.0)),
            format!("evidence that it is worse; taken back at {:.0}", look.evidence_needed),
        )
    });
    if let Some(missing) = look.users_missing {
        facts.push(fact(format!("~{missing}"), "more users until it is proven healthy"));
    }
    facts
}

fn signals(look: &Explanation) -> Vec<SignalRow> {
    let share = |hit: &andon_release::explain::Hit| {
        format!("{} of {} ({:.2} %)", hit.users, hit.of, hit.rate * 100.0)
    };
    look.metrics
        .iter()
        .map(|metric| {
            let name = match metric.metric {
                Metric::Errors => "Users with an error",
                Metric::Latency => "Users with a slow answer",
                Metric::Good => "Users with a good answer",
                Metric::Coming => "Users who came",
                Metric::Exits => "Instances that exited",
            };
            let proven = metric.proof.is_some_and(|proof| proof >= look.proof_needed);
            let (mark, says) = match () {
                () if metric.evidence >= look.evidence_needed => (Mark::Stop, "worse".to_owned()),
                () if metric.proof.is_none() && metric.metric != Metric::Latency => {
                    (Mark::None, "nothing unusual".to_owned())
                }
                () if proven => (Mark::Go, format!("proven below {:.1} ×", metric.below)),
                () => (Mark::Live, "not yet certain".to_owned()),
            };
            let ratio = match (metric.ratio, metric.ratio_to) {
                (Some(ratio), Some(to)) => format!("{ratio:.1} × ({:.1} – {to:.1})", metric.ratio_from),
                (Some(ratio), None) => format!("{ratio:.1} × (at least {:.1})", metric.ratio_from),
                (None, _) => "–".into(),
            };
            SignalRow {
                name: name.into(),
                stable: share(&metric.stable),
                canary: share(&metric.canary),
                ratio,
                mark,
                says,
            }
        })
        .collect()
}

fn steps(release: &Release) -> Vec<(String, Mark)> {
    use andon_release::state::Ends;
    let all = stages(&release.strategy);
    let over = release.ended.is_some();
    let mut steps: Vec<(String, Mark)> = all
        .iter()
        .enumerate()
        .map(|(at, stage)| {
            let ends = match stage.ends {
                Ends::After(time) => format!("for {time}"),
                Ends::Certified(cap) => format!("until certified, at most {cap}"),
                Ends::Approved => "until approved".to_owned(),
            };
            let mark = match release.stage {
                Some(now) if (at as u32) < now || (over && at as u32 <= now) => Mark::Go,
                Some(now) if at as u32 == now => Mark::Live,
                _ => Mark::None,
            };
            (format!("{} % {ends}", percent(stage.weight_bp)), mark)
        })
        .collect();
    let (words, mark) = match release.ended.as_ref().map(|end| end.how) {
        Some(ReleaseEnd::Released) => ("everyone", Mark::Go),
        Some(ReleaseEnd::DarkEnded) => ("over, nobody was moved", Mark::Go),
        Some(_) => ("taken back", Mark::Stop),
        None => ("everyone", Mark::None),
    };
    steps.push((words.into(), mark));
    steps
}

fn commands(release: &Release) -> Vec<String> {
    let mut commands = Vec::new();
    let frozen = release.frozen.is_some();
    if release.ended.as_ref().is_some_and(|end| end.how == ReleaseEnd::Released) && !frozen {
        commands.push("rollback");
    }
    if release.ended.is_none() {
        match release.paused.as_ref().or(release.frozen.as_ref()) {
            Some(_) => commands.push("resume"),
            None => commands.extend(["promote", "pause"]),
        }
        if release.current().is_some_and(|stage| stage.ends == andon_release::state::Ends::Approved)
            && !release.approved
        {
            commands.push("approve");
        }
        if !frozen {
            commands.push("abort");
        }
    }
    commands.into_iter().map(str::to_owned).collect()
}

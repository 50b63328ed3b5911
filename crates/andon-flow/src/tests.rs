//! A delivery as a team lives it, from the first commit to everyone.

use andon_model::event::{
    Cause, Event, JobEnd, PlannedService, Purpose, Push, Recorded, ReleaseEnd, Revision, RuntimeKind,
    TestCounts, Verdict,
};
use andon_model::strategy::Strategy;
use andon_model::{Actor, AndonId, ChangeId, DeploymentId, Digest, ReleaseId, RunId, Span, Time};

use crate::{Flow, Kind, Station, Window};

const MINUTE: i64 = 60_000;

#[derive(Default)]
struct Story {
    flow: Flow,
    seq: u64,
}

impl Story {
    fn at(&mut self, minute: i64, event: Event) {
        self.seq += 1;
        let at = Time(minute * MINUTE);
        self.flow.evolve(&Recorded { seq: self.seq, at, by: Actor::line("t"), project: None, event });
    }

    fn pushed(&mut self, minute: i64, change: u32, patch_set: u32, fixes: Option<u32>) {
        self.at(
            minute,
            Event::ChangePushed(Push {
                change: ChangeId(change),
                patch_set,
                head: oid(1),
                title: "t".into(),
                author: "a".into(),
                authored: Time((minute - 10) * MINUTE),
                identity: "i".into(),
                fixes: fixes.map(AndonId),
                edits_pipeline: false,
                commits: 1,
            }),
        );
    }

    fn tested(&mut self, minute: i64, change: u32, run: u32, patch_set: u32, verdict: Verdict) {
        let purpose = Purpose::Gate { change: ChangeId(change), patch_set };
        self.at(
            minute,
            Event::RunQueued {
                run: RunId(run),
                purpose,
                commit: oid(1),
                tree: oid(1),
                parent: None,
                jobs: vec![],
                plan: None,
                again: None,
            },
        );
        let job = || "unit".parse().unwrap();
        self.at(
            minute + 1,
            Event::JobStarted { run: RunId(run), job: job(), attempt: 1, isolation: Default::default() },
        );
        let tests = TestCounts::default();
        self.at(
            minute + 4,
            Event::JobFinished {
                run: RunId(run),
                job: job(),
                attempt: 1,
                ended: JobEnd::Passed,
                took: Span(1),
                log: None,
                tests,
                report: None,
            },
        );
        self.at(
            minute + 4,
            Event::ArtifactBuilt {
                run: RunId(run),
                artifact: Digest::of(&[change as u8]),
                bytes: 1,
                commit: oid(1),
                pins: Default::default(),
            },
        );
        self.at(
            minute + 4,
            Event::RunFinished { run: RunId(run), verdict, tests, coverage: None, report: None },
        );
    }

    fn landed(&mut self, minute: i64, change: u32, run: u32, patch_set: u32) {
        let (commit, tested_tree, landed_tree) = (oid(1), oid(1), oid(1));
        self.at(
            minute,
            Event::Landed {
                change: ChangeId(change),
                patch_set,
                run: RunId(run),
                commit,
                parent: None,
                tested_tree,
                landed_tree,
            },
        );
    }

    fn deployed(&mut self, minute: i64, id: u32, environment: &str, artifact: u32, changes: &[u32]) {
        let service = PlannedService::new("web".parse().unwrap(), &[]);
        let changes = changes.iter().map(|id| ChangeId(*id)).collect();
        let (deployment, environment) = (DeploymentId(id), environment.parse().unwrap());
        let artifact = Digest::of(&[artifact as u8]);
        self.at(
            minute,
            Event::DeploymentStarted {
                deployment,
                environment,
                artifact,
                commit: oid(1),
                run: RunId(1),
                services: vec![service],
                changes,
                runtime: RuntimeKind::Process,
                pins: Default::default(),
            },
        );
        self.at(minute + 2, Event::DeploymentFinished { deployment, ok: true, why: String::new() });
    }

    fn release(&mut self, minute: i64, id: u32, deployment: u32, environment: &str) {
        self.at(
            minute,
            Event::ReleaseStarted {
                release: ReleaseId(id),
                deployment: DeploymentId(deployment),
                environment: environment.parse().unwrap(),
                service: "web".parse().unwrap(),
                from: None,
                to: Revision("r".into()),
                strategy: Strategy::AllAtOnce,
                strategy_name: "n".into(),
                limits_us: vec![],
            },
        );
    }

    fn weight(&mut self, minute: i64, id: u32, basis_points: u16) {
        self.at(minute, Event::WeightChanged { release: ReleaseId(id), basis_points, why: String::new() });
    }

    fn ends(&mut self, minute: i64, id: u32, how: ReleaseEnd) {
        self.at(
            minute,
            Event::ReleaseFinished {
                release: ReleaseId(id),
                how,
                why: String::new(),
                explanation: Default::default(),
            },
        );
    }
}

fn oid(n: u32) -> andon_model::Oid {
    format!("{n:040x}").parse().unwrap()
}

fn week() -> Window {
    Window { from: Time(0), to: Time(7 * 86_400_000), production: "production".parse().unwrap() }
}

/// Change 1 goes all the way, with one red run on the way.
fn delivery() -> Story {
    let mut story = Story::default();
    story.pushed(10, 1, 1, None);
    story.tested(11, 1, 1, 1, Verdict::Red { headline: "t".into(), reasons: vec![] });
    story.pushed(30, 1, 2, None);
    story.tested(31, 1, 2, 2, Verdict::Green);
    story.landed(36, 1, 2, 2);
    story.deployed(40, 1, "staging", 1, &[1]);
    story.release(43, 1, 1, "staging");
    story.ends(43, 1, ReleaseEnd::Released);
    story.deployed(50, 2, "production", 1, &[1]);
    story.release(53, 2, 2, "production");
    story.weight(54, 2, 100);
    story.weight(60, 2, 5000);
    story.ends(70, 2, ReleaseEnd::Released);
    story
}

#[test]
fn a_changes_way_is_told_in_order_with_work_and_waiting() {
    let story = delivery();
    let timeline = story.flow.timeline(ChangeId(1)).unwrap();
    let told: Vec<String> = timeline
        .marks
        .iter()
        .map(|mark| format!("{} {}", mark.at.0 / MINUTE, mark.station.words()))
        .collect();
    assert_eq!(
        told,
        [
            "0 first commit",
            "10 pushed",
            "30 pushed again",
            "31 run queued",
            "32 run started",
            "35 artifact built",
            "35 green",
            "36 landed",
            "40 deploying to staging",
            "42 deployed to staging",
            "43 first users in staging",
            "43 half of the users in staging",
            "43 all users in staging",
            "50 deploying to production",
            "52 deployed to production",
            "54 first users in production",
            "60 half of the users in production",
            "70 all users in production",
        ]
    );
    // 10 writing, 20 mending, 3 testing, 2 and 2 deploying, 16 releasing.
    assert_eq!(timeline.total(Kind::Working), Span(53 * MINUTE as u64));
    assert_eq!(timeline.total(Kind::Waiting), Span(17 * MINUTE as u64));
    assert_eq!(timeline.at(&Station::Landed).unwrap().at, Time(36 * MINUTE));
}

#[test]
fn lead_time_runs_from_the_first_commit_to_everyone_in_production() {
    let summary = delivery().flow.summary(&week(), Time(0));
    assert_eq!((summary.lead_time.n, summary.lead_time.p50), (1, Some(Span(70 * MINUTE as u64))));
    assert_eq!(summary.lead_time_from_push.p50, Some(Span(60 * MINUTE as u64)));
    assert_eq!((summary.deployments, summary.deployments_per_day), (1, Some(1.0 / 7.0)));
    assert_eq!(summary.activity.percent, Some(5300.0 / 70.0));
    let longest = summary.stages.iter().max_by_key(|stage| stage.total).unwrap();
    assert_eq!((longest.from.as_str(), longest.to.as_str()), ("pushed", "pushed again"));
    assert!(summary.under_way.is_empty());
}

#[test]
fn putting_the_old_artifact_back_is_no_delivery() {
    let mut story = delivery();
    story.deployed(100, 3, "production", 1, &[]);
    story.release(103, 3, 3, "production");
    story.ends(104, 3, ReleaseEnd::Released);
    let summary = story.flow.summary(&week(), Time(0));
    assert_eq!((summary.deployments, summary.change_fail_rate.whole), (1, 1));
}

#[test]
fn many_incidents_on_one_deployment_are_one_failure() {
    let mut story = delivery();
    for n in 1..=20 {
        story.at(
            80 + n,
            Event::CordPulled {
                andon: AndonId(n as u32),
                cause: Cause::Release { release: ReleaseId(2) },
                why: "w".into(),
                tag: "t".into(),
                suspects: vec![],
            },
        );
        story.at(110 + n, Event::CordReleased { andon: AndonId(n as u32), why: "w".into() });
    }
    let summary = story.flow.summary(&week(), Time(0));
    assert_eq!((summary.change_fail_rate.part, summary.change_fail_rate.percent), (1, Some(100.0)));
    assert_eq!(
        summary.recovery.p50,
        Some(Span((130 - 54) * MINUTE as u64)),
        "healthy when the last one is over"
    );
}

#[test]
fn recovery_is_from_first_users_to_users_taken_back_and_the_fix_is_rework() {
    let mut story = delivery();
    story.pushed(100, 2, 1, None);
    story.deployed(110, 3, "production", 2, &[2]);
    story.release(113, 3, 3, "production");
    story.weight(114, 3, 100);
    story.ends(117, 3, ReleaseEnd::TakenBack);
    story.pushed(120, 3, 1, Some(1));
    story.deployed(130, 4, "production", 3, &[2, 3]);
    story.release(133, 4, 4, "production");
    story.ends(140, 4, ReleaseEnd::Released);
    let summary = story.flow.summary(&week(), Time(0));
    assert_eq!((summary.change_fail_rate.part, summary.change_fail_rate.whole), (1, 3));
    assert_eq!((summary.recovery.n, summary.recovery.p95), (1, Some(Span(3 * MINUTE as u64))));
    assert_eq!((summary.rework_rate.part, summary.rework_rate.whole), (1, 2));
    assert_eq!(summary.lead_time.n, 3, "change 2 arrived with the second attempt");
}

#[test]
fn what_was_stopped_before_any_user_is_no_failure_in_production() {
    let mut story = delivery();
    story.deployed(110, 3, "production", 2, &[]);
    let cause =
        Cause::Environment { environment: "production".parse().unwrap(), deployment: DeploymentId(3) };
    story.at(
        115,
        Event::CordPulled { andon: AndonId(1), cause, why: "w".into(), tag: "t".into(), suspects: vec![] },
    );
    let summary = story.flow.summary(&week(), Time(0));
    assert_eq!((summary.change_fail_rate.part, summary.change_fail_rate.whole), (0, 1));
}

#[test]
fn a_change_under_way_says_where_it_stands_and_since_when() {
    let mut story = Story::default();
    story.pushed(10, 1, 1, None);
    story.tested(11, 1, 1, 1, Verdict::Green);
    story.pushed(12, 2, 1, None);
    story.at(13, Event::ChangeAbandoned { change: ChangeId(2), why: "w".into() });
    let summary = story.flow.summary(&week(), Time(25 * MINUTE));
    assert_eq!(summary.under_way.len(), 1);
    let first = &summary.under_way[0];
    assert_eq!((first.station.clone(), first.waits), (Station::Green, Span(10 * MINUTE as u64)));
    assert!(serde_json::to_string(&summary).unwrap().contains("\"station\":\"green\""));
}

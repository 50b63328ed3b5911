//! The metrics counted again from the bare journal, the slow and plain way: nothing of the fold is used here.

use andon_model::event::{Cause, Event, PlannedService, Push, Recorded, ReleaseEnd, Revision, RuntimeKind};
use andon_model::strategy::Strategy as Way;
use andon_model::{
    Actor, AndonId, ChangeId, DeploymentId, Digest, EnvironmentName, ReleaseId, RunId, Span, Time,
};
use proptest::prelude::*;

use crate::{Durations, Flow, Window};

fn production() -> EnvironmentName {
    "production".parse().unwrap()
}

type Steps = Vec<(u8, u32, u32, bool, i64)>;

/// A journal in which numbers are drawn from a few, so that everything meets everything, also in orders that make no sense.
fn journal(steps: &Steps) -> Vec<Recorded> {
    let mut journal: Vec<Recorded> = Vec::new();
    let (mut at, mut deployments, mut releases, mut andons) = (0, 0, 0, 0);
    for (what, a, b, yes, wait) in steps {
        at += wait;
        let (a, b, yes) = (*a, *b, *yes);
        let environment = || if b == 4 { "staging".parse().unwrap() } else { production() };
        let service = |n: u32| PlannedService::new(format!("s{n}").parse().unwrap(), &[]);
        let event = match what {
            0 | 1 => Event::ChangePushed(Push {
                change: ChangeId(a),
                patch_set: b,
                head: oid(a),
                title: "t".into(),
                author: "x".into(),
                authored: Time(at - 500 + i64::from(b) * 200),
                identity: "i".into(),
                fixes: yes.then_some(AndonId(b)),
                edits_pipeline: false,
                commits: 1,
            }),
            2 | 3 => {
                deployments += 1;
                let changes = (a.min(b)..=a.max(b)).map(ChangeId).collect();
                let services = if yes { vec![service(1), service(2)] } else { vec![service(1)] };
                Event::DeploymentStarted {
                    deployment: DeploymentId(deployments),
                    environment: environment(),
                    artifact: Digest::of(&[a as u8]),
                    commit: oid(a),
                    run: RunId(a),
                    services,
                    changes,
                    runtime: RuntimeKind::Process,
                    pins: Default::default(),
                }
            }
            4 | 5 if deployments > 0 => {
                releases += 1;
                // The environment of the deployment, as the line would have it.
                let deployment = DeploymentId(deployments.saturating_sub(a % 2).max(1));
                Event::ReleaseStarted {
                    release: ReleaseId(releases),
                    deployment,
                    environment: environment(),
                    service: format!("s{}", if yes { 1 } else { 2 }).parse().unwrap(),
                    from: None,
                    to: Revision("r".into()),
                    strategy: Way::AllAtOnce,
                    strategy_name: "n".into(),
                    limits_us: vec![],
                }
            }
            6 if releases > 0 => Event::WeightChanged {
                release: ReleaseId(releases.saturating_sub(a % 3).max(1)),
                basis_points: [0, 100, 5000, 10_000][b as usize % 4],
                why: String::new(),
            },
            7 | 8 if releases > 0 => Event::ReleaseFinished {
                release: ReleaseId(releases.saturating_sub(a % 3).max(1)),
                why: String::new(),
                explanation: Default::default(),
                how: [
                    ReleaseEnd::Released,
                    ReleaseEnd::Released,
                    ReleaseEnd::TakenBack,
                    ReleaseEnd::Aborted,
                    ReleaseEnd::DarkEnded,
                ][b as usize % 5],
            },
            9 => {
                andons += 1;
                let cause = match a % 4 {
                    0 => Cause::Person,
                    1 => Cause::Release { release: ReleaseId(b) },
                    2 => Cause::Environment { environment: production(), deployment: DeploymentId(b) },
                    _ => Cause::Trunk { run: RunId(b) },
                };
                Event::CordPulled {
                    andon: AndonId(andons),
                    cause,
                    why: "w".into(),
                    tag: "t".into(),
                    suspects: vec![ChangeId(b)],
                }
            }
            10 => Event::CordReleased { andon: AndonId(a), why: "w".into() },
            _ => Event::ChangeAbandoned { change: ChangeId(a), why: "w".into() },
        };
        journal.push(Recorded {
            seq: journal.len() as u64 + 1,
            at: Time(at),
            by: Actor::line("t"),
            project: None,
            event,
        });
    }
    journal
}

fn oid(n: u32) -> andon_model::Oid {
    format!("{n:040x}").parse().unwrap()
}

/// A deployment to production as found by reading on from where it began.
struct Found {
    id: DeploymentId,
    changes: Vec<ChangeId>,
    new: bool,
    first: Option<(u64, i64)>,
    everyone: Option<(u64, i64)>,
    releases: Vec<ReleaseId>,
    taken_back: Option<(u64, i64)>,
}

fn releases_of(journal: &[Recorded], id: DeploymentId) -> Vec<(ReleaseId, String)> {
    let of = |r: &Recorded| match &r.event {
        Event::ReleaseStarted { release, deployment, service, .. } if *deployment == id => {
            Some((*release, service.to_string()))
        }
        _ => None,
    };
    journal.iter().filter_map(of).collect()
}

/// The first end of a release.
fn end(journal: &[Recorded], id: ReleaseId) -> Option<(u64, i64, ReleaseEnd)> {
    journal.iter().find_map(|r| match &r.event {
        Event::ReleaseFinished { release, how, .. } if *release == id => Some((r.seq, r.at.0, *how)),
        _ => None,
    })
}

fn first_users(journal: &[Recorded], id: ReleaseId) -> Option<(u64, i64)> {
    let first_end = end(journal, id);
    journal.iter().find_map(|r| match &r.event {
        Event::WeightChanged { release, basis_points, .. } if *release == id && *basis_points > 0 => {
            Some((r.seq, r.at.0))
        }
        Event::ReleaseFinished { release, how: ReleaseEnd::Released, .. }
            if *release == id && first_end.map(|e| e.0) == Some(r.seq) =>
        {
            Some((r.seq, r.at.0))
        }
        _ => None,
    })
}

fn everyone(journal: &[Recorded], id: DeploymentId, services: usize) -> Option<(u64, i64)> {
    let mut ended: Vec<(u64, i64, String)> = releases_of(journal, id)
        .into_iter()
        .filter_map(|(release, service)| {
            end(journal, release).filter(|e| e.2 == ReleaseEnd::Released).map(|e| (e.0, e.1, service))
        })
        .collect();
    ended.sort();
    let mut names: Vec<&str> = Vec::new();
    for (seq, at, service) in &ended {
        if !names.contains(&service.as_str()) {
            names.push(service);
        }
        if names.len() >= services {
            return Some((*seq, *at));
        }
    }
    None
}

fn found(journal: &[Recorded]) -> Vec<Found> {
    let mut all = Vec::new();
    let mut done: Vec<(Digest, u64)> = Vec::new();
    for r in journal {
        let Event::DeploymentStarted { deployment, environment, artifact, services, .. } = &r.event else {
            continue;
        };
        if *environment == production()
            && let Some((seq, _)) = everyone(journal, *deployment, services.len())
        {
            done.push((artifact.clone(), seq));
        }
    }
    for r in journal {
        let Event::DeploymentStarted { deployment, environment, artifact, services, changes, .. } = &r.event
        else {
            continue;
        };
        if *environment != production() {
            continue;
        }
        let releases = releases_of(journal, *deployment);
        let taken = releases
            .iter()
            .filter(|(id, _)| first_users(journal, *id).is_some())
            .filter_map(|(id, _)| end(journal, *id));
        all.push(Found {
            id: *deployment,
            changes: changes.clone(),
            new: !done.iter().any(|(digest, seq)| digest == artifact && *seq < r.seq),
            first: releases.iter().filter_map(|(id, _)| first_users(journal, *id)).min(),
            everyone: everyone(journal, *deployment, services.len()),
            taken_back: taken
                .filter(|e| matches!(e.2, ReleaseEnd::TakenBack | ReleaseEnd::Aborted))
                .map(|e| (e.0, e.1))
                .max(),
            releases: releases.into_iter().map(|(id, _)| id).collect(),
        });
    }
    all
}

/// None: it did not fail. Otherwise when it was healthy again, if it was.
fn failed(journal: &[Recorded], d: &Found) -> Option<Option<(u64, i64)>> {
    let first = d.first?;
    if let Some(taken) = d.taken_back {
        return Some(Some(taken));
    }
    let mut about = Vec::new();
    for r in journal {
        let Event::CordPulled { andon, cause, suspects, .. } = &r.event else { continue };
        let mine = match cause {
            Cause::Person => r.seq > first.0 && suspects.iter().any(|c| d.changes.contains(c)),
            Cause::Release { release } => d.releases.contains(release),
            Cause::Environment { deployment, .. } => *deployment == d.id,
            _ => false,
        };
        if mine {
            let released = |later: &&Recorded| {
                later.seq > r.seq
                    && matches!(&later.event, Event::CordReleased { andon: a, .. } if a == andon)
            };
            about.push(journal.iter().find(released).map(|r| (r.seq, r.at.0)));
        }
    }
    match about.len() {
        0 => None,
        _ if about.contains(&None) => Some(None),
        _ => Some(about.into_iter().flatten().max()),
    }
}

fn pushes(journal: &[Recorded], id: ChangeId) -> Vec<(&Recorded, &Push)> {
    let of = |r: &'_ Recorded| matches!(&r.event, Event::ChangePushed(push) if push.change == id);
    journal
        .iter()
        .filter(|r| of(r))
        .filter_map(|r| if let Event::ChangePushed(push) = &r.event { Some((r, push)) } else { None })
        .collect()
}

fn percentile(sorted: &[i64], percent: f64) -> Option<Span> {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.max(1) - 1).map(|ms| Span(*ms as u64))
}

fn durations(mut spans: Vec<i64>) -> (usize, Option<Span>, Option<Span>, Option<Span>) {
    spans.sort();
    (spans.len(), percentile(&spans, 50.0), percentile(&spans, 75.0), percentile(&spans, 95.0))
}

fn parts(d: &Durations) -> (usize, Option<Span>, Option<Span>, Option<Span>) {
    (d.n, d.p50, d.p75, d.p95)
}

fn any_steps() -> impl Strategy<Value = Steps> {
    proptest::collection::vec((0..12u8, 1..6u32, 1..6u32, any::<bool>(), 0..5000i64), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn every_metric_equals_a_plain_recount(steps in any_steps(), from in 0..200_000i64, length in 0..300_000i64) {
        let journal = journal(&steps);
        let mut flow = Flow::default();
        journal.iter().for_each(|recorded| flow.evolve(recorded));
        let window = Window { from: Time(from), to: Time(from + length), production: production() };
        let inside = |at: i64| at >= from && at < from + length;
        let summary = flow.summary(&window, Time(0));
        let all = found(&journal);

        // Lead time: changes known when a deployment that names them began.
        let mut lead = Vec::new();
        let mut lead_push = Vec::new();
        let ids: std::collections::BTreeSet<u32> = (1..6).collect();
        for id in ids.into_iter().map(ChangeId) {
            let Some((first, push)) = pushes(&journal, id).first().copied() else { continue };
            let started = |d: &&Found| journal.iter().any(|r| r.seq > first.seq && matches!(&r.event, Event::DeploymentStarted { deployment, .. } if *deployment == d.id));
            let reached = all.iter().filter(started).filter(|d| d.changes.contains(&id)).filter_map(|d| d.everyone).min();
            let Some((_, at)) = reached.filter(|(_, at)| inside(*at)) else { continue };
            lead.push(at - push.authored.0.min(first.at.0));
            lead_push.push(at - first.at.0);
        }
        prop_assert_eq!(parts(&summary.lead_time), durations(lead));
        prop_assert_eq!(parts(&summary.lead_time_from_push), durations(lead_push));

        // Frequency and rework.
        let finished: Vec<&Found> = all.iter().filter(|d| d.new && d.everyone.is_some_and(|e| inside(e.1))).collect();
        prop_assert_eq!(summary.deployments, finished.len() as u64);
        let names = |id: &ChangeId| pushes(&journal, *id).last().is_some_and(|(_, push)| push.fixes.is_some());
        let rework = finished.iter().filter(|d| d.changes.iter().any(names)).count() as u64;
        prop_assert_eq!((summary.rework_rate.part, summary.rework_rate.whole), (rework, finished.len() as u64));

        // Change fail rate and recovery.
        let tried: Vec<&Found> = all.iter().filter(|d| d.new && d.first.is_some_and(|f| inside(f.1))).collect();
        let bad = tried.iter().filter(|d| failed(&journal, d).is_some()).count() as u64;
        prop_assert_eq!((summary.change_fail_rate.part, summary.change_fail_rate.whole), (bad, tried.len() as u64));
        let mut recovery = Vec::new();
        for d in all.iter().filter(|d| d.new) {
            if let (Some(first), Some(Some(healthy))) = (d.first, failed(&journal, d)) && inside(healthy.1) {
                recovery.push((healthy.1 - first.1).max(0));
            }
        }
        prop_assert_eq!(parts(&summary.recovery), durations(recovery));

        // The evidence is there for every number, and it is the right kind of event.
        prop_assert_eq!(summary.lead_time.seqs.len(), summary.lead_time.n);
        prop_assert_eq!(summary.deployment_seqs.len() as u64, summary.deployments);
        prop_assert_eq!(summary.change_fail_rate.seqs.len() as u64, summary.change_fail_rate.part);
        for seq in &summary.deployment_seqs {
            let ends = matches!(&journal[*seq as usize - 1].event, Event::ReleaseFinished { how: ReleaseEnd::Released, .. });
            prop_assert!(ends, "event {} ends no release", seq);
        }

        // A change's segments are exactly its way.
        for id in flow.changes() {
            let timeline = flow.timeline(id).unwrap();
            let (first, last) = (timeline.marks.first().unwrap(), timeline.marks.last().unwrap());
            let sum: u64 = timeline.segments.iter().map(|segment| segment.took.0).sum();
            prop_assert_eq!(sum, last.at.since(first.at).0);
        }
    }
}

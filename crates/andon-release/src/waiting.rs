//! What a release waits for, in words: what, since when, until when. Spans, never clock times. Decides
//! nothing.

use andon_model::Time;
use andon_model::strategy::{OnInconclusive, Strategy};

use crate::explain::{Explanation, whole};
use crate::plan::{Observed, differ, held};
use crate::state::{Ends, Release, Stage, stages};

/// What the release waits for; what became of it when it is over.
pub fn waits_for(release: &Release, seen: &Observed, now: Time) -> String {
    let who = release.to.commit();
    if let Some(end) = &release.ended {
        let frozen =
            release.frozen.as_ref().map(|frozen| format!("; there is no way back behind it: {}", frozen.why));
        return format!("{}{}", end.why, frozen.unwrap_or_default());
    }
    if let Some(frozen) = &release.frozen {
        let since = now.since(frozen.at);
        return format!("frozen for {since}: {}; until it is resumed, to go forward", frozen.why);
    }
    if let Some(pause) = &release.paused {
        return format!(
            "paused by {} for {}: {}; until it is resumed or aborted",
            pause.by,
            now.since(pause.at),
            pause.why
        );
    }
    if !seen.candidate_healthy {
        return format!("for a healthy instance of {who}, for {}", now.since(release.started));
    }
    if held(release, seen) {
        return "until the line runs again: the cord is pulled".into();
    }
    let Some(stage) = release.current() else {
        return format!("for the next look, to move users to {who}");
    };
    let left = |span: andon_model::Span| (release.since + span).since(now);
    if let (Strategy::Dark(dark), Ends::After(time)) = (&release.strategy, stage.ends) {
        let differ = if dark.compare { format!(": {}", differ(seen.mirror)) } else { String::new() };
        return format!("copies of {} of the requests for another {}{differ}", dark.mirror, left(time));
    }
    let place = place(release, stage);
    match stage.ends {
        Ends::After(time) => format!("{place}, for another {}", left(time)),
        Ends::Approved => {
            format!("{place}, until a releaser approves it; waits for {}", now.since(release.since))
        }
        Ends::Certified(cap) => {
            let then = match release.strategy.guard().map(|guard| guard.on_inconclusive) {
                Some(OnInconclusive::Promote) => "then it goes on without",
                _ => "then it holds until promoted",
            };
            let rest = match left(cap) {
                andon_model::Span(0) => {
                    format!("its {cap} are over: it holds until the proof comes or someone promotes it")
                }
                left => format!("for at most another {left}, {then}"),
            };
            format!("{place}, until {}; {rest}", proof(stage, seen.look.as_ref()))
        }
    }
}

fn place(release: &Release, stage: Stage) -> String {
    let all = stages(&release.strategy).len();
    let number = release.stage.map_or(1, |stage| stage + 1);
    format!("step {number} of {all} at {}%", f64::from(stage.weight_bp) / 100.0)
}

/// `certified below 2x, 412 users of about 600 seen`.
fn proof(stage: Stage, look: Option<&Explanation>) -> String {
    let of_stage =
        |look: &&Explanation| look.sample.epochs.last().is_some_and(|e| e.weight_bp == stage.weight_bp);
    let Some(look) = look.filter(of_stage) else { return "certified; no user seen yet".into() };
    let below = look.metrics.iter().map(|m| m.below).fold(1.0, f64::max);
    let seen = look.sample.epochs.last().map_or(0, |e| e.canary.subjects);
    match look.users_missing {
        Some(missing) => {
            format!("certified below {below}x, {} users of about {} seen", whole(seen), whole(seen + missing))
        }
        None => format!("certified below {below}x, which {} users do not show so far", whole(seen)),
    }
}

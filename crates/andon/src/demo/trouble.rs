//! Scenes of trouble: a release that hurts users is taken back, and the line stands until it is mended.

use andon_model::event::{Cause, Event, ReleaseEnd};
use andon_model::{AndonId, ChangeId};
use serde_json::{Value, json};

use super::delivery::SOON;
use super::world::{LANDING, RELEASING, World};
use super::{must, shop};

/// What a later scene needs of an earlier one.
#[derive(Debug, Default)]
pub struct Left {
    /// The andon that stands.
    pub andon: Option<AndonId>,
    /// A change that waited for it.
    pub innocent: Option<ChangeId>,
}

/// Green in every test, and wrong for one customer in eight.
pub fn taken_back(world: &mut World, left: &mut Left) -> Result<Value, String> {
    world.customers()?.begin();
    let change = world.push(&shop::VOUCHERS, "")?;
    world.landed(change)?;
    world.begun(change, "production")?;
    let moved = world.released(change, "production")?;
    must(moved.how == ReleaseEnd::TakenBack, || {
        format!("{} was not taken back: {}", moved.release, moved.why)
    })?;
    must(moved.by.contains("immune system"), || format!("it was taken back by {}", moved.by))?;
    world.report.step(&moved.why);
    left.andon = pulled(world, &Cause::Release { release: moved.release }).ok();
    // Answers that were under way are counted; the next ones have to be good.
    world.customers()?.more(50)?;
    let seen = world.customers()?.seen();
    world.customers()?.begin();
    world.customers()?.more(300)?;
    let after = world.customers()?.seen();
    must(after.failures == 0, || {
        format!("{} requests failed after it was taken back: {:?}", after.failures, after.words)
    })?;
    let of_canary = seen.of(&moved.to).map_or((0, 0), |answers| (answers.users.len(), answers.hurt.len()));
    must(of_canary.1 > 0, || {
        "no customer of the canary saw an error: there was nothing to take back".into()
    })?;
    must(seen.hurt.len() <= of_canary.1, || {
        format!("customers outside of the canary were hurt: {:?}", seen.words)
    })?;
    let all = world
        .customers()?
        .ever()
        .by
        .values()
        .flat_map(|answers| answers.users.iter())
        .collect::<std::collections::HashSet<_>>()
        .len();
    world.report.step(&format!(
        "taken back {:.1} s after its first user; {} of {all} customers saw an error, all among the canary's {}",
        moved.since_users,
        seen.hurt.len(),
        of_canary.0,
    ));
    Ok(json!({
        "change": change.to_string(),
        "release": moved.release.to_string(),
        "why": moved.why,
        "by": moved.by,
        "seconds_first_user_to_taken_back": moved.since_users,
        "seconds_push_to_taken_back": moved.since_push,
        "customers": all,
        "customers_on_canary": of_canary.0,
        "customers_who_saw_an_error": seen.hurt.len(),
        "failed_requests": seen.failures,
        "requests": seen.requests,
        "failed_requests_after": after.failures,
        "evidence": moved.explanation["evidence"],
        "evidence_needed": moved.explanation["evidence_needed"],
        "andon": left.andon.map(|andon| andon.to_string()),
    }))
}

/// The andon that was pulled for a cause.
pub fn pulled(world: &World, wanted: &Cause) -> Result<AndonId, String> {
    world.happened.wait("the cord to be pulled", SOON, |events| {
        events.iter().find_map(|event| match &event.event {
            Event::CordPulled { andon, cause, .. } if cause == wanted => Some(*andon),
            _ => None,
        })
    })
}

/// Waits until the line runs again. Returns why, and how long it stood in seconds.
pub fn runs_again(world: &World, wanted: AndonId) -> Result<(String, f64, String), String> {
    world.happened.wait(&format!("{wanted} to be released"), RELEASING, |events| {
        let pulled = events.iter().find_map(|event| match &event.event {
            Event::CordPulled { andon, .. } if *andon == wanted => Some(event.at),
            _ => None,
        })?;
        events.iter().find_map(|event| match &event.event {
            Event::CordReleased { andon, why } if *andon == wanted => {
                Some((why.clone(), event.at.since(pulled).as_secs_f64(), event.by.to_string()))
            }
            _ => None,
        })
    })
}

/// Only what mends the line lands; the evidence lets the others go on.
pub fn cord(world: &mut World, left: &mut Left) -> Result<Value, String> {
    let andon = match left.andon {
        Some(andon) => andon,
        None => by_hand(world)?,
    };
    let status = world.command(&["cord", "status"]).output().map_err(|error| error.to_string())?;
    must(status.status.code() == Some(1), || format!("`andon cord status` ended with {}", status.status))?;
    world.andon(&["cord", "ack", &andon.to_string()])?;
    world.report.step("somebody else's change arrives");
    let innocent = world.push(&shop::SWITCH, "")?;
    left.innocent = Some(innocent);
    let waits = waits_for(world, innocent, andon)?;
    world.report.step(&format!("{innocent} {waits}"));
    let fix = world.push(&shop::FORGOTTEN_REGION, &format!("Fixes-Andon: {andon}"))?;
    let landing = world.landed(fix)?;
    must(!has_landed(world, innocent), || format!("{innocent} landed while {andon} was open"))?;
    let moved = world.released(fix, "production")?;
    must(moved.how == ReleaseEnd::Released, || format!("the fix was not released: {}", moved.why))?;
    let (why, red, by) = runs_again(world, andon)?;
    world.report.step(&format!("{andon} is over after {red:.1} s: {why}"));
    world.landed(innocent)?;
    Ok(json!({
        "andon": andon.to_string(),
        "innocent": innocent.to_string(),
        "innocent_says": waits,
        "fix": fix.to_string(),
        "seconds_fix_push_to_trunk": landing,
        "seconds_fix_push_to_every_user": moved.since_push,
        "released_because": why,
        "released_by": by,
        "seconds_red": red,
    }))
}

fn by_hand(world: &World) -> Result<AndonId, String> {
    world.andon(&["cord", "pull", "-m", "customers call: something is wrong"])?;
    world.happened.wait("the cord to be pulled", SOON, |events| {
        events.iter().rev().find_map(|event| match &event.event {
            Event::CordPulled { andon, .. } => Some(*andon),
            _ => None,
        })
    })
}

/// What a change says that waits for an andon; looked at again whenever something happens.
fn waits_for(world: &World, change: ChangeId, andon: AndonId) -> Result<String, String> {
    world.happened.wait(&format!("{change} to say that it waits for {andon}"), LANDING, |_| {
        let view = world.get(&format!("/changes/{}", change.0)).ok()?;
        let words = view["row"]["words"].as_str()?.to_owned();
        words.contains(&andon.to_string()).then_some(words)
    })
}

fn has_landed(world: &World, wanted: ChangeId) -> bool {
    let looked = world.happened.wait("the events so far", SOON, |events| {
        Some(
            events
                .iter()
                .any(|event| matches!(&event.event, Event::Landed { change, .. } if *change == wanted)),
        )
    });
    looked.unwrap_or(false)
}

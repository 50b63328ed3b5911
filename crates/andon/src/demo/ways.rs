//! Scenes of other ways to users: a switch between two slots, and a launch that no user sees.

use andon_model::event::{Cause, ReleaseEnd};
use serde_json::{Value, json};

use super::trouble::{Left, pulled};
use super::world::World;
use super::{must, shop};

/// Two slots, one switch, under load.
pub fn blue_green(world: &mut World, left: &mut Left) -> Result<Value, String> {
    world.customers()?.begin();
    let change = match left.innocent {
        Some(change) => change,
        None => world.push(&shop::SWITCH, "")?,
    };
    world.landed(change)?;
    let moved = world.released(change, "production")?;
    must(moved.kind == "blue-green", || format!("{} moved users by {}", moved.release, moved.kind))?;
    must(moved.how == ReleaseEnd::Released, || format!("{} ended otherwise: {}", moved.release, moved.why))?;
    world.customers()?.more(800)?;
    let seen = world.customers()?.seen();
    must(seen.failures == 0, || {
        format!("{} of {} requests failed: {:?}", seen.failures, seen.requests, seen.words)
    })?;
    let green = seen.of(&moved.to).ok_or("nobody was answered by the new slot")?;
    let blue =
        seen.by.iter().filter(|(revision, _)| **revision != moved.to).map(|(_, answers)| answers.last).max();
    // Negative: the new slot answered before the last request of the old one was done.
    let gap = blue.map(|last| match green.first.checked_duration_since(last) {
        Some(gap) => gap.as_secs_f64() * 1000.0,
        None => -(last.duration_since(green.first).as_secs_f64() * 1000.0),
    });
    world.report.step(&format!("{} requests around the switch, none failed", seen.requests));
    Ok(json!({
        "change": change.to_string(),
        "release": moved.release.to_string(),
        "kind": moved.kind,
        "requests": seen.requests,
        "failed_requests": seen.failures,
        "answers_of_new_slot": green.requests,
        "ms_last_old_to_first_new_answer": gap,
    }))
}

/// Copies of production's requests go to code that no user sees; its answers are wrong, and that is found out.
pub fn dark(world: &mut World, left: &mut Left) -> Result<Value, String> {
    world.customers()?.begin();
    let change = world.push(&shop::NEW_PRICES, "")?;
    world.landed(change)?;
    let moved = world.released(change, "production")?;
    must(moved.kind == "dark", || format!("{} went by {}", moved.release, moved.kind))?;
    must(moved.how == ReleaseEnd::TakenBack, || {
        format!("{} was not taken back: {}", moved.release, moved.why)
    })?;
    world.report.step(&moved.why);
    let view = world.get(&format!("/releases/{}", moved.release.0))?;
    let differences = view["differences"].as_array().cloned().unwrap_or_default();
    let seen = world.customers()?.seen();
    must(seen.of(&moved.to).is_none(), || "a user was answered by the dark revision".into())?;
    must(seen.failures == 0, || format!("{} requests failed: {:?}", seen.failures, seen.words))?;
    must(!differences.is_empty(), || "the differences are not shown any more".into())?;
    let first = &differences[0];
    let text = |key: &str| first[key].as_str().unwrap_or_default().to_owned();
    world.report.step(&format!(
        "{} at {}: {} became {}",
        text("request"),
        text("at"),
        text("stable"),
        text("canary")
    ));
    let andon = pulled(world, &Cause::Release { release: moved.release })?;
    let fix = world.push(&shop::OLD_PRICES, &format!("Fixes-Andon: {andon}"))?;
    world.landed(fix)?;
    world.released(fix, "staging")?;
    left.andon = Some(andon);
    Ok(json!({
        "change": change.to_string(),
        "release": moved.release.to_string(),
        "why": moved.why,
        "compared": moved.explanation["compared"],
        "different": moved.explanation["different"],
        "difference": first,
        "users_on_it": 0,
        "requests": seen.requests,
        "failed_requests": seen.failures,
        "seconds_first_copy_to_taken_back": moved.since_users,
        "andon": andon.to_string(),
        "fix": fix.to_string(),
    }))
}

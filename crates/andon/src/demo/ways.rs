//! Scenes of other ways to users: a switch between two slots, and a launch that no user sees.

use std::time::Instant;

use andon_model::event::{Cause, ReleaseEnd};
use serde_json::{Value, json};

use super::report::rounded;
use super::trouble::{Left, pulled};
use super::world::World;
use super::{must, shop};

/// Two slots, one switch under load, and the way back and forth again.
pub fn blue_green(world: &mut World, left: &mut Left) -> Result<Value, String> {
    let before = world.customers()?.ever();
    world.customers()?.begin();
    let change = match left.innocent {
        Some(change) => change,
        None => world.push(&shop::SWITCH, "")?,
    };
    world.landed(change)?;
    let moved = world.released(change, "production")?;
    must(moved.kind == "blue-green", || format!("{} moved users by {}", moved.release, moved.kind))?;
    must(moved.how == ReleaseEnd::Released, || format!("{} ended otherwise: {}", moved.release, moved.why))?;
    world.customers()?.more(400)?;
    let seen = world.customers()?.seen();
    let green = seen.of(&moved.to).ok_or("nobody was answered by the new slot")?;
    let blue = seen.by.iter().filter(|(revision, _)| **revision != moved.to);
    let (old, blue) =
        blue.max_by_key(|(_, answers)| answers.last).ok_or("nobody was answered by the old slot")?;
    // Negative: the new slot answered before the last request of the old one was done.
    let gap = match green.first.checked_duration_since(blue.last) {
        Some(gap) => gap.as_secs_f64() * 1000.0,
        None => -(blue.last.duration_since(green.first).as_secs_f64() * 1000.0),
    };
    world.report.step(&format!(
        "everyone is on the new slot; {gap:.1} ms between the last old answer and the first new one"
    ));
    let back = way_back(world, old)?;
    world.report.step(&format!("everyone is back on the old slot {:.0} ms after the command", back * 1000.0));
    let forth = way_back(world, &moved.to)?;
    world.report.step(&format!("and on the new one again after {:.0} ms", forth * 1000.0));
    let after = world.customers()?.ever();
    let (requests, failures) = (after.requests - before.requests, after.failures - before.failures);
    must(failures == 0, || format!("{failures} of {requests} requests failed: {:?}", after.words))?;
    world.report.step(&format!("{requests} requests around three switches, none failed"));
    Ok(json!({
        "change": change.to_string(),
        "release": moved.release.to_string(),
        "kind": moved.kind,
        "requests": requests,
        "failed_requests": failures,
        "ms_last_old_to_first_new_answer": rounded(gap),
        "seconds_command_to_back": rounded(back),
        "seconds_command_to_forth_again": rounded(forth),
    }))
}

/// Takes users back to the revision before. Returns the seconds from the command until the first of them was answered by it; from the
/// command's end on, all of them have to be.
fn way_back(world: &World, to: &str) -> Result<f64, String> {
    let customers = world.customers()?;
    customers.begin();
    let began = Instant::now();
    world.andon(&["release", "rollback", "production"])?;
    // Answers that were under way.
    customers.more(50)?;
    let first = customers.seen().of(to).map(|answers| answers.first.duration_since(began).as_secs_f64());
    customers.begin();
    customers.more(200)?;
    let others: Vec<String> = customers.seen().by.into_keys().filter(|revision| revision != to).collect();
    must(others.is_empty(), || format!("users were to be on {to}, and some are on {others:?}"))?;
    first.ok_or_else(|| format!("nobody was answered by {to}"))
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
    let text = |key: &str| {
        let known = first[key].as_str().or_else(|| first["samples"][0][key].as_str());
        known.unwrap_or_default().to_owned()
    };
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
        "users_on_it": seen.of(&moved.to).map_or(0, |answers| answers.users.len()),
        "requests": seen.requests,
        "failed_requests": seen.failures,
        "seconds_first_copy_to_taken_back": moved.since_users,
        "andon": andon.to_string(),
        "fix": fix.to_string(),
    }))
}

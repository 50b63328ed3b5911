//! Scenes of changes: environments from code, a change that reaches everyone by itself, two that do not land.

use std::time::Duration;

use andon_model::event::ReleaseEnd;
use serde_json::{Value, json};

use super::load::Shape;
use super::world::World;
use super::{must, shop};

/// Customers of production: enough for a proof within seconds, few enough for two cores.
const CUSTOMERS: Shape = Shape { users: 3_000, rate: 400 };
/// Answers to wait for before the first release is compared with what serves.
const WARM: u64 = 150;

/// Staging and production come from `andon.yaml`, a third one from a command.
pub fn environments(world: &mut World) -> Result<Value, String> {
    shop::write(&world.repository())?;
    let change = world.commit_and_push("A shop with prices, tests and an andon.yaml", "")?;
    let landing = world.landed(change)?;
    let staging = world.released(change, "staging")?;
    let production = world.released(change, "production")?;
    world
        .report
        .step(&format!("staging and production serve, {:.1} s after the push", production.since_push));
    world.open_doors(CUSTOMERS);
    let began = std::time::Instant::now();
    world.andon(&["env", "create", "qa", "--like", "production", "--wait"])?;
    let created = began.elapsed().as_secs_f64();
    world.report.step(&format!("qa serves after {created:.1} s"));
    world.customers()?.more(WARM)?;
    let view = world.get("/environments")?;
    let rows = view["rows"].as_array().cloned().unwrap_or_default();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = rows.iter().map(|row| text(row, "name")).collect();
    let served: Vec<String> =
        rows.iter().filter_map(|row| Some(row["serving"][0][1].as_str()?.to_owned())).collect();
    must(rows.len() == 3 && served.len() == 3 && served.iter().all(|commit| *commit == served[0]), || {
        format!("three environments were to serve one commit: {names:?} serve {served:?}")
    })?;
    Ok(json!({
        "environments": names,
        "commit": served[0],
        "seconds_push_to_trunk": landing,
        "seconds_push_to_staging": staging.since_push,
        "seconds_push_to_production": production.since_push,
        "seconds_to_create_qa": created,
        "heading": view["heading"],
    }))
}

/// Nobody touches it after the push.
pub fn by_itself(world: &mut World) -> Result<Value, String> {
    world.customers()?.begin();
    let change = world.push(&shop::GREETING, "")?;
    let landing = world.landed(change)?;
    let release = world.begun(change, "production")?;
    world.report.step(&format!("production: {release} begins with a part of the users"));
    let moved = world.released(change, "production")?;
    let proof =
        moved.weights.iter().map(|(_, _, why)| why).find(|why| why.contains("proven healthy")).cloned();
    must(moved.how == ReleaseEnd::Released, || format!("{release} ended otherwise: {}", moved.why))?;
    let proof =
        proof.ok_or_else(|| format!("no step of {release} was promoted by a proof: {:?}", moved.weights))?;
    world.report.step(&proof);
    world.customers()?.more(100)?;
    let seen = world.customers()?.seen();
    must(seen.failures == 0, || format!("customers saw {} failures: {:?}", seen.failures, seen.words))?;
    world.report.step(&format!(
        "everyone has it {:.1} s after the push; {} requests, none failed",
        moved.since_push, seen.requests
    ));
    let view = world.get(&format!("/changes/{}", change.0))?;
    let tree = |key: &str| view["proof"][key].as_str().unwrap_or_default().to_owned();
    must(!tree("tested_tree").is_empty() && tree("tested_tree") == tree("landed_tree"), || {
        format!("{change} has no proof that what landed was tested: {}", view["proof"])
    })?;
    Ok(json!({
        "change": change.to_string(),
        "release": moved.release.to_string(),
        "kind": moved.kind,
        "proof": proof,
        "steps": moved.weights.iter().map(|(bp, at, _)| json!({ "percent": f64::from(*bp) / 100.0, "at_ms": at })).collect::<Vec<_>>(),
        "seconds_push_to_trunk": landing,
        "seconds_push_to_every_user": moved.since_push,
        "requests": seen.requests,
        "failed_requests": seen.failures,
        "tested_tree": tree("tested_tree"),
        "landed_tree": tree("landed_tree"),
    }))
}

/// A test fails: trunk stays where it was.
pub fn red(world: &mut World) -> Result<Value, String> {
    let trunk = world.git(&["ls-remote", "andon", "refs/heads/main"])?;
    let change = world.push(&shop::WRONG_DISCOUNT, "")?;
    let (run, why) = world.refused(change)?;
    let after = world.git(&["ls-remote", "andon", "refs/heads/main"])?;
    must(trunk == after, || "trunk moved".into())?;
    must(why.contains("tests.test_prices.PricesTest::test_"), || format!("the test is not named: {why}"))?;
    world.report.step(&format!("{change} is refused: {}", why.lines().next().unwrap_or_default()));
    Ok(
        json!({ "change": change.to_string(), "run": run.map(|run| run.to_string()), "why": why, "trunk_untouched": trunk == after }),
    )
}

/// Tests are green, and the new lines were not run by any.
pub fn untested(world: &mut World) -> Result<Value, String> {
    let change = world.push(&shop::UNTESTED, "")?;
    let (run, why) = world.refused(change)?;
    let run = run.ok_or_else(|| format!("{change} was refused without a run: {why}"))?;
    let view = world.get(&format!("/runs/{}", run.0))?;
    let lines: Vec<String> = view["breaches"][0][1]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|line| Some(line.as_str()?.to_owned()))
        .collect();
    must(lines.iter().any(|line| line.starts_with("shop/prices.py:")), || {
        format!("the lines without tests are not named: {why}; {}", view["breaches"])
    })?;
    world.report.step(&format!("{change} is refused: {}", why.lines().next().unwrap_or_default()));
    world.report.step(&format!("without tests: {}", lines.join(", ")));
    Ok(json!({ "change": change.to_string(), "run": run.to_string(), "why": why, "lines": lines }))
}

/// How long a view may take to say what the journal says already.
pub const SOON: Duration = Duration::from_secs(10);

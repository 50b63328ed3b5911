//! Scenes of the house itself: a change by hand is healed, an environment is made anew, and everything is counted.

use std::io::Write;
use std::time::{Duration, Instant};

use andon_model::event::Event;
use serde_json::{Value, json};

use super::must;
use super::trouble::{Left, runs_again};
use super::world::World;

/// How long a change by hand may go unseen, and unhealed.
const UPKEEP: Duration = Duration::from_secs(20);

/// Somebody edits a file of a running release.
pub fn drift(world: &mut World) -> Result<Value, String> {
    let view = world.get("/environments/staging")?;
    let service = &view["services"][0];
    let instances = service["instances"].as_array().cloned().unwrap_or_default();
    // Not one of those that are only kept warm for the way back.
    let serves = |instance: &&Value| instance["mark"] == "go" && instance["revision"] == service["revision"];
    let serving = instances.iter().find(serves);
    let id = serving.and_then(|instance| instance["id"].as_str()).ok_or("nothing serves in staging")?;
    let file = world.instance(id).join("shop").join("prices.py");
    let after = world.happened.seq();
    let began = Instant::now();
    let edited = std::fs::File::options()
        .append(true)
        .open(&file)
        .and_then(|mut file| file.write_all(b"\nMANY = 2\n"));
    edited.map_err(|error| format!("{}: {error}", file.display()))?;
    world.report.step(&format!("shop/prices.py of {id} in staging is edited by hand"));
    let seen = world.happened.wait("the change by hand to be seen", UPKEEP, |events| {
        events.iter().filter(|event| event.seq > after).find_map(|event| match &event.event {
            Event::DriftSeen { environment, drift } if environment.as_str() == "staging" => {
                Some(drift.clone())
            }
            _ => None,
        })
    })?;
    let seen_after = began.elapsed().as_secs_f64();
    world
        .report
        .step(&format!("seen after {seen_after:.1} s: {} was {}, is {}", seen.what, seen.before, seen.after));
    let how = world.happened.wait("the change by hand to be healed", UPKEEP, |events| {
        events.iter().filter(|event| event.seq > after).find_map(|event| match &event.event {
            Event::DriftHealed { what, how, .. } if *what == seen.what => Some(how.clone()),
            _ => None,
        })
    })?;
    let healed_after = began.elapsed().as_secs_f64();
    world.report.step(&format!("healed after {healed_after:.1} s: {how}"));
    let drifting = world.command(&["env", "drift", "staging"]).output().map_err(|error| error.to_string())?;
    must(drifting.status.success(), || {
        format!("staging still differs: {}", String::from_utf8_lossy(&drifting.stdout))
    })?;
    let began = Instant::now();
    world.andon(&["env", "rebuild", "staging", "--wait"])?;
    let rebuilt = began.elapsed().as_secs_f64();
    world.report.step(&format!("staging is made anew from code in {rebuilt:.1} s"));
    Ok(json!({
        "file": "shop/prices.py",
        "what": seen.what,
        "before": seen.before,
        "after": seen.after,
        "seconds_to_be_seen": seen_after,
        "seconds_to_be_healed": healed_after,
        "how": how,
        "seconds_to_rebuild_staging": rebuilt,
    }))
}

/// The five metrics, from what just happened.
pub fn flow(world: &mut World, left: &mut Left) -> Result<Value, String> {
    if let Some(andon) = left.andon.take() {
        let (why, red, _) = runs_again(world, andon)?;
        world.report.step(&format!("{andon} is over after {red:.1} s: {why}"));
    }
    let text = world.andon(&["--json", "flow"])?;
    let view: Value =
        serde_json::from_str(&text).map_err(|error| format!("`andon flow --json` is no JSON: {error}"))?;
    let metrics: Vec<(String, String)> = view["metrics"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|fact| Some((fact["value"].as_str()?.to_owned(), fact["label"].as_str()?.to_owned())))
        .collect();
    must(metrics.len() == 5, || format!("five metrics were expected: {metrics:?}"))?;
    must(metrics.iter().all(|(value, _)| value != "–"), || format!("a metric has no value: {metrics:?}"))?;
    for (value, label) in &metrics {
        world.report.step(&format!("{value}  {label}"));
    }
    let named: Vec<Value> =
        metrics.iter().map(|(value, label)| json!({ "value": value, "label": label })).collect();
    Ok(json!({ "heading": view["heading"], "metrics": named }))
}

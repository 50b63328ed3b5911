//! `cargo xtask bench router`: users are moved while 500 of them ask every second, and nobody may notice.

use std::net::SocketAddr;

use serde_json::json;

use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary, pause};
use crate::load::{Answer, Load};

/// Requests a second.
const RATE: u64 = 500;
/// Requests in all, at least.
const REQUESTS: u64 = 55_000;
const HOST: &str = "web.production.shop.localhost";

const NOTES: &str = "The release binary with two instances of a tiny service, 5,000 users, 500 requests a second in an open loop over 64 \
    connections: requests leave when they are due, and their time counts from then. Meanwhile a revision is released blue-green, users are \
    sent back to the one before, a third revision is released as a canary to half of the users and aborted, and the round begins again. *Failed* is any \
    answer that is not 200 and every connection that breaks. *Both revisions answered* is from the first answer of the new revision to the last one of the \
    old: what was on its way when the switch was made is answered by where it went. Load, server and services share the machine's cores with other work.";

fn yaml(program: &str, release: &str) -> String {
    format!(
        "version: 1
pipeline: {{ jobs: {{ package: {{ run: \"mkdir dist && cp {program} dist/hello && cp version dist/\", artifact: dist }} }} }}
services: {{ web: {{ command: [./hello, hello, $PORT], replicas: 2, health: / }} }}
environments: {{ production: {{ release: way }} }}
releases: {{ way: {release} }}
"
    )
}

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let binary = binary()?;
    let house = House::open(&binary)?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
    let blue_green = yaml(&program, "{ blue-green: { keep: 10m } }");
    let canary = yaml(&program, "{ canary: [ { weight: 50, for: 10m } ] }");
    house.served(house.propose("Begin", &[("andon.yaml", &blue_green), ("version", "v1")])?)?;
    let load = Load::begin(SocketAddr::from(([127, 0, 0, 1], house.router)), HOST, RATE);
    let mut version = 1;
    let mut rounds = 0;
    let mut switches: Vec<(String, String)> = Vec::new();
    let name = |version: u32| format!("v{version}");
    let story = (|| {
        while load.sent() < REQUESTS {
            pause(3000);
            version += 1;
            house.served(
                house.propose("Another", &[("andon.yaml", &blue_green), ("version", &name(version))])?,
            )?;
            switches.push((name(version - 1), name(version)));
            pause(3000);
            house.post("/api/v1/shop/environments/production/rollback", &json!({}))?;
            pause(3000);
            let proposed =
                house.propose("A canary", &[("andon.yaml", &canary), ("version", &format!("c{version}"))])?;
            house.landed(proposed)?;
            let release = half(&house)?;
            pause(4000);
            house.post(&format!("/api/v1/shop/releases/{release}/abort"), &json!({ "why": "a drill" }))?;
            rounds += 1;
        }
        Ok::<(), String>(())
    })();
    let answers = load.end();
    story?;
    keep("router", figures(&answers, &switches, rounds), NOTES)
}

/// Waits until half of the users are on the newest release: its number.
fn half(house: &House) -> Result<u64, String> {
    for _ in 0..1000 {
        let journal = house.journal()?;
        let last = |kind: &str| {
            journal.iter().rev().find(|event| event["event"]["type"] == kind).cloned().unwrap_or_default()
        };
        let (started, changed) = (last("release_started"), last("weight_changed"));
        let same = started["event"]["release"] == changed["event"]["release"];
        if same && changed["event"]["basis_points"] == 5000 && started["event"]["strategy_name"] == "way" {
            return started["event"]["release"]
                .as_u64()
                .ok_or_else(|| "a release without a number".to_owned());
        }
        pause(50);
    }
    Err("the canary never got half of the users".into())
}

fn figures(answers: &[Answer], switches: &[(String, String)], rounds: u32) -> Vec<Figure> {
    let failed: Vec<&Answer> = answers.iter().filter(|answer| answer.said.is_err()).collect();
    for answer in failed.iter().take(10) {
        println!("failed after {:?}: {:?}", answer.at, answer.said);
    }
    let mut took: Vec<f64> = answers.iter().map(|answer| answer.took.as_secs_f64() * 1000.0).collect();
    let mut both: Vec<f64> = switches.iter().filter_map(|(old, new)| mixture(answers, old, new)).collect();
    let what =
        format!("{} blue-green switches, {rounds} ways back and {rounds} aborted canaries", switches.len());
    let canary =
        answers.iter().filter(|answer| answer.said.as_ref().is_ok_and(|said| said.starts_with('c'))).count();
    let mut figures = vec![
        Figure::higher(format!("requests during {what}"), answers.len() as f64, "", Some(50_000.0)),
        Figure::lower("failed requests", failed.len() as f64, "", Some(0.0)),
        Figure::higher("of them answered by canaries that were aborted", canary as f64, "", None),
        Figure::lower("time of an answer: median", quantile(&mut took, 0.5), "ms", None),
        Figure::lower("time of an answer: p99", quantile(&mut took, 0.99), "ms", None),
    ];
    if !both.is_empty() {
        figures.push(Figure::lower(
            "blue-green switch, both revisions answered: most",
            quantile(&mut both, 1.0),
            "ms",
            None,
        ));
    }
    figures
}

/// Milliseconds in which the old and the new revision both answered.
fn mixture(answers: &[Answer], old: &str, new: &str) -> Option<f64> {
    let says = |answer: &&Answer, wanted: &str| answer.said.as_ref().is_ok_and(|said| said == wanted);
    let first = answers.iter().find(|answer| says(answer, new))?.at;
    // Only this switch: later ways back bring the old one again.
    let soon = first + std::time::Duration::from_secs(2);
    let last =
        answers.iter().take_while(|answer| answer.at < soon).filter(|answer| says(answer, old)).last()?.at;
    Some(last.saturating_sub(first).as_secs_f64() * 1000.0)
}

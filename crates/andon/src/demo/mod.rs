//! `andon demo`: a small shop is delivered, broken, mended and measured before one's eyes, by the doors that everyone has.
//!
//! Owns the order of the scenes and the exit status. What is shown is real: git, tests, processes, requests, statistics.

mod delivery;
mod flags;
mod happened;
mod load;
mod report;
mod shop;
mod trouble;
mod upkeep;
mod ways;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;
use happened::Happened;
use report::{Report, Scene, rounded};
use trouble::Left;
use world::World;

/// Options of `andon demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Stop everything at the end instead of leaving the server up to look around.
    #[arg(long)]
    exit: bool,
    /// Where pages, API and git are served; default: a free port.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Where customers reach the shop; default: a free port.
    #[arg(long)]
    router: Option<SocketAddr>,
}

type Play = fn(&mut World, &mut Left) -> Result<Value, String>;

/// What is shown, in order.
const SCENES: [(&str, Play); 11] = [
    ("environments come from code", |world, _| delivery::environments(world)),
    ("a change lands by itself and reaches everyone by proof", |world, _| delivery::by_itself(world)),
    ("a red change is refused", |world, _| delivery::red(world)),
    ("a change without tests is refused", |world, _| delivery::untested(world)),
    ("a release that hurts users is taken back", trouble::taken_back),
    ("the cord: only what mends the line lands", trouble::cord),
    ("a blue-green switch under load", ways::blue_green),
    ("a flag for employees, one percent, all, nobody", |world, _| flags::flag(world)),
    ("a dark launch is found out before any user sees it", ways::dark),
    ("a change by hand is healed", |world, _| upkeep::drift(world)),
    ("what just happened, in five metrics", upkeep::flow),
];

/// An error with these words, unless it is so.
pub(crate) fn must(so: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if so { Ok(()) } else { Err(otherwise()) }
}

/// Plays all scenes. Exit status 0: each one showed what it is for.
pub fn run(common: &Common, options: Demo) -> Result<(), Failure> {
    let report = Report { json: common.json };
    tools()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    report.say(
        "Andon's demo: a server, a repository and customers, all in a folder that is removed at the end.",
    );
    let began = Instant::now();
    let mut world = World::open(report, runtime.handle().clone(), options.listen, options.router)?;
    report.say(&format!("  pages: {}   shop: {}", world.url, world.router));
    stop_when_told(&runtime, &world.happened);
    let scenes = play(&mut world);
    let summary = summary(&world, &scenes, began.elapsed().as_secs_f64());
    let ok = summary["ok"] == true;
    tell(report, &summary);
    if !options.exit && world.happened.over().is_none() {
        invite(&world);
        world.linger();
    }
    world.close();
    if ok { Ok(()) } else { Err(Failure { words: String::new(), status: status::NO }) }
}

/// What the shop is made with has to be there; said before anything is started.
fn tools() -> Result<(), Failure> {
    let new_enough = "import sys; sys.exit(sys.version_info < (3, 10))";
    for (program, arguments, hint) in [
        ("git", ["version", "--build-options"], "install git 2.38 or newer"),
        (
            "python3",
            ["-c", new_enough],
            "install Python 3.10 or newer; the shop is written in it, with nothing but its standard library",
        ),
    ] {
        let out = std::process::Command::new(program).args(arguments).output();
        if !out.is_ok_and(|out| out.status.success()) {
            return Err(format!("the demo needs {program}\nhint: {hint}").into());
        }
    }
    Ok(())
}

fn play(world: &mut World) -> Vec<Scene> {
    let (mut left, mut scenes) = (Left::default(), Vec::new());
    for (at, (name, play)) in SCENES.into_iter().enumerate() {
        if world.happened.over().is_some() {
            break;
        }
        world.report.begin(at + 1, name);
        let began = Instant::now();
        let evidence = play(world, &mut left);
        let scene = Scene { number: at + 1, name, evidence, seconds: began.elapsed().as_secs_f64() };
        world.report.end(&scene);
        scenes.push(scene);
    }
    scenes
}

fn summary(world: &World, scenes: &[Scene], seconds: f64) -> Value {
    let ever = world.load.as_ref().map(load::Load::ever).unwrap_or_default();
    let failed: Vec<usize> = scenes.iter().filter(|scene| !scene.ok()).map(|scene| scene.number).collect();
    json!({
        "summary": true,
        "ok": failed.is_empty() && scenes.len() == SCENES.len(),
        "scenes": scenes.len(),
        "failed": failed,
        "stopped": world.happened.over(),
        "seconds": rounded(seconds),
        "requests": ever.requests,
        "failed_requests": ever.failures,
        "customers_who_saw_an_error": ever.hurt.len(),
        "url": world.url,
    })
}

fn tell(report: Report, summary: &Value) {
    if report.json {
        say!("{summary}");
    }
    let (mark, words) = match summary["ok"] == true {
        true => ('●', "all scenes shown".to_owned()),
        false => match summary["stopped"].as_str() {
            Some(why) => ('■', format!("{why} after {} of {} scenes", summary["scenes"], SCENES.len())),
            None => ('■', format!("scenes {} failed", summary["failed"])),
        },
    };
    report.say(&format!(
        "\n{mark} {words} in {} s: {} requests, {} failed, {} customers saw an error",
        summary["seconds"],
        summary["requests"],
        summary["failed_requests"],
        summary["customers_who_saw_an_error"],
    ));
}

/// The owner link was used up by the demo itself: a password opens the door for whoever watches.
fn invite(world: &World) {
    let password = andon_kit::secret::fresh("");
    let made = world.client.get("/api/v1/me").and_then(|me| {
        let body = json!({ "name": me["user"], "roles": me["roles"], "password": password });
        world.client.post("/api/v1/users", &body).map(|_| me["user"].as_str().unwrap_or_default().to_owned())
    });
    let way = match made {
        Ok(user) => format!("log in as {user} with the password {password}"),
        Err(failure) => failure.words,
    };
    world.report.say(&format!("● look around: {}/{} ({way})", world.url, world::PROJECT));
    world.report.say("  Ctrl-C stops everything and removes it.");
}

/// Ctrl-C ends what is waited for; everything is removed then.
fn stop_when_told(runtime: &tokio::runtime::Runtime, happened: &Arc<Happened>) {
    let happened = Arc::clone(happened);
    runtime.spawn(async move {
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        happened.end("somebody stopped the demo");
    });
}

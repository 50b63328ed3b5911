//! Power cuts: the server is killed at random moments under load and started again. Nothing that was acknowledged may be missing afterwards,
//! nothing may have happened twice, and what serves users must not have noticed.
//!
//! `ANDON_KILLS` says how often (default 12), `ANDON_SEED` repeats a run. With `ANDON_KILL_FIGURES=FILE` the times to readiness are kept.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Dice, HELLO, Hand, Repo, Server, of_type, pass};

/// A quick line whose artifact is another one with every change.
const LINE: &str = r#"
version: 1
pipeline:
  jobs:
    unit: { run: "sleep 0.3 && echo fine" }
    package: { run: "mkdir dist && cp -r app.py parts dist/", artifact: dist }
    smoke: { stage: environment, run: "sleep 0.2 && echo seen" }
services:
  web: { command: [python3, app.py, $PORT], replicas: 2, health: / }
environments:
  staging: { like: production, replicas: 1, release: all-at-once, tests: [smoke] }
  production: { release: careful }
releases:
  careful: { canary: [ { weight: 20, for: 500ms }, { weight: 50, for: 500ms } ] }
"#;

/// What the server said yes to.
#[derive(Default)]
struct Acknowledged {
    /// Pushed commits.
    commits: Vec<String>,
    /// Flags and what the server said had become of them.
    flags: Vec<(String, String)>,
    /// Cords pulled.
    andons: Vec<String>,
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_happens_twice() {
    let kills: u32 = std::env::var("ANDON_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    let mut dice = Dice::of_environment();
    let (mut server, repo) =
        Server::with_project(&[("andon.yaml", LINE), ("app.py", HELLO), ("parts/0", "0")]);
    server.served(repo.propose("Begin"));
    let (hand, stop) = (server.hand(), AtomicBool::new(false));
    let (push_dice, hand_dice) = (Dice::of(dice.between(0, u64::MAX)), Dice::of(dice.between(0, u64::MAX)));
    let mut ready = Vec::new();
    let mut acknowledged = Acknowledged::default();
    std::thread::scope(|scope| {
        let pusher = scope.spawn(|| push_on(&repo, push_dice, &stop));
        let switcher = scope.spawn(|| switch_on(&hand, hand_dice, &stop));
        // However this ends, the load ends with it.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for kill in 1..=kills {
                pass(dice.between(20, 1500));
                server.kill();
                let before = instances(&server);
                server.start();
                ready.push(server.ready_in);
                still_running(&server, &before, kill);
            }
        }));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
        acknowledged.commits = pusher.join().unwrap();
        (acknowledged.flags, acknowledged.andons) = switcher.join().unwrap();
    });
    println!(
        "{kills} kills; acknowledged: {} pushes, {} flag changes, {} cords",
        acknowledged.commits.len(),
        acknowledged.flags.len(),
        acknowledged.andons.len()
    );
    quiet(&server);
    let journal = server.journal();
    nothing_is_lost(&journal, &acknowledged);
    trunk_is_what_landed(&server, &journal);
    nothing_happened_twice(&journal);
    nobody_is_left_over(&server, &journal);
    keep_figures(&mut ready, kills);
}

/// About a change each second, each in a file of its own. What is not acknowledged is given up or pushed again, as people do.
fn push_on(repo: &Repo, mut dice: Dice, stop: &AtomicBool) -> Vec<String> {
    let mut taken = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        if !repo.try_follow() {
            repo.git(&["reset", "-q", "--hard", "HEAD"]);
        }
        repo.write(&format!("parts/{n}"), &n.to_string());
        repo.commit(&format!("Part {n}"));
        for _ in 0..dice.between(1, 4) {
            let (ok, _) = repo.push();
            if ok {
                taken.push(
                    String::from_utf8(repo.git(&["rev-parse", "HEAD"]).stdout).unwrap().trim().to_owned(),
                );
                break;
            }
            pass(dice.between(50, 300));
        }
        pass(dice.between(200, 1200));
    }
    taken
}

/// Flags switched all the time, the cord pulled and released now and then.
fn switch_on(hand: &Hand, mut dice: Dice, stop: &AtomicBool) -> (Vec<(String, String)>, Vec<String>) {
    let (mut flags, mut andons) = (Vec::new(), Vec::new());
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let flag = format!("load-{n}");
        for (command, body) in [("create", json!({})), ("ramp", json!({ "percent": 25 })), ("on", json!({}))]
        {
            let (status, said) = hand.post(&format!("/api/v1/shop/flags/{flag}/{command}"), &body);
            if status == 200 {
                flags.push((flag.clone(), said["changed"].as_str().unwrap().to_owned()));
            }
            pass(dice.between(5, 120));
        }
        if dice.between(0, 6) == 0 {
            let (status, said) = hand.post("/api/v1/shop/andons", &json!({ "why": format!("drill {n}") }));
            if status == 200 {
                andons.push(said["andon"].as_str().unwrap().to_owned());
            }
            pass(dice.between(50, 800));
        }
        release_all(hand);
    }
    (flags, andons)
}

/// Also those whose pull was recorded and never acknowledged, because the power went out in between: people see them on the wall.
fn release_all(hand: &Hand) {
    let (_, andons) = hand.get("/api/v1/shop/andons");
    for row in andons["rows"].as_array().into_iter().flatten().filter(|row| row["open"] == true) {
        // If the server is down now, the next round comes to it.
        hand.post(&format!("/api/v1/shop/andons/{}/release", row["number"]), &json!({ "why": "a drill" }));
    }
}

/// Of each instance on the host: its process, as its shim wrote it.
fn instances(server: &Server) -> BTreeMap<String, (u64, u64)> {
    let dir = server.room.path().join("data/instances/shop");
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let state =
        |path: &PathBuf| serde_json::from_slice::<Value>(&std::fs::read(path.join("state.json")).ok()?).ok();
    let alive = names.filter_map(|path| {
        let state = state(&path).filter(|state| state["exit"].is_null())?;
        let main = (state["main"]["pid"].as_u64()?, state["main"]["start"].as_u64()?);
        Some((path.file_name()?.to_str()?.to_owned(), main))
    });
    alive.collect()
}

/// The instance that an event is about, as its directory is named.
fn instance(event: &Value) -> Option<String> {
    event["event"]["instance"].as_u64().map(|number| format!("i{number}"))
}

/// Instances that served before are the very same processes afterwards.
fn still_running(server: &Server, before: &BTreeMap<String, (u64, u64)>, kill: u32) {
    let journal = server.journal();
    let mut healthy = BTreeSet::new();
    for event in &journal {
        match (event["event"]["type"].as_str(), instance(event)) {
            (Some("instance_healthy"), Some(id)) => drop(healthy.insert(id)),
            (Some("instance_retired"), Some(id)) => drop(healthy.remove(&id)),
            _ => {}
        }
    }
    let after = instances(server);
    for id in healthy.iter().filter(|id| before.contains_key(*id)) {
        let now = after.get(id);
        // It may be retired between the two looks; then the journal says so by now.
        if now != before.get(id) {
            let retired = server.journal();
            let gone = of_type(&retired, "instance_retired")
                .into_iter()
                .any(|event| instance(event).as_ref() == Some(id));
            assert!(gone, "kill {kill}: {id} was {:?} and is {now:?}", before[id]);
        }
    }
}

/// Waits until everything that was pushed is decided, deployed and released, and nothing waits.
fn quiet(server: &Server) {
    release_all(&server.hand());
    server.until("nothing waits", "/queue", |queue| queue["open"].as_array().is_some_and(Vec::is_empty));
    let journal = server.journal();
    let last = of_type(&journal, "landed").last().unwrap()["event"]["change"].as_u64().unwrap();
    server.served(u32::try_from(last).unwrap());
    let andons = server.view("/andons");
    assert!(!andons["rows"].as_array().unwrap().iter().any(|row| row["open"] == true), "{andons:#}");
}

fn nothing_is_lost(journal: &[Value], acknowledged: &Acknowledged) {
    let seqs: Vec<u64> = journal.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
    let pushed: HashMap<&str, u64> = of_type(journal, "change_pushed")
        .iter()
        .map(|event| (event["event"]["head"].as_str().unwrap(), event["event"]["change"].as_u64().unwrap()))
        .collect();
    assert_eq!(pushed.len(), of_type(journal, "change_pushed").len(), "a commit was taken twice");
    let decided: BTreeSet<u64> = ["landed", "change_refused", "change_abandoned"]
        .iter()
        .flat_map(|kind| of_type(journal, kind))
        .map(|event| event["event"]["change"].as_u64().unwrap())
        .collect();
    for commit in &acknowledged.commits {
        let change = pushed
            .get(commit.as_str())
            .unwrap_or_else(|| panic!("{commit} was acknowledged and is not in the journal"));
        assert!(decided.contains(change), "#{change} was never decided");
    }
    for refused in of_type(journal, "change_refused") {
        // Every change of this load is green: only trunk may have it already, when a commit was stacked on an unlanded one.
        assert_eq!(refused["event"]["why"], "trunk has it already", "{refused}");
    }
    let changed: BTreeSet<(&str, &str)> = of_type(journal, "flag_changed")
        .iter()
        .map(|event| (event["event"]["flag"].as_str().unwrap(), event["event"]["what"].as_str().unwrap()))
        .collect();
    for (flag, what) in &acknowledged.flags {
        assert!(
            changed.contains(&(flag, what)),
            "{flag}: {what:?} was acknowledged and is not in the journal"
        );
    }
    let pulled: Vec<&Value> =
        of_type(journal, "cord_pulled").iter().map(|event| &event["event"]["andon"]).collect();
    for andon in &acknowledged.andons {
        let number: u64 = andon[1..].parse().unwrap();
        assert!(pulled.iter().any(|a| **a == *andon || **a == number), "{andon}: {pulled:?}");
    }
    for pull in of_type(journal, "cord_pulled") {
        let failed: Vec<&Value> = of_type(journal, "deployment_finished")
            .into_iter()
            .filter(|event| event["event"]["ok"] == false)
            .collect();
        assert_eq!(
            pull["event"]["cause"], "person",
            "a power cut is no reason to stop the line: {pull}, {failed:?}"
        );
    }
}

fn trunk_is_what_landed(server: &Server, journal: &[Value]) {
    let landed = of_type(journal, "landed");
    let changes: BTreeSet<u64> =
        landed.iter().map(|event| event["event"]["change"].as_u64().unwrap()).collect();
    assert_eq!(changes.len(), landed.len(), "a change landed twice");
    for event in &landed {
        assert_eq!(event["event"]["tested_tree"], event["event"]["landed_tree"], "{event}");
    }
    let git = server.room.path().join("data/git/shop.git");
    let args = ["rev-list", "--first-parent", "--reverse", "refs/heads/main"];
    let chain = std::process::Command::new("git").arg("--git-dir").arg(git).args(args).output().unwrap();
    let chain = String::from_utf8(chain.stdout).unwrap();
    let said: Vec<&str> = landed.iter().map(|event| event["event"]["commit"].as_str().unwrap()).collect();
    let mut real: Vec<&str> = chain.lines().collect();
    // Before the first landing trunk was empty: what that change brought stands below it.
    let first = real.iter().position(|commit| *commit == said[0]).expect("the first landing is on trunk");
    real.drain(..first);
    assert_eq!(real, said, "trunk and journal differ");
}

fn nothing_happened_twice(journal: &[Value]) {
    let once = |what: &str, kinds: &[&str], keys: &[&str]| {
        let mut seen = BTreeSet::new();
        for event in kinds.iter().flat_map(|kind| of_type(journal, kind)) {
            let key: Vec<String> = keys.iter().map(|key| event["event"][*key].to_string()).collect();
            assert!(seen.insert(key), "{what} twice: {event}");
        }
    };
    once("an attempt began", &["job_started"], &["run", "job", "attempt"]);
    once("an attempt ended", &["job_finished", "job_lost"], &["run", "job", "attempt"]);
    once("a run ended", &["run_finished"], &["run"]);
    once("an artifact was built", &["artifact_built"], &["run"]);
    once("a deployment began", &["deployment_started"], &["deployment"]);
    once("an artifact was deployed", &["deployment_started"], &["environment", "run"]);
    once("a deployment ended", &["deployment_finished"], &["deployment"]);
    once("an environment was tested", &["environment_tested"], &["deployment"]);
    once("an instance was planned", &["instance_planned"], &["instance"]);
    once("an instance became healthy", &["instance_healthy"], &["instance"]);
    once("an instance was retired", &["instance_retired"], &["instance"]);
    once("a release began", &["release_started"], &["release"]);
    once("a deployment was released", &["release_started"], &["deployment", "service"]);
    once("a release ended", &["release_finished"], &["release"]);
    once("a flag was changed to the same", &["flag_changed"], &["flag", "what"]);
    let mut weights: HashMap<String, u64> = HashMap::new();
    for event in of_type(journal, "weight_changed") {
        let weight = event["event"]["basis_points"].as_u64().unwrap();
        let before = weights.insert(event["event"]["release"].to_string(), weight).unwrap_or(0);
        assert!(weight > before, "from {before} to {weight}: {event}");
    }
    for kind in ["drift_seen", "drift_healed"] {
        assert!(of_type(journal, kind).is_empty(), "{:#?}", of_type(journal, kind));
    }
    for event in of_type(journal, "deployment_finished") {
        assert_eq!(event["event"]["ok"], true, "{event}");
    }
}

/// Every process that stems from this server belongs to an instance that the journal knows, and no job is left.
fn nobody_is_left_over(server: &Server, journal: &[Value]) {
    let retired: BTreeSet<String> =
        of_type(journal, "instance_retired").into_iter().filter_map(instance).collect();
    let known: BTreeSet<String> = of_type(journal, "instance_planned")
        .into_iter()
        .filter_map(instance)
        .filter(|id| !retired.contains(id))
        .collect();
    let data = server.room.path().join("data").canonicalize().unwrap();
    let strays = || strays(&data, server.pid(), &known);
    let begun = Instant::now();
    // A job's shim gives its job five seconds to end after the server is gone.
    while !strays().is_empty() && begun.elapsed() < Duration::from_secs(15) {
        support::pause();
    }
    assert!(strays().is_empty(), "{:#?}\nknown: {known:?}", strays());
}

fn strays(data: &Path, server: u32, known: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let cwd = std::fs::read_link(path.join("cwd")).unwrap_or_default();
        let of_server = cwd.starts_with(data) || command.contains(&*data.to_string_lossy());
        if pid == server || !of_server {
            continue;
        }
        let belongs = known.iter().any(|id| {
            let dir = data.join("instances/shop").join(id);
            cwd.starts_with(&dir) || command.split(' ').any(|word| Path::new(word) == dir)
        });
        if !belongs {
            found.push(format!("{pid} {command} in {}", cwd.display()));
        }
    }
    found
}

fn keep_figures(ready: &mut [Duration], kills: u32) {
    ready.sort_unstable();
    let at = |share: f64| ready[((ready.len() - 1) as f64 * share) as usize].as_millis();
    println!("ready after: p50 {} ms, p95 {} ms, most {} ms", at(0.5), at(0.95), at(1.0));
    assert!(at(1.0) < 2000, "ready within 2 s");
    if let Ok(file) = std::env::var("ANDON_KILL_FIGURES") {
        let text = json!({ "kills": kills, "ready_p50_ms": at(0.5), "ready_p95_ms": at(0.95), "ready_max_ms": at(1.0) });
        std::fs::write(file, text.to_string()).unwrap();
    }
}

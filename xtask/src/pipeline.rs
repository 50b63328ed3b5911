//! `cargo xtask bench pipeline`: how soon a push runs, what a step and a job cost, and what killing the server or a job leaves. Other
//! programs that run steps are measured beside it where they are at hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary, pause, target};

/// Pushes whose first instruction is timed.
const PUSHES: u32 = 60;
/// Jobs side by side, and steps of each, for the number of steps a second.
const WIDE: u32 = 4;
const STEPS: u32 = 200;
/// Times that the server is killed.
const KILLS: u32 = 200;
/// Targets of make and ninja.
const TARGETS: u32 = 1000;

const YAML: &str = "version: 1\npipeline: { jobs: { unit: { run: \"date +%s%N\" } } }\n";

const NOTES: &str = "The release binary. *Push to first instruction* is from the start of the hook that git runs for a push (a shell script in its place notes the \
    moment and costs two milliseconds, which are counted) to the moment that the first command of the first job prints, on one idle server, one push at a time, every job \
    in its sandbox. *Jobs and steps* are those of `andon-runner` alone, with the binary's own shim: `sandboxed` is by all that the host permits, `bare` by nothing; each step has a line \
    in a record that is flushed to the disk before the next one begins. *Steps a second* go through a whole server: each of them is an event of the journal as well. *Kills* are \
    the test `jobs` of the crate andon: `kill -9` of the server at a random moment 10 to 600 ms after it is ready, with four jobs of five steps under way; afterwards every push is decided, no step \
    ran twice in an attempt or is recorded twice, and no process and no room is left. Peers run the same number of commands that do nothing: make and ninja keep no record of a step \
    and confine nothing, wrkflw runs steps without a container (`--runtime emulation`), Buildbot's is a build of 50 steps from its request to its end, with master and worker on this machine, Turborepo's are as many packages as jobs are replayed, all of them in its local cache. The machine is shared with other \
    work, so times are upper bounds.";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let binary = binary()?;
    let mut figures = first_instruction(&binary)?;
    figures.extend(steps_a_second(&binary)?);
    figures.extend(of_runner(&binary)?);
    figures.extend(crate::plans::figures()?);
    figures.extend(crate::plans::replays(&binary)?);
    figures.extend(peers()?);
    // Kept already: the kills take minutes.
    keep("pipeline", figures.clone(), NOTES)?;
    figures.extend(kills(&binary)?);
    keep("pipeline", figures, NOTES)
}

fn first_instruction(binary: &Path) -> Result<Vec<Figure>, String> {
    let house = House::open(binary)?;
    house.landed(house.propose("Begin", &[("andon.yaml", YAML)])?)?;
    pause(2000);
    let idle = house.memory()?;
    let hooks = hooked(&house)?;
    let mut from_hook = Vec::new();
    let mut from_record = Vec::new();
    for n in 1..=PUSHES {
        let change = house.propose(&format!("Change {n}"), &[("n", &n.to_string())])?;
        house.landed(change)?;
        // So that nothing of the last one is still being tidied.
        pause(150);
    }
    let journal = house.journal()?;
    let begun = std::fs::read_to_string(&hooks).map_err(|error| format!("{}: {error}", hooks.display()))?;
    let begun: Vec<f64> =
        begun.lines().filter_map(|line| line.parse::<f64>().ok()).map(|nanos| nanos / 1e6).collect();
    let pushes: Vec<&Value> =
        journal.iter().filter(|event| event["event"]["type"] == "change_pushed").skip(1).collect();
    if begun.len() != pushes.len() {
        return Err(format!("{} hooks for {} pushes", begun.len(), pushes.len()));
    }
    for (push, hook) in pushes.iter().zip(begun) {
        let printed = first_print(&house, &journal, push)?;
        from_hook.push(printed - hook);
        from_record.push(printed - push["at"].as_f64().ok_or("a push without a time")?);
    }
    let of = format!("push to first instruction, from the hook's start, {PUSHES} pushes");
    Ok(vec![
        Figure::lower(format!("{of}: median"), quantile(&mut from_hook, 0.5), "ms", Some(50.0)),
        Figure::lower(format!("{of}: p99"), quantile(&mut from_hook, 0.99), "ms", Some(200.0)),
        Figure::lower(
            "the same, from the record of the push: median",
            quantile(&mut from_record, 0.5),
            "ms",
            None,
        ),
        Figure::lower("memory of an idle server", idle, "MB", Some(30.0)),
    ])
}

/// Puts a script in the hook's place that notes when it began. Where it notes it.
fn hooked(house: &House) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: std::io::Error| error.to_string();
    let (hook, beside) = (house.room.join("data/git/shop.git/hooks/proc-receive"), house.room.join("hook"));
    let (noted, moved) = (beside.join("begun"), beside.join("proc-receive"));
    std::fs::create_dir(&beside).map_err(failed)?;
    let exe = std::fs::read_link(&hook).map_err(failed)?;
    std::os::unix::fs::symlink(exe, &moved).map_err(failed)?;
    std::fs::remove_file(&hook).map_err(failed)?;
    std::fs::write(
        &hook,
        format!("#!/bin/sh\ndate +%s%N >> {}\nexec {}\n", noted.display(), moved.display()),
    )
    .map_err(failed)?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    Ok(noted)
}

/// When the first command of a push's job printed, in milliseconds.
fn first_print(house: &House, journal: &[Value], push: &Value) -> Result<f64, String> {
    let of = |event: &&Value| event["event"]["purpose"]["gate"]["change"] == push["event"]["change"];
    let mut queued = journal.iter().filter(|event| event["event"]["type"] == "run_queued");
    let queued = queued.find(of).ok_or("a push without a run")?;
    let log = house.text(&format!("/api/v1/shop/runs/{}/jobs/unit/log", queued["event"]["run"]))?;
    log.trim().parse::<f64>().map(|nanos| nanos / 1e6).map_err(|_| format!("the log is {log:?}"))
}

fn steps_a_second(binary: &Path) -> Result<Vec<Figure>, String> {
    let house = House::open_with(binary, &["--slots", &WIDE.to_string()])?;
    let steps: String =
        (1..=STEPS).map(|n| format!("        - {{ name: Step {n}, run: \"true\" }}\n")).collect();
    let jobs: String = (1..=WIDE).map(|n| format!("    job-{n}:\n      steps:\n{steps}")).collect();
    let yaml = format!("version: 1\npipeline:\n  jobs:\n{jobs}");
    house.landed(house.propose("Steps", &[("andon.yaml", &yaml)])?)?;
    let journal = house.journal()?;
    let at = |kind: &str| {
        let events = journal.iter().filter(|event| event["event"]["type"] == kind);
        events.filter_map(|event| event["at"].as_f64()).collect::<Vec<_>>()
    };
    let (begun, ended) = (at("job_started"), at("job_finished"));
    let recorded = at("step_finished").len();
    if recorded != (WIDE * STEPS) as usize {
        return Err(format!("{recorded} of {} steps are recorded", WIDE * STEPS));
    }
    let took =
        ended.iter().copied().fold(f64::MIN, f64::max) - begun.iter().copied().fold(f64::MAX, f64::min);
    let name = format!("steps a second, {WIDE} sandboxed jobs side by side, every step in the journal");
    Ok(vec![Figure::higher(name, f64::from(WIDE * STEPS) / (took / 1000.0), "", Some(400.0))])
}

fn of_runner(binary: &Path) -> Result<Vec<Figure>, String> {
    let out = Command::new("cargo")
        .args(["run", "--release", "--quiet", "-p", "andon-runner", "--example", "figures", "--"])
        .arg(binary)
        .current_dir(crate::root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !out.status.success() {
        return Err("attempts could not be measured: see above".into());
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let figures: Result<Vec<Figure>, _> = text.lines().map(serde_json::from_str).collect();
    figures.map_err(|error| error.to_string())
}

fn kills(binary: &Path) -> Result<Vec<Figure>, String> {
    let file = target().join("jobs-figures.json");
    let ran = Command::new("cargo")
        .args(["test", "--quiet", "-p", "andon", "--test", "jobs", "--", "--nocapture", "however_often"])
        .env("ANDON_KILLS", KILLS.to_string())
        .env("ANDON_BIN", binary)
        .env("ANDON_KILL_FIGURES", &file)
        .current_dir(crate::root())
        .status()
        .map_err(|error| error.to_string())?;
    if !ran.success() {
        return Err("the kills lost or repeated something: see above".into());
    }
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let said: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let number = |key: &str| said[key].as_f64().unwrap_or(f64::NAN);
    let of = format!("in {KILLS} kills of the server under {} steps", number("steps"));
    Ok(vec![
        Figure::lower(
            format!("runs lost or stuck, steps run or recorded twice, processes left, {of}"),
            0.0,
            "",
            Some(0.0),
        ),
        Figure::higher("kills that found steps under way", number("live"), "", None),
        Figure::higher("attempts that outlived a server and were taken up", number("adopted"), "", None),
        Figure::lower("attempts lost that had begun", 0.0, "", Some(0.0)),
        Figure::lower("attempts lost before their shim had begun", number("lost"), "", None),
    ])
}

/// What others need for commands that do nothing. `tools/peers` installs them; one that cannot be had is named.
fn peers() -> Result<Vec<Figure>, String> {
    let own = target().join("peers");
    let installed = Command::new(crate::root().join("tools/peers")).arg(&own).status();
    installed.map_err(|error| format!("tools/peers: {error}"))?;
    let room = tempdir()?;
    let mut figures = Vec::new();
    let mut say = |name: &str, unit: &str, took: Result<f64, String>| match took {
        Ok(value) => figures.push(Figure::lower(name, value, unit, None)),
        Err(why) => println!("○ not measured: {name} ({why})"),
    };
    let each = f64::from(TARGETS);
    let targets: Vec<String> = (1..=TARGETS).map(|n| format!("t{n}")).collect();
    let makefile = format!(".PHONY: all {0}\nall: {0}\n{0}:\n\t@sh -c true\n", targets.join(" "));
    write(&room.join("Makefile"), &makefile)?;
    let make = timed(Command::new("make").args(["-s", "-j1"]), &room);
    say("peer: make, a target", "ms", make.map(|took| took / each));
    let rules: String = targets.iter().map(|target| format!("build {target}: nothing\n")).collect();
    write(&room.join("build.ninja"), &format!("rule nothing\n  command = sh -c true\n{rules}"))?;
    let ninja = timed(Command::new("ninja").args(["--quiet", "-j1"]), &room);
    say("peer: ninja, a target", "ms", ninja.map(|took| took / each));
    say("peer: wrkflw, a step, its own start included", "ms", wrkflw(&own, &room));
    let buildbot = buildbot(&own);
    say("peer: Buildbot, a step", "ms", buildbot.clone().map(|(step, _)| step));
    say("peer: Buildbot's idle master, memory", "MB", buildbot.map(|(_, memory)| memory));
    say("peer: Turborepo, 100 cached tasks, its own start included, p50", "ms", turborepo(&own, &room));
    let _ = std::fs::remove_dir_all(&room);
    Ok(figures)
}

fn at_hand(program: &Path) -> Result<(), String> {
    if program.exists() { Ok(()) } else { Err(format!("{} is not there", program.display())) }
}

fn wrkflw(own: &Path, room: &Path) -> Result<f64, String> {
    const STEPS: u32 = 50;
    let program = own.join("wrkflw/bin/wrkflw");
    at_hand(&program)?;
    let steps: String = (1..=STEPS).map(|_| "      - run: \"true\"\n").collect();
    std::fs::create_dir_all(room.join(".github/workflows")).map_err(|error| error.to_string())?;
    let file = room.join(".github/workflows/nothing.yml");
    write(
        &file,
        &format!(
            "name: nothing\non: push\njobs:\n  nothing:\n    runs-on: ubuntu-latest\n    steps:\n{steps}"
        ),
    )?;
    let took = timed(Command::new(&program).args(["run", "--runtime", "emulation"]).arg(file), room)?;
    Ok(took / f64::from(STEPS))
}

/// Milliseconds of a step, and megabytes of the idle master.
fn buildbot(own: &Path) -> Result<(f64, f64), String> {
    let venv = own.join("buildbot-venv");
    at_hand(&venv.join("bin/buildbot"))?;
    let out = Command::new(crate::root().join("tools/peer-buildbot")).arg(venv).output();
    let out = out.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    let numbers =
        said.split_once(' ').and_then(|(step, memory)| Some((step.parse().ok()?, memory.parse().ok()?)));
    numbers.ok_or_else(|| format!("it said {said:?} {}", String::from_utf8_lossy(&out.stderr).trim()))
}

/// As many tasks as [`crate::plans`] replays, each in a package of its own, all of them cached: milliseconds of a warm run.
fn turborepo(own: &Path, room: &Path) -> Result<f64, String> {
    let program = own.join("turbo/node_modules/.bin/turbo");
    at_hand(&program)?;
    let repo = room.join("turbo");
    for n in 0..crate::plans::CACHED {
        let package = repo.join(format!("packages/p{n}"));
        std::fs::create_dir_all(&package).map_err(|error| error.to_string())?;
        let text = format!("{{\"name\":\"p{n}\",\"version\":\"1.0.0\",\"scripts\":{{\"build\":\"true\"}}}}");
        write(&package.join("package.json"), &text)?;
    }
    let version = Command::new("npm").arg("--version").output().map_err(|error| format!("npm: {error}"))?;
    let npm = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let package = format!(
        "{{\"name\":\"root\",\"private\":true,\"packageManager\":\"npm@{npm}\",\"workspaces\":[\"packages/*\"]}}"
    );
    write(&repo.join("package.json"), &package)?;
    write(&repo.join("turbo.json"), "{\"tasks\":{\"build\":{\"outputs\":[]}}}")?;
    write(&repo.join(".gitignore"), "node_modules\n.turbo\n")?;
    for words in [&["git", "init", "-q"][..], &["git", "add", "-A"], &["npm", "install", "--silent"]] {
        timed(Command::new(words[0]).args(&words[1..]), &repo)?;
    }
    let once = || {
        let words = ["run", "build", "--output-logs=none", "--no-update-notifier"];
        timed(
            Command::new(&program).args(words).env("TURBO_TELEMETRY_DISABLED", "1").env("DO_NOT_TRACK", "1"),
            &repo,
        )
    };
    once()?;
    let mut took = (0..11).map(|_| once()).collect::<Result<Vec<f64>, String>>()?;
    Ok(quantile(&mut took, 0.5))
}

fn timed(command: &mut Command, room: &Path) -> Result<f64, String> {
    let command = command.current_dir(room).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status().map_err(|error| error.to_string())?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    if status.success() { Ok(took) } else { Err(format!("it ended with {status}")) }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn tempdir() -> Result<PathBuf, String> {
    let made = Command::new("mktemp").args(["-d", "-t", "andon-peers-XXXXXX"]).output();
    let made = made.map_err(|error| error.to_string())?;
    Ok(PathBuf::from(String::from_utf8_lossy(&made.stdout).trim()))
}

//! `cargo xtask bench environments`: how quickly environments come, are rebuilt and go, twenty at once, and what a thousand of them leave.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary, pause, sum};

/// Environments at once.
const AT_ONCE: usize = 20;
/// Environments made and rebuilt one after the other.
pub(crate) const ALONE: usize = 20;
/// Environments that come and go; `ANDON_BENCH_CYCLES` says another number.
const CYCLES: usize = 1000;
/// Files tampered with.
const TAMPERED: usize = 20;

const NOTES: &str = "The release binary, process runtime, as root: namespaces, Landlock, filter of system calls, groups with limits, and for each environment \
    a network of its own, in which its three services listen on the same port. *Create* is from the request to three healthy instances, \
    *rebuild* from the request until all of them are new and healthy; both seen by asking every 20 ms. *Come and go*: an environment is made, \
    healthy, ended, and gone from the host; afterwards processes, groups, network namespaces and devices, mounts and instance directories that carry the \
    server's name are counted. *Drift* is from a write into a running release until it is recorded. There is no database in these environments. \
    The machine is shared with other work, so times are upper bounds.";

pub(crate) fn yaml(program: &str) -> String {
    let service = |name: &str| {
        format!(
            "  {name}: {{ command: [./hello, hello, $PORT], health: /, port: 8080, limits: {{ memory: 64MiB, cpu: 1, processes: 32 }} }}\n"
        )
    };
    format!(
        "version: 1
pipeline: {{ jobs: {{ package: {{ run: \"mkdir dist && cp {program} dist/hello && cp version dist/\", artifact: dist }} }} }}
services:
{}{}{}environments: {{ production: {{ release: way }} }}
releases: {{ way: {{ blue-green: {{ keep: 1s }} }} }}
",
        service("web"),
        service("cart"),
        service("mail"),
    )
}

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let binary = binary()?;
    let house = House::open(&binary)?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
    house.served(house.propose("Begin", &[("andon.yaml", &yaml(&program)), ("version", "v1")])?)?;
    let mut figures = Vec::new();

    let (mut made, mut rebuilt) = (Vec::new(), Vec::new());
    for n in 0..ALONE {
        let name = format!("alone-{n}");
        made.push(create(&house, &name)?);
        rebuilt.push(rebuild(&house, &name)?);
        end(&house, &name)?;
    }
    figures.push(Figure::lower("create with 3 services: median", quantile(&mut made, 0.5), "s", None));
    figures.push(Figure::lower("create with 3 services: p95", quantile(&mut made, 0.95), "s", Some(5.0)));
    figures.push(Figure::lower("rebuild: median", quantile(&mut rebuilt, 0.5), "s", None));
    figures.push(Figure::lower("rebuild: p95", quantile(&mut rebuilt, 0.95), "s", Some(10.0)));

    let begun = Instant::now();
    let mut together = at_once(AT_ONCE, |n| create(&house, &format!("both-{n}")))?;
    let all = begun.elapsed().as_secs_f64();
    figures.push(Figure::lower(
        format!("{AT_ONCE} at once: create, p95"),
        quantile(&mut together, 0.95),
        "s",
        None,
    ));
    figures.push(Figure::lower(
        format!("{AT_ONCE} at once: all {} instances healthy", 3 * AT_ONCE),
        all,
        "s",
        None,
    ));
    let mut together = at_once(AT_ONCE, |n| rebuild(&house, &format!("both-{n}")))?;
    figures.push(Figure::lower(
        format!("{AT_ONCE} at once: rebuild, p95"),
        quantile(&mut together, 0.95),
        "s",
        None,
    ));
    at_once(AT_ONCE, |n| end(&house, &format!("both-{n}")))?;

    let mut seen = Vec::new();
    for n in 0..TAMPERED {
        seen.push(drift(&house, &format!("drift-{n}"))?);
    }
    figures.push(Figure::lower("drift of a file to its record: median", quantile(&mut seen, 0.5), "s", None));
    figures.push(Figure::lower(
        "drift of a file to its record: most",
        quantile(&mut seen, 1.0),
        "s",
        Some(5.0),
    ));
    keep("environments", figures.clone(), NOTES)?;

    let cycles = cycles();
    let before = left(&house)?;
    let hands = 4;
    let begun = Instant::now();
    at_once(hands, |hand| {
        for n in (hand..cycles).step_by(hands) {
            create(&house, &format!("cycle-{n}"))?;
            end(&house, &format!("cycle-{n}"))?;
        }
        Ok(0.0)
    })?;
    let took = begun.elapsed().as_secs_f64();
    let after = left(&house)?;
    let leaked: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    for line in &leaked {
        println!("left: {line}");
    }
    let known = house.journal()?;
    let drifts = known.iter().filter(|event| event["event"]["type"] == "drift_seen").count();
    figures.push(Figure::lower(
        format!("left by {cycles} environments that came and went"),
        leaked.len() as f64,
        "",
        Some(0.0),
    ));
    figures.push(Figure::lower("of them a second", cycles as f64 / took, "/s", None));
    figures.push(Figure::lower(
        "drift seen where nobody had tampered",
        drifts.saturating_sub(TAMPERED) as f64,
        "",
        Some(0.0),
    ));
    figures.push(Figure::lower("memory of the server after all that", house.memory()?, "MB", Some(60.0)));
    keep("environments", figures, NOTES)
}

/// Environments that come and go.
pub(crate) fn cycles() -> usize {
    std::env::var("ANDON_BENCH_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(CYCLES)
}

/// Does it so many times at the same time.
pub(crate) fn at_once<T: Send>(
    times: usize,
    what: impl Fn(usize) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let what = &what;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..times).map(|n| scope.spawn(move || what(n))).collect();
        all.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    })
}

pub(crate) fn healthy(view: &Value) -> Vec<String> {
    let services = view["services"].as_array().into_iter().flatten();
    let instances = services.flat_map(|service| service["instances"].as_array().into_iter().flatten());
    let good = instances.filter(|instance| instance["mark"] == "go");
    good.filter_map(|instance| instance["id"].as_str().map(str::to_owned)).collect()
}

pub(crate) fn create(house: &House, name: &str) -> Result<f64, String> {
    let begun = Instant::now();
    house.post("/api/v1/shop/environments", &json!({ "name": name, "like": "production", "ttl": "1h" }))?;
    house.until(&format!("/environments/{name}"), |view| healthy(view).len() == 3)?;
    Ok(begun.elapsed().as_secs_f64())
}

pub(crate) fn rebuild(house: &House, name: &str) -> Result<f64, String> {
    let path = format!("/environments/{name}");
    let before = healthy(&house.get(&format!("/api/v1/shop{path}"))?);
    let begun = Instant::now();
    house.post(&format!("/api/v1/shop{path}/rebuild"), &json!({}))?;
    house.until(&path, |view| {
        let now = healthy(view);
        now.len() == 3 && now.iter().all(|id| !before.contains(id))
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Until the list knows it no more.
pub(crate) fn end(house: &House, name: &str) -> Result<f64, String> {
    let begun = Instant::now();
    house.post(&format!("/api/v1/shop/environments/{name}/destroy"), &json!({}))?;
    house.until("/environments", |view| {
        view["rows"].as_array().is_some_and(|rows| rows.iter().all(|row| row["name"] != name))
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Writes into one release of an environment of its own.
fn drift(house: &House, name: &str) -> Result<f64, String> {
    create(house, name)?;
    let path = format!("/environments/{name}");
    let ids = healthy(&house.get(&format!("/api/v1/shop{path}"))?);
    let id = ids.first().ok_or("no instance")?;
    // What is new is compared once before it is left alone.
    pause(3000);
    let begun = Instant::now();
    let file = instances(house).join(id).join("release/version");
    std::fs::write(&file, "tampered").map_err(|error| format!("{}: {error}", file.display()))?;
    house.until(&path, |view| view["drifts"].as_array().is_some_and(|drifts| !drifts.is_empty()))?;
    let took = begun.elapsed().as_secs_f64();
    end(house, name)?;
    Ok(took)
}

fn instances(house: &House) -> PathBuf {
    house.room.join("data/instances/shop")
}

/// What carries the server's name on the host, once nothing of it changes any more.
fn left(house: &House) -> Result<Vec<String>, String> {
    let server = house.name_on_the_host()?;
    let device = format!("an{}", &sum(&server)?[..6]);
    let mut last = Vec::new();
    for _ in 0..200 {
        let now = traces(house, &[server.as_str(), device.as_str()]);
        if !now.is_empty() && now == last {
            return Ok(now);
        }
        last = now;
        pause(2000);
    }
    Err("what is on the host never stood still".into())
}

fn traces(house: &House, names: &[&str]) -> Vec<String> {
    let entries = |dir: &Path| {
        let all = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        all.collect::<Vec<_>>()
    };
    let ours = |path: &PathBuf| {
        let named =
            |part: &std::ffi::OsStr| names.iter().any(|name| part.to_string_lossy().starts_with(name));
        path.iter().any(named)
    };
    let mut all: Vec<String> = house.processes().into_iter().map(|pid| format!("process {pid}")).collect();
    let mut paths = entries(&instances(house));
    paths.extend(entries(Path::new("/run/netns")).into_iter().filter(ours));
    paths.extend(entries(Path::new("/sys/class/net")).into_iter().filter(ours));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    paths.extend(mounted.filter(|path| ours(path) || path.starts_with(&house.room)));
    for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
        let mut level = vec![hierarchy];
        for _ in 0..5 {
            level = level.iter().flat_map(|dir| entries(dir)).filter(|path| path.is_dir()).collect();
            paths.extend(level.iter().filter(|path| ours(path)).cloned());
        }
    }
    all.extend(paths.into_iter().map(|path| path.display().to_string()));
    all.sort();
    all
}

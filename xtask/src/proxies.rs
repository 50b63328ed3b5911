//! `cargo xtask bench proxies`: the router alone beside other proxies, in one run: what a request costs, how long it takes, what a thousand connections weigh;
//! and what its own promises are worth: weights, stickiness, mirrors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::alone::{HOST, table};
use crate::figure::{Figure, keep, quantile};
use crate::peers::{Proxy, listens, on_core, ours, start};
use crate::pump;

/// Ports from here on are used.
const FIRST: u16 = 17_300;
const STABLE: u16 = FIRST;
const CANDIDATE: u16 = FIRST + 1;
const HUNG: u16 = FIRST + 2;
const OURS: u16 = FIRST + 10;
const MIRRORED: u16 = FIRST + 11;
const PEERS: u16 = FIRST + 20;

/// Rounds; in each all proxies take a turn, so that what disturbs one disturbs all.
const ROUNDS: usize = 9;
const TURN: Duration = Duration::from_secs(2);
/// A turn in which others had more than this share of the proxy's core is dropped, as long as three rounds are left.
const TAINTED: f64 = 0.5;
const SUBJECTS: u64 = 100_000;

const NOTES: &str = "Each proxy is one process on the first core (one worker, thread or GOMAXPROCS), between a load and two tiny services on the second core: answers of 200 bytes, kept \
    connections, HTTP/1.1 in the clear, 95 : 5 between the two services. The router has its histograms, stickiness by cookie, witnesses, slow thresholds, request ids, trace context and \
    forwarding headers on; the others only share out by weight and say X-Forwarded-For. *Requests per CPU second* counts user and system time of all processes of the proxy over 64 connections in a closed \
    loop; ratios are medians over interleaved rounds. *Open loop* is 2,000 requests a second over 32 connections, timed from when each was due. Other work shares the machine; turns that it \
    tainted too much are dropped. Weight and ramp are measured on a router inside the load's process.";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let us = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-pc", "1", &us]).output();
    pinned.map_err(|error| format!("taskset: {error}"))?;
    let room = std::env::temp_dir().join(format!("andon-proxies-{us}"));
    std::fs::create_dir_all(&room).map_err(|error| error.to_string())?;
    let services = Services::start()?;
    let mut proxies = vec![ours(OURS, [STABLE, CANDIDATE], None)?];
    proxies.extend(start(PEERS, [STABLE, CANDIDATE], &room)?);
    let mut figures = costs(&proxies)?;
    figures.extend(latencies(&proxies));
    figures.extend(weights_of(&proxies)?);
    drop(proxies);
    figures.extend(mirrored()?);
    figures.extend(promises()?);
    drop(services);
    let _ = std::fs::remove_dir_all(&room);
    keep("proxies", figures, NOTES)
}

/// The two services, and one that answers nothing.
struct Services(Vec<Child>);

impl Services {
    fn start() -> Result<Services, String> {
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut all = Services(Vec::new());
        for (port, word) in [(STABLE, "stable"), (CANDIDATE, "candidate"), (HUNG, "hang")] {
            all.0.push(on_core("1", &this, &["echo".to_owned(), port.to_string(), word.to_owned()])?);
            listens(port)?;
        }
        Ok(all)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for service in &mut self.0 {
            let _ = (service.kill(), service.wait());
        }
    }
}

/// Seconds that the first core was busy.
fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find(|line| line.starts_with("cpu0 ")).unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // Without idle and waiting for disks.
    (ticks.iter().take(8).sum::<f64>() - ticks.get(3).unwrap_or(&0.0) - ticks.get(4).unwrap_or(&0.0)) / 100.0
}

/// Requests per CPU second of each, and our ratio to each.
fn costs(proxies: &[Proxy]) -> Result<Vec<Figure>, String> {
    let runtime = pump::single()?;
    for proxy in proxies {
        let (good, bad) = runtime.block_on(pump::closed(proxy.address, HOST, 64, Duration::from_millis(500)));
        if good == 0 || bad > 0 {
            return Err(format!("{}: {good} answers, {bad} failures while warming up", proxy.name));
        }
    }
    let mut rounds: Vec<(f64, BTreeMap<&str, f64>)> = Vec::new();
    for _ in 0..ROUNDS {
        let (mut taint, mut round) = (0.0_f64, BTreeMap::new());
        for proxy in proxies {
            let (before, core, begun) = (proxy.cpu(), busy(), Instant::now());
            let (good, bad) = runtime.block_on(pump::closed(proxy.address, HOST, 64, TURN));
            let (used, core, span) = (proxy.cpu() - before, busy() - core, begun.elapsed().as_secs_f64());
            if bad > 0 {
                println!("○ {}: {bad} failures in a turn", proxy.name);
            }
            taint = taint.max((core - used) / span);
            round.insert(proxy.name, good as f64 / used);
        }
        println!("○ round: others had {:.0} % of the core at most; {round:.0?}", taint * 100.0);
        rounds.push((taint, round));
    }
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let clean = rounds.iter().take_while(|(taint, _)| *taint <= TAINTED).count().max(3);
    rounds.truncate(clean);
    let median = |of: &dyn Fn(&BTreeMap<&str, f64>) -> f64| {
        quantile(&mut rounds.iter().map(|(_, round)| of(round)).collect::<Vec<_>>(), 0.5)
    };
    let name = |name: &str| format!("requests per CPU second: {name}");
    let mut figures: Vec<Figure> = proxies
        .iter()
        .map(|proxy| Figure::higher(name(proxy.name), median(&|round| round[proxy.name]), "", None))
        .collect();
    for proxy in proxies.iter().skip(1) {
        let bar = match proxy.name {
            "nginx" => 1.0,
            "envoy" => 1.2,
            "caddy" => 2.5,
            _ => 0.7,
        };
        let ratio = median(&|round| round["andon"] / round[proxy.name]);
        figures.push(Figure::higher(format!("andon : {}", proxy.name), ratio, "times", Some(bar)));
    }
    figures.push(Figure::higher("rounds that were clean enough", clean as f64, "", None));
    Ok(figures)
}

/// p99 in an open loop.
fn latencies(proxies: &[Proxy]) -> Vec<Figure> {
    let mut all: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    let direct = SocketAddr::from(([127, 0, 0, 1], STABLE));
    for _ in 0..ROUNDS {
        let targets = proxies.iter().map(|proxy| (proxy.name, proxy.address)).chain([("direct", direct)]);
        for (name, address) in targets {
            let (mut took, failed) = pump::open(address, HOST, 2_000, 32, TURN);
            if failed > 0 {
                println!("○ {name}: {failed} failures in an open loop");
            }
            let kept = all.entry(name).or_default();
            kept.0.push(quantile(&mut took, 0.5));
            kept.1.push(quantile(&mut took, 0.99));
        }
    }
    // The quietest third of the turns: other work only adds.
    let quiet = |values: &mut Vec<f64>| quantile(values, 0.2);
    let p99: BTreeMap<&str, f64> = all.iter_mut().map(|(name, kept)| (*name, quiet(&mut kept.1))).collect();
    let mut figures = Vec::new();
    for (name, kept) in &mut all {
        figures.push(Figure::lower(
            format!("2,000 requests/s: median: {name}"),
            quiet(&mut kept.0),
            "ms",
            None,
        ));
        figures.push(Figure::lower(format!("2,000 requests/s: p99: {name}"), p99[name], "ms", None));
    }
    for (peer, bar) in [("envoy", 1.0), ("haproxy", 1.5)] {
        if let (Some(ours), Some(theirs)) = (p99.get("andon"), p99.get(peer)) {
            figures.push(Figure::lower(format!("p99, andon : {peer}"), ours / theirs, "times", Some(bar)));
        }
    }
    figures
}

/// Memory with a thousand connections that have asked once.
fn weights_of(proxies: &[Proxy]) -> Result<Vec<Figure>, String> {
    pump::single()?.block_on(async {
        let mut figures = Vec::new();
        for proxy in proxies {
            let (mut open, mut buffer) = (Vec::new(), [0; 4096]);
            for user in 0..1_000 {
                let stream = tokio::net::TcpStream::connect(proxy.address).await;
                let mut stream = stream.map_err(|error| format!("{}: {error}", proxy.name))?;
                let answer = pump::ask(&mut stream, &pump::request(HOST, user), &mut buffer).await;
                if !answer.is_some_and(|answer| answer.0) {
                    return Err(format!("{}: connection {user} got no answer", proxy.name));
                }
                open.push(stream);
            }
            let bar = (proxy.name == "andon").then_some(40.0);
            let name = format!("memory with 1,000 connections: {}", proxy.name);
            figures.push(Figure::lower(name, proxy.memory(), "MB", bar));
        }
        Ok(figures)
    })
}

/// What a mirror costs whose shadow never answers.
fn mirrored() -> Result<Vec<Figure>, String> {
    let plain = ours(OURS, [STABLE, CANDIDATE], None)?;
    let dark = ours(MIRRORED, [STABLE, CANDIDATE], Some(HUNG))?;
    let (mut ratios, mut failures) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let (mut without, lost) = pump::open(plain.address, HOST, 2_000, 32, TURN);
        let (mut with, more) = pump::open(dark.address, HOST, 2_000, 32, TURN);
        failures += lost + more;
        ratios.push(quantile(&mut with, 0.99) / quantile(&mut without, 0.99));
    }
    let name = "all requests mirrored to a shadow that hangs: ";
    Ok(vec![
        Figure::lower(
            format!("{name}p99 against none mirrored"),
            quantile(&mut ratios, 0.5),
            "times",
            Some(1.05),
        ),
        Figure::lower(format!("{name}failures"), failures as f64, "", Some(0.0)),
    ])
}

/// Weight to zero, and a ramp.
fn promises() -> Result<Vec<Figure>, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let router = andon_router::Router::new();
        let set = |weight: u16, epoch: u64| {
            router.set(table(STABLE, CANDIDATE, None, weight, epoch)).map_err(|error| error.to_string())
        };
        set(0, 1)?;
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let served = router.clone();
        tokio::spawn(async move { served.serve(listener, std::future::pending()).await });
        let mut figures = ramp(address, set).await?;
        figures.insert(0, to_zero(address, set).await?);
        Ok(figures)
    })
}

/// From the change of the weight to the sending of the last request that a candidate still answered.
async fn to_zero(
    address: SocketAddr,
    set: impl Fn(u16, u64) -> Result<(), String>,
) -> Result<Figure, String> {
    let stop = Arc::new(AtomicBool::new(false));
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    for first in 0..16_u64 {
        let (stop, said) = (stop.clone(), said.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return };
            let (mut user, mut buffer) = (first, [0; 4096]);
            while !stop.load(Ordering::Relaxed) {
                let sent = Instant::now();
                let Some((_, who)) = pump::ask(&mut stream, &pump::request(HOST, user), &mut buffer).await
                else {
                    return;
                };
                if who == b'c' {
                    let _ = said.send(sent);
                }
                user = (user + 16) % pump::USERS;
            }
        });
    }
    let mut late = Vec::new();
    for change in 0..200 {
        set(5_000, 10 + 2 * change)?;
        tokio::time::sleep(Duration::from_millis(30)).await;
        let begun = Instant::now();
        set(0, 11 + 2 * change)?;
        tokio::time::sleep(Duration::from_millis(30)).await;
        let mut last = Duration::ZERO;
        while let Ok(sent) = heard.try_recv() {
            last = last.max(sent.saturating_duration_since(begun));
        }
        late.push(last.as_secs_f64() * 1000.0);
    }
    stop.store(true, Ordering::Relaxed);
    let name = "weight to zero, until the last request that a candidate got was sent: p99 of 200";
    Ok(Figure::lower(name, quantile(&mut late, 0.99), "ms", Some(10.0)))
}

/// Every subject asks at every weight.
async fn ramp(
    address: SocketAddr,
    set: impl Fn(u16, u64) -> Result<(), String>,
) -> Result<Vec<Figure>, String> {
    let (mut before, mut flips, mut off) = (vec![false; SUBJECTS as usize], 0_u64, 0.0_f64);
    for (epoch, weight) in (1_000..).zip([500_u16, 2_500, 5_000, 10_000]) {
        set(weight, epoch)?;
        let mut askers = tokio::task::JoinSet::new();
        for first in 0..32 {
            askers.spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
                let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
                for user in (first..SUBJECTS).step_by(32) {
                    let (fine, who) = pump::ask(&mut stream, &pump::request(HOST, user), &mut buffer).await?;
                    got.push((user, fine && who == b'c'));
                }
                Some(got)
            });
        }
        let mut inside = 0_u64;
        while let Some(got) = askers.join_next().await {
            for (user, candidate) in got.ok().flatten().ok_or("a request on the ramp failed")? {
                let was = std::mem::replace(&mut before[user as usize], candidate);
                flips += u64::from(was && !candidate);
                inside += u64::from(candidate);
            }
        }
        off = off.max((inside as f64 / SUBJECTS as f64 * 100.0 - f64::from(weight) / 100.0).abs());
    }
    Ok(vec![
        Figure::lower(
            format!("ramp of 5, 25, 50, 100 % over {SUBJECTS} users: flips back"),
            flips as f64,
            "",
            Some(0.0),
        ),
        Figure::lower("the same: share off by, at most", off, "points", Some(0.5)),
    ])
}

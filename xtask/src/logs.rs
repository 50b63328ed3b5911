//! `cargo xtask bench logs`: how quickly a job's output comes in, is opened, searched and shown to many at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary};

/// Lines of the large output, and bytes of each.
const LINES: usize = 10_000_000;
/// Viewers at once, and lines a second that they see.
const VIEWERS: usize = 100;
const RATE: u64 = 10_000;
/// Seconds that they look.
const SECONDS: u64 = 10;
/// Pieces of a thousand lines that a reader scrolls through.
const SCROLLS: usize = 60;
/// Times that a page is asked for.
const TIMES: usize = 9;

const NOTES: &str = "The release binary. *Large* is one job that prints a gigabyte in ten million lines, of which one, after nine tenths, speaks of a failure: its rate is from the first byte to the end of the step, as \
    the journal has it, through the sandbox, the mask and the disk. *Opened* is from the request of its page to the last byte of the answer. *Seen* is from the moment that a job writes a line (its own clock stands in \
    it) to the moment that a reader of the page's stream has it, over all lines of all viewers, all on this machine. *In Chromium* is from asking for the page to the failing line in sight; memory is the proportional share (PSS) of the tab's process. The machine is shared with other work, so times are upper bounds.";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let binary = binary()?;
    let house = House::open(&binary)?;
    let mut figures = large(&house)?;
    figures.extend(seen(&house)?);
    keep("logs", figures, NOTES)
}

fn large(house: &House) -> Result<Vec<Figure>, String> {
    let line = "2026-01-01 12:00:00 INFO worker-7 request served: status=200 path=/api/v1/items/42 took=3ms bytes=5120 ok";
    // `yes` is the fastest printer there is; the failure stands at nine tenths.
    let (before, after) = (LINES * 9 / 10, LINES / 10 - 1);
    let script = format!(
        "yes '{line}' | head -n {before}; echo 'FAILED tests::late'; yes '{line}' | head -n {after}; exit 1"
    );
    let yaml = format!(
        "version: 1\npipeline: {{ jobs: {{ large: {{ run: {}, timeout: 10m }} }} }}\n",
        json!(script)
    );
    let change = house.propose("Be loud", &[("andon.yaml", &yaml)])?;
    house.until(&format!("/changes/{change}"), |view| view["row"]["standing"] == "refused")?;
    let journal = house.journal()?;
    let step =
        journal.iter().find(|event| event["event"]["type"] == "step_finished").ok_or("no step ended")?;
    let took = span(&step["event"]["took"])?;
    let bytes = ((line.len() + 1) * (LINES - 1) + 19) as f64;
    let mut figures =
        vec![Figure::higher("large: output of one step", bytes / 1e6 / took, "MB/s", Some(200.0))];
    let kept = journal.iter().find(|event| event["event"]["type"] == "job_finished").ok_or("no job ended")?;
    let since = |event: &Value| event["at"].as_i64().unwrap_or_default();
    figures.push(Figure::lower(
        "large: from the end of the step to the end of the job, packed",
        (since(kept) - since(step)) as f64 / 1000.0,
        "s",
        None,
    ));
    let mut opened = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        let page = house.text("/shop/runs/1/large")?;
        opened.push(begun.elapsed().as_secs_f64() * 1000.0);
        if !page.contains("FAILED tests::late") {
            return Err("the page did not open where it fails".into());
        }
        figures.truncate(2);
        figures.push(Figure::lower("large: the page in bytes", page.len() as f64 / 1000.0, "kB", None));
    }
    figures.push(Figure::lower(
        "large: opened at its first failure: median",
        quantile(&mut opened, 0.5),
        "ms",
        Some(300.0),
    ));
    figures.push(Figure::lower(
        "large: opened at its first failure: most",
        quantile(&mut opened, 1.0),
        "ms",
        Some(300.0),
    ));
    for (name, query) in [
        ("opened at a line in the middle", "?line=5000000"),
        ("searched through for a text that stands once", "?find=tests%3A%3Alate"),
    ] {
        let begun = Instant::now();
        house.text(&format!("/shop/runs/1/large{query}"))?;
        figures.push(Figure::lower(
            format!("large: {name}"),
            begun.elapsed().as_secs_f64() * 1000.0,
            "ms",
            None,
        ));
    }
    figures.extend(tab(house)?);
    let memory = house.memory()?;
    figures.push(Figure::lower("memory of the server afterwards", memory, "MB", None));
    Ok(figures)
}

/// The page in Chromium: `e2e/tab.mjs` opens it, and scrolls on through [`SCROLLS`] pieces.
fn tab(house: &House) -> Result<Vec<Figure>, String> {
    let room = crate::root().join("e2e");
    let npm = ["install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"];
    if !room.join("node_modules/playwright-core").is_dir() {
        let done = Command::new("npm").args(npm).current_dir(&room).status();
        done.map_err(|error| format!("npm: {error}"))?;
    }
    let address = format!("http://{}/shop/runs/1/large", house.address());
    let (mut opened, mut held, mut scrolled) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let seen = Command::new("node")
            .args(["tab.mjs", &address, house.token(), ".ln.first", &SCROLLS.to_string()])
            .current_dir(&room)
            .output()
            .map_err(|error| format!("node: {error}"))?;
        let seen: Value = serde_json::from_slice(&seen.stdout)
            .map_err(|_| format!("the browser said {}", String::from_utf8_lossy(&seen.stderr)))?;
        let number = |name: &str| seen[name].as_f64().ok_or(format!("no {name}"));
        opened.push(number("opened_ms")?);
        held.push(number("tab_mb")?);
        scrolled.push(number("scrolled_mb")?);
    }
    let page = "large: in Chromium";
    Ok(vec![
        Figure::lower(
            format!("{page}, opened at its first failure: median"),
            quantile(&mut opened, 0.5),
            "ms",
            Some(300.0),
        ),
        Figure::lower(format!("{page}, memory of the tab"), quantile(&mut held, 1.0), "MB", Some(150.0)),
        Figure::lower(
            format!("{page}, memory of the tab after {SCROLLS} pieces more: most"),
            quantile(&mut scrolled, 1.0),
            "MB",
            Some(150.0),
        ),
    ])
}

/// A span as the journal writes it, in seconds.
fn span(value: &Value) -> Result<f64, String> {
    let text = value.as_str().ok_or("no span")?;
    let span: andon_model::Span = text.parse().map_err(|_| format!("{text:?} is no span"))?;
    Ok(span.0 as f64 / 1000.0)
}

fn seen(house: &House) -> Result<Vec<Figure>, String> {
    // In each turn of 50 milliseconds so many lines, each with the time at which it was written.
    let program = format!(
        "import time,sys\nend=time.time()+{}\nwhile time.time()<end:\n t=time.time()\n sys.stdout.write(''.join('at %d line of a busy job\\n' % (time.time()*1e6) for _ in range({})))\n sys.stdout.flush()\n time.sleep(max(0,0.05-(time.time()-t)))\n",
        SECONDS + 3,
        RATE / 20
    );
    let yaml = "version: 1\npipeline: { jobs: { busy: { run: python3 busy.py } } }\n";
    house.propose("Be busy", &[("andon.yaml", yaml), ("busy.py", &program)])?;
    let view = house.until("/runs/2", |run| run["jobs"][0]["mark"] == "live")?;
    drop(view);
    let delays = Mutex::new(Vec::new());
    let (delays_of, end) = (&delays, Instant::now() + Duration::from_secs(SECONDS));
    std::thread::scope(|scope| {
        for _ in 0..VIEWERS {
            scope.spawn(move || {
                if let Ok(mut own) = look(house, end) {
                    delays_of.lock().unwrap_or_else(std::sync::PoisonError::into_inner).append(&mut own);
                }
            });
        }
    });
    let mut delays = delays.into_inner().map_err(|error| error.to_string())?;
    if delays.len() < VIEWERS * 1000 {
        return Err(format!("viewers saw {} lines only", delays.len()));
    }
    let lines = delays.len() as f64 / VIEWERS as f64 / SECONDS as f64;
    Ok(vec![
        Figure::higher(format!("{VIEWERS} viewers: lines a second that each saw"), lines, "", None),
        Figure::lower(
            format!("{VIEWERS} viewers: seen after, median"),
            quantile(&mut delays, 0.5),
            "ms",
            None,
        ),
        Figure::lower(
            format!("{VIEWERS} viewers: seen after, p99"),
            quantile(&mut delays, 0.99),
            "ms",
            Some(250.0),
        ),
    ])
}

/// One viewer: how long after it was written each line was seen, in milliseconds.
fn look(house: &House, end: Instant) -> Result<Vec<f64>, String> {
    let page = house.text("/shop/runs/2/busy")?;
    let live = page
        .split("data-live=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .ok_or("the page has no stream")?;
    let live = live.replace("&amp;", "&");
    let mut stream = TcpStream::connect(house.address()).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).map_err(|error| error.to_string())?;
    let request = format!(
        "GET {live} HTTP/1.1\r\nhost: andon\r\nauthorization: Bearer {}\r\naccept: text/event-stream\r\n\r\n",
        house.token()
    );
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut delays = Vec::new();
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    let mut line = Vec::new();
    // What was there when the page was opened is no news.
    let opened = micros();
    while Instant::now() < end {
        line.clear();
        if (&mut reader).take(64 << 20).read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            break;
        }
        if !line.starts_with(b"data:") {
            continue;
        }
        let now = micros();
        let text = String::from_utf8_lossy(&line);
        for part in text.split("<span>at ").skip(1) {
            let written: f64 = part.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
            if written > opened {
                delays.push((now - written) / 1000.0);
            }
        }
    }
    Ok(delays)
}

#[allow(clippy::disallowed_methods, reason = "two clocks of one machine are compared")]
fn micros() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1e6)
}

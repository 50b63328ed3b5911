//! `andon tests`: the order of tests, their share of a shard, and how good the order is on a recorded history. Asks no server: what is
//! remembered of a project's tests lies in a file that every job is given.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use andon_line::view::{Mark, TestsView};
use andon_model::Span;
use andon_validation::order::evaluate::{self, Ran, Rule};
use andon_validation::order::{Known, order, split};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Place, print_json};
use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;

/// Names that are read at most, in bytes.
const LARGEST_LIST: u64 = 256 << 20;
/// The largest file of a history.
const LARGEST_HISTORY: u64 = 1 << 30;
/// Shards that an evaluation splits into.
const SHARDS: [usize; 5] = [2, 4, 8, 16, 32];

/// What is done with tests.
#[derive(Debug, Subcommand)]
pub enum Tests {
    /// Put the tests that stand on standard input, one a line, in the order of what they tell per second.
    Order(Order),
    /// Of the tests on standard input, print those of one shard, so that all shards end at about the same time.
    Split(Split),
    /// In jobs of one run that share their tests: of the tests on standard input, print those to run next; nothing when all are given out.
    Next(super::handout::Next),
    /// Tests in quarantine, flaky ones with the proof, red ones, the slowest.
    List,
    /// What a smaller selection of tests, by what each change can touch, would have saved and missed.
    Impact,
    /// Let a test run and report without stopping anything, for at most 30 days.
    Quarantine(Quarantine),
    /// Let a test in quarantine count again.
    Reliable {
        /// The test.
        test: String,
    },
    /// Score the order on a recorded history of tests, beside other rules.
    Evaluate(Evaluate),
}

/// Where what is remembered comes from.
#[derive(Debug, Args)]
pub struct Source {
    /// What is remembered of the tests; in a job Andon names the file itself.
    #[arg(long, env = "ANDON_TESTS", value_name = "FILE")]
    history: Option<PathBuf>,
}

/// How tests are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// One a line, as they were read.
    #[default]
    Lines,
    /// One filter expression for `cargo nextest run -E`; what is read are lines of `cargo nextest list -T oneline`.
    Nextest,
    /// One pattern for `go test -run`; what is read are lines of `go test -list`.
    Go,
}

impl Form {
    pub(super) fn print(self, tests: &[&str]) {
        match self {
            Form::Lines => tests.iter().for_each(|test| say!("{test}")),
            // Nothing is selected by what selects nothing.
            Form::Nextest if tests.is_empty() => say!("none()"),
            Form::Nextest => {
                say!("{}", tests.iter().map(|test| nextest(test)).collect::<Vec<_>>().join(" | "))
            }
            Form::Go if tests.is_empty() => say!("^$"),
            Form::Go => say!(
                "^({})$",
                tests.iter().map(|test| quoted(test.trim(), "\\.+*?()|[]{}^$")).collect::<Vec<_>>().join("|")
            ),
        }
    }
}

/// `shop::cart items::adds` as a filter.
fn nextest(line: &str) -> String {
    let equal = |text: &str| quoted(text, "\\(),/");
    match line.trim().split_once(' ') {
        Some((binary, test)) => format!("(binary_id(={}) & test(={}))", equal(binary), equal(test)),
        None => format!("test(={})", equal(line.trim())),
    }
}

fn quoted(text: &str, special: &str) -> String {
    text.chars().flat_map(|c| special.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Options of `andon tests order`.
#[derive(Debug, Args)]
pub struct Order {
    #[command(flatten)]
    source: Source,
    /// A path that the change touches; in a job Andon names them itself.
    #[arg(long, value_name = "PATH")]
    changed: Vec<String>,
    /// Print only those that fit into this time: the fast lane.
    #[arg(long, value_name = "TIME", conflicts_with = "after")]
    first: Option<Span>,
    /// Print only those that do not fit into this time: what the fast lane left.
    #[arg(long, value_name = "TIME")]
    after: Option<Span>,
    /// Say of each why it stands where it does.
    #[arg(long)]
    why: bool,
    /// Print them for a runner that wants them in one argument.
    #[arg(long = "as", value_enum, default_value_t, conflicts_with = "why")]
    form: Form,
}

/// Options of `andon tests split`.
#[derive(Debug, Args)]
pub struct Split {
    #[command(flatten)]
    source: Source,
    /// This shard, from 0.
    #[arg(long)]
    index: usize,
    /// All shards.
    #[arg(long)]
    total: usize,
    /// Print them for a runner that wants them in one argument.
    #[arg(long = "as", value_enum, default_value_t)]
    form: Form,
}

/// Options of `andon tests evaluate`.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// Files of results, one a line, with a header: a name or test, a cycle or build, a duration, a verdict (1 or `failed`: it failed).
    #[arg(required = true, value_name = "FILE.csv")]
    files: Vec<PathBuf>,
}

/// Options of `andon tests quarantine`.
#[derive(Debug, Args)]
pub struct Quarantine {
    /// The test, as the run's page names it.
    test: String,
    /// What makes it unreliable.
    #[arg(long)]
    why: String,
    /// For how long, at most 30d.
    #[arg(long = "for", default_value = "7d", value_name = "TIME")]
    lasts: Span,
    /// Who makes it reliable again; default: you.
    #[arg(long)]
    owner: Option<String>,
}

/// Does what was said.
pub fn tests(common: &Common, tests: Tests) -> Result<(), Failure> {
    match tests {
        Tests::Order(options) => ordered(common, &options),
        Tests::Split(options) => shard(common, &options),
        Tests::Next(options) => super::handout::next(common, &options),
        Tests::Evaluate(options) => evaluated(common, &options),
        Tests::List => Place::find(common)?.show("/tests", listing).map(drop),
        Tests::Impact => Place::find(common)?.show("/tests", impact).map(drop),
        Tests::Quarantine(options) => {
            let body = json!({ "test": options.test, "why": options.why, "lasts": options.lasts, "owner": options.owner });
            Place::find(common)?.command("/tests/quarantine", &body, said).map(drop)
        }
        Tests::Reliable { test } => {
            Place::find(common)?.command("/tests/quarantine/end", &json!({ "test": test }), said).map(drop)
        }
    }
}

fn said(answer: &Value) -> String {
    answer["said"].as_str().unwrap_or_default().to_owned()
}

fn impact(view: &TestsView) {
    let Some(impact) = &view.impact else {
        say!("nothing was observed yet: changes whose jobs report tests are");
        return;
    };
    say!("{} {}", impact.says, impact.standing);
    for row in &impact.rows {
        say!("{} run-{}: {}", row.mark.sign(), row.run, row.says);
    }
}

fn listing(view: &TestsView) {
    say!("{}", view.heading);
    for row in &view.quarantined {
        say!(
            "{} {} in quarantine until {}, {}: {}; {}",
            Mark::Wait.sign(),
            row.test,
            row.until.rfc3339().get(..10).unwrap_or_default(),
            row.owner,
            row.why,
            row.says
        );
    }
    for (title, rows) in
        [("flaky", &view.flaky), ("red when they ran last", &view.red), ("what takes longest", &view.slow)]
    {
        if !rows.is_empty() {
            say!("");
            say!("{title}");
        }
        for row in rows {
            say!("{} {} ({}, {:.0} ms): {}", row.mark.sign(), row.name, row.job, row.ms, row.says);
        }
    }
}

fn ordered(common: &Common, options: &Order) -> Result<(), Failure> {
    let names = listed()?;
    let names: Vec<&str> = names.lines().map(str::trim_end).filter(|name| !name.trim().is_empty()).collect();
    let known = remembered(&options.source)?;
    let mut changed = options.changed.clone();
    if changed.is_empty()
        && let Some(file) = std::env::var_os("ANDON_CHANGED")
    {
        changed = within(Path::new(&file), LARGEST_LIST)?.lines().map(str::to_owned).collect();
    }
    let order = order(&names, &known, &changed);
    let mut spent = 0.0;
    let limit = options.first.or(options.after).map(|span| span.0 as f64);
    let mut rows = Vec::new();
    for (rank, ranked) in order.ranked.iter().enumerate() {
        // The first one always fits: a fast lane that runs nothing says nothing.
        let fits = limit.is_none_or(|limit| rank == 0 || spent + order.millis(ranked) <= limit);
        if fits {
            spent += order.millis(ranked);
        }
        if fits == options.after.is_none() {
            rows.push((names[ranked.index], ranked));
        }
    }
    if common.json {
        let row = |(test, ranked): &(&str, &andon_validation::order::Ranked)| json!({ "test": test, "ms": order.millis(ranked), "why": order.why(ranked) });
        print_json(&Value::Array(rows.iter().map(row).collect()));
        return Ok(());
    }
    if options.why {
        rows.iter().for_each(|(test, ranked)| say!("{test}\t{}", order.why(ranked)));
    } else {
        options.form.print(&rows.iter().map(|(test, _)| *test).collect::<Vec<_>>());
    }
    Ok(())
}

fn shard(common: &Common, options: &Split) -> Result<(), Failure> {
    if options.total == 0 || options.index >= options.total || options.total > 10_000 {
        let words = format!(
            "there is no shard {} of {}\nhint: shards count from 0: --index 0 --total 4 is the first of four",
            options.index, options.total
        );
        return Err(Failure { words, status: status::USAGE });
    }
    let names = listed()?;
    let names: Vec<&str> = names.lines().map(str::trim_end).filter(|name| !name.trim().is_empty()).collect();
    let expected = split::expected(&names, &remembered(&options.source)?);
    let dealt = split::deal(&expected, options.total);
    let own = &dealt[options.index];
    if common.json {
        let takes = |tests: &Vec<usize>| tests.iter().map(|test| expected[*test]).sum::<f64>();
        let tests: Vec<&str> = own.iter().map(|test| names[*test]).collect();
        print_json(
            &json!({ "tests": tests, "ms": takes(own), "shards_ms": dealt.iter().map(takes).collect::<Vec<f64>>() }),
        );
        return Ok(());
    }
    options.form.print(&own.iter().map(|test| names[*test]).collect::<Vec<_>>());
    Ok(())
}

fn evaluated(common: &Common, options: &Evaluate) -> Result<(), Failure> {
    let mut all = BTreeMap::new();
    for file in &options.files {
        let cycles = read(file).map_err(|why| {
            let hint = "the first line names the columns: Name, Cycle, Duration, Verdict; `,`, `;` or tabs between them";
            Failure { words: format!("{}: {why}\nhint: {hint}", file.display()), status: status::USAGE }
        })?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let rules: BTreeMap<&str, Value> = Rule::ALL
            .into_iter()
            .map(|rule| {
                let scores = evaluate::score(&cycles, rule);
                let row = json!({ "napfd": scores.napfd, "apfd": scores.apfd, "apfdc": scores.apfdc, "early": scores.early, "cycles": scores.cycles, "apfd_cycles": scores.large });
                (rule.name(), row)
            })
            .collect();
        let makespan: BTreeMap<String, Value> = SHARDS
            .into_iter()
            .map(|shards| {
                let (dealt, handed) = evaluate::split(&cycles, shards);
                (shards.to_string(), json!({ "dealt": dealt, "handed_out": handed }))
            })
            .collect();
        if !common.json {
            print(&name, &cycles, &rules, &makespan);
        }
        all.insert(name, json!({ "rules": rules, "makespan": makespan }));
    }
    if common.json {
        print_json(&json!(all));
    }
    Ok(())
}

fn print(name: &str, cycles: &[Vec<Ran>], rules: &BTreeMap<&str, Value>, makespan: &BTreeMap<String, Value>) {
    let results: usize = cycles.iter().map(Vec::len).sum();
    let cell = |row: &Value, key: &str| row[key].as_f64().unwrap_or_default();
    let first = &rules[Rule::Andon.name()];
    say!(
        "{name}: {results} results in {} cycles, {} with failures ({} of at least six tests)",
        cycles.len(),
        first["cycles"],
        first["apfd_cycles"]
    );
    say!("  {:<16}{:>10}{:>10}{:>10}{:>10}", "rule", "NAPFD@50%", "APFD", "APFDc", "early");
    for rule in Rule::ALL {
        let row = &rules[rule.name()];
        say!(
            "  {:<16}{:>10.4}{:>10.4}{:>10.4}{:>10.4}",
            rule.name(),
            cell(row, "napfd"),
            cell(row, "apfd"),
            cell(row, "apfdc"),
            cell(row, "early")
        );
    }
    say!("  {:<16}{:>10}{:>10}   times the least possible, later half", "shards", "dealt", "handed");
    for shards in SHARDS {
        let row = &makespan[&shards.to_string()];
        say!("  {shards:<16}{:>10.3}{:>10.3}", cell(row, "dealt"), cell(row, "handed_out"));
    }
}

/// Results in the order of their cycles.
fn read(file: &Path) -> Result<Vec<Vec<Ran>>, String> {
    let text = within(file, LARGEST_HISTORY).map_err(|failure| failure.words)?;
    let head = text.lines().next().unwrap_or_default();
    let between =
        [b';', b',', b'\t'].into_iter().max_by_key(|c| head.bytes().filter(|other| other == c).count());
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(between.unwrap_or(b','))
        .flexible(true)
        .from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    let column = |names: &[&str]| {
        let found = names.iter().find_map(|name| {
            header.iter().position(|own| own.trim().trim_start_matches('\u{feff}').eq_ignore_ascii_case(name))
        });
        found.ok_or_else(|| format!("there is no column {}", names.join(" or ")))
    };
    let (name, cycle) = (column(&["Name", "Test"])?, column(&["Cycle", "BuildId", "Build"])?);
    let (took, verdict) = (column(&["Duration", "Took"])?, column(&["Verdict", "Result"])?);
    let mut numbers = BTreeMap::new();
    let mut cycles: BTreeMap<u64, Vec<Ran>> = BTreeMap::new();
    for (at, row) in reader.records().enumerate() {
        let row = row.map_err(|error| error.to_string())?;
        let cell = |column: usize| {
            row.get(column).map(str::trim).ok_or_else(|| format!("line {} is too short", at + 2))
        };
        let odd = |what: &str, text: &str| format!("line {}: {text:?} is no {what}", at + 2);
        let next = numbers.len() as u32;
        let test = *numbers.entry(cell(name)?.to_owned()).or_insert(next);
        let number = cell(cycle)?.parse().map_err(|_| odd("cycle", cell(cycle).unwrap_or_default()))?;
        let took: f64 = cell(took)?.parse().map_err(|_| odd("duration", cell(took).unwrap_or_default()))?;
        if !took.is_finite() || took < 0.0 {
            return Err(odd("duration", &took.to_string()));
        }
        let failed = match cell(verdict)?.to_ascii_lowercase().as_str() {
            "1" | "failed" | "fail" | "failure" | "error" => true,
            "0" | "passed" | "pass" | "ok" | "success" | "skipped" => false,
            other => return Err(odd("verdict", other)),
        };
        cycles.entry(number).or_default().push(Ran { test, took, failed });
    }
    Ok(cycles.into_values().collect())
}

fn remembered(source: &Source) -> Result<Known, Failure> {
    let Some(file) = &source.history else { return Ok(Known::default()) };
    let (known, odd) = Known::read(&within(file, LARGEST_HISTORY)?);
    if odd > 0 {
        eprintln!("▲ {odd} lines of {} are no history and were left out", file.display());
    }
    Ok(known)
}

pub(super) fn listed() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        let words = "the names of the tests are read from standard input\nhint: pytest --collect-only -q | andon tests order".into();
        return Err(Failure { words, status: status::USAGE });
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LARGEST_LIST + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("standard input: {error}"))?;
    if bytes.len() as u64 > LARGEST_LIST {
        return Err(format!(
            "standard input has more than {LARGEST_LIST} bytes\nhint: it holds the names of tests, one a line"
        )
        .into());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn within(file: &Path, most: u64) -> Result<String, Failure> {
    let shown = |error: std::io::Error| Failure::from(format!("{}: {error}", file.display()));
    let length = std::fs::metadata(file).map_err(shown)?.len();
    if length > most {
        return Err(
            format!("{}: it has {length} bytes, more than the {most} that are read", file.display()).into()
        );
    }
    Ok(String::from_utf8_lossy(&std::fs::read(file).map_err(shown)?).into_owned())
}

#[cfg(test)]
mod names {
    use super::*;

    #[test]
    fn names_are_quoted_for_the_runner_that_gets_them() {
        assert_eq!(nextest("shop::cart items::adds"), "(binary_id(=shop::cart) & test(=items::adds))");
        assert_eq!(nextest("odd(name)"), "test(=odd\\(name\\))");
        assert_eq!(quoted("Test.A+", ".+"), "Test\\.A\\+");
    }
}

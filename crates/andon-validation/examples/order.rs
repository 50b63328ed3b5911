//! How long it takes to put tests in order: figures, a JSON object a line. The histories that the order is scored on are read elsewhere.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it measures, and tells what it measured"
)]

use andon_validation::order::{History, Known, names, order, split};

/// Tests of a large project.
const TESTS: usize = 50_000;
/// Measurements, of which the median counts, and times in each: what is asked below grows by milliseconds.
const TIMES: usize = 11;
const EACH: usize = 10;

/// Milliseconds that this thread had a core: others may have it in between.
fn on_core() -> f64 {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    said.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or_default() / 1e6
}

fn main() {
    let tests: Vec<String> = (0..TESTS)
        .map(|n| {
            format!(
                "services/part_{}/tests/test_area{}.py::TestCase{}::test_thing_{n}",
                n % 40,
                n % 700,
                n % 9
            )
        })
        .collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let known = Known::of(tests.iter().enumerate().map(|(n, test)| {
        let mut history = History::default();
        for run in 0..8 {
            history.learn((n * 31 + run * 7) % 97 == 0, Some((n % 5_000) as f64));
        }
        (names::key(test), history)
    }));
    let changed = ["services/part_7/pay.py".to_owned(), "docs/area12.md".to_owned()];
    let median = |what: &mut dyn FnMut()| {
        let mut times: Vec<f64> = (0..TIMES)
            .map(|_| {
                let begun = on_core();
                (0..EACH).for_each(|_| what());
                (on_core() - begun) / EACH as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[TIMES / 2]
    };
    let figure = |name: &str, value: f64, bar: Option<f64>| {
        let bar = bar.map_or("null".to_owned(), |bar| bar.to_string());
        println!(
            "{{\"name\":\"{name}\",\"value\":{value:.2},\"unit\":\"ms\",\"bar\":{bar},\"better\":\"lower\"}}"
        );
    };
    figure("50,000 tests put in order: median", median(&mut || drop(order(&tests, &known, &[]))), Some(10.0));
    figure(
        "the same, with nearness to two changed paths",
        median(&mut || drop(order(&tests, &known, &changed))),
        Some(10.0),
    );
    let expected = split::expected(&tests, &known);
    figure("50,000 tests dealt to 32 shards: median", median(&mut || drop(split::deal(&expected, 32))), None);
}

//! Numbers that performance tests measured, and whether one became worse by more than it scatters. Reads Criterion's `estimates.json`, the
//! JSON of hyperfine, and lists of `{ name, value, unit }`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::detect::{NotAReport, not_measured};
use crate::findings::Surplus;
use crate::text::{cut, line};

/// Numbers that are kept of one report.
const MOST: usize = 5000;
/// Landings that are needed before a number can be judged: of fewer nobody knows how much it scatters.
pub const LEAST: usize = 5;
/// Landings that are compared with.
pub const WINDOW: usize = 20;
/// Makes the median absolute deviation a standard deviation where values scatter normally.
const NORMAL: f64 = 1.4826;
/// Deviations from the median beyond which a value is no scatter: the conservative choice of Leys et al., "Detecting outliers: Do not use
/// standard deviation around the mean, use absolute deviation around the median", Journal of Experimental Social Psychology 49 (2013).
const DEVIATIONS: f64 = 3.0;

const HINT: &str = "write Criterion's estimates.json, `hyperfine --export-json bench.json …`, or a list like \
    [{ \"name\": \"start\", \"value\": 12.5, \"unit\": \"ms\" }]";

/// One measured number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// More is better; otherwise less is.
    #[serde(default)]
    pub more_is_better: bool,
}

/// Reads a report. `path` names what Criterion measured: `target/criterion/GROUP/NAME/new/estimates.json`.
pub fn read(bytes: &[u8], path: &str) -> Result<Vec<Number>, NotAReport> {
    let document: Value = serde_json::from_slice(bytes).map_err(|_| not_measured(bytes, HINT))?;
    let estimate = |key: &str| document.get(key)?.get("point_estimate")?.as_f64();
    let found = if let Some(nanoseconds) = estimate("median").or_else(|| estimate("mean")) {
        vec![number(&criterion_name(path), nanoseconds, "ns", false)]
    } else if let Some(results) = document.get("results").and_then(Value::as_array) {
        results.iter().map(hyperfine).collect()
    } else {
        let list = document.as_array().map_or_else(|| std::slice::from_ref(&document), Vec::as_slice);
        list.iter().map(own).collect()
    };
    let numbers: Vec<Number> = found.into_iter().flatten().take(MOST).collect();
    if numbers.is_empty() { Err(not_measured(bytes, HINT)) } else { Ok(numbers) }
}

fn number(name: &str, value: f64, unit: &str, more_is_better: bool) -> Option<Number> {
    let (name, unit) = (cut(line(name.trim()), 200), cut(line(unit), 40));
    (value.is_finite() && !name.is_empty()).then_some(Number { name, value, unit, more_is_better })
}

fn hyperfine(result: &Value) -> Option<Number> {
    let seconds = result.get("median").or(result.get("mean"))?.as_f64()?;
    number(result.get("command")?.as_str()?, seconds * 1000.0, "ms", false)
}

fn own(entry: &Value) -> Option<Number> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    number(
        text("name")?,
        entry.get("value")?.as_f64()?,
        text("unit").unwrap_or_default(),
        text("better") == Some("higher"),
    )
}

/// The folders between `criterion` and `new`.
fn criterion_name(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let from = parts.iter().rposition(|part| *part == "criterion").map_or(0, |at| at + 1);
    let to = parts.iter().rposition(|part| matches!(*part, "new" | "base")).unwrap_or(parts.len());
    let name = parts.get(from..to).unwrap_or_default().join("/");
    if name.is_empty() { path.to_owned() } else { name }
}

/// How a number stands against those of the last landings.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Too few landings have it.
    Unknown,
    /// As before, or better.
    Fine,
    /// Worse by this share of the median, and by more than it scatters.
    Worse {
        /// The median of the landings.
        median: f64,
        /// By so much of it.
        by: f64,
    },
}

/// Compares with the values of the last landings. Worse is what is beyond the share that is allowed and beyond what the landings scatter:
/// a noisy number must move further than a quiet one.
pub fn change(number: &Number, landings: &[f64], worse_by: f64) -> Change {
    if landings.len() < LEAST {
        return Change::Unknown;
    }
    let middle = median(landings.to_vec());
    let scatter = NORMAL * median(landings.iter().map(|value| (value - middle).abs()).collect());
    let worse = if number.more_is_better { middle - number.value } else { number.value - middle };
    let allowed = (middle.abs() * worse_by).max(DEVIATIONS * scatter);
    if worse > allowed && worse > 0.0 {
        let by = if middle == 0.0 { 1.0 } else { worse / middle.abs() };
        return Change::Worse { median: middle, by };
    }
    Change::Fine
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// Judges all numbers; `landings` holds those of the last landings, newest first. What is too new to be judged is told in the second list.
pub fn judge(numbers: &[Number], landings: &[Vec<Number>], worse_by: f64) -> (Option<Surplus>, Vec<String>) {
    let (mut found, mut unknown) = (Vec::new(), 0usize);
    for own in numbers {
        let same = |other: &&Number| other.name == own.name && other.unit == own.unit;
        let before: Vec<f64> = landings
            .iter()
            .filter_map(|all| all.iter().find(same))
            .map(|number| number.value)
            .take(WINDOW)
            .collect();
        match change(own, &before, worse_by) {
            Change::Fine => {}
            Change::Unknown => unknown += 1,
            Change::Worse { median, by } => {
                let (name, value, unit, n) = (&own.name, show(own.value), &own.unit, before.len());
                found.push(format!(
                    "{name}: {value} {unit}, {:.0} % worse than {} {unit}, the median of the last {n} landings",
                    by * 100.0,
                    show(median)
                ));
            }
        }
    }
    let notes = match unknown {
        0 => Vec::new(),
        n => vec![format!(
            "{n} measured numbers were not judged: it takes {LEAST} landings to know how they scatter"
        )],
    };
    let plural = if found.len() == 1 { " is" } else { "s are" };
    let says = format!(
        "{} measured number{plural} worse by more than {:.1} % and than it scatters",
        found.len(),
        worse_by * 100.0
    );
    ((!found.is_empty()).then_some(Surplus { says, found }), notes)
}

/// Four digits are enough to compare.
fn show(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { 3 - (value.abs().log10().floor() as i32).clamp(-9, 3) };
    format!("{value:.*}", digits.max(0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criterion_hyperfine_and_own_numbers_are_read() {
        let criterion =
            br#"{"mean":{"point_estimate":120.5},"median":{"point_estimate":118.25,"standard_error":1.0}}"#;
        let read_one = |bytes: &[u8], path: &str| read(bytes, path).unwrap().remove(0);
        let number = read_one(criterion, "target/criterion/cart/add/new/estimates.json");
        assert_eq!((number.name.as_str(), number.value, number.unit.as_str()), ("cart/add", 118.25, "ns"));
        let number = read_one(
            br#"{"results":[{"command":"sh -c true","mean":0.002,"median":0.0015,"times":[0.1]}]}"#,
            "x.json",
        );
        assert_eq!((number.name.as_str(), number.value, number.unit.as_str()), ("sh -c true", 1.5, "ms"));
        let own =
            br#"[{"name":"requests","value":900,"unit":"1/s","better":"higher"},{"name":"nan","value":"x"}]"#;
        assert!(read_one(own, "x").more_is_better);
        assert!(read(b"[]", "x").unwrap_err().to_string().contains("hint: "));
    }

    fn of(value: f64) -> Number {
        Number { name: "start".into(), value, unit: "ms".into(), more_is_better: false }
    }

    #[test]
    fn a_quiet_number_is_judged_by_the_share_and_a_noisy_one_by_its_scatter() {
        let quiet = [100.0, 101.0, 99.0, 100.0, 100.0, 101.0];
        assert_eq!(change(&of(109.0), &quiet, 0.1), Change::Fine);
        assert!(
            matches!(change(&of(112.0), &quiet, 0.1), Change::Worse { by, .. } if (by - 0.12).abs() < 1e-9)
        );
        let noisy = [100.0, 130.0, 80.0, 120.0, 90.0, 105.0];
        assert_eq!(change(&of(130.0), &noisy, 0.1), Change::Fine, "it scatters that far by itself");
        assert!(matches!(change(&of(190.0), &noisy, 0.1), Change::Worse { .. }));
        assert_eq!(change(&of(500.0), &quiet[..4], 0.1), Change::Unknown);
        let more = Number { more_is_better: true, ..of(80.0) };
        assert!(matches!(change(&more, &quiet, 0.1), Change::Worse { .. }));
        assert_eq!(change(&Number { value: 200.0, ..more }, &quiet, 0.1), Change::Fine);
    }

    #[test]
    fn what_became_worse_is_told_with_its_median_and_what_is_new_with_the_reason() {
        let landings: Vec<Vec<Number>> = (0..6).map(|n| vec![of(100.0 + f64::from(n % 2))]).collect();
        let (worse, notes) = judge(&[of(150.0), Number { name: "new".into(), ..of(1.0) }], &landings, 0.1);
        assert_eq!(
            worse.unwrap().found,
            ["start: 150.0 ms, 49 % worse than 100.5 ms, the median of the last 6 landings"]
        );
        assert!(notes[0].starts_with("1 measured numbers were not judged"));
    }
}

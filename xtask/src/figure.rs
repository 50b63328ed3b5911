//! One measured number, and how numbers are kept: `docs/figures/AREA.json`, and `AREA.md` made from it. Measures nothing.

use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// A number that an issue or the README speaks of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it has to reach; none: it is only told.
    pub bar: Option<f64>,
    /// `lower` or `higher`.
    pub better: String,
    /// Whether the bar was reached.
    pub met: Option<bool>,
    /// The same of others, measured in the same run.
    #[serde(default)]
    pub peers: std::collections::BTreeMap<String, f64>,
    /// What measures it again.
    #[serde(default)]
    pub command: String,
    /// The day.
    #[serde(default)]
    pub date: String,
    /// Cores of the machine.
    #[serde(default)]
    pub cores: usize,
}

impl Figure {
    /// A number that is better when lower.
    pub fn lower(name: impl Into<String>, value: f64, unit: &str, bar: Option<f64>) -> Figure {
        Figure {
            name: name.into(),
            value: (value * 100.0).round() / 100.0,
            unit: unit.to_owned(),
            bar,
            better: "lower".to_owned(),
            met: bar.map(|bar| value <= bar),
            peers: Default::default(),
            command: String::new(),
            date: String::new(),
            cores: 0,
        }
    }

    /// A number that is better when higher.
    pub fn higher(name: impl Into<String>, value: f64, unit: &str, bar: Option<f64>) -> Figure {
        let met = bar.map(|bar| value >= bar);
        Figure { better: "higher".to_owned(), met, ..Figure::lower(name, value, unit, bar) }
    }
}

/// What was kept of an area before; nothing where it was never measured.
pub fn kept(area: &str) -> Result<Vec<Figure>, String> {
    let file = crate::root().join(format!("docs/figures/{area}.json"));
    match std::fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

/// Writes the area's two files. `notes` say how it was measured.
pub fn keep(area: &str, mut figures: Vec<Figure>, notes: &str) -> Result<(), String> {
    let date = Command::new("date").arg("+%F").output().map_err(|error| format!("date: {error}"))?;
    let date = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Fuzzing measures nothing: it goes on.
    let command =
        if area == "fuzz" { "cargo xtask fuzz 300".to_owned() } else { format!("cargo xtask bench {area}") };
    for figure in &mut figures {
        figure.command.clone_from(&command);
        figure.date.clone_from(&date);
        figure.cores = cores;
    }
    let folder: PathBuf = crate::root().join("docs/figures");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let json = serde_json::to_string_pretty(&figures).map_err(|error| error.to_string())? + "\n";
    let markdown = page(area, &command, &figures, notes);
    print!("{markdown}");
    for (end, text) in [("json", json), ("md", markdown)] {
        let file = folder.join(format!("{area}.{end}"));
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

fn page(area: &str, command: &str, figures: &[Figure], notes: &str) -> String {
    let mut page =
        format!("# Figures: {area}\n\nMade by `{command}`; nothing here is typed by hand.\n\n{notes}\n\n");
    if let Some(first) = figures.first() {
        page += &format!("Measured on {} with {} cores.\n\n", first.date, first.cores);
    }
    page += "| What | Value | Bar | |\n|---|--:|--:|---|\n";
    for figure in figures {
        let sign = if figure.better == "lower" { "≤" } else { "≥" };
        let bar = figure.bar.map(|bar| format!("{sign} {bar} {}", figure.unit)).unwrap_or_default();
        let met = match figure.met {
            Some(true) => "met",
            Some(false) => "**not met**",
            None => "",
        };
        page += &format!("| {} | {} {} | {bar} | {met} |\n", figure.name, figure.value, figure.unit);
    }
    page
}

/// The value below which this share lies. The list is sorted by it.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(((values.len().saturating_sub(1)) as f64 * share).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

//! What the report files of an attempt say, and the blob that keeps it. Judges nothing.

use std::path::{Path, PathBuf};

use andon_pipeline::definition::Job;
use andon_runner::gather;
use andon_validation::findings::Finding;
use andon_validation::measured::{self, Number};
use andon_validation::places::Places;
use andon_validation::tests::{self, Limits, Report};
use andon_validation::{Coverage, coverage, sarif};
use serde::{Deserialize, Serialize};

/// Largest report that is read whole, in bytes; reports of tests are read as they come and may be larger.
const LARGEST: u64 = 256 << 20;
/// The same of measured numbers.
const NUMBERS: u64 = 16 << 20;
/// Files of the working copy that are known by name.
const MOST_FILES: usize = 200_000;
/// Folders that hold what is made or fetched: a file of the repository is not meant by a path in them.
const MADE: [&str; 7] = ["node_modules", "target", "build", "dist", "out", "vendor", ".venv"];

/// What one attempt of a job left behind, as its blob keeps it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Gathered {
    /// Test reports.
    pub tests: Vec<Report>,
    /// Coverage, merged.
    pub coverage: Coverage,
    /// Declared reports that are missing or could not be read, in sentences.
    pub unreadable: Vec<String>,
    /// What was odd.
    pub warnings: Vec<String>,
    /// What linters and analysers found.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What performance tests measured.
    #[serde(default)]
    pub numbers: Vec<Number>,
}

/// Reads all that the job declares. `called`: what the working copy was called where the job ran; reports may name files by it.
pub fn gather_reports(workdir: &Path, called: &Path, job: &Job) -> Gathered {
    let mut made = Gathered::default();
    for pattern in job.reports.of_tests() {
        for path in found(workdir, pattern, &mut made) {
            let read = std::fs::File::open(&path).map_err(|error| error.to_string()).and_then(|file| {
                tests::read(std::io::BufReader::with_capacity(1 << 16, file), Limits::default())
                    .map_err(|error| error.to_string())
            });
            match read {
                Ok(report) => made.tests.push(report),
                Err(why) => made.unreadable.push(format!("{}: {why}", shown(workdir, &path))),
            }
        }
    }
    for pattern in job.reports.performance.iter() {
        for path in found(workdir, pattern, &mut made) {
            let name = shown(workdir, &path);
            let read = within(&path, NUMBERS)
                .and_then(|bytes| measured::read(&bytes, &name).map_err(|error| error.to_string()));
            match read {
                Ok(numbers) => made.numbers.extend(numbers),
                Err(why) => made.unreadable.push(format!("{name}: {why}")),
            }
        }
    }
    if job.reports.coverage.iter().chain(job.reports.findings.iter()).next().is_none() {
        return made;
    }
    let places = places(workdir, called);
    for pattern in job.reports.coverage.iter() {
        for path in found(workdir, pattern, &mut made) {
            let read = within(&path, LARGEST)
                .and_then(|bytes| coverage::read(&bytes, &places).map_err(|error| error.to_string()));
            match read {
                Ok(reading) => {
                    made.coverage.merge(&reading.coverage);
                    made.warnings.extend(reading.warnings);
                }
                Err(why) => made.unreadable.push(format!("{}: {why}", shown(workdir, &path))),
            }
        }
    }
    for pattern in job.reports.findings.iter() {
        for path in found(workdir, pattern, &mut made) {
            let read = within(&path, LARGEST)
                .and_then(|bytes| sarif::read(&bytes, &places).map_err(|error| error.to_string()));
            match read {
                Ok(found) => {
                    made.findings.extend(found.all);
                    made.warnings.extend(found.warnings);
                    if found.more > 0 {
                        made.warnings.push(format!("{} findings more than are kept", found.more));
                    }
                }
                Err(why) => made.unreadable.push(format!("{}: {why}", shown(workdir, &path))),
            }
        }
    }
    made
}

/// The files that paths of reports may mean.
fn places(workdir: &Path, called: &Path) -> Places {
    let root = called.display().to_string();
    let files = gather::find(workdir, "**").unwrap_or_default();
    let files = files.iter().filter_map(|path| path.strip_prefix(workdir).ok()?.to_str());
    let own = files.filter(|path| !path.split('/').any(|part| MADE.contains(&part)));
    Places::with_files(&root, own.take(MOST_FILES).map(str::to_owned))
}

fn found(workdir: &Path, pattern: &str, made: &mut Gathered) -> Vec<PathBuf> {
    match gather::find(workdir, pattern) {
        Ok(paths) if paths.is_empty() => {
            made.unreadable.push(format!("the report {pattern} was not written"));
            paths
        }
        Ok(paths) => paths,
        Err(error) => {
            made.unreadable.push(format!("the report {pattern}: {error}"));
            Vec::new()
        }
    }
}

fn shown(workdir: &Path, path: &Path) -> String {
    path.strip_prefix(workdir).unwrap_or(path).display().to_string()
}

fn within(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > most {
        return Err(format!("it has {length} bytes, more than the {most} that are read"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

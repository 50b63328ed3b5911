//! What the report files of an attempt say, and the blob that keeps it. Judges nothing.

use std::path::{Path, PathBuf};

use andon_pipeline::definition::Job;
use andon_runner::gather;
use andon_validation::junit::{self, Limits, Report};
use andon_validation::{Coverage, coverage};
use serde::{Deserialize, Serialize};

/// Largest coverage report that is read, in bytes.
const COVERAGE_LIMIT: u64 = 256 << 20;

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
}

/// Reads all that the job declares.
pub fn gather_reports(workdir: &Path, job: &Job) -> Gathered {
    let mut made = Gathered::default();
    let root = workdir.display().to_string();
    for pattern in job.reports.junit.iter() {
        for path in found(workdir, pattern, &mut made) {
            let read = std::fs::File::open(&path).map_err(|error| error.to_string()).and_then(|file| {
                junit::read(std::io::BufReader::new(file), Limits::default())
                    .map_err(|error| error.to_string())
            });
            match read {
                Ok(report) => made.tests.push(report),
                Err(why) => made.unreadable.push(format!("{}: {why}", shown(workdir, &path))),
            }
        }
    }
    for pattern in job.reports.coverage.iter() {
        for path in found(workdir, pattern, &mut made) {
            let read = within(&path, COVERAGE_LIMIT)
                .and_then(|bytes| coverage::read(&bytes, &root).map_err(|error| error.to_string()));
            match read {
                Ok(reading) => {
                    made.coverage.merge(&reading.coverage);
                    made.warnings.extend(reading.warnings);
                }
                Err(why) => made.unreadable.push(format!("{}: {why}", shown(workdir, &path))),
            }
        }
    }
    made
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

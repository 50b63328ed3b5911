//! Reads test and coverage reports and gives the verdict on a run. No files, no processes: bytes come in, values go out.
//!
//! `junit`, `lcov`, `cobertura` and `diff` read what foreign tools write and never panic on it; `coverage` holds lines and hits;
//! `limits` judges them; `report` keeps all of it for pages; `verdict` says green or red from a report.

pub mod cobertura;
pub mod coverage;
pub mod detect;
pub mod diff;
pub mod junit;
pub mod lcov;
pub mod limits;
pub mod memory;
pub mod order;
pub mod quarantine;
pub mod report;
mod text;
pub mod verdict;
mod xml;

pub use coverage::{Coverage, FileCoverage};
pub use detect::{Kind, NotAReport, detect};
pub use report::{JobResult, RunReport};

#[cfg(test)]
mod mutations;

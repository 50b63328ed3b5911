//! Reads test and coverage reports and gives the verdict on a run. No files, no processes: bytes come in, values go out.
//!
//! What foreign tools write is read by modules that are named after it and never panic on it: `junit`, `trx`, `tap`, `gotest`, `libtest` for
//! tests (`tests` finds out which); `lcov`, `cobertura`, `jacoco`, `clover`, `gocover`, `coverage_json` for coverage (`coverage::read`); `sarif`
//! for findings; `measured` for numbers; `diff`. They share `xml`, `lines`, `walk`, `collect`, `case`. `coverage` holds lines and hits;
//! `limits` judges them; `report` keeps all of it for pages; `verdict` says green or red from a report. `order`, `memory` and `quarantine`
//! are about single tests over many runs.

mod case;
mod clover;
pub mod cobertura;
mod collect;
pub mod coverage;
mod coverage_json;
mod coverage_py;
pub mod detect;
pub mod diff;
pub mod findings;
pub mod gates;
mod gocover;
pub mod gotest;
pub mod handouts;
pub mod impact;
mod jacoco;
pub mod junit;
pub mod lcov;
pub mod libtest;
pub mod limits;
mod lines;
mod llvm_cov;
pub mod measured;
pub mod memory;
pub mod order;
pub mod places;
pub mod pyramid;
pub mod quarantine;
pub mod report;
pub mod sarif;
mod simplecov;
pub mod tap;
pub mod tests;
mod text;
pub mod trx;
pub mod verdict;
mod walk;
mod xml;
mod xml_tag;

pub use coverage::{Coverage, FileCoverage};
pub use detect::{Kind, NotAReport, TestKind, detect};
pub use places::Places;
pub use report::{JobResult, RunReport};

#[cfg(test)]
mod mutations;

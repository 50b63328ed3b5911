//! Reading a report of tests of any known format, found out from its first bytes. The formats are in modules of their own.

use std::io::{BufRead, Cursor, Read};

pub use crate::case::{Limits, Outcome, Report, TestCase};
use crate::detect::{LOOK, NotAReport, TestKind, detect_tests};
use crate::{gotest, junit, libtest, tap, trx};

/// Reads a report. A file that ends early gives what it holds and a warning; an error means that there was no report at all.
pub fn read(mut input: impl BufRead, limits: Limits) -> Result<Report, NotAReport> {
    let mut start = Vec::new();
    // A read that fails will fail again for the reader, which says so.
    let _ = input.by_ref().take(LOOK as u64).read_to_end(&mut start);
    let kind = detect_tests(&start)?;
    let input = Cursor::new(start).chain(input);
    match kind {
        TestKind::Junit => junit::read(input, limits),
        TestKind::Trx => trx::read(input, limits),
        TestKind::Tap => Ok(tap::read(input, limits)),
        TestKind::GoTest => Ok(gotest::read(input, limits)),
        TestKind::Libtest => Ok(libtest::read(input, limits)),
    }
}

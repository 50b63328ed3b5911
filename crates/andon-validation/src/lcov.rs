//! Reading LCOV trace files, version 1 and 2, line by line. Only lines count here: functions and branches are passed over.

use std::io::BufRead;

use crate::coverage::{Collector, Reading};

/// Longer lines are cut while they are read: a record is a path or three numbers.
const LONGEST: usize = 8192;

/// Reads a trace file. `working_copy` is the folder that the job ran in.
pub fn read(mut input: impl BufRead, working_copy: &str) -> Reading {
    let mut collector = Collector::default();
    // Inside a record of a file that lies outside: its lines are passed over.
    let mut open = false;
    let mut odd = 0usize;
    let mut line = Vec::new();
    loop {
        match next_line(&mut input, &mut line) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                collector.warn(format!("the report could not be read to its end: {error}"));
                break;
            }
        }
        // Nearly all lines are these: they are read without looking at their text any further.
        if let Some(data) = line.strip_prefix(b"DA:") {
            match data_line(data) {
                Some((line, hits)) if open => collector.line(line, hits, u64::saturating_add),
                _ => odd += 1,
            }
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim().trim_start_matches('\u{feff}');
        if let Some(path) = text.strip_prefix("SF:") {
            collector.open(path, working_copy);
            open = true;
        } else if let Some(data) = text.strip_prefix("DA:") {
            match data_line(data.as_bytes()) {
                Some((line, hits)) if open => collector.line(line, hits, u64::saturating_add),
                _ => odd += 1,
            }
        } else if text == "end_of_record" {
            collector.close();
            open = false;
        } else if !text.is_empty() && !text.starts_with('#') && !is_known(text) {
            odd += 1;
        }
    }
    if open {
        collector.warn(
            "the report ends in the middle of a file: the tool that wrote it was stopped or ran out of space",
        );
    }
    if odd > 0 {
        collector.warn(format!("{odd} lines are no LCOV records and were passed over"));
    }
    collector.finish()
}

fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        line.extend_from_slice(&part[..part.len().min(LONGEST - line.len())]);
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// `line,hits[,checksum]`. Negative counts are an overflow of the tool's counter after many runs, so they count as none and not as many.
fn data_line(data: &[u8]) -> Option<(u32, u64)> {
    let text = std::str::from_utf8(data).ok()?;
    let mut parts = text.split(',').map(str::trim);
    let line = parts.next()?.parse().ok()?;
    let hits = parts.next()?;
    let hits = match hits.parse::<u64>() {
        Ok(hits) => hits,
        Err(_) => hits.parse::<f64>().ok().filter(|hits| hits.is_finite())?.max(0.0) as u64,
    };
    Some((line, hits))
}

fn is_known(text: &str) -> bool {
    const MARKS: [&str; 19] = [
        "TN", "VER", "FN", "FNDA", "FNF", "FNH", "FNL", "FNA", "BRDA", "BRF", "BRH", "LF", "LH", "MCDC",
        "MCF", "MCH", "BA", "BF", "BH",
    ];
    text.split_once(':').is_some_and(|(mark, _)| MARKS.contains(&mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Reading {
        read(text.as_bytes(), "/w")
    }

    #[test]
    fn coverage_py_writes_relative_paths_and_checksums() {
        let reading = of("TN:\nSF:app.py\nDA:1,1,abc==\nDA:2,0,xyz==\nLF:2\nLH:1\nend_of_record\n");
        assert_eq!(reading.coverage.files["app.py"].lines, [(1, 1), (2, 0)].into());
        assert!(reading.warnings.is_empty());
    }

    #[test]
    fn llvm_cov_and_lcov_2_records_are_read() {
        let text = "SF:/w/src/lib.rs\r\nFN:3,_RNvX\r\nFNDA:2,_RNvX\r\nFNL:0,3,9\r\nFNA:0,2,x\r\n\r\nDA:3,18446744073709551615 \r\n\
            DA:4,1e3\r\nDA:5,-1\r\nBRDA:4,0,0,-\r\nMCDC:1,2\r\nend_of_record\r\n";
        let reading = of(text);
        assert_eq!(reading.coverage.files["src/lib.rs"].lines, [(3, u64::MAX), (4, 1000), (5, 0)].into());
        assert!(reading.warnings.is_empty(), "{:?}", reading.warnings);
    }

    #[test]
    fn a_file_that_two_tests_ran_has_the_sum_of_both() {
        let reading = of("TN:a\nSF:x.c\nDA:1,1\nend_of_record\nTN:b\nSF:x.c\nDA:1,2\nend_of_record\n");
        assert_eq!(reading.coverage.files["x.c"].lines, [(1, 3)].into());
    }

    #[test]
    fn truncation_foreign_files_and_nonsense_are_said() {
        let reading = of("SF:/usr/include/x.h\nDA:1,1\nend_of_record\nhello\nDA:x\nSF:a.c\nDA:1,1\nDA:2");
        assert_eq!(reading.coverage.files.keys().collect::<Vec<_>>(), ["a.c"]);
        assert_eq!(reading.warnings.len(), 3, "{:?}", reading.warnings);
    }
}

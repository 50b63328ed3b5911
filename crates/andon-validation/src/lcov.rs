//! Reading LCOV trace files, version 1 and 2, line by line: lines, branches, functions (man page geninfo(1), "TRACEFILE FORMAT").

use std::io::BufRead;

use crate::collect::{Collector, Join, hits};
use crate::coverage::Reading;
use crate::lines::Lines;
use crate::places::Places;

/// Longer lines are cut while they are read: a record is a path or three numbers.
const LONGEST: usize = 8192;
/// Functions of one file that are told apart.
const MOST_FUNCTIONS: usize = 100_000;

/// Reads a trace file.
pub fn read(input: impl BufRead, places: &Places) -> Reading {
    let mut collector = Collector::new(places, Join::Add);
    let mut lines = Lines::new(input, LONGEST);
    // Inside a record of a file that lies outside: its lines are passed over.
    let mut open = false;
    let mut functions = Functions::default();
    while let Some((number, line)) = lines.next() {
        // Nearly all lines are these: they are read without looking at their text any further.
        if let Some(data) = line.strip_prefix(b"DA:") {
            match data_line(data) {
                Some((line, hits)) if open => collector.line(line, hits),
                _ => collector.odd(|| odd(number)),
            }
            continue;
        }
        let text = String::from_utf8_lossy(line);
        let text = text.trim().trim_start_matches('\u{feff}');
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if text == "end_of_record" {
            functions.give(&mut collector);
            collector.close();
            open = false;
            continue;
        }
        let Some((mark, data)) = text.split_once(':') else {
            collector.odd(|| odd(number));
            continue;
        };
        let read = match mark {
            "SF" => {
                functions.give(&mut collector);
                collector.open(data);
                open = true;
                Some(())
            }
            "DA" => {
                data_line(data.as_bytes()).filter(|_| open).map(|(line, hits)| collector.line(line, hits))
            }
            "BRDA" => branch(data).map(|(line, hits)| collector.branch(line, hits)),
            "FN" | "FNDA" | "FNL" | "FNA" => functions.record(mark, data),
            // Test names, versions, sums of the tool's own, conditions of MC/DC.
            "TN" | "VER" | "FNF" | "FNH" | "BRF" | "BRH" | "LF" | "LH" | "MCDC" | "MCF" | "MCH" | "BA"
            | "BF" | "BH" => Some(()),
            _ => None,
        };
        if read.is_none() {
            collector.odd(|| odd(number));
        }
    }
    functions.give(&mut collector);
    if let Some(why) = lines.cut_short() {
        collector.warn(why);
    }
    if open {
        let number = lines.number;
        collector.warn(format!(
            "the report ends in the middle of a file, at line {number}: the tool that wrote it was stopped or ran out of space"
        ));
    }
    collector.finish()
}

fn odd(line: u64) -> String {
    format!("line {line} is no LCOV record and was passed over")
}

/// `line,hits[,checksum]`.
fn data_line(data: &[u8]) -> Option<(u32, u64)> {
    let comma = data.iter().position(|byte| *byte == b',')?;
    if let (Some(line), Some(hits)) = (digits(&data[..comma]), digits(&data[comma + 1..])) {
        return Some((u32::try_from(line).ok()?, hits));
    }
    let text = std::str::from_utf8(data).ok()?;
    let mut parts = text.split(',').map(str::trim);
    Some((parts.next()?.parse().ok()?, hits(parts.next()?)?))
}

/// A short plain number; none for anything else, which the slow way reads.
fn digits(bytes: &[u8]) -> Option<u64> {
    let short = (1..=18).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_digit);
    short.then(|| bytes.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// `line,[e]block,branch,taken`; `-` for a branch whose line never ran.
fn branch(data: &str) -> Option<(u32, u64)> {
    let (line, rest) = data.split_once(',')?;
    let (_, taken) = rest.rsplit_once(',')?;
    Some((line.trim().parse().ok()?, if taken.trim() == "-" { 0 } else { hits(taken)? }))
}

/// The functions of the open file. Records tell the place and the hits apart, by name or, since version 2.2, by number.
#[derive(Default)]
struct Functions {
    all: Vec<Known>,
    /// Where the search for the next name begins: tools write hits in the order of the places.
    next: usize,
}

struct Known {
    number: Option<String>,
    line: u32,
    name: String,
    hits: Option<u64>,
}

impl Functions {
    fn record(&mut self, mark: &str, data: &str) -> Option<()> {
        let (first, rest) = data.split_once(',')?;
        if self.all.len() >= MOST_FUNCTIONS {
            return Some(());
        }
        match mark {
            // `line,[end,]name`
            "FN" => {
                let name = match rest.split_once(',') {
                    Some((end, name)) if !end.is_empty() && end.bytes().all(|b| b.is_ascii_digit()) => name,
                    _ => rest,
                };
                let line = first.trim().parse().ok()?;
                self.all.push(Known { number: None, line, name: name.to_owned(), hits: None });
            }
            // `hits,name`; two of the same name are told apart by their order only.
            "FNDA" => {
                let count = hits(first)?;
                let free = |known: &Known| known.hits.is_none() && known.name == rest;
                let found = self.all[self.next..].iter().position(free).map(|at| at + self.next);
                let found = found.or_else(|| self.all.iter().position(free));
                match found {
                    Some(at) => (self.all[at].hits, self.next) = (Some(count), at + 1),
                    None => {
                        self.all.push(Known {
                            number: None,
                            line: 0,
                            name: rest.to_owned(),
                            hits: Some(count),
                        });
                    }
                }
            }
            // `number,line[,end]`
            "FNL" => {
                let line = rest.split(',').next()?.trim().parse().ok()?;
                self.all.push(Known {
                    number: Some(first.to_owned()),
                    line,
                    name: String::new(),
                    hits: None,
                });
            }
            // `number,hits,name`: several names of one function are one function, and as often called as all of them.
            _ => {
                let (count, name) = rest.split_once(',')?;
                let count = hits(count)?;
                let own = |known: &&mut Known| known.number.as_deref() == Some(first);
                let known = self.all.iter_mut().rev().find(own)?;
                known.hits = Some(known.hits.unwrap_or(0).saturating_add(count));
                if known.name.is_empty() {
                    known.name = name.to_owned();
                }
            }
        }
        Some(())
    }

    fn give(&mut self, collector: &mut Collector<'_>) {
        for known in self.all.drain(..) {
            collector.function(known.line, &known.name, known.hits.unwrap_or(0));
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::Share;

    fn of(text: &str) -> Reading {
        read(text.as_bytes(), &Places::at("/w"))
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
    fn functions_of_the_same_name_keep_their_own_hits() {
        let reading = of(
            "SF:a.js\nFN:1,constructor\nFN:9,12,constructor\nFN:3,(anonymous_1)\nFNDA:4,constructor\nFNDA:0,constructor\n\
            FNDA:1,(anonymous_1)\nFNF:3\nend_of_record\n",
        );
        let functions: Vec<_> =
            reading.coverage.files["a.js"].functions.iter().map(|f| (f.line, f.hits)).collect();
        assert_eq!(functions, [(1, 4), (3, 1), (9, 0)]);
    }

    #[test]
    fn branches_keep_their_order_over_two_tests() {
        let text = "SF:a.c\nBRDA:3,0,0,1\nBRDA:3,0,1,-\nDA:3,1\nend_of_record\n";
        let other = "SF:a.c\nBRDA:3,0,0,0\nBRDA:3,e0,1,7\nDA:3,1\nend_of_record\n";
        let reading = of(&(text.to_owned() + other));
        assert_eq!(reading.coverage.files["a.c"].branches, [(3, vec![1, 7])].into());
        assert_eq!(reading.coverage.totals().branches, Share { covered: 2, total: 2 });
    }

    #[test]
    fn a_file_that_two_tests_ran_has_the_sum_of_both() {
        let reading = of("TN:a\nSF:x.c\nDA:1,1\nend_of_record\nTN:b\nSF:x.c\nDA:1,2\nend_of_record\n");
        assert_eq!(reading.coverage.files["x.c"].lines, [(1, 3)].into());
    }

    #[test]
    fn truncation_foreign_files_and_nonsense_are_said_with_their_place() {
        let reading = of("SF:/usr/include/x.h\nDA:1,1\nend_of_record\nhello\nDA:x\nSF:a.c\nDA:1,1\nDA:2");
        assert_eq!(reading.coverage.files.keys().collect::<Vec<_>>(), ["a.c"]);
        assert_eq!(reading.warnings.len(), 3, "{:?}", reading.warnings);
        let all = reading.warnings.join("\n");
        assert!(all.contains("line 4 is no LCOV record") && all.contains("2 more such places"), "{all}");
        assert!(all.contains("in the middle of a file, at line 8"), "{all}");
    }
}

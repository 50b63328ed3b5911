//! Reading coverage profiles of Go (`go test -coverprofile`; package golang.org/x/tools/cover): blocks of statements as lines.
//!
//! Every line from the first to the last of a block counts as often as the block ran, the most where two blocks share it. The number that
//! `go tool cover` prints counts statements instead; it is kept beside.

use std::io::BufRead;

use crate::collect::{Collector, Join, LAST_LINE};
use crate::coverage::Reading;
use crate::lines::Lines;
use crate::places::Places;

/// Longer lines are cut: a line is a path and five numbers.
const LONGEST: usize = 8192;
/// Lines of one block: longer ones are nonsense that would only cost memory.
const LONGEST_BLOCK: u32 = 20_000;

/// Reads a profile.
pub fn read(input: impl BufRead, places: &Places) -> Reading {
    let mut collector = Collector::new(places, Join::Max);
    let mut lines = Lines::new(input, LONGEST);
    let mut path = String::new();
    while let Some((number, line)) = lines.next() {
        let text = std::str::from_utf8(line).unwrap_or_default().trim();
        // Profiles that were joined hold a mode in the middle.
        if text.is_empty() || text.starts_with("mode:") {
            if !line.is_ascii() {
                collector.odd(|| format!("line {number} is not UTF-8 and was passed over"));
            }
            continue;
        }
        let Some((file, block)) = text.rsplit_once(':').and_then(|(file, rest)| Some((file, block(rest)?)))
        else {
            collector
                .odd(|| format!("line {number} is no block of a Go coverage profile and was passed over"));
            continue;
        };
        if file != path {
            file.clone_into(&mut path);
            collector.open(file);
        }
        for line in block.first..=block.last {
            collector.line(line, block.hits);
        }
        collector.statements(if block.hits > 0 { block.statements } else { 0 }, block.statements);
    }
    if let Some(why) = lines.cut_short() {
        collector.warn(why);
    }
    collector.finish()
}

struct Block {
    first: u32,
    last: u32,
    statements: u64,
    hits: u64,
}

/// `5.20,7.2 1 3`: from line and column to line and column, statements, hits.
fn block(text: &str) -> Option<Block> {
    let mut words = text.split(' ');
    let (from, to) = words.next()?.split_once(',')?;
    let line = |place: &str| place.split_once('.')?.0.parse::<u32>().ok();
    let (first, last) = (line(from)?, line(to)?);
    let (statements, hits) = (words.next()?.parse::<u64>().ok()?, words.next()?.parse().ok()?);
    let sane = first >= 1
        && last >= first
        && last <= LAST_LINE
        && last - first <= LONGEST_BLOCK
        && words.next().is_none();
    sane.then_some(Block { first, last, statements, hits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_lines_of_the_modules_files() {
        let text = "mode: count\nexample.org/shop/cart/cart.go:3.20,5.12 2 4\nexample.org/shop/cart/cart.go:5.12,7.3 1 0\n\
            example.org/shop/cart/cart.go:9.2,9.10 1 4\nnonsense\nexample.org/shop/cart/cart.go:0.1,4294967295.2 1 1\n";
        let places = Places::with_files("/w", ["cart/cart.go".to_owned()]);
        let reading = read(text.as_bytes(), &places);
        let lines = [(3, 4), (4, 4), (5, 4), (6, 0), (7, 0), (9, 4)];
        assert_eq!(reading.coverage.files["cart/cart.go"].lines, lines.into());
        assert_eq!(reading.statements, Some((3, 4)), "as go tool cover counts");
        assert_eq!(
            reading.warnings,
            ["line 5 is no block of a Go coverage profile and was passed over, and 1 more such places"]
        );
    }
}

//! Lines on standard output. Whoever reads them may stop at any time (`andon release list | head`): that ends the command quietly.

use std::fmt::Arguments;
use std::io::Write;

/// The exit status of a command whose reader went away: 128 + SIGPIPE, as shells have it.
const READER_GONE: i32 = 141;

/// Prints a line.
pub fn line(words: Arguments<'_>) {
    if writeln!(std::io::stdout().lock(), "{words}").is_err() {
        std::process::exit(READER_GONE);
    }
}

/// Prints a line; like `println!`, but a reader that goes away is no panic.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::say::line(format_args!($($words)*))
    };
}
pub(crate) use say;

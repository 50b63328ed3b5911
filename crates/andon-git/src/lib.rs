//! Git by its own binary: hosting over smart HTTP, speculative merges, landing by compare-and-swap. No policy.
//!
//! [`repository`] reads and moves one bare repository, [`serve`] speaks smart HTTP, [`hook`] is the `proc-receive` side of a push.
//! Arguments that come from outside are typed ([`andon_model::Oid`]) or pass [`is_ref_name`]; nothing is ever given to a shell.

mod copy;
pub mod hook;
pub mod repository;
pub mod serve;

pub use repository::{Commits, Merge, Repository};

/// Why git did not do it.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Git itself said no.
    #[error("git {command} failed: {words}")]
    Failed {
        /// The subcommand.
        command: String,
        /// Its last words.
        words: String,
    },
    /// Git could not be run at all.
    #[error("git cannot be run: {0}\nhint: install git 2.38 or newer and make sure it is in PATH")]
    Absent(std::io::Error),
    /// Git answered something that this version does not understand.
    #[error("git {command} answered something unknown: {what}")]
    Answer {
        /// The subcommand.
        command: String,
        /// The answer's beginning.
        what: String,
    },
}

/// Whether this is a plain branch name: git's own rules, made stricter, so that it is safe as an argument and in a page.
pub fn is_ref_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    !name.is_empty()
        && name.len() <= 200
        && name.chars().all(plain)
        && name.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.'])
                && !part.ends_with(".lock")
        })
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::is_ref_name;

    #[test]
    fn ref_names_that_could_be_options_paths_or_markup_are_refused() {
        for bad in [
            "",
            "--upload-pack=x",
            "-x",
            "a/../b",
            "a..b",
            "a b",
            "a\nb",
            "<b>",
            "/a",
            "a/",
            ".git",
            "a.lock",
            "a:b",
            "a~1",
            "@{u}",
        ] {
            assert!(!is_ref_name(bad), "{bad:?} was accepted");
        }
        for good in ["main", "release/1.2", "topic_x"] {
            assert!(is_ref_name(good), "{good:?} was refused");
        }
    }
}

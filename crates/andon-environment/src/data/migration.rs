//! Migrations: files with an order and a phase, and which of them run next in a database whose ledger is known. Runs none.

use std::collections::BTreeMap;

use andon_model::Digest;
use andon_model::event::Phase;

/// The longest file name and the largest file, in bytes.
const LONGEST: usize = 120;
/// As above.
pub const LARGEST: usize = 4 << 20;

/// One file.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// `0002-names.expand`: the file's name without `.sql`.
    pub name: String,
    /// When it runs.
    pub phase: Phase,
    /// Of its text.
    pub checksum: Digest,
    /// Its text.
    pub sql: String,
}

/// A line of a database's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The migration.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// Of its text when it ran.
    pub checksum: Digest,
    /// How long it took, in milliseconds.
    pub took: u64,
}

/// Why no migration runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a name.
    #[error(
        "{0:?} is no migration\nhint: name it NAME.expand.sql or NAME.contract.sql, of letters, digits, '-', '_' and '.'"
    )]
    Name(String),
    /// Its text is another than the one that ran.
    #[error(
        "{0} ran already and was changed since\nhint: leave it as it was, and write the change as a migration of its own"
    )]
    Changed(String),
    /// The database was contracted by a newer commit.
    #[error(
        "{0} took away what this commit needs, and it does not know that migration\nhint: there is no way back behind it: go forward with a new change"
    )]
    Contracted(String),
}

/// Reads one file of the folder.
pub fn read(file: &str, sql: &str) -> Result<Migration, Refused> {
    let wrong = || Refused::Name(file.chars().take(60).collect());
    let name = file.strip_suffix(".sql").ok_or_else(wrong)?;
    let phase = match name.rsplit_once('.') {
        Some((stem, "expand")) if !stem.is_empty() => Phase::Expand,
        Some((stem, "contract")) if !stem.is_empty() => Phase::Contract,
        _ => return Err(wrong()),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if file.len() > LONGEST || !file.bytes().all(plain) || file.starts_with(['.', '-']) {
        return Err(wrong());
    }
    Ok(Migration { name: name.to_owned(), phase, checksum: Digest::of(sql.as_bytes()), sql: sql.to_owned() })
}

/// What runs next, in order. `unused`: nobody was ever served from this database, so that everything runs as written.
pub fn plan<'a>(
    files: &'a [Migration],
    ledger: &[Entry],
    phase: Phase,
    unused: bool,
) -> Result<Vec<&'a Migration>, Refused> {
    let known: BTreeMap<&str, &Migration> = files.iter().map(|file| (file.name.as_str(), file)).collect();
    for entry in ledger {
        match known.get(entry.name.as_str()) {
            Some(file) if file.checksum != entry.checksum => {
                return Err(Refused::Changed(entry.name.clone()));
            }
            None if entry.phase == Phase::Contract => return Err(Refused::Contracted(entry.name.clone())),
            // What a newer commit only added hurts no older one.
            _ => {}
        }
    }
    let pending = |file: &&Migration| ledger.iter().all(|entry| entry.name != file.name);
    let mut next: Vec<&Migration> =
        files.iter().filter(pending).filter(|file| unused || file.phase == phase).collect();
    next.sort_by_key(|file| order(file));
    Ok(next)
}

/// By name; of one name, what is added comes before what is taken away.
fn order(file: &Migration) -> (&str, bool) {
    let stem = file.name.rsplit_once('.').map_or(file.name.as_str(), |(stem, _)| stem);
    (stem, file.phase == Phase::Contract)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn files(names: &[&str]) -> Vec<Migration> {
        names.iter().map(|name| read(&format!("{name}.sql"), &format!("select '{name}'")).unwrap()).collect()
    }

    fn ran(files: &[Migration]) -> Vec<Entry> {
        let entry = |f: &Migration| Entry {
            name: f.name.clone(),
            phase: f.phase,
            checksum: f.checksum.clone(),
            took: 1,
        };
        files.iter().map(entry).collect()
    }

    fn names(plan: &[&Migration]) -> Vec<String> {
        plan.iter().map(|file| file.name.clone()).collect()
    }

    #[test]
    fn what_adds_runs_first_and_what_takes_away_when_it_is_its_turn() {
        let all = files(&["2.contract", "1.expand", "2.expand"]);
        assert_eq!(names(&plan(&all, &[], Phase::Expand, false).unwrap()), ["1.expand", "2.expand"]);
        let ledger = ran(&all[1..]);
        assert_eq!(names(&plan(&all, &ledger, Phase::Contract, false).unwrap()), ["2.contract"]);
        let new = plan(&all, &[], Phase::Expand, true).unwrap();
        assert_eq!(names(&new), ["1.expand", "2.expand", "2.contract"]);
    }

    #[test]
    fn a_file_that_ran_and_was_changed_is_refused() {
        let ledger = ran(&files(&["1.expand"]));
        let mut changed = files(&["1.expand"]);
        changed[0].checksum = Digest::of(b"other");
        assert_eq!(plan(&changed, &ledger, Phase::Expand, false), Err(Refused::Changed("1.expand".into())));
    }

    #[test]
    fn a_commit_from_before_a_contraction_is_refused_and_one_from_before_an_expansion_is_not() {
        let ledger = ran(&files(&["1.expand", "2.expand", "2.contract"]));
        let old = files(&["1.expand"]);
        assert_eq!(plan(&old, &ledger, Phase::Expand, false), Err(Refused::Contracted("2.contract".into())));
        assert_eq!(plan(&old, &ledger[..2], Phase::Expand, false), Ok(vec![]));
    }

    #[test]
    fn names_that_say_no_phase_or_lead_elsewhere_are_refused() {
        for bad in [
            "1.sql",
            "expand.sql",
            ".expand.sql",
            "a/b.expand.sql",
            "1.expand",
            "1 .expand.sql",
            "é.expand.sql",
        ] {
            assert!(read(bad, "").is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn wherever_it_is_cut_off_every_migration_runs_exactly_once(stems in prop::collection::btree_set("[a-z0-9]{1,4}", 0..8), cuts in prop::collection::vec(0usize..4, 0..20)) {
            let all: Vec<Migration> = stems.iter().flat_map(|s| files(&[&format!("{s}.expand"), &format!("{s}.contract")])).collect();
            let mut ledger: Vec<Entry> = Vec::new();
            for (step, cut) in cuts.into_iter().chain([99, 99]).enumerate() {
                let phase = if step % 2 == 0 { Phase::Expand } else { Phase::Contract };
                let next: Vec<Migration> = plan(&all, &ledger, phase, false).unwrap().into_iter().take(cut).cloned().collect();
                ledger.extend(ran(&next));
            }
            for phase in [Phase::Expand, Phase::Contract] {
                let next: Vec<Migration> = plan(&all, &ledger, phase, false).unwrap().into_iter().cloned().collect();
                ledger.extend(ran(&next));
            }
            let mut names: Vec<&str> = ledger.iter().map(|entry| entry.name.as_str()).collect();
            names.sort_unstable();
            let before = names.len();
            names.dedup();
            prop_assert_eq!(names.len(), before);
            prop_assert_eq!(before, all.len());
        }
    }
}

//! Files that jobs may begin with: kept by name, key and the run that made them; bounded; the least recently used goes first. A cache is a
//! help and no fact: it stands in no journal, and without it everything is as before, only slower.
//!
//! Which ones a run may use is said by [`andon_pipeline::Run::may_use`]: what a change made that has not landed is for that change alone,
//! so that nobody can put anything into a cache that trunk or others begin with.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use andon_model::{RunId, Time};
use andon_pipeline::job::Cache;
use andon_runner::{gather, parcel};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Bytes that the caches of one project may take.
const MOST: u64 = 10 << 30;

/// Where a project's caches lie.
#[derive(Debug, Clone)]
pub(super) struct Caches {
    room: PathBuf,
    most: u64,
}

/// What a job asks for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The cache's name.
    pub name: String,
    /// The run that asks, and that makes a new one.
    pub run: RunId,
    /// Runs whose caches it may use.
    pub usable: BTreeSet<RunId>,
    /// What came of looking.
    pub found: Found,
}

/// What came of looking for a cache, kept in the attempt's room: another server may have to finish it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Found {
    /// Digits of the key; empty: it is not known, and nothing is kept.
    key: String,
    /// Whether one with this very key was there.
    hit: bool,
}

impl Wanted {
    /// Nothing is found yet.
    pub fn new(name: String, run: RunId, usable: BTreeSet<RunId>) -> Wanted {
        Wanted { name, run, usable, found: Found::default() }
    }

    /// The key: name, paths, and the content of the files that make it.
    pub fn find_key(&mut self, tree: &Path, cache: &Cache) -> io::Result<()> {
        let mut sum = sha2::Sha256::new();
        let mut say = |bytes: &[u8]| {
            sum.update((bytes.len() as u64).to_be_bytes());
            sum.update(bytes);
        };
        say(self.name.as_bytes());
        cache.paths.iter().for_each(|path| say(path.as_bytes()));
        for pattern in &cache.key {
            say(pattern.as_bytes());
            for path in gather::find(tree, pattern)? {
                let name = path.strip_prefix(tree).unwrap_or(&path);
                say(name.as_os_str().as_encoded_bytes());
                let mut bytes = Vec::new();
                File::open(&path)?.read_to_end(&mut bytes)?;
                say(&bytes);
            }
        }
        self.found.key = hex::encode(&sum.finalize()[..16]);
        Ok(())
    }
}

/// A cache on disk: `NAME,KEY,RUN.tar`, the name as hexadecimal digits, since a team may call it anything.
struct Entry {
    path: PathBuf,
    name: String,
    key: String,
    run: RunId,
    bytes: u64,
    used: SystemTime,
}

impl Caches {
    /// In this folder.
    pub fn at(room: PathBuf) -> Caches {
        Caches { room, most: MOST }
    }

    /// Puts the newest usable one of this key into the working copy, or with `fallback` the newest of any key.
    pub fn restore(&self, tree: &Path, cache: &Cache, wanted: &mut Wanted, now: Time) -> io::Result<()> {
        let name = digits(&wanted.name);
        let mut known: Vec<Entry> = self
            .entries()?
            .into_iter()
            .filter(|e| e.name == name && wanted.usable.contains(&e.run))
            .collect();
        known.sort_by_key(|entry| (entry.key == wanted.found.key, entry.run));
        let Some(best) = known.pop().filter(|entry| entry.key == wanted.found.key || cache.fallback) else {
            return Ok(());
        };
        wanted.found.hit = best.key == wanted.found.key;
        let file = File::open(&best.path)?;
        // Used now: the least recently used goes first.
        let _ = file.set_modified(moment(now));
        parcel::unpack(BufReader::new(file), tree)
    }

    /// Keeps what the job leaves, unless this key was there already. Returns words where it could not be kept.
    pub fn keep(&self, tree: &Path, cache: &Cache, wanted: &Wanted) -> io::Result<Option<String>> {
        if wanted.found.hit || wanted.found.key.is_empty() {
            return Ok(None);
        }
        std::fs::create_dir_all(&self.room)?;
        let file = tempfile::NamedTempFile::new_in(&self.room)?;
        let missing = parcel::pack(tree, &cache.paths, true, BufWriter::new(&file))?;
        if missing.len() == cache.paths.len() {
            return Ok(Some(format!(
                "the cache {} is empty: {} is not there",
                wanted.name,
                missing.join(", ")
            )));
        }
        let bytes = file.as_file().metadata()?.len();
        if bytes > self.most / 2 {
            return Ok(Some(format!(
                "the cache {} has {} MiB, too many to be kept",
                wanted.name,
                bytes >> 20
            )));
        }
        let name = format!("{},{},{}.tar", digits(&wanted.name), wanted.found.key, wanted.run.0);
        file.persist(self.room.join(name)).map_err(|error| error.error)?;
        self.bound()?;
        Ok(None)
    }

    /// Removes the least recently used until the rest fits.
    fn bound(&self) -> io::Result<()> {
        let mut known = self.entries()?;
        known.sort_by_key(|entry| entry.used);
        let mut all: u64 = known.iter().map(|entry| entry.bytes).sum();
        for entry in known {
            if all <= self.most {
                break;
            }
            // Whoever reads it keeps reading: the file is only without a name.
            std::fs::remove_file(&entry.path)?;
            all -= entry.bytes;
        }
        Ok(())
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let Ok(folder) = std::fs::read_dir(&self.room) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for file in folder {
            let file = file?;
            let name = file.file_name();
            let parts = name.to_str().and_then(|name| name.strip_suffix(".tar")).map(|name| name.split(','));
            let Some([name, key, run]) =
                parts.and_then(|parts| <[&str; 3]>::try_from(parts.collect::<Vec<_>>()).ok())
            else {
                continue;
            };
            // It may have been removed since.
            let (Ok(run), Ok(meta)) = (run.parse(), file.metadata()) else { continue };
            found.push(Entry {
                path: file.path(),
                name: name.to_owned(),
                key: key.to_owned(),
                run: RunId(run),
                bytes: meta.len(),
                used: meta.modified()?,
            });
        }
        Ok(found)
    }
}

fn moment(at: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

/// A name as a part of a file's name.
fn digits(name: &str) -> String {
    hex::encode(&sha2::Sha256::digest(name.as_bytes())[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Room {
        dir: tempfile::TempDir,
        caches: Caches,
    }

    const CACHE: &str = r#"{ "key": ["lock"], "paths": ["deps/"], "fallback": true }"#;

    impl Room {
        fn new(most: u64) -> Room {
            let dir = tempfile::tempdir().unwrap();
            let caches = Caches { room: dir.path().join("caches"), most };
            Room { dir, caches }
        }

        /// What a run with this lock finds, and then leaves.
        fn run(&self, run: u32, usable: &[u32], lock: &str, leaves: &str) -> Option<String> {
            let tree = self.dir.path().join(format!("tree-{run}"));
            std::fs::create_dir_all(&tree).unwrap();
            std::fs::write(tree.join("lock"), lock).unwrap();
            let cache: Cache = serde_json::from_str(CACHE).unwrap();
            let usable = usable.iter().map(|run| RunId(*run)).collect();
            let mut wanted = Wanted::new("deps".into(), RunId(run), usable);
            wanted.find_key(&tree, &cache).unwrap();
            self.caches.restore(&tree, &cache, &mut wanted, Time(60_000 * i64::from(run))).unwrap();
            let found = std::fs::read_to_string(tree.join("deps/made")).ok();
            std::fs::create_dir_all(tree.join("deps")).unwrap();
            std::fs::write(tree.join("deps/made"), leaves).unwrap();
            assert_eq!(self.caches.keep(&tree, &cache, &wanted).unwrap(), None);
            found
        }
    }

    #[test]
    fn what_one_run_left_the_next_with_the_same_key_begins_with() {
        let room = Room::new(1 << 20);
        assert_eq!(room.run(1, &[1], "a", "made by 1"), None);
        assert_eq!(room.run(2, &[1, 2], "a", "made by 2").as_deref(), Some("made by 1"));
        assert_eq!(
            room.run(3, &[1, 2, 3], "a", "made by 3").as_deref(),
            Some("made by 1"),
            "a key is kept once"
        );
        assert_eq!(
            room.run(4, &[1, 2, 3, 4], "b", "made by 4").as_deref(),
            Some("made by 1"),
            "the nearest there is"
        );
        assert_eq!(room.run(5, &[1, 2, 3, 4, 5], "b", "").as_deref(), Some("made by 4"));
    }

    #[test]
    fn what_a_run_may_not_use_it_does_not_see() {
        let room = Room::new(1 << 20);
        room.run(1, &[1], "a", "poison");
        assert_eq!(room.run(2, &[2], "a", "clean"), None);
        assert_eq!(room.run(3, &[2, 3], "a", "").as_deref(), Some("clean"));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let room = Room::new(10_000);
        for run in 1..=3 {
            room.run(run, &[], &run.to_string(), &"x".repeat(1_000));
        }
        let old = moment(Time(1));
        for entry in room.caches.entries().unwrap() {
            File::options().append(true).open(&entry.path).unwrap().set_modified(old).unwrap();
        }
        assert!(room.run(4, &[1], "1", "").is_some(), "the first one is used");
        room.run(5, &[], "5", &"x".repeat(1_000));
        let left: BTreeSet<u32> = room.caches.entries().unwrap().iter().map(|entry| entry.run.0).collect();
        assert!(left.contains(&1) && left.contains(&5), "{left:?}");
        assert!(left.len() < 4, "{left:?}");
    }
}

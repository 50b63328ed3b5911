//! Backups and their way back: one tar of the journal, the repositories and the blobs. Decides no schedule.
//!
//! The order makes it whole: the journal is copied first, in one moment; everything that it names was written before it was recorded, so it is
//! still there when repositories and blobs are copied after it. What came since is in no event and does no harm. The key of the data directory
//! is left out: what is sealed with it stays sealed, and the key has to be kept apart.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use andon_git::Repository;
use andon_model::event::{Actor, Event, Role};
use andon_model::{ProjectName, Recorded, Time};
use andon_store::SqliteJournal;
use andon_store::journal::{Batch, Journal, NewEvent};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::{Caller, Line, Refusal, State};

/// The first entry: what follows, and of which form it is.
const ABOUT: &str = "andon-backup.json";
const JOURNAL: &str = "journal.db";
/// The form that this version writes and reads.
const FORM: u32 = 1;
/// Backups kept below the data directory.
const KEPT: usize = 3;
/// Events read at once.
const PAGE: u32 = 10_000;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Form of the file.
    pub form: u32,
    /// The last event in it.
    pub seq: u64,
    /// When it was made.
    pub at: Time,
    /// Projects with their trunks.
    pub projects: Vec<(ProjectName, String)>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Its name below `backups` of the data directory.
    pub name: String,
    /// The last event in it.
    pub seq: u64,
    /// Its size.
    pub bytes: u64,
}

impl Line {
    /// Where backups lie.
    pub fn backups(&self) -> PathBuf {
        self.settings.data.join("backups")
    }

    /// Makes a backup at the wish of a person.
    pub async fn back_up(self: &Arc<Line>, caller: &Caller) -> Result<Backup, Refusal> {
        caller.may(Role::Owner)?;
        self.make_backup(caller.actor()).await
    }

    /// The file of a backup.
    pub fn backup_file(&self, caller: &Caller, name: &str) -> Result<File, Refusal> {
        caller.may(Role::Owner)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        let none = || Refusal::Unknown("there is no such backup\nhint: `andon backup` makes one".into());
        if name.starts_with('.') || name.is_empty() || !name.bytes().all(plain) {
            return Err(none());
        }
        File::open(self.backups().join(name)).map_err(|_| none())
    }

    /// Makes one, and forgets the oldest beyond [`KEPT`].
    pub(crate) async fn make_backup(self: &Arc<Line>, by: Actor) -> Result<Backup, Refusal> {
        // One at a time: two of one second would have one name.
        let _turn = self.backup_turn.lock().await;
        let folder = self.backups();
        fs::create_dir_all(&folder)?;
        let room = tempfile::Builder::new().prefix(".making-").tempdir_in(&folder)?;
        self.journal_snapshot(&room.path().join(JOURNAL)).await?;
        let journal = SqliteJournal::open(&room.path().join(JOURNAL)).await?;
        let seq = last_event(&journal).await?;
        journal.close().await;
        let mut projects = Vec::new();
        for project in self.projects() {
            project.repository.bundle(&room.path().join(format!("{}.bundle", project.name))).await?;
            projects.push((project.name.clone(), project.state().trunk.clone()));
        }
        let at = self.now();
        let name = format!("{}-{seq}.tar", at.rfc3339().get(..19).unwrap_or_default().replace(':', "-"));
        let about = About { form: FORM, seq, at, projects };
        let (place, blobs) = (folder.join(&name), self.settings.data.join("blobs"));
        let written = tokio::task::spawn_blocking(move || {
            let made = tempfile::NamedTempFile::new_in(&folder)?;
            write(made.as_file(), &about, room.path(), &blobs)?;
            made.as_file().sync_all()?;
            let bytes = made.as_file().metadata()?.len();
            made.persist(&place).map_err(|error| error.error)?;
            File::open(&folder)?.sync_all()?;
            forget_oldest(&folder)?;
            Ok::<_, io::Error>(bytes)
        });
        let bytes = written.await.map_err(|error| Refusal::Broken(error.to_string()))??;
        let made = Event::BackupMade { name: name.clone(), seq, bytes };
        self.decide_server(by, |_, _| Ok((vec![made], ()))).await?;
        Ok(Backup { name, seq, bytes })
    }
}

async fn last_event(journal: &SqliteJournal) -> Result<u64, Refusal> {
    let mut last = 0;
    loop {
        let page = journal.read(last, PAGE).await?;
        last = page.last().map_or(last, |recorded| recorded.seq);
        if page.len() < PAGE as usize {
            return Ok(last);
        }
    }
}

fn write(to: &File, about: &About, room: &Path, blobs: &Path) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::new(to));
    let text = serde_json::to_vec(about)?;
    let mut head = tar::Header::new_gnu();
    head.set_size(text.len() as u64);
    head.set_mode(0o600);
    tar.append_data(&mut head, ABOUT, &text[..])?;
    tar.append_path_with_name(room.join(JOURNAL), JOURNAL)?;
    for (project, _) in &about.projects {
        let bundle = room.join(format!("{project}.bundle"));
        if bundle.exists() {
            tar.append_path_with_name(bundle, format!("git/{project}.bundle"))?;
        }
    }
    for folder in folders(blobs)? {
        for blob in fs::read_dir(&folder)?.flatten() {
            let (Some(part), name) = (folder.file_name(), blob.file_name()) else { continue };
            let place = Path::new("blobs").join(part).join(name);
            tar.append_path_with_name(blob.path(), place)?;
        }
    }
    tar.into_inner()?.flush()
}

/// The folders of two digits that blobs lie in; what lies beside them is not finished.
fn folders(blobs: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(blobs)?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    Ok(found)
}

fn forget_oldest(folder: &Path) -> io::Result<()> {
    let names = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    // Their names begin with the time.
    let mut made: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|e| e == "tar")).collect();
    made.sort();
    made.iter().rev().skip(KEPT).try_for_each(fs::remove_file)
}

/// Makes a data directory from a backup: all of it or nothing. `key` is the file `key` of the old one; without it what was sealed stays sealed.
/// With `into` none it only checks.
pub async fn restore(
    archive: &Path,
    into: Option<&Path>,
    key: Option<&Path>,
    exe: &Path,
) -> Result<About, Refusal> {
    let parent = match into {
        Some(data) => {
            if fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some()) {
                let data = data.display();
                return Err(Refusal::Conflict(format!(
                    "{data} is not empty\nhint: restore into a new directory, or move that one away"
                )));
            }
            let parent = data.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::create_dir_all(parent)?;
            parent.to_owned()
        }
        None => std::env::temp_dir(),
    };
    let room = tempfile::Builder::new().prefix(".restoring-").tempdir_in(parent)?;
    let (file, place) = (File::open(archive)?, room.path().to_owned());
    let read = tokio::task::spawn_blocking(move || unpack(file, &place)).await;
    let about = read.map_err(|error| Refusal::Broken(error.to_string()))??;
    take_up(room.path(), &about, exe).await?;
    if let Some(key) = key {
        fs::copy(key, room.path().join("key"))?;
        andon_store::Vault::open(&room.path().join("key"))?;
    }
    if let Some(data) = into {
        fs::remove_dir_all(room.path().join("git-bundles"))?;
        if data.exists() {
            fs::remove_dir(data)?;
        }
        let room = room.keep();
        fs::rename(room, data)?;
    }
    Ok(about)
}

/// Only what a backup holds comes out of it, and every blob is what its name says.
fn unpack(file: File, into: &Path) -> Result<About, Refusal> {
    let broken = |what: &str| {
        Refusal::Bad(format!("this is no whole backup: {what}\nhint: take another one, or make it again"))
    };
    let mut archive = tar::Archive::new(io::BufReader::new(file));
    let mut about: Option<About> = None;
    fs::create_dir(into.join("git-bundles"))?;
    for entry in archive.entries()? {
        let mut entry = entry.map_err(|error| broken(&error.to_string()))?;
        if !entry.header().entry_type().is_file() {
            return Err(broken("it holds something that is not a file"));
        }
        let path = entry.path().map_err(|error| broken(&error.to_string()))?.into_owned();
        let parts: Vec<&str> = path
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_str().unwrap_or(""),
                _ => "",
            })
            .collect();
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        match parts[..] {
            [ABOUT] => {
                let mut text = String::new();
                entry.by_ref().take(1 << 20).read_to_string(&mut text)?;
                let read: About = serde_json::from_str(&text).map_err(|error| broken(&error.to_string()))?;
                if read.form != FORM {
                    return Err(broken(&format!("its form {} is not known here", read.form)));
                }
                about = Some(read);
            }
            [JOURNAL] => copy(&mut entry, &into.join(JOURNAL)).map(drop)?,
            ["git", name]
                if name.strip_suffix(".bundle").is_some_and(|n| n.parse::<ProjectName>().is_ok()) =>
            {
                copy(&mut entry, &into.join("git-bundles").join(name)).map(drop)?;
            }
            ["blobs", folder, name] if folder.len() == 2 && name.len() == 62 && hex(folder) && hex(name) => {
                let place = into.join("blobs").join(folder);
                fs::create_dir_all(&place)?;
                let found = copy(&mut entry, &place.join(name))?;
                if found != format!("{folder}{name}") {
                    return Err(broken(&format!("the blob {folder}{name} is damaged")));
                }
            }
            _ => return Err(broken("it holds a file that no backup has")),
        }
    }
    let about = about.ok_or_else(|| broken("it does not say what it is"))?;
    if !into.join(JOURNAL).exists() {
        return Err(broken("the journal is missing"));
    }
    fs::create_dir_all(into.join("blobs"))?;
    Ok(about)
}

/// Returns the digest of what was copied.
fn copy(from: &mut impl Read, to: &Path) -> io::Result<String> {
    let mut out = File::options().write(true).create_new(true).open(to)?;
    let mut sum = sha2::Sha256::new();
    let mut chunk = vec![0; 128 * 1024];
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        sum.update(&chunk[..read]);
        out.write_all(&chunk[..read])?;
    }
    out.sync_all()?;
    Ok(hex::encode(sum.finalize()))
}

/// Repositories as the journal knows them, and a word in each project's stream that nothing of it runs any more.
async fn take_up(room: &Path, about: &About, exe: &Path) -> Result<(), Refusal> {
    let journal = SqliteJournal::open(&room.join(JOURNAL)).await?;
    let mut states: std::collections::BTreeMap<ProjectName, State> = Default::default();
    let mut last = 0;
    loop {
        let page: Vec<Recorded> = journal.read(last, PAGE).await?;
        for recorded in &page {
            last = recorded.seq;
            if let Some(project) = &recorded.project {
                states.entry(project.clone()).or_default().evolve(recorded);
            }
        }
        if page.len() < PAGE as usize {
            break;
        }
    }
    if last != about.seq {
        let why = format!("its journal ends at event {last}, not {}", about.seq);
        return Err(Refusal::Bad(format!("this is no whole backup: {why}")));
    }
    for (project, state) in &states {
        let dir = room.join("git").join(format!("{project}.git"));
        let repository = Repository::create(dir, &state.trunk, exe).await?;
        let bundle = room.join("git-bundles").join(format!("{project}.bundle"));
        if bundle.exists() {
            repository.unbundle(&bundle).await?;
        }
        if let Some(trunk) = &state.queue.trunk {
            // The repository was copied after the journal: what landed in between is not known any more.
            repository.set_branch(&state.trunk, trunk).await?;
        }
        let restored = NewEvent { by: Actor::line("recovery"), event: Event::Restored { seq: about.seq } };
        let (project, at) = (Some(project.clone()), about.at);
        journal
            .append(Batch { project, expected: state.version, at, events: vec![restored], fence: None })
            .await?;
    }
    journal.close().await;
    Ok(())
}

//! What lies in a working copy before a job begins, and what is kept of it afterwards: the files it reads, outputs of other jobs, its
//! cache. Runs nothing.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};
use std::path::Path;

use andon_model::event::Event;
use andon_model::{Digest, JobName, RunId};
use andon_pipeline::definition::Job;
use andon_runner::{Room, parcel};
use serde::{Deserialize, Serialize};

use super::caches::{Caches, Found, Wanted};
use crate::{Line, Project, Refusal};

/// The note in an attempt's room, outside of what the job sees.
const NOTE: &str = "parcels.json";

/// What is noted.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    #[serde(default)]
    found: Found,
    #[serde(default)]
    warnings: Vec<String>,
}

/// What is to be put into a working copy and taken from it.
#[derive(Debug, Clone)]
pub(super) struct Parcels {
    run: RunId,
    name: JobName,
    job: Job,
    /// Outputs of other jobs, in the order in which they are taken.
    taken: Vec<Digest>,
    /// Where the project's caches lie.
    caches: Caches,
    wanted: Option<Wanted>,
}

impl Parcels {
    /// What this job begins with, as the journal knows it now.
    pub fn of(project: &Project, run: RunId, name: &JobName, job: &Job) -> Result<Parcels, Refusal> {
        let state = project.state();
        let found = state.runs.all.get(&run);
        let found = found.ok_or_else(|| Refusal::Broken(format!("{run} is not known")))?;
        let mut taken = Vec::new();
        for take in &job.takes {
            let outputs = found.job(&take.value).and_then(|other| other.outputs.as_ref());
            let (digest, _) =
                outputs.ok_or_else(|| Refusal::Broken(format!("{} handed nothing on", take.value)))?;
            taken.push(digest.clone());
        }
        let wanted = job.cache.as_ref().map(|cache| {
            let usable = state.runs.all.values().filter(|other| found.may_use(other)).map(|other| other.id);
            Wanted::new(cache.name.clone().unwrap_or_else(|| name.to_string()), run, usable.collect())
        });
        let caches = Caches::at(project.room.join("caches"));
        Ok(Parcels { run, name: name.clone(), job: job.clone(), taken, caches, wanted })
    }

    /// Fills the fresh working copy of an attempt, and notes in its room what whoever finishes it has to know.
    pub async fn put_in(self, line: &Line, room: &Room) -> Result<(), Refusal> {
        let (blobs, now) = (line.blobs.clone(), line.now());
        let (tree, note) = (room.dir().join("tree"), room.dir().join(NOTE));
        let done = tokio::task::spawn_blocking(move || {
            let mut made = self;
            let mut noted = Noted::default();
            // The key is of the repository's files, before anything else is there.
            if let (Some(cache), Some(wanted)) = (&made.job.cache, &mut made.wanted) {
                wanted.find_key(&tree, cache)?;
            }
            if !made.job.reads.is_empty() {
                parcel::narrow(&tree, &made.job.reads)?;
            }
            for digest in &made.taken {
                parcel::unpack(BufReader::new(blobs.get(digest)?), &tree)?;
            }
            if let (Some(cache), Some(wanted)) = (&made.job.cache, &mut made.wanted) {
                // A job can do without its cache.
                if let Err(error) = made.caches.restore(&tree, cache, wanted, now) {
                    noted.warnings.push(format!("the cache {} could not be read: {error}", wanted.name));
                }
                noted.found = wanted.found.clone();
            }
            std::fs::write(note, serde_json::to_vec(&noted)?)
        });
        Ok(done.await.map_err(|error| Refusal::Broken(error.to_string()))??)
    }

    /// Takes up what was noted at the attempt's beginning; returns what is to be said of it.
    pub fn read_note(&mut self, tree: &Path) -> Vec<String> {
        let note = tree.parent().and_then(|room| std::fs::read(room.join(NOTE)).ok());
        let noted: Noted = note.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        if let Some(wanted) = &mut self.wanted {
            wanted.found = noted.found;
        }
        noted.warnings
    }

    /// Keeps what a green attempt leaves: the event that names its outputs, and what is wrong in sentences: `Err` what makes it red, `Ok`
    /// what only has to be said.
    pub fn take_out(
        &self,
        blobs: &andon_store::Blobs,
        tree: &Path,
        attempt: u32,
    ) -> (Option<Event>, Vec<Result<String, String>>) {
        let mut said = Vec::new();
        if let (Some(cache), Some(wanted)) = (&self.job.cache, &self.wanted) {
            match self.caches.keep(tree, cache, wanted) {
                Ok(None) => {}
                Ok(Some(words)) => said.push(Ok(words)),
                Err(error) => said.push(Ok(format!("the cache {} was not kept: {error}", wanted.name))),
            }
        }
        if self.job.outputs.is_empty() {
            return (None, said);
        }
        match pack(blobs, tree, &self.job.outputs) {
            Ok((outputs, bytes, missing)) if missing.is_empty() => {
                let (run, job) = (self.run, self.name.clone());
                (Some(Event::JobOutputs { run, job, attempt, outputs, bytes }), said)
            }
            Ok((.., missing)) => {
                said.push(Err(format!("the output {} is not there after the job", missing.join(", "))));
                (None, said)
            }
            Err(error) => {
                said.push(Err(format!("its outputs: {error}")));
                (None, said)
            }
        }
    }
}

fn pack(
    blobs: &andon_store::Blobs,
    tree: &Path,
    patterns: &[String],
) -> std::io::Result<(Digest, u64, Vec<String>)> {
    let mut file: File = tempfile::tempfile_in(tree.parent().unwrap_or(tree))?;
    let missing = parcel::pack(tree, patterns, false, BufWriter::new(&file))?;
    file.rewind()?;
    let (digest, bytes) = blobs.put(file)?;
    Ok((digest, bytes, missing))
}

//! Hears from the kernel (inotify) which releases may have changed and which instances may have ended, so that nobody has to look
//! all the time. Says only that there is something to look at; what it is, looking tells.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::sync::watch;

use crate::spec;

/// What changes a release.
const FILES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);
/// The shim's last word is a file moved into place; if it is killed, its lock is closed for it.
const ENDS: WatchFlags = WatchFlags::MOVED_TO.union(WatchFlags::CLOSE_WRITE).union(WatchFlags::ONLYDIR);

/// A thread that listens, until this is dropped.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    /// Closed with us: that ends the thread.
    _end: PipeWriter,
}

struct Shared {
    inotify: OwnedFd,
    known: Mutex<Known>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    /// By the kernel's number.
    watched: BTreeMap<i32, Watched>,
    /// What has been begun with, by instance, and what in it is not watched.
    instances: BTreeMap<String, Vec<PathBuf>>,
    touched: BTreeSet<String>,
    /// Not all of these could be watched.
    blind: BTreeSet<String>,
}

struct Watched {
    instance: String,
    path: PathBuf,
    /// A part of its release; else the instance's own directory.
    files: bool,
}

impl Watcher {
    /// Begins to listen; nothing is watched yet.
    pub fn new() -> io::Result<Watcher> {
        let (ended, end) = io::pipe()?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { inotify, known: Mutex::default(), changed: watch::Sender::new(0) });
        let listening = Arc::clone(&shared);
        std::thread::Builder::new().name("watch".into()).spawn(move || listening.listen(&ended))?;
        Ok(Watcher { shared, _end: end })
    }

    /// Counts up when there is something to look at.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Watches an instance, but for the paths below its release that it may write. Known already is as good. What is new counts as
    /// touched: nobody was listening until now.
    pub fn begin(&self, id: &str, dir: &Path, writes: &[String]) {
        let mut known = self.shared.known();
        if known.instances.contains_key(id) {
            return;
        }
        let release = dir.join(spec::RELEASE);
        known.instances.insert(id.to_owned(), writes.iter().map(|declared| release.join(declared)).collect());
        known.touched.insert(id.to_owned());
        let own = inotify::add_watch(&self.shared.inotify, dir, ENDS);
        let own = own.map(|number| {
            let watched = Watched { instance: id.to_owned(), path: dir.to_owned(), files: false };
            known.watched.insert(number, watched);
        });
        if own.is_err() || self.shared.add(&mut known, id, &release).is_err() {
            known.blind.insert(id.to_owned());
        }
    }

    /// Lets go of one that is to be removed.
    pub fn end(&self, id: &str) {
        let mut known = self.shared.known();
        known.instances.remove(id);
        known.touched.remove(id);
        known.blind.remove(id);
        let gone = known.watched.extract_if(.., |_, watched| watched.instance == id);
        for (number, _) in gone {
            // The kernel has let go by itself of what is deleted.
            let _ = inotify::remove_watch(&self.shared.inotify, number);
        }
    }

    /// Instances whose files may have changed since the last call. None: not all could be watched, look at all.
    pub fn touched(&self) -> Option<BTreeSet<String>> {
        let mut known = self.shared.known();
        let touched = std::mem::take(&mut known.touched);
        known.blind.is_empty().then_some(touched)
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a directory and those below it.
    fn add(&self, known: &mut Known, id: &str, top: &Path) -> io::Result<()> {
        let except = known.instances.get(id).cloned().unwrap_or_default();
        let tree = walkdir::WalkDir::new(top).into_iter();
        for found in tree.filter_entry(|entry| !except.iter().any(|path| entry.path() == path)) {
            let found = match found {
                // Gone while we looked: its parent tells.
                Err(error) if error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => {
                    continue;
                }
                found => found?,
            };
            if !found.file_type().is_dir() {
                continue;
            }
            match inotify::add_watch(&self.inotify, found.path(), FILES) {
                Ok(number) => {
                    let watched = Watched { instance: id.to_owned(), path: found.into_path(), files: true };
                    known.watched.insert(number, watched);
                }
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn listen(&self, ended: &PipeReader) {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        loop {
            let mut on = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::new(ended, PollFlags::IN | PollFlags::HUP),
            ];
            match poll(&mut on, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return self.give_up(&error.into()),
            }
            if !on[1].revents().is_empty() {
                return;
            }
            let mut news = false;
            let mut reader = Reader::new(&self.inotify, &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                        news |= self.take_in(event.wd(), event.events(), name.as_deref());
                    }
                    Err(rustix::io::Errno::WOULDBLOCK) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return self.give_up(&error.into()),
                }
            }
            if news {
                self.changed.send_modify(|count| *count += 1);
            }
        }
    }

    /// Whether somebody should look.
    fn take_in(&self, number: i32, events: ReadFlags, name: Option<&str>) -> bool {
        let mut known = self.known();
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            let all: Vec<String> = known.instances.keys().cloned().collect();
            known.touched.extend(all);
            return true;
        }
        if events.contains(ReadFlags::IGNORED) {
            known.watched.remove(&number);
            return false;
        }
        let Some(watched) = known.watched.get(&number) else { return false };
        if !watched.files {
            return matches!(name, Some(spec::STATE | spec::LOCK));
        }
        let (id, path) = (watched.instance.clone(), watched.path.clone());
        let arrived = ReadFlags::CREATE | ReadFlags::MOVED_TO;
        if events.contains(ReadFlags::ISDIR) && events.intersects(arrived) {
            let top = name.map_or_else(|| path.clone(), |name| path.join(name));
            if self.add(&mut known, &id, &top).is_err() {
                known.blind.insert(id.clone());
            }
        }
        known.touched.insert(id);
        true
    }

    fn give_up(&self, error: &io::Error) {
        tracing::warn!(%error, "changes of releases are no longer heard of, all are looked at");
        let mut known = self.known();
        let all: Vec<String> = known.instances.keys().cloned().collect();
        known.blind.extend(all);
        known.blind.insert(String::new());
    }
}

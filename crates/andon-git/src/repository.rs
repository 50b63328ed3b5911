//! One bare repository: reading commits, merging without a working tree, moving trunk. Decides nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use andon_model::{Oid, Time};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::GitError;

/// A bare repository on disk. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    dir: PathBuf,
}

/// What a push brings beyond trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commits {
    /// How many.
    pub count: u32,
    /// First line of the newest one's message.
    pub title: String,
    /// Message of the newest one.
    pub message: String,
    /// `Name <mail>` of the oldest one's author.
    pub author: String,
    /// Author date of the oldest one.
    pub authored: Time,
    /// Paths that differ from where trunk and the newest one parted.
    pub paths: Vec<String>,
}

/// What merging gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// A commit that can land.
    Made {
        /// The commit.
        commit: Oid,
        /// Its tree.
        tree: Oid,
    },
    /// People have to look.
    Conflict {
        /// Files in conflict.
        files: Vec<String>,
    },
    /// Trunk has it already.
    Contained,
}

/// Most of a diff that is read, in bytes: far beyond what people review, small enough for memory.
const LARGEST_DIFF: usize = 32 << 20;

/// Git without the machine's or a person's configuration.
pub(crate) fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .env("GIT_DIR", dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C.UTF-8")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl Repository {
    /// An existing repository.
    pub fn at(dir: PathBuf) -> Repository {
        Repository { dir }
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates it, or brings the settings of an existing one up to date. `exe` is linked in as its `proc-receive` hook.
    pub async fn create(dir: PathBuf, trunk: &str, exe: &Path) -> Result<Repository, GitError> {
        let made = Repository { dir };
        std::fs::create_dir_all(&made.dir).map_err(GitError::Absent)?;
        made.run(["init", "--quiet", "--bare", "--template=", "--initial-branch", trunk, "."]).await?;
        let settings = [
            // Every ref is ours to judge: trunk moves by landing alone.
            ("receive.procReceiveRefs", "refs"),
            ("receive.advertisePushOptions", "true"),
            ("receive.autogc", "false"),
            ("receive.fsckObjects", "true"),
            ("receive.maxInputSize", "1g"),
            ("transfer.hideRefs", "refs/andon"),
            ("uploadpack.allowFilter", "true"),
            ("gc.auto", "0"),
            ("core.fsync", "objects,reference"),
        ];
        for (key, value) in settings {
            made.run(["config", key, value]).await?;
        }
        let hooks = made.dir.join("hooks");
        std::fs::create_dir_all(&hooks).map_err(GitError::Absent)?;
        let link = hooks.join("proc-receive");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(exe, &link).map_err(GitError::Absent)?;
        Ok(made)
    }

    /// Where a branch stands.
    pub async fn branch(&self, name: &str) -> Result<Option<Oid>, GitError> {
        let reference = format!("refs/heads/{name}");
        let (ok, out) =
            self.ask(["rev-parse", "--verify", "--quiet", "--end-of-options", &reference]).await?;
        if !ok {
            return Ok(None);
        }
        oid("rev-parse", &out).map(Some)
    }

    /// The tree of a commit, read from git.
    pub async fn tree(&self, commit: &Oid) -> Result<Oid, GitError> {
        let out =
            self.run(["rev-parse", "--verify", "--end-of-options", &format!("{commit}^{{tree}}")]).await?;
        oid("rev-parse", &out)
    }

    /// Keeps a commit reachable under a name of ours, e.g. `changes/12/1`.
    pub async fn pin(&self, name: &str, commit: &Oid) -> Result<(), GitError> {
        self.run(["update-ref", &format!("refs/andon/{name}"), commit.as_str()]).await.map(drop)
    }

    /// What `head` has beyond trunk; none when trunk has it already.
    pub async fn beyond(&self, trunk: Option<&Oid>, head: &Oid) -> Result<Option<Commits>, GitError> {
        let range = trunk.map_or_else(|| head.to_string(), |trunk| format!("{trunk}..{head}"));
        let format = "--format=%H%x00%at%x00%an <%ae>%x00%B%x00%x00";
        // Side by side: whoever pushed waits for both.
        let (out, paths) = tokio::join!(self.run(["log", "--topo-order", format, &range]), async {
            match trunk {
                Some(trunk) => {
                    self.run(["diff", "--name-only", "-z", "--no-renames", &format!("{trunk}...{head}")])
                        .await
                }
                None => self.run(["ls-tree", "-r", "-z", "--name-only", head.as_str()]).await,
            }
        });
        let out = out?;
        let mut commits = out.split("\0\0").map(|c| c.trim_start_matches('\n')).filter(|c| !c.is_empty());
        let Some(newest) = commits.next() else { return Ok(None) };
        let (count, oldest) = (1 + commits.clone().count(), commits.last().unwrap_or(newest));
        let field = |commit: &str, at: usize| commit.splitn(4, '\0').nth(at).unwrap_or_default().to_owned();
        let message = field(newest, 3);
        let secs: i64 = field(oldest, 1).parse().unwrap_or(0);
        let paths = paths?;
        Ok(Some(Commits {
            count: u32::try_from(count).unwrap_or(u32::MAX),
            title: message.lines().next().unwrap_or_default().chars().take(200).collect(),
            author: field(oldest, 2),
            authored: Time(secs.saturating_mul(1000)),
            paths: paths.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect(),
            message,
        }))
    }

    /// The commit that would land: `head` merged into `trunk` under this message. On an empty trunk it is `head` itself.
    pub async fn merge(
        &self,
        trunk: Option<&Oid>,
        head: &Oid,
        message: &str,
        at: Time,
    ) -> Result<Merge, GitError> {
        let Some(trunk) = trunk else {
            return Ok(Merge::Made { commit: head.clone(), tree: self.tree(head).await? });
        };
        // Side by side: what is asked first is seldom the answer.
        let contained = self.ask(["merge-base", "--is-ancestor", head.as_str(), trunk.as_str()]);
        let merged = self.ask([
            "merge-tree",
            "--write-tree",
            "--name-only",
            "--no-messages",
            trunk.as_str(),
            head.as_str(),
        ]);
        let (contained, merged) = tokio::join!(contained, merged);
        if contained?.0 {
            return Ok(Merge::Contained);
        }
        let (clean, out) = merged?;
        let mut lines = out.lines();
        let Some(first) = lines.next() else {
            return Err(GitError::Failed {
                command: "merge-tree".into(),
                words: "no common history with trunk".into(),
            });
        };
        if !clean {
            return Ok(Merge::Conflict {
                files: lines.filter(|line| !line.is_empty()).map(str::to_owned).collect(),
            });
        }
        let tree = oid("merge-tree", first)?;
        let mut command = git(&self.dir);
        let when = format!("@{} +0000", at.0 / 1000);
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Andon")
                .env(format!("GIT_{who}_EMAIL"), "andon@localhost");
            command.env(format!("GIT_{who}_DATE"), &when);
        }
        command.args(["commit-tree", "-p", trunk.as_str(), "-p", head.as_str(), tree.as_str()]);
        let out = feed(command, "commit-tree", message.as_bytes()).await?;
        Ok(Merge::Made { commit: oid("commit-tree", &out)?, tree })
    }

    /// Moves a branch from exactly `from` to `to`. False: it was not there, and nothing was moved.
    pub async fn land(&self, branch: &str, from: Option<&Oid>, to: &Oid) -> Result<bool, GitError> {
        let old = from.map_or_else(|| "0".repeat(to.as_str().len()), ToString::to_string);
        let reference = format!("refs/heads/{branch}");
        let (ok, _) = self.ask(["update-ref", &reference, to.as_str(), &old]).await?;
        Ok(ok)
    }

    /// A file of a commit, if it is there and not larger than `most` bytes.
    pub async fn file(&self, commit: &Oid, path: &str, most: usize) -> Result<Option<String>, GitError> {
        let spec = format!("{commit}:{path}");
        let (there, size) = self.ask(["cat-file", "-s", &spec]).await?;
        if !there {
            return Ok(None);
        }
        if size.trim().parse::<usize>().unwrap_or(usize::MAX) > most {
            return Err(GitError::Answer {
                command: "cat-file".into(),
                what: format!("{path} is larger than {most} bytes"),
            });
        }
        self.run(["cat-file", "blob", &spec]).await.map(Some)
    }

    /// Names of what lies directly in a folder of a commit; none: there is no such folder.
    pub async fn names(&self, commit: &Oid, folder: &str) -> Result<Option<Vec<String>>, GitError> {
        let tree = format!("{commit}:{folder}");
        let (there, names) = self.ask(["ls-tree", "--name-only", "-z", &tree]).await?;
        let names = names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(there.then(|| names.collect()))
    }

    /// The object at a path of a commit, a folder's tree for instance; none if there is nothing.
    pub async fn object(&self, commit: &Oid, path: &str) -> Result<Option<Oid>, GitError> {
        let spec = format!("{commit}:{path}");
        let (there, id) = self.ask(["rev-parse", "--verify", "--quiet", "--end-of-options", &spec]).await?;
        Ok(if there { id.trim().parse().ok() } else { None })
    }

    /// Writes every object that a name leads to into one file; false: there is nothing yet.
    pub async fn bundle(&self, file: &Path) -> Result<bool, GitError> {
        let (any, names) = self.ask(["for-each-ref", "--count=1"]).await?;
        if !any || names.trim().is_empty() {
            return Ok(false);
        }
        let file = file.to_string_lossy();
        self.run(["bundle", "create", "--quiet", &file, "--all"]).await?;
        Ok(true)
    }

    /// Takes everything from such a file. The names in it become those here.
    pub async fn unbundle(&self, file: &Path) -> Result<(), GitError> {
        let file = file.to_string_lossy();
        self.run(["fetch", "--quiet", "--no-write-fetch-head", "--update-head-ok", &file, "+refs/*:refs/*"])
            .await?;
        Ok(())
    }

    /// Lets a branch end at this commit, wherever it ended before. Only for a repository that nobody uses yet.
    pub async fn set_branch(&self, name: &str, commit: &Oid) -> Result<(), GitError> {
        let name = format!("refs/heads/{name}");
        self.run(["update-ref", &name, commit.as_str()]).await.map(drop)
    }

    /// What `to` changes against `from` (or against nothing), without context lines.
    pub async fn diff(&self, from: Option<&Oid>, to: &Oid) -> Result<String, GitError> {
        // The empty tree has a fixed name in each object format; git knows it without storing it.
        let empty = if to.as_str().len() == 40 {
            "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
        } else {
            "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
        };
        let from = from.map_or(empty, Oid::as_str);
        let args = [
            "diff",
            "--unified=0",
            "--no-color",
            "--no-ext-diff",
            "--no-renames",
            "--ignore-submodules",
            from,
            to.as_str(),
        ];
        let out = self.run(args).await?;
        if out.len() > LARGEST_DIFF {
            return Err(GitError::Answer {
                command: "diff".into(),
                what: "the change is larger than 32 MB".into(),
            });
        }
        Ok(out)
    }

    /// Files that differ between two commits, renames as a file that went and one that came.
    pub async fn changed(&self, from: &Oid, to: &Oid) -> Result<Vec<String>, GitError> {
        let args = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", from.as_str(), to.as_str()];
        let out = self.run(args).await?;
        Ok(out.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
    }

    /// Every file of a commit in the order of paths, each with its kind and object: `100644 blob OID`.
    pub async fn entries(&self, commit: &Oid) -> Result<Vec<(String, String)>, GitError> {
        let out = self.run(["ls-tree", "-r", "-z", "--full-tree", commit.as_str()]).await?;
        let entry = |line: &str| line.split_once('\t').map(|(what, path)| (path.to_owned(), what.to_owned()));
        Ok(out.split('\0').filter_map(entry).collect())
    }

    /// A working copy of a commit, with its own index and this repository's objects.
    pub async fn check_out(&self, commit: &Oid, into: &Path) -> Result<(), GitError> {
        crate::copy::skeleton(&self.dir, commit, into).map_err(GitError::Absent)?;
        let mut command = git(&into.join(".git"));
        command.current_dir(into).env("GIT_WORK_TREE", into).args(["read-tree", "--reset", "-u", "HEAD"]);
        output(command, "read-tree").await.map(drop)
    }

    /// Makes a working copy of this commit stand alone: it has this one commit without what came before (shallow), and borrows nothing.
    pub async fn stand_alone(&self, commit: &Oid, copy: &Path) -> Result<(), GitError> {
        let git_dir = copy.join(".git");
        let objects =
            self.run(["rev-list", "--objects", "--no-object-names", "--no-walk", commit.as_str()]).await?;
        let mut pack = git(&self.dir);
        pack.current_dir(&self.dir)
            .args(["pack-objects", "--quiet", "--threads=1"])
            .arg(git_dir.join("objects/pack/pack"));
        feed(pack, "pack-objects", objects.as_bytes()).await?;
        let made = || -> std::io::Result<()> {
            std::fs::write(git_dir.join("shallow"), format!("{commit}\n"))?;
            // Branches and the address of where it was made mean nothing elsewhere.
            for of_here in ["objects/info/alternates", "packed-refs"] {
                match std::fs::remove_file(git_dir.join(of_here)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            std::fs::write(
                git_dir.join("config"),
                "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n",
            )
        };
        made().map_err(GitError::Absent)
    }

    /// Commits that `to` has beyond `from`, newest first, as (commit, title), at most `most`.
    pub async fn log(&self, from: Option<&Oid>, to: &Oid, most: u32) -> Result<Vec<(Oid, String)>, GitError> {
        let range = from.map_or_else(|| to.to_string(), |from| format!("{from}..{to}"));
        let out = self.run(["log", &format!("--max-count={most}"), "--format=%H %s", &range]).await?;
        let parse = |line: &str| {
            line.split_once(' ').and_then(|(id, title)| Some((id.parse().ok()?, title.to_owned())))
        };
        Ok(out.lines().filter_map(parse).collect())
    }

    /// Writes what makes merges quick. Safe at any time.
    pub async fn tidy(&self) -> Result<(), GitError> {
        self.run(["commit-graph", "write", "--reachable", "--split"]).await.map(drop)
    }

    async fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<String, GitError> {
        let mut command = git(&self.dir);
        command.current_dir(&self.dir).args(args);
        let name = subcommand(&command);
        output(command, &name).await
    }

    /// Like `run`, for commands whose exit status 1 is an answer.
    async fn ask<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(
        &self,
        args: I,
    ) -> Result<(bool, String), GitError> {
        let mut command = git(&self.dir);
        command.current_dir(&self.dir).args(args);
        let out = command.output().await.map_err(GitError::Absent)?;
        Ok((out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned()))
    }
}

fn subcommand(command: &Command) -> String {
    command.as_std().get_args().next().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default()
}

async fn output(mut command: Command, name: &str) -> Result<String, GitError> {
    let out = command.output().await.map_err(GitError::Absent)?;
    if !out.status.success() {
        return Err(GitError::Failed { command: name.to_owned(), words: last_words(&out.stderr) });
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

async fn feed(mut command: Command, name: &str, input: &[u8]) -> Result<String, GitError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(GitError::Absent)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).await.map_err(GitError::Absent)?;
    }
    let out = child.wait_with_output().await.map_err(GitError::Absent)?;
    if !out.status.success() {
        return Err(GitError::Failed { command: name.to_owned(), words: last_words(&out.stderr) });
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ").chars().take(500).collect()
}

fn oid(command: &str, text: &str) -> Result<Oid, GitError> {
    let what = || text.chars().take(80).collect();
    text.trim().parse().map_err(|_| GitError::Answer { command: command.to_owned(), what: what() })
}

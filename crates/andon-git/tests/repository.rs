//! The real git on real repositories.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::path::Path;
use std::process::Command;

use andon_git::{Merge, Repository};
use andon_model::{Oid, Time};

struct Work {
    room: tempfile::TempDir,
    bare: Repository,
}

fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git").current_dir(dir).args(args).output().unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

impl Work {
    async fn new() -> Work {
        let room = tempfile::tempdir().unwrap();
        let exe = room.path().join("no-hook");
        let bare = Repository::create(room.path().join("bare.git"), "main", &exe).await.unwrap();
        let tree = room.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        git(&tree, &["init", "-q", "-b", "main", "."]);
        git(&tree, &["config", "user.name", "Ada"]);
        git(&tree, &["config", "user.email", "ada@example.com"]);
        Work { room, bare }
    }
    fn tree(&self) -> std::path::PathBuf {
        self.room.path().join("tree")
    }
    /// Commits a file and copies the objects over, as a push would.
    fn commit(&self, file: &str, text: &str, message: &str) -> Oid {
        std::fs::write(self.tree().join(file), text).unwrap();
        git(&self.tree(), &["add", "-A"]);
        git(&self.tree(), &["commit", "-q", "-m", message]);
        let head = git(&self.tree(), &["rev-parse", "HEAD"]);
        git(self.bare.dir(), &["fetch", "-q", self.tree().to_str().unwrap(), "HEAD"]);
        head.parse().unwrap()
    }
}

#[tokio::test]
async fn trunk_moves_only_from_where_it_was_seen() {
    let work = Work::new().await;
    let one = work.commit("a", "1", "one");
    let two = work.commit("a", "2", "two");
    assert!(work.bare.land("main", None, &one).await.unwrap());
    assert!(!work.bare.land("main", None, &two).await.unwrap());
    assert!(!work.bare.land("main", Some(&two), &two).await.unwrap());
    assert_eq!(work.bare.branch("main").await.unwrap(), Some(one.clone()));
    assert!(work.bare.land("main", Some(&one), &two).await.unwrap());
}

#[tokio::test]
async fn a_merge_holds_both_sides_and_a_conflict_names_its_files() {
    let work = Work::new().await;
    let base = work.commit("a", "1\n", "base");
    let ours = work.commit("b", "ours\n", "ours");
    git(&work.tree(), &["checkout", "-q", base.as_str()]);
    let theirs = work.commit("c", "theirs\n", "theirs");
    let Merge::Made { commit, tree } =
        work.bare.merge(Some(&ours), &theirs, "Land #1: theirs", Time(0)).await.unwrap()
    else {
        panic!("a clean merge was refused");
    };
    assert_eq!(work.bare.tree(&commit).await.unwrap(), tree);
    let copy = work.room.path().join("copy");
    work.bare.check_out(&commit, &copy).await.unwrap();
    assert!(copy.join("b").exists() && copy.join("c").exists());
    // To git it is a clone, clean and on that commit, with the branches of where it came from.
    let said = |args: &[&str]| git(&copy, args);
    assert_eq!(said(&["status", "--porcelain"]), "");
    assert_eq!(said(&["rev-parse", "HEAD"]), commit.to_string());
    let branches = said(&["for-each-ref", "--format=%(objectname) %(refname:short)", "refs/remotes"]);
    assert_eq!(branches.lines().count(), said(&["ls-remote", "--heads", "origin"]).lines().count());
    git(&copy, &["fsck", "--strict"]);
    git(&work.tree(), &["checkout", "-q", base.as_str()]);
    let clash = work.commit("b", "clash\n", "clash");
    let merged = work.bare.merge(Some(&ours), &clash, "x", Time(0)).await.unwrap();
    assert_eq!(merged, Merge::Conflict { files: vec!["b".into()] });
    assert_eq!(work.bare.merge(Some(&ours), &base, "x", Time(0)).await.unwrap(), Merge::Contained);
}

#[tokio::test]
async fn a_push_is_described_by_its_commits_beyond_trunk() {
    let work = Work::new().await;
    let base = work.commit("a", "1", "base");
    work.commit("b", "1", "first of mine\n\nbody");
    let head = work.commit("andon.yaml", "1", "second of mine\n\nFixes-Andon: A3");
    let beyond = work.bare.beyond(Some(&base), &head).await.unwrap().unwrap();
    assert_eq!((beyond.count, beyond.title.as_str()), (2, "second of mine"));
    assert!(beyond.message.contains("Fixes-Andon: A3"));
    assert_eq!(beyond.author, "Ada <ada@example.com>");
    assert_eq!(beyond.paths, ["andon.yaml", "b"]);
    assert_eq!(work.bare.beyond(Some(&head), &base).await.unwrap(), None);
    assert_eq!(work.bare.beyond(None, &head).await.unwrap().unwrap().count, 3);
}

#[tokio::test]
async fn a_file_is_read_from_a_commit_or_is_absent_or_too_large() {
    let work = Work::new().await;
    let head = work.commit("a", "hello", "x");
    assert_eq!(work.bare.file(&head, "a", 10).await.unwrap().as_deref(), Some("hello"));
    assert_eq!(work.bare.file(&head, "--help", 10).await.unwrap(), None);
    assert!(work.bare.file(&head, "a", 3).await.is_err());
    assert!(work.bare.diff(None, &head).await.unwrap().contains("+hello"));
}

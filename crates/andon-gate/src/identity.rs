//! Which change a push belongs to: a new one, or a new patch set of one that is open.
//!
//! People amend and rebase without naming what they do, so a change is known, in this order, by the topic given with the push, by a
//! `Change-Id:` trailer, else by author and author date of its first commit, which both `commit --amend` and `rebase` keep.

use andon_model::{AndonId, ChangeId};

use crate::state::Queue;

/// What a push says about itself.
#[derive(Debug, Clone, Copy)]
pub struct Signs<'a> {
    /// `-o topic=…` of the push.
    pub topic: Option<&'a str>,
    /// Message of the newest commit.
    pub message: &'a str,
    /// `Name <mail>` of the first commit's author.
    pub author: &'a str,
    /// Author date of the first commit, in seconds.
    pub authored_secs: i64,
}

/// The identity that a change keeps over its patch sets.
pub fn identity(signs: Signs<'_>) -> String {
    if let Some(topic) = signs.topic {
        return format!("topic {topic}");
    }
    match trailer(signs.message, "Change-Id") {
        Some(id) => format!("id {id}"),
        None => format!("author {} {}", signs.authored_secs, signs.author),
    }
}

/// Open and refused changes with this identity, newest first. Several commits of one author in one second share an identity by author:
/// the caller tells those apart by what they touch.
pub fn find<'a>(queue: &'a Queue, identity: &'a str) -> impl Iterator<Item = ChangeId> + 'a {
    let goes_on = |standing: &crate::Standing| {
        standing.is_open() || matches!(standing, crate::Standing::Refused { .. })
    };
    let same = move |c: &&crate::Change| c.push.identity == identity && goes_on(&c.standing);
    queue.changes.values().rev().filter(same).map(|c| c.id)
}

/// The andon named by the trailer `Fixes-Andon: A12`.
pub fn fixes_andon(message: &str) -> Option<AndonId> {
    trailer(message, "Fixes-Andon")?.parse().ok()
}

/// Value of a trailer in the last paragraph of a commit message, as `git interpret-trailers` reads the common case.
fn trailer<'a>(message: &'a str, key: &str) -> Option<&'a str> {
    let last = message.trim_end().rsplit("\n\n").next()?;
    last.lines().rev().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case(key).then(|| value.trim()).filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(topic: Option<&'static str>, message: &'static str) -> Signs<'static> {
        Signs { topic, message, author: "Ann <a@b>", authored_secs: 7 }
    }

    #[test]
    fn a_topic_wins_over_a_trailer_and_a_trailer_over_the_author() {
        assert_eq!(identity(signs(Some("x"), "t\n\nChange-Id: I1")), "topic x");
        assert_eq!(identity(signs(None, "t\n\nChange-Id: I1")), "id I1");
        assert_eq!(identity(signs(None, "t")), "author 7 Ann <a@b>");
    }

    #[test]
    fn the_andon_a_change_fixes_is_read_from_the_last_paragraph_only() {
        assert_eq!(fixes_andon("t\n\nFixes-Andon: A3\nSigned-off-by: x"), Some(AndonId(3)));
        assert_eq!(fixes_andon("t\n\nFixes-Andon: A3\n\nmore words"), None);
        assert_eq!(fixes_andon("t\n\nfixes-andon: --evil"), None);
    }
}

//! What an infrastructure tool would do, as a typed plan: the input of the guard, of drift and of the readable diff. Reads no JSON of any
//! tool; sensitive values never come this far.

use andon_model::event::{Drift, PlanCounts};
use serde::{Deserialize, Serialize};

/// A plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The tool's version that made it.
    pub version: String,
    /// What would happen to each resource that something happens to.
    pub changes: Vec<ResourceChange>,
    /// Resources that were found other than recorded.
    pub drift: Vec<ResourceChange>,
    /// Names of output values that would change.
    pub outputs: Vec<String>,
    /// Whether applying it would do anything.
    pub applyable: bool,
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceChange {
    /// `module.net.aws_vpc.main["a"]`
    pub address: String,
    /// `aws_vpc`
    pub kind: String,
    /// In order; a replacement is a deletion and a creation.
    pub actions: Vec<Action>,
    /// Why, in the tool's word.
    pub reason: Option<String>,
    /// Paths that force a replacement.
    pub replaced_by: Vec<String>,
    /// An old copy that is still to be removed.
    pub deposed: bool,
    /// What differs.
    pub attributes: Vec<Attribute>,
}

/// What happens to a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    NoOp,
    /// It comes to be.
    Create,
    /// It is only read.
    Read,
    /// It is changed in place.
    Update,
    /// It ends.
    Delete,
    /// It goes on, and nobody looks after it any more.
    Forget,
    /// Something that this version does not know: taken for the worst.
    Unknown(String),
}

/// An attribute with its values, in JSON; `(sensitive)` and `(known after apply)` stand for what cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// `tags.Name`, `ports[0]`
    pub path: String,
    /// As recorded; none: it was not there.
    pub before: Option<String>,
    /// As it would be.
    pub after: Option<String>,
}

impl ResourceChange {
    /// Whether the resource, or our hold of it, ends. What is not known is taken for that.
    pub fn ends(&self) -> bool {
        self.actions
            .iter()
            .any(|action| matches!(action, Action::Delete | Action::Forget | Action::Unknown(_)))
    }

    /// Whether nobody knows what happens to it.
    pub fn is_unknown(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Unknown(_)))
    }

    fn has(&self, action: &Action) -> bool {
        self.actions.contains(action)
    }

    /// In a word, as people read it.
    pub fn word(&self) -> &'static str {
        match () {
            () if self.deposed => "remove the old copy of",
            () if self.has(&Action::Delete) && self.has(&Action::Create) => "replace",
            () if self.has(&Action::Delete) => "destroy",
            () if self.has(&Action::Forget) => "forget",
            () if self.has(&Action::Create) => "create",
            () if self.has(&Action::Update) => "change",
            () if self.has(&Action::Read) => "read",
            () if self.actions.iter().all(|action| *action == Action::NoOp) => "keep",
            () => "do something unknown to",
        }
    }
}

impl Plan {
    /// What it would do, counted as the tools count.
    pub fn counts(&self) -> PlanCounts {
        let of = |action: &Action| self.changes.iter().filter(|change| change.has(action)).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        PlanCounts {
            add: count(of(&Action::Create)),
            change: count(of(&Action::Update)),
            destroy: count(
                self.changes.iter().filter(|change| change.ends() && !change.is_unknown()).count(),
            ),
            drift: count(self.drift.len()),
            unknown: count(self.changes.iter().filter(|change| change.is_unknown()).count()),
        }
    }

    /// Reality against code, when this plan was made from the code that is in force: what the tool found other than recorded, and what it
    /// would do about it.
    pub fn drifts(&self) -> Vec<Drift> {
        let said = |change: &ResourceChange| self.drift.iter().any(|seen| seen.address == change.address);
        let acts = |change: &&ResourceChange| {
            change.actions.iter().any(|a| !matches!(a, Action::NoOp | Action::Read))
        };
        // A drift that is found runs from recorded to found; what would be done about it, the other way round.
        let found = self.drift.iter().flat_map(|change| differences(change, false));
        let planned = self.changes.iter().filter(acts).filter(|change| !said(change));
        found.chain(planned.flat_map(|change| differences(change, true))).collect()
    }
}

fn differences(change: &ResourceChange, backwards: bool) -> Vec<Drift> {
    let words = |text: Option<&String>| text.cloned().unwrap_or_else(|| "not there".into());
    let drift = |what: String, before: String, after: String| Drift {
        service: None,
        instance: None,
        what,
        before,
        after,
    };
    let whole = |present: &str, other: &str| {
        vec![drift(format!("resource {}", change.address), present.to_owned(), other.to_owned())]
    };
    if change.attributes.is_empty() || (backwards && change.actions == [Action::Create]) {
        let is = if backwards { "missing or other" } else { "gone" };
        return whole("there", is);
    }
    if !backwards && change.ends() {
        return whole("there", "gone");
    }
    let known = |a: &&Attribute| a.after.as_deref() != Some(UNKNOWN);
    let of = |a: &Attribute| {
        let (before, after) = (words(a.before.as_ref()), words(a.after.as_ref()));
        let (before, after) = if backwards { (after, before) } else { (before, after) };
        drift(format!("resource {} {}", change.address, a.path), before, after)
    };
    change.attributes.iter().filter(known).map(of).collect()
}

/// Stands for a value that is only known afterwards.
pub const UNKNOWN: &str = "(known after apply)";
/// Stands for a value that nobody is shown.
pub const SENSITIVE: &str = "(sensitive)";

//! What people do with the cord, as functions that give the event to record. Pulling is never refused for lack of rank.

use andon_model::event::{Cause, Event};
use andon_model::{AndonId, ChangeId, UserName};

use crate::state::{Andon, Cord};

/// Characters of a reason or a note.
pub const LONGEST: usize = 2000;

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}\nhint: {hint}")]
pub struct Refusal {
    /// What failed and why.
    pub what: String,
    /// What to do.
    pub hint: String,
}

fn refuse(what: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal { what: what.into(), hint: hint.into() }
}

/// Stops the line. It needs a line of reason; an empty tag is counted as `person`.
pub fn pull(cord: &Cord, why: &str, tag: &str, suspects: Vec<ChangeId>) -> Result<Event, Refusal> {
    let why = reason(why, "say in a line what is wrong: it helps whoever comes to help")?;
    let tag = match tag.trim() {
        "" => "person".to_owned(),
        tag if tag.chars().count() <= 40 && !tag.chars().any(char::is_control) => tag.to_owned(),
        _ => {
            return Err(refuse(
                "the tag is too long",
                "use one word, such as test, infrastructure or security",
            ));
        }
    };
    Ok(Event::CordPulled { andon: cord.next_id(), cause: Cause::Person, why, tag, suspects })
}

/// Someone has it, or takes it over.
pub fn acknowledge(cord: &Cord, id: AndonId, owner: UserName) -> Result<Event, Refusal> {
    let andon = open(cord, id)?;
    if andon.owner.as_ref() == Some(&owner) {
        return Err(refuse(
            format!("{owner} has {id} already"),
            format!("say what you see: `andon note {id}`"),
        ));
    }
    Ok(Event::CordAcknowledged { andon: id, owner })
}

/// A word for the timeline; allowed afterwards, too.
pub fn note(cord: &Cord, id: AndonId, note: &str) -> Result<Event, Refusal> {
    known(cord, id)?;
    Ok(Event::CordNoted { andon: id, note: reason(note, "write the note")? })
}

/// The line runs again because a person says so.
pub fn release(cord: &Cord, id: AndonId, why: &str) -> Result<Event, Refusal> {
    open(cord, id)?;
    let why = reason(why, "say why the line may run again: it is what the next one reads")?;
    Ok(Event::CordReleased { andon: id, why })
}

fn known(cord: &Cord, id: AndonId) -> Result<&Andon, Refusal> {
    cord.get(id)
        .ok_or_else(|| refuse(format!("there is no andon {id}"), "`andon status` shows the open ones"))
}

fn open(cord: &Cord, id: AndonId) -> Result<&Andon, Refusal> {
    let andon = known(cord, id)?;
    match &andon.released {
        None => Ok(andon),
        Some(release) => {
            let what =
                format!("{id} was released by {} at {}: {}", release.by, release.at.hh_mm(), release.why);
            Err(refuse(what, "pull the cord again if something is wrong now"))
        }
    }
}

fn reason(text: &str, hint: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if text.is_empty() {
        return Err(refuse("there is no reason given", hint));
    }
    if text.chars().count() > LONGEST {
        return Err(refuse(
            format!("the text is longer than {LONGEST} characters"),
            "put the details where they can be linked to",
        ));
    }
    Ok(text.to_owned())
}

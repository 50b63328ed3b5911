//! What a person may do to a flag, as functions that give the event to record. They change nothing themselves.

use andon_model::event::Event;
use serde_json::{Map, Value, json};

use crate::definition::{Flag, OWN};
use crate::describe::{Audience, Group, percent_words};
use crate::set::FlagSet;

/// The finest step of a ramp: a share is a whole number of these among 100,000 users.
pub const WHOLE: u32 = 100_000;

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

/// A new flag with the variants `on` and `off`, off for everyone.
pub fn create(set: &FlagSet, key: &str) -> Result<Event, Refusal> {
    if set.get(key).is_some() {
        return Err(refuse(format!("flag {key} exists already"), "choose another key, or change this one"));
    }
    // Imports may bring any key; a new one should need no quoting in an address, a shell or a header.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !key.chars().all(plain) || !key.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(refuse(format!("{key:?} is no key for a flag"), "use letters, digits, '-', '.' and '_'"));
    }
    let definition =
        json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"});
    if let Err(problems) = Flag::read(key, &definition) {
        return Err(refuse(problems.join("; "), "use letters, digits, '-', '.' and '_'"));
    }
    Ok(changed(key, definition, format!("flag {key} was created: off for everyone")))
}

/// The flag is gone: every caller gets its own default.
pub fn remove(set: &FlagSet, key: &str) -> Result<Event, Refusal> {
    find(set, key)?;
    Ok(Event::FlagChanged { flag: key.to_owned(), definition: None, what: format!("flag {key} was removed") })
}

/// On or off for everyone; its audience is forgotten.
pub fn switch(set: &FlagSet, key: &str, on: bool) -> Result<Event, Refusal> {
    let flag = alive(set, key)?;
    let (on_name, off_name) = boolean(flag)?;
    let mut definition = plain(flag);
    definition.insert("defaultVariant".into(), if on { on_name } else { off_name }.into());
    definition.remove("targeting");
    let word = if on { "on" } else { "off" };
    Ok(changed(key, definition.into(), format!("flag {key} is {word} for everyone")))
}

/// On for a share of all users, in percent; whoever is in it stays in it when it rises. Groups that it is open to stay.
pub fn ramp(set: &FlagSet, key: &str, percent: f64) -> Result<Event, Refusal> {
    let share = percent * f64::from(WHOLE) / 100.0;
    // A thousandth of a percent is one user in 100,000; anything finer would silently be another number.
    if !(0.0..=100.0).contains(&percent) || (share - share.round()).abs() > 1e-6 {
        let what = format!("{percent} % is no share of users");
        return Err(refuse(what, "use a percentage from 0 to 100 in steps of 0.001"));
    }
    let flag = alive(set, key)?;
    let audience = Audience { share: share.round() as u32, ..audience(flag)? };
    open(flag, audience)
}

/// On for a group of users as well: `group=employees`, `email=*@acme.com`, `country=de`.
pub fn open_to(set: &FlagSet, key: &str, group: &str) -> Result<Event, Refusal> {
    let flag = alive(set, key)?;
    let group = read_group(group)?;
    let mut audience = audience(flag)?;
    if !audience.groups.contains(&group) {
        audience.groups.push(group);
    }
    open(flag, audience)
}

/// No longer on for that group; its users get what everyone gets.
pub fn close_to(set: &FlagSet, key: &str, group: &str) -> Result<Event, Refusal> {
    let flag = alive(set, key)?;
    let group = read_group(group)?;
    let mut audience = audience(flag)?;
    if !audience.groups.contains(&group) {
        return Err(refuse(
            format!("flag {key} is not open to {group}"),
            format!("it is open to {audience}"),
        ));
    }
    audience.groups.retain(|open| open != &group);
    open(flag, audience)
}

/// Every evaluation gives the off variant from now on, whatever the rules say. What it was is remembered.
pub fn kill(set: &FlagSet, key: &str, why: &str) -> Result<Event, Refusal> {
    let flag = find(set, key)?;
    if flag.killed().is_some() {
        return Err(refuse(
            format!("flag {key} is killed already"),
            "nothing is left to do; restore brings it back",
        ));
    }
    let named_off = || flag.variants.contains_key("off").then_some("off");
    let off = flag.on_and_off().map(|(_, off)| off).or_else(named_off).or(flag.default_variant.as_deref());
    let Some(off) = off.map(str::to_owned) else {
        let hint = "give the flag a default variant, or remove it so that every caller gets its own default";
        return Err(refuse(
            format!("flag {key} has no off variant: it has neither one named `off` nor a default variant"),
            hint,
        ));
    };
    let mut before = plain(flag);
    before.retain(|name, _| ["state", "defaultVariant", "targeting"].contains(&name.as_str()));
    let mut definition = plain(flag);
    definition.remove("targeting");
    definition.insert("state".into(), "ENABLED".into());
    definition.insert("defaultVariant".into(), off.clone().into());
    definition.insert(OWN.into(), json!({ "killed": before }));
    let why = if why.trim().is_empty() { String::new() } else { format!(": {}", why.trim()) };
    Ok(changed(key, definition.into(), format!("flag {key} was killed: everyone gets {off}{why}")))
}

/// A killed flag is again what it was before.
pub fn restore(set: &FlagSet, key: &str) -> Result<Event, Refusal> {
    let flag = find(set, key)?;
    let Some(Value::Object(before)) = flag.killed().cloned() else {
        return Err(refuse(format!("flag {key} is not killed"), "only a killed flag can be restored"));
    };
    let mut definition = plain(flag);
    for name in ["state", "defaultVariant", "targeting"] {
        definition.remove(name);
    }
    definition.extend(before);
    Ok(changed(
        key,
        definition.into(),
        format!("flag {key} was restored to what it was before it was killed"),
    ))
}

fn changed(key: &str, definition: Value, what: String) -> Event {
    Event::FlagChanged { flag: key.to_owned(), definition: Some(definition), what }
}

fn find<'a>(set: &'a FlagSet, key: &str) -> Result<&'a Flag, Refusal> {
    set.get(key).ok_or_else(|| refuse(format!("there is no flag {key}"), "`andon flag list` shows all flags"))
}

fn alive<'a>(set: &'a FlagSet, key: &str) -> Result<&'a Flag, Refusal> {
    let flag = find(set, key)?;
    match flag.killed() {
        Some(_) => Err(refuse(
            format!("flag {key} is killed"),
            format!("bring it back first: `andon flag restore {key}`"),
        )),
        None => Ok(flag),
    }
}

fn boolean(flag: &Flag) -> Result<(&str, &str), Refusal> {
    let hint = "change its definition and import it; on, off and shares are for flags with the two values true and false";
    flag.on_and_off().ok_or_else(|| refuse(format!("flag {} is not an on-off flag", flag.key), hint))
}

fn audience(flag: &Flag) -> Result<Audience, Refusal> {
    boolean(flag)?;
    let hint = "change the rules in its definition and import it, or switch it on or off, which forgets them";
    Audience::of(flag).ok_or_else(|| refuse(format!("flag {} has rules of its own", flag.key), hint))
}

fn read_group(text: &str) -> Result<Group, Refusal> {
    let hint = "write it like group=employees, country=de or email=*@acme.com";
    text.parse().map_err(|()| refuse(format!("{text:?} names no group"), hint))
}

fn open(flag: &Flag, audience: Audience) -> Result<Event, Refusal> {
    let (on, off) = boolean(flag)?;
    let mut definition = plain(flag);
    definition.insert("state".into(), "ENABLED".into());
    // Users without a targeting key have no place in a share; with all of it they belong to everyone.
    definition.insert("defaultVariant".into(), if audience.share == WHOLE { on } else { off }.into());
    match audience.rule(on, off) {
        Some(rule) => drop(definition.insert("targeting".into(), rule)),
        None => drop(definition.remove("targeting")),
    }
    let what = match (audience.groups.is_empty(), audience.share) {
        (true, 0) => format!("flag {} is off for everyone", flag.key),
        (true, share) => format!("flag {} is on for {} of everyone", flag.key, percent_words(share)),
        _ => format!("flag {} is on for {audience}", flag.key),
    };
    Ok(changed(&flag.key, definition.into(), what))
}

/// The definition without what is Andon's own.
fn plain(flag: &Flag) -> Map<String, Value> {
    let mut definition = flag.definition.as_object().cloned().unwrap_or_default();
    definition.remove(OWN);
    definition
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;

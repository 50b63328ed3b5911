//! A flag in words, for pages and the command line, and the audience that the commands of [`crate::command`] write. Changes nothing.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::command::WHOLE;
use crate::definition::{Flag, Targeting};

/// A flag in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Words {
    /// `on`, `off`, `ramping`, `killed`, `disabled`, `targeted`, `broken`.
    pub state: String,
    /// Who gets it: `employees and 1 % of everyone`.
    pub audience: String,
}

/// Says a flag in words.
pub fn describe(flag: &Flag) -> Words {
    let words = |state: &str, audience: String| Words { state: state.to_owned(), audience };
    let default = flag.default_variant.as_deref().unwrap_or("each caller's own default");
    if flag.killed().is_some() {
        return words("killed", format!("everyone gets {default}"));
    }
    if !flag.enabled {
        return words("disabled", "everyone gets each caller's own default".to_owned());
    }
    if matches!(flag.targeting, Targeting::Bad(_)) {
        return words("broken", "nobody: its rules cannot be read".to_owned());
    }
    match (flag.on_and_off(), Audience::of(flag)) {
        (Some(_), Some(audience)) if audience.share == WHOLE => words("on", "everyone".to_owned()),
        (Some(_), Some(audience)) if audience.share == 0 && audience.groups.is_empty() => {
            words("off", "nobody".to_owned())
        }
        (Some(_), Some(audience)) => words("ramping", audience.to_string()),
        _ if flag.targeting == Targeting::None => words("on", format!("everyone gets {default}")),
        _ => words("targeted", "as its own rules say".to_owned()),
    }
}

/// Users by one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    attribute: String,
    /// With `*` in front or behind: any text there.
    value: String,
}

impl FromStr for Group {
    type Err = ();
    fn from_str(text: &str) -> Result<Group, ()> {
        let (attribute, value) = text.split_once('=').ok_or(())?;
        let (attribute, value) = (attribute.trim(), value.trim());
        let stars = value.matches('*').count();
        let edge =
            stars == 0 || (stars == 1 && value.len() > 1 && (value.starts_with('*') || value.ends_with('*')));
        // `$flagd` is not the user's, and a list index would read as an attribute.
        let named = !attribute.is_empty()
            && !attribute.starts_with('$')
            && !attribute.chars().any(|c| c.is_control() || c.is_whitespace());
        if !named || value.is_empty() || !edge || text.len() > 300 {
            return Err(());
        }
        Ok(Group { attribute: attribute.to_owned(), value: value.to_owned() })
    }
}

/// `employees` for `group=employees`; others with their attribute.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attribute.as_str() {
            "group" => f.write_str(&self.value),
            attribute => write!(f, "{attribute} = {}", self.value),
        }
    }
}

impl Group {
    fn rule(&self) -> Value {
        let attribute = json!({ "var": self.attribute });
        match (self.value.strip_prefix('*'), self.value.strip_suffix('*')) {
            (Some(end), _) => json!({"ends_with": [attribute, end]}),
            (_, Some(start)) => json!({"starts_with": [attribute, start]}),
            _ => json!({"==": [attribute, self.value]}),
        }
    }

    fn of(rule: &Value) -> Option<Group> {
        let (operator, arguments) = only(rule)?;
        let [attribute, value] = arguments.as_array()?.as_slice() else { return None };
        let (attribute, value) = (attribute.get("var")?.as_str()?, value.as_str()?);
        let value = match operator {
            "==" => value.to_owned(),
            "ends_with" => format!("*{value}"),
            "starts_with" => format!("{value}*"),
            _ => return None,
        };
        let group: Group = format!("{attribute}={value}").parse().ok()?;
        (group.rule() == *rule).then_some(group)
    }
}

/// Whom an on-off flag is on for: groups, and a share of everyone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// On for each of these.
    pub groups: Vec<Group>,
    /// And for this share of everyone, of [`WHOLE`].
    pub share: u32,
}

impl Audience {
    /// The audience of a flag; none when it has rules that the commands did not write.
    pub fn of(flag: &Flag) -> Option<Audience> {
        let (on, off) = flag.on_and_off()?;
        let everyone = flag.default_variant.as_deref() == Some(on);
        let Some(targeting) = flag.definition.get("targeting").filter(|_| flag.targeting != Targeting::None)
        else {
            return Some(Audience { groups: Vec::new(), share: if everyone { WHOLE } else { 0 } });
        };
        let audience = Audience::read(targeting, on)?;
        (audience.rule(on, off).as_ref() == Some(targeting) && everyone == (audience.share == WHOLE))
            .then_some(audience)
    }

    fn read(rule: &Value, on: &str) -> Option<Audience> {
        let (operator, arguments) = only(rule)?;
        let arguments = arguments.as_array()?;
        if operator == "fractional" {
            let [share, _] = arguments.as_slice() else { return None };
            let [variant, weight] = share.as_array()?.as_slice() else { return None };
            let share = u32::try_from(weight.as_u64()?).ok()?;
            return (variant == on).then_some(Audience { groups: Vec::new(), share });
        }
        let [condition, _, rest] = arguments.as_slice() else { return None };
        let groups =
            condition.get("or")?.as_array()?.iter().map(Group::of).collect::<Option<Vec<Group>>>()?;
        let share = if rest.is_string() { 0 } else { Audience::read(rest, on)?.share };
        (operator == "if").then_some(Audience { groups, share })
    }

    /// The rule for it; none: nobody, or everyone by default. `on` stands first, so a rising share keeps whoever is in it.
    pub fn rule(&self, on: &str, off: &str) -> Option<Value> {
        let share = (self.share > 0)
            .then(|| json!({"fractional": [[on, self.share], [off, WHOLE.saturating_sub(self.share)]]}));
        if self.groups.is_empty() {
            return share;
        }
        let groups: Vec<Value> = self.groups.iter().map(Group::rule).collect();
        Some(json!({"if": [{"or": groups}, on, share.unwrap_or_else(|| off.into())]}))
    }
}

/// `employees and 1 % of everyone`.
impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
        match self.share {
            0 => {}
            WHOLE => parts.push("everyone".to_owned()),
            share => parts.push(format!("{} of everyone", percent_words(share))),
        }
        match parts.split_last() {
            None => f.write_str("nobody"),
            Some((last, [])) => f.write_str(last),
            Some((last, rest)) => write!(f, "{} and {last}", rest.join(", ")),
        }
    }
}

/// A share of [`WHOLE`] in percent: `1 %`, `0.01 %`.
pub(crate) fn percent_words(share: u32) -> String {
    let text = format!("{}.{:03}", share / 1000, share % 1000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn only(rule: &Value) -> Option<(&str, &Value)> {
    let map = rule.as_object().filter(|map| map.len() == 1)?;
    map.iter().next().map(|(key, value)| (key.as_str(), value))
}

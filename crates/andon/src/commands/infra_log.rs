//! What the infrastructure tool said, in the terminal: once, or as it says it. Turns each line into words; knows nothing of plans.

use andon_line::view::{InfraRunView, InfrastructureView, Mark};
use andon_model::InfraRunId;
use serde_json::{Value, json};

use super::{Place, infra, read};
use crate::client::Failure;
use crate::say::say;

/// Prints it; `follow`: until the run is over or waits for people.
#[allow(
    clippy::disallowed_methods,
    reason = "the command line looks at another process until what it waits for is there"
)]
pub fn print(place: &Place, run: &str, follow: bool) -> Result<(), Failure> {
    let run = wanted(place, run)?;
    let (mut from, mut attempt) = (0, 0);
    loop {
        // Asked before the text: what was said until its end is in the text then.
        let view: InfraRunView =
            read(place.client.get(&format!("{}/infrastructure-runs/{run}", place.base))?)?;
        let held = view.mark == Mark::Wait && !view.guarded.is_empty();
        let over = !follow || view.place.is_none() || held;
        if view.attempt != attempt {
            (from, attempt) = (0, view.attempt);
        }
        let path = format!("{}/infrastructure-runs/{run}/log?from={from}&whole={over}", place.base);
        let text = place.client.text(&path)?;
        from += text.len();
        text.lines().filter(|line| !line.trim().is_empty()).for_each(|line| tell(place, line));
        if over {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// A run by its number, or that of an environment.
fn wanted(place: &Place, run: &str) -> Result<InfraRunId, Failure> {
    if let Ok(run) = run.parse() {
        return Ok(run);
    }
    let view: InfrastructureView = read(place.client.get(&format!("{}{}", place.base, infra::at(run)?))?)?;
    let first = view.runs.iter().find(|run| run.place == Some(1)).or(view.runs.first());
    let first = first.ok_or_else(|| format!("no run of the infrastructure tool was ever in {run}"))?;
    infra::number(&first.run)
}

fn tell(place: &Place, line: &str) {
    let value = serde_json::from_str::<Value>(line).ok().filter(Value::is_object);
    match (place.json, value) {
        (true, Some(value)) => say!("{value}"),
        (true, None) => say!("{}", json!({ "text": line })),
        (false, value) => {
            if let Some(words) = value.map_or_else(|| Some(line.to_owned()), |value| in_words(&value)) {
                say!("{}", plain(&words));
            }
        }
    }
}

/// One line of Terraform or of Ansible in words; none: it says nothing to people.
fn in_words(line: &Value) -> Option<String> {
    let text = |key: &str| line[key].as_str().unwrap_or_default();
    if line.get("andon").is_none() {
        let detail = line["diagnostic"]["detail"].as_str().filter(|detail| !detail.is_empty());
        let detail =
            detail.map_or_else(String::new, |detail| format!("\n  {}", detail.replace('\n', "\n  ")));
        return Some(format!("{}{detail}", text("@message"))).filter(|words| !words.trim().is_empty());
    }
    match text("kind") {
        "play" => Some(format!("play {}", text("name"))),
        "task" => Some(format!("  {}", text("name"))),
        "result" => {
            let changed = if line["changed"] == true { ", changed" } else { "" };
            let message = text("message");
            let why = if message.is_empty() { String::new() } else { format!(": {message}") };
            Some(format!("    {} {}{changed}{why}", text("host"), text("status")))
        }
        "nobody" => Some("  its hosts are none of the inventory".into()),
        "stats" => Some("the end".into()),
        _ => None,
    }
}

/// Without anything that could move a terminal.
fn plain(words: &str) -> String {
    words.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_either_tool_is_told_in_words() {
        let words = |line: &str| in_words(&serde_json::from_str(line).unwrap());
        assert_eq!(
            words(r#"{"@message":"a.b: Creating...","type":"apply_start"}"#).as_deref(),
            Some("a.b: Creating...")
        );
        let error = r#"{"@message":"Error: no","type":"diagnostic","diagnostic":{"detail":"because"}}"#;
        assert_eq!(words(error).as_deref(), Some("Error: no\n  because"));
        let result = r#"{"andon":1,"kind":"result","host":"web1","status":"ok","changed":true,"message":""}"#;
        assert_eq!(words(result).as_deref(), Some("    web1 ok, changed"));
        assert_eq!(words(r#"{"andon":1,"kind":"new"}"#), None);
        assert_eq!(plain("a\u{1b}[2Jb"), "a [2Jb");
    }
}

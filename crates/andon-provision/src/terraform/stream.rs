//! The machine-readable output of `plan -json` and `apply -json`: one JSON object a line
//! (developer.hashicorp.com/terraform/internals/machine-readable-ui). Keys and types that are new are passed over; a new major `ui` is not.

use serde::Deserialize;

use super::TerraformError;

/// The major version of the format that is read.
const MAJOR: &str = "1";
/// Longest text kept of one diagnostic.
const LONGEST: usize = 2000;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first line: the tool's version.
    Version {
        /// Of the tool.
        tool: String,
    },
    /// Something began or ended with a resource.
    Resource {
        /// Its address.
        address: String,
        /// As the tool says it.
        words: String,
        /// Over.
        complete: bool,
        /// Over, and not well.
        failed: bool,
        /// What is done to it: `create`, `update`, `delete`.
        action: String,
        /// What its maker calls it, where that is told.
        id: Option<String>,
    },
    /// Sums of a plan or an apply.
    Summary {
        /// `plan`, `apply`, `destroy`.
        operation: String,
    },
    /// An error or a warning.
    Diagnostic {
        /// It stops the work.
        error: bool,
        /// Its first line.
        summary: String,
        /// The rest.
        detail: String,
    },
    /// Anything else, in the tool's words.
    Other(String),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "@message", default)]
    words: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    ui: Option<String>,
    #[serde(default)]
    terraform: Option<String>,
    #[serde(default)]
    tofu: Option<String>,
    #[serde(default)]
    hook: Option<Hook>,
    #[serde(default)]
    changes: Option<Changes>,
    #[serde(default)]
    diagnostic: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Hook {
    #[serde(default)]
    resource: Addressed,
    #[serde(default)]
    action: String,
    #[serde(default)]
    id_value: Option<String>,
}

#[derive(Default, Deserialize)]
struct Addressed {
    #[serde(default)]
    addr: String,
}

#[derive(Deserialize)]
struct Changes {
    #[serde(default)]
    operation: String,
}

#[derive(Deserialize)]
struct Diagnostic {
    #[serde(default)]
    severity: String,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    detail: String,
}

/// Reads one line. A line that is no JSON is the tool's plain words: some print those before they know what they were asked for.
pub fn read(line: &str) -> Result<Message, TerraformError> {
    let Ok(raw) = serde_json::from_str::<Raw>(line) else { return Ok(Message::Other(short(line))) };
    if let Some(ui) = raw.ui.as_deref().filter(|_| raw.kind == "version") {
        if ui.split('.').next() != Some(MAJOR) {
            return Err(TerraformError::Unknown {
                what: "the output",
                why: format!("its format is {}", short(ui)),
            });
        }
        return Ok(Message::Version { tool: short(&raw.terraform.or(raw.tofu).unwrap_or_default()) });
    }
    let words = short(&raw.words);
    Ok(match (raw.kind.as_str(), raw.hook, raw.changes, raw.diagnostic) {
        ("diagnostic", _, _, Some(found)) => Message::Diagnostic {
            error: found.severity == "error",
            summary: short(&found.summary),
            detail: short(&found.detail),
        },
        ("change_summary", _, Some(changes), _) => Message::Summary { operation: short(&changes.operation) },
        (kind @ ("apply_start" | "apply_progress" | "apply_complete" | "apply_errored"), Some(hook), ..) => {
            let (complete, failed) = (kind == "apply_complete", kind == "apply_errored");
            let (action, id) = (short(&hook.action), hook.id_value.map(|id| short(&id)));
            Message::Resource { address: short(&hook.resource.addr), words, complete, failed, action, id }
        }
        _ => Message::Other(words),
    })
}

/// What a whole stream said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// Errors, each as summary and detail.
    pub errors: Vec<String>,
    /// The operation whose sums came: only then it is complete.
    pub complete: Option<String>,
    /// What happens now: the last words.
    pub last: String,
    /// Resources that were begun and not ended.
    pub under_way: Vec<String>,
    /// Of those, the ones that were being made.
    pub making: Vec<String>,
    /// Resources that came to be, in order.
    pub made: Vec<Made>,
}

/// A resource that came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its address in the code.
    pub address: String,
    /// What its maker calls it.
    pub id: String,
    /// Another one of this address had ended before.
    pub instead: bool,
}

impl Said {
    /// Reads a whole stream; the last line may be half written.
    pub fn of(text: &str) -> Result<Said, TerraformError> {
        let mut said = Said::default();
        let mut gone = std::collections::BTreeSet::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match read(line)? {
                Message::Diagnostic { error: true, summary, detail } => {
                    let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
                    said.errors.push(if detail.is_empty() {
                        summary
                    } else {
                        format!("{summary}: {detail}")
                    });
                }
                Message::Summary { operation } => said.complete = Some(operation),
                Message::Resource { address, words, complete, failed, action, id } => {
                    said.last = words;
                    said.under_way.retain(|other| *other != address);
                    said.making.retain(|other| *other != address);
                    let create = action == "create";
                    match id {
                        _ if !complete && !failed => {
                            said.under_way.push(address.clone());
                            if create {
                                said.making.push(address);
                            }
                        }
                        Some(id) if complete && create && !id.is_empty() => {
                            let instead = gone.contains(&address);
                            said.made.push(Made { address, id, instead });
                        }
                        _ if complete && action == "delete" => {
                            said.made.retain(|made| made.address != address);
                            gone.insert(address);
                        }
                        _ => {}
                    }
                }
                Message::Other(words) if !words.is_empty() => said.last = words,
                _ => {}
            }
        }
        Ok(said)
    }

    /// Whether a saved plan was refused because the state is another by now.
    pub fn stale(&self) -> bool {
        self.errors.iter().any(|error| error.contains("Saved plan is stale"))
    }
}

fn short(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const APPLY: &str = r#"{"@level":"info","@message":"Terraform 1.11.4","terraform":"1.11.4","type":"version","ui":"1.2"}
{"@message":"terraform_data.a: Creating...","hook":{"resource":{"addr":"terraform_data.a"},"action":"create"},"type":"apply_start"}
{"@message":"terraform_data.a: Creation complete after 0s","hook":{"resource":{"addr":"terraform_data.a"}},"type":"apply_complete"}
{"@message":"Apply complete!","changes":{"add":1,"operation":"apply"},"type":"change_summary","new_key":[1]}"#;

    #[test]
    fn an_apply_is_complete_only_with_its_sums() {
        assert_eq!(Said::of(APPLY).unwrap().complete.as_deref(), Some("apply"));
        let cut: String = APPLY.lines().take(2).collect::<Vec<_>>().join("\n");
        let said = Said::of(&(cut + "\n{\"@message\":\"terr")).unwrap();
        assert_eq!((said.complete, said.under_way), (None, vec!["terraform_data.a".to_owned()]));
    }

    #[test]
    fn what_came_to_be_is_known_by_address_and_id_also_where_it_replaced_another() {
        let line = |kind: &str, action: &str, address: &str, id: &str| {
            format!(
                r#"{{"@message":"m","hook":{{"resource":{{"addr":"{address}"}},"action":"{action}","id_key":"id","id_value":"{id}"}},"type":"{kind}"}}"#
            )
        };
        let text = [
            line("apply_complete", "create", "a.new", "1"),
            line("apply_complete", "delete", "a.other", "2"),
            line("apply_complete", "create", "a.other", "3"),
            line("apply_complete", "update", "a.old", "4"),
            line("apply_start", "create", "a.begun", ""),
            line("apply_start", "delete", "a.ending", "5"),
        ];
        let said = Said::of(&text.join("\n")).unwrap();
        let made: Vec<_> = said.made.iter().map(|m| (m.address.as_str(), m.id.as_str(), m.instead)).collect();
        assert_eq!(made, [("a.new", "1", false), ("a.other", "3", true)]);
        assert_eq!(
            (said.making, said.under_way),
            (vec!["a.begun".to_owned()], vec!["a.begun".to_owned(), "a.ending".to_owned()])
        );
    }

    #[test]
    fn a_new_major_version_of_the_format_is_refused_and_a_minor_one_is_not() {
        assert!(Said::of(&APPLY.replace("\"1.2\"", "\"2.0\"")).is_err());
        assert!(Said::of(&APPLY.replace("\"1.2\"", "\"1.9\"")).is_ok());
    }

    #[test]
    fn an_error_is_told_with_its_detail() {
        let line = r#"{"type":"diagnostic","diagnostic":{"severity":"error","summary":"Saved plan is stale","detail":"The\nstate moved"}}"#;
        let said = Said::of(line).unwrap();
        assert_eq!(said.errors, ["Saved plan is stale: The state moved"]);
        assert!(said.stale());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic_or_keep_control_characters(text in "\\PC{0,80}|[\\x00-\\x7f]{0,200}", at in 0usize..400) {
            let damaged: String = APPLY.chars().take(at).chain(text.chars()).chain(APPLY.chars().skip(at + 3)).collect();
            if let Ok(said) = Said::of(&damaged) {
                prop_assert!(!said.last.chars().any(char::is_control));
            }
        }
    }
}

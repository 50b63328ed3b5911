//! Secrets taken out of what a tool said. Which they are: what the server gives the tools from its own environment and is named like a secret,
//! and what a team names so. Keeps none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Variables of the server with this beginning reach the tools without it.
pub(crate) const PASSED: &str = "ANDON_INFRA_";
/// Stands for a secret.
pub const MASK: &str = "(sensitive)";
/// Parts of secrets that are shorter are not masked: they stand everywhere.
const SHORTEST: usize = 4;
/// A variable is a secret if its name has one of these in it. What is none belongs into `variables` of `andon.yaml`.
const LIKE: [&str; 8] = ["TOKEN", "SECRET", "PASS", "KEY", "CREDENTIAL", "PRIVATE", "AUTH", "TF_VAR_"];

/// These secrets, and those that the server gives to every tool.
pub fn with_passed(secrets: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let passed =
        std::env::vars().filter_map(|(name, value)| Some((name.strip_prefix(PASSED)?.to_owned(), value)));
    let mut all: BTreeMap<String, String> = passed.filter(|(name, _)| is_secret(name)).collect();
    all.extend(secrets.clone());
    all
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    LIKE.iter().any(|part| name.contains(part))
}

/// The text without any of these secrets. In a line of JSON its strings are looked at, also where they are JSON once more: nothing else of
/// the line is changed.
pub fn mask(text: &str, secrets: &BTreeMap<String, String>) -> String {
    let parts = secrets.values().flat_map(|secret| secret.lines().chain([secret.as_str()]));
    let mut forms: Vec<String> = Vec::new();
    for part in parts.filter(|part| part.trim().len() >= SHORTEST) {
        let quoted = json!(part).to_string();
        forms.extend([part.to_owned(), quoted[1..quoted.len() - 1].to_owned()]);
    }
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms.dedup();
    if forms.is_empty() {
        return text.to_owned();
    }
    let mut masked = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match serde_json::from_str::<Value>(line) {
            Ok(value) => {
                masked.push_str(&masked_value(value, &forms).to_string());
                masked.push('\n');
            }
            Err(_) => masked.push_str(&without(line, &forms)),
        }
    }
    masked
}

fn without(text: &str, forms: &[String]) -> String {
    forms.iter().fold(text.to_owned(), |text, form| text.replace(form.as_str(), MASK))
}

fn masked_value(value: Value, forms: &[String]) -> Value {
    match value {
        Value::String(text) => Value::String(without(&text, forms)),
        Value::Array(all) => Value::Array(all.into_iter().map(|one| masked_value(one, forms)).collect()),
        Value::Object(all) => Value::Object(
            all.into_iter().map(|(key, one)| (without(&key, forms), masked_value(one, forms))).collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_named_like_a_secret_is_one_and_a_region_is_none() {
        for secret in ["AWS_SECRET_ACCESS_KEY", "token", "TF_VAR_anything", "DB_PASSWORD", "password"] {
            assert!(is_secret(secret), "{secret}");
        }
        assert!(!is_secret("AWS_REGION") && !is_secret("HOSTS"));
    }

    proptest! {
        #[test]
        fn no_secret_is_left_in_any_form_that_json_gives_it(secret in "[a-z\"\\\\\n\t ]{6,30}", around in "[A-Z]{0,9}") {
            prop_assume!(secret.trim().len() >= SHORTEST && secret.lines().all(|line| line.trim().len() >= SHORTEST));
            let secrets = BTreeMap::from([("s".to_owned(), secret.clone())]);
            let text = json!({ "after": format!("{around}{secret}{around}"), "nested": json!([secret]).to_string() }).to_string();
            let masked = mask(&text, &secrets);
            let read: Value = serde_json::from_str(&masked).unwrap();
            for line in secret.lines() {
                prop_assert!(!read["after"].as_str().unwrap().contains(line), "{masked}");
                let quoted = json!(line).to_string();
                prop_assert!(!read["nested"].as_str().unwrap().contains(&quoted[1..quoted.len() - 1]), "{masked}");
            }
        }
    }
}

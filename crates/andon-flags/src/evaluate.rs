//! The answer for one flag and one context. Borrows everything: answering allocates only what a rule computes.

use andon_model::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::definition::{Flag, Targeting};
use crate::logic::{Root, run};
use crate::set::FlagSet;

/// Who asks: attributes, with `targetingKey` among them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Context(pub Map<String, Value>);

impl Context {
    /// A context of one user.
    pub fn of(targeting_key: &str) -> Context {
        Context([("targetingKey".to_owned(), targeting_key.into())].into_iter().collect())
    }

    /// The same with one more attribute.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Context {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

/// Why the answer is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The flag has no rule.
    Static,
    /// Its rule chose the variant.
    TargetingMatch,
    /// Its rule chose nothing.
    Default,
    /// It is disabled.
    Disabled,
    /// See the error.
    Error,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// There is no such flag.
    FlagNotFound,
    /// Its rule, or the request, cannot be read.
    ParseError,
    /// The request has no targeting key.
    TargetingKeyMissing,
    /// The context is no object.
    InvalidContext,
    /// Anything else.
    General,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution<'a> {
    /// The value; none: the caller's own default.
    pub value: Option<&'a Value>,
    /// The variant; none: the caller's own default.
    pub variant: Option<&'a str>,
    /// Why.
    pub reason: Reason,
    /// What went wrong, with a sentence.
    pub error: Option<(ErrorCode, String)>,
    /// The flag's metadata.
    pub metadata: Option<&'a Map<String, Value>>,
}

/// Evaluates a flag of a set.
pub fn evaluate<'a>(set: &'a FlagSet, key: &str, context: &Context, now: Time) -> Resolution<'a> {
    match set.get(key) {
        Some(flag) => evaluate_flag(flag, context, now),
        None => {
            let what = format!("there is no flag {key:?}");
            Resolution {
                value: None,
                variant: None,
                reason: Reason::Error,
                error: Some((ErrorCode::FlagNotFound, what)),
                metadata: None,
            }
        }
    }
}

/// Evaluates one flag.
pub fn evaluate_flag<'a>(flag: &'a Flag, context: &Context, now: Time) -> Resolution<'a> {
    let answer = |variant: Option<&'a str>, reason| {
        let value = variant.and_then(|name| flag.variants.get(name));
        Resolution { value, variant, reason, error: None, metadata: Some(&flag.metadata) }
    };
    let wrong = |code, what| Resolution { error: Some((code, what)), ..answer(None, Reason::Error) };
    if !flag.enabled {
        return answer(None, Reason::Disabled);
    }
    let default = flag.default_variant.as_deref();
    let rule = match &flag.targeting {
        Targeting::None if default.is_none() => return answer(None, Reason::Default),
        Targeting::None => return answer(default, Reason::Static),
        Targeting::Bad(why) => {
            return wrong(ErrorCode::ParseError, format!("flag {:?}: its targeting {why}", flag.key));
        }
        Targeting::Rule(compiled) => &compiled.rule,
    };
    let root = Root { context: &context.0, flag: &flag.key, now: now.0.div_euclid(1000) };
    let result = run(rule, &root);
    let name = match &*result {
        Value::Null => return answer(default, Reason::Default),
        Value::String(name) => name.as_str(),
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        other => {
            return wrong(
                ErrorCode::General,
                format!("flag {:?}: its targeting gave {other}, which is no variant", flag.key),
            );
        }
    };
    match flag.variants.get_key_value(name) {
        Some((name, _)) => answer(Some(name), Reason::TargetingMatch),
        None => wrong(
            ErrorCode::General,
            format!("flag {:?}: its targeting chose the variant {name:?}, which it does not have", flag.key),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Time = Time(5_000);

    fn check(mut definition: Value, expected: (Option<Value>, Option<&str>, Reason, Option<ErrorCode>)) {
        definition["variants"] = json!({"on": true, "off": false});
        let flag = Flag::lenient("k", &definition).0;
        let context = Context::of("u").with("email", "a@b.c");
        let found = evaluate_flag(&flag, &context, NOW);
        let error = found.error.as_ref().map(|(code, _)| *code);
        assert_eq!((found.value.cloned(), found.variant, found.reason, error), expected, "{definition}");
    }

    #[test]
    fn outcomes_are_flagds() {
        use Reason::*;
        let on = Some(json!(true));
        let enabled =
            |targeting: Value| json!({"state": "ENABLED", "defaultVariant": "on", "targeting": targeting});
        check(enabled(json!({})), (on.clone(), Some("on"), Static, None));
        check(enabled(json!(null)), (on.clone(), Some("on"), Static, None));
        check(enabled(json!({"if": [false, "off"]})), (on.clone(), Some("on"), Default, None));
        check(enabled(json!({"if": [true, "off"]})), (Some(json!(false)), Some("off"), TargetingMatch, None));
        check(enabled(json!({"if": [true, "nope"]})), (None, None, Error, Some(ErrorCode::General)));
        check(enabled(json!({"+": [1, 1]})), (None, None, Error, Some(ErrorCode::General)));
        check(enabled(json!({"frobnicate": 1})), (None, None, Error, Some(ErrorCode::ParseError)));
        check(
            json!({"state": "DISABLED", "defaultVariant": "on", "targeting": {"frobnicate": 1}}),
            (None, None, Disabled, None),
        );
        check(json!({"state": "ENABLED", "defaultVariant": null}), (None, None, Default, None));
        check(json!({"state": "ENABLED", "targeting": {"if": [false, "on"]}}), (None, None, Default, None));
    }

    #[test]
    fn a_boolean_result_names_the_variant_of_that_name() {
        let definition = json!({"state": "ENABLED", "variants": {"true": "yes", "false": "no"}, "defaultVariant": "false",
            "targeting": {"ends_with": [{"var": "email"}, "@acme.com"]}});
        let flag = Flag::read("k", &definition).unwrap();
        let of =
            |email: &str| evaluate_flag(&flag, &Context::of("u").with("email", email), NOW).value.cloned();
        assert_eq!((of("x@acme.com"), of("x@b.c")), (Some(json!("yes")), Some(json!("no"))));
    }

    #[test]
    fn an_unknown_flag_is_not_found() {
        let set = FlagSet::default();
        assert_eq!(evaluate(&set, "x", &Context::default(), NOW).error.unwrap().0, ErrorCode::FlagNotFound);
    }
}

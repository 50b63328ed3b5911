//! Answers in the OpenFeature Remote Evaluation Protocol, in the one form that every client accepts. Speaks no HTTP.
//!
//! Clients are stricter than the protocol's text: where a value is omitted the variant is sent as empty text, every error has details,
//! and a float is never sent as a whole number (see [`crate::definition`]). A value is omitted when the caller's own default is meant.

use andon_model::{Digest, Time};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::evaluate::{Context, ErrorCode, Reason, Resolution, evaluate, evaluate_flag};
use crate::set::FlagSet;

/// How long a client waits without a sign of life before it falls back to asking.
const INACTIVITY_SECS: u32 = 120;

/// One answered flag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Success<'a> {
    /// The flag.
    pub key: &'a str,
    /// Why.
    pub reason: Reason,
    /// The variant; empty where the value is omitted.
    pub variant: &'a str,
    /// The value; omitted: the caller's own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<&'a Value>,
    /// The flag's metadata; an object, also where there is none.
    #[serde(serialize_with = "object")]
    pub metadata: Option<&'a Map<String, Value>>,
}

/// A flag, or a request, that could not be answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The flag; none where the whole request is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What went wrong.
    pub error_code: ErrorCode,
    /// In a sentence.
    pub error_details: String,
}

impl Failure {
    /// The HTTP status that goes with it.
    pub fn status(&self) -> u16 {
        if self.error_code == ErrorCode::FlagNotFound { 404 } else { 400 }
    }

    /// The body for a server's own trouble (HTTP 500), which has no code.
    pub fn internal(details: &str) -> Value {
        json!({ "errorDetails": details })
    }
}

/// An answer to one flag.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer<'a> {
    /// Answered.
    Success(Success<'a>),
    /// Not answered.
    Failure(Failure),
}

/// The answer to a bulk request.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bulk<'a> {
    /// Every flag; one that fails does not spoil the others.
    pub flags: Vec<Answer<'a>>,
    /// `version`: rises with every change of any flag.
    pub metadata: Map<String, Value>,
    /// Where to hear of changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_streams: Vec<Value>,
}

/// The context of a request's body. An empty body is an empty context, as flagd has it. `key` is the flag asked for, if one is.
pub fn request(body: &[u8], key: Option<&str>) -> Result<Context, Failure> {
    let wrong = |error_code, details: String| Failure {
        key: key.map(str::to_owned),
        error_code,
        error_details: details,
    };
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Context::default());
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|e| wrong(ErrorCode::ParseError, format!("the body is no JSON: {e}")))?;
    let context = match body.get("context") {
        _ if !body.is_object() => {
            return Err(wrong(ErrorCode::ParseError, "the body must be an object with `context`".into()));
        }
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(context)) => context.clone(),
        Some(_) => return Err(wrong(ErrorCode::InvalidContext, "`context` must be an object".into())),
    };
    match context.get("targetingKey") {
        None | Some(Value::Null | Value::String(_)) => Ok(Context(context)),
        Some(_) => Err(wrong(ErrorCode::InvalidContext, "`targetingKey` must be text".into())),
    }
}

/// The answer to one flag, with its HTTP status.
pub fn single<'a>(set: &'a FlagSet, key: &'a str, context: &Context, now: Time) -> (u16, Answer<'a>) {
    let answer = answer(key, evaluate(set, key, context, now));
    let status = match &answer {
        Answer::Success(_) => 200,
        Answer::Failure(failure) => failure.status(),
    };
    (status, answer)
}

/// The answer to all flags. `event_stream` is the path and query of the notices, where there are some.
pub fn bulk<'a>(set: &'a FlagSet, context: &Context, now: Time, event_stream: Option<&str>) -> Bulk<'a> {
    let flags = set.iter().map(|flag| answer(&flag.key, evaluate_flag(flag, context, now))).collect();
    let metadata = [("version".to_owned(), set.revision().into())].into_iter().collect();
    let stream = |uri: &str| json!({"type": "sse", "endpoint": {"requestUri": uri}, "inactivityDelaySec": INACTIVITY_SECS});
    Bulk { flags, metadata, event_streams: event_stream.map(stream).into_iter().collect() }
}

fn answer<'a>(key: &'a str, resolution: Resolution<'a>) -> Answer<'a> {
    match resolution.error {
        Some((error_code, error_details)) => {
            Answer::Failure(Failure { key: Some(key.to_owned()), error_code, error_details })
        }
        None => Answer::Success(Success {
            key,
            reason: resolution.reason,
            variant: resolution.variant.unwrap_or_default(),
            value: resolution.value,
            metadata: resolution.metadata,
        }),
    }
}

fn object<S: serde::Serializer>(map: &Option<&Map<String, Value>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(map.iter().flat_map(|map| map.iter()))
}

/// The tag of a bulk answer, quoted for the header. It covers the context: clients send the old tag with a new one. Where a rule looks at
/// the clock it covers the second, too.
pub fn etag(set: &FlagSet, context: &Context, now: Time, event_stream: Option<&str>) -> String {
    let second = set.uses_clock().then(|| now.0.div_euclid(1000));
    let covered = json!([set.revision(), second, event_stream, canonical(&Value::Object(context.0.clone()))]);
    format!("\"{}\"", &Digest::of(covered.to_string().as_bytes()).to_string()["sha256:".len()..][..32])
}

/// The tag of the flags alone, as notices carry it.
pub fn config_etag(set: &FlagSet) -> String {
    format!("r{}", set.revision())
}

/// The notice that flags changed: the data of a server-sent event whose id is [`config_etag`].
pub fn notice(set: &FlagSet) -> Value {
    json!({"type": "refetchEvaluation", "etag": config_etag(set), "lastModified": set.changed().0.div_euclid(1000)})
}

/// Whether the client has this answer already (304). A client that heard of a newer configuration than it names here always gets it.
pub fn not_modified(
    if_none_match: Option<&str>,
    flag_config_etag: Option<&str>,
    set: &FlagSet,
    etag: &str,
) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    let known = if_none_match.is_some_and(|tags| tags.split(',').any(|tag| bare(tag) == bare(etag)));
    known && flag_config_etag.is_none_or(|tag| bare(tag) == config_etag(set))
}

/// The same value with the keys of all objects in order, so that equal contexts give equal text.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| key.as_str());
            Value::Array(pairs.into_iter().map(|(key, value)| json!([key, canonical(value)])).collect())
        }
        // Apart from objects, which became lists of pairs.
        Value::Array(items) => json!({ "list": items.iter().map(canonical).collect::<Vec<_>>() }),
        other => other.clone(),
    }
}

#[cfg(test)]
#[path = "ofrep_tests.rs"]
mod tests;

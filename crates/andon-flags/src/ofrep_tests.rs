//! The quirks of the clients: what each of them needs to find in an answer.

use super::*;
use andon_model::Actor;
use andon_model::event::{Event, Recorded};

pub(crate) fn set_of(flags: Value) -> FlagSet {
    let mut set = FlagSet::default();
    for (n, (key, definition)) in flags.as_object().unwrap().iter().enumerate() {
        let event = Event::FlagChanged {
            flag: key.clone(),
            definition: Some(definition.clone()),
            what: "test".into(),
        };
        set.evolve(&Recorded {
            seq: n as u64 + 1,
            at: Time(1000),
            by: Actor::line("test"),
            project: None,
            event,
        });
    }
    set
}

fn flags() -> FlagSet {
    set_of(json!({
        "float": {"state": "ENABLED", "variants": {"one": 1, "half": 0.5}, "defaultVariant": "one"},
        "off": {"state": "DISABLED", "variants": {"a": true}, "defaultVariant": "a"},
        "own": {"state": "ENABLED", "variants": {"a": "x"}, "metadata": {"team": "shop"}},
        "broken": {"state": "ENABLED", "variants": {"a": "x"}, "targeting": {"nope": 1}},
        "list": {"state": "ENABLED", "variants": {"a": [1, 2]}, "defaultVariant": "a"},
    }))
}

fn one(key: &str) -> (u16, Value) {
    let set = flags();
    let (status, answer) = single(&set, key, &Context::of("u"), Time(0));
    (status, serde_json::to_value(answer).unwrap())
}

#[test]
fn an_omitted_value_comes_with_an_empty_variant_and_a_reason() {
    assert_eq!(one("off"), (200, json!({"key": "off", "reason": "DISABLED", "variant": "", "metadata": {}})));
    assert_eq!(
        one("own"),
        (200, json!({"key": "own", "reason": "DEFAULT", "variant": "", "metadata": {"team": "shop"}}))
    );
}

#[test]
fn a_float_is_sent_with_its_fraction_and_a_list_is_sent_as_a_list() {
    let set = flags();
    let (_, answer) = single(&set, "float", &Context::default(), Time(0));
    assert!(serde_json::to_string(&answer).unwrap().contains("\"value\":1.0"));
    assert_eq!(one("list").1["value"], json!([1, 2]));
}

#[test]
fn every_error_has_a_code_and_details() {
    let (status, body) = one("nobody");
    assert_eq!((status, &body["errorCode"], &body["key"]), (404, &json!("FLAG_NOT_FOUND"), &json!("nobody")));
    let (status, body) = one("broken");
    assert_eq!((status, &body["errorCode"]), (400, &json!("PARSE_ERROR")));
    assert!(body["errorDetails"].as_str().unwrap().contains("nope"));
    for (body, code) in [
        ("{", "PARSE_ERROR"),
        ("[]", "PARSE_ERROR"),
        (r#"{"context":3}"#, "INVALID_CONTEXT"),
        (r#"{"context":{"targetingKey":3}}"#, "INVALID_CONTEXT"),
    ] {
        let failure = serde_json::to_value(request(body.as_bytes(), None).unwrap_err()).unwrap();
        assert_eq!(failure["errorCode"], code, "{body}");
        assert!(failure.get("key").is_none() && !failure["errorDetails"].as_str().unwrap().is_empty());
    }
    assert_eq!(request(b" \n", None), Ok(Context::default()));
}

#[test]
fn a_bad_flag_does_not_spoil_a_bulk_answer() {
    let body =
        serde_json::to_value(bulk(&flags(), &Context::of("u"), Time(0), Some("/ofrep/v1/events"))).unwrap();
    assert_eq!(body["flags"].as_array().unwrap().len(), 5);
    assert_eq!(body["metadata"]["version"], 5);
    assert_eq!(body["eventStreams"][0]["endpoint"]["requestUri"], "/ofrep/v1/events");
    assert!(
        serde_json::to_value(bulk(&flags(), &Context::of("u"), Time(0), None))
            .unwrap()
            .get("eventStreams")
            .is_none()
    );
}

#[test]
fn the_tag_changes_with_the_context_and_with_the_flags_and_with_nothing_else() {
    let set = flags();
    let tag = |context: &Context, at: i64| etag(&set, context, Time(at), None);
    let (a, b) = (
        Context::of("u").with("x", 1).with("y", json!({"q": 1, "p": 2})),
        Context::of("u").with("y", json!({"p": 2, "q": 1})).with("x", 1),
    );
    assert_eq!(tag(&a, 0), tag(&b, 99_000));
    assert_ne!(tag(&a, 0), tag(&Context::of("u").with("x", 2), 0));
    assert_ne!(
        tag(&Context::of("u").with("x", json!([["p", 2]])), 0),
        tag(&Context::of("u").with("x", json!({"p": 2})), 0)
    );
    let mut changed = set.clone();
    let event = Event::FlagChanged { flag: "off".into(), definition: None, what: "removed".into() };
    changed.evolve(&Recorded { seq: 9, at: Time(2000), by: Actor::line("t"), project: None, event });
    assert_ne!(tag(&a, 0), etag(&changed, &a, Time(0), None));
    assert_eq!(notice(&changed), json!({"type": "refetchEvaluation", "etag": "r9", "lastModified": 2}));
}

#[test]
fn a_rule_on_the_clock_never_gives_a_stale_304() {
    let set = set_of(
        json!({"late": {"state": "ENABLED", "variants": {"a": true}, "targeting": {"if": [{">": [{"var": "$flagd.timestamp"}, 5]}, "a"]}}}),
    );
    assert_ne!(
        etag(&set, &Context::default(), Time(5_000), None),
        etag(&set, &Context::default(), Time(6_000), None)
    );
}

#[test]
fn a_client_that_heard_of_another_configuration_never_gets_a_304() {
    let (set, context) = (flags(), Context::of("u"));
    let tag = etag(&set, &context, Time(0), None);
    assert!(not_modified(Some(&tag), None, &set, &tag));
    assert!(not_modified(Some(&format!("\"x\", W/{tag}")), Some("r5"), &set, &tag));
    assert!(!not_modified(Some(&tag), Some("r4"), &set, &tag));
    assert!(
        !not_modified(None, Some("r5"), &set, &tag) && !not_modified(Some("\"other\""), None, &set, &tag)
    );
}

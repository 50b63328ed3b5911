//! Questions that go wrong: each has an answer.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use proptest::prelude::*;

use super::*;

const METHODS: [&str; 11] = [
    "GetProviderSchema",
    "ValidateProviderConfig",
    "ConfigureProvider",
    "ValidateResourceConfig",
    "ValidateDataResourceConfig",
    "UpgradeResourceState",
    "ReadResource",
    "PlanResourceChange",
    "ApplyResourceChange",
    "ImportResourceState",
    "ReadDataSource",
];

fn any_dynamic() -> impl Strategy<Value = Option<DynamicValue>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    proptest::option::of(bytes.prop_map(|msgpack| DynamicValue { msgpack, json: vec![] }))
}

proptest! {
    #[test]
    fn no_question_makes_the_provider_panic(
        method in proptest::sample::select(METHODS.to_vec()),
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let _ = Provider::default().call(method, &bytes);
    }

    #[test]
    fn no_values_make_planning_panic(
        type_name in proptest::sample::select(vec!["andon_environment", "andon_flag", "andon_scale", "x"]),
        prior in any_dynamic(), proposed in any_dynamic(), config in any_dynamic(),
    ) {
        let asked = p::Plan { type_name: type_name.into(), prior, proposed, config };
        prop_assert!(Provider::default().call("PlanResourceChange", &asked.encode_to_vec()).is_ok());
    }
}

#[test]
fn a_server_that_is_known_only_after_apply_is_said_to_be_so() {
    let config = Object::from([("server".to_owned(), Value::Unknown)]);
    let asked =
        p::Configure { terraform_version: "1.11.4".into(), config: Some(value(Some(&config), &CONFIG)) };
    let said = Provider::default().call("ConfigureProvider", &asked.encode_to_vec()).unwrap();
    let said = p::Validated::decode(said.as_slice()).unwrap().diagnostics;
    assert_eq!(said[0].summary, "The provider's `server` is not known before apply");
    assert_eq!(said[0].attribute, Some(at("server")));
}

#[test]
fn a_stored_state_keeps_what_the_schema_has_and_nothing_else() {
    let json = br#"{"key":"a","variants":"{}","gone_since_long":3}"#.to_vec();
    let asked =
        p::Upgrade { type_name: "andon_flag".into(), version: 0, raw_state: Some(p::RawState { json }) };
    let said = Provider::default().call("UpgradeResourceState", &asked.encode_to_vec()).unwrap();
    let said = p::Upgraded::decode(said.as_slice()).unwrap();
    let state = object(said.state).unwrap().unwrap();
    assert!(!state.contains_key("gone_since_long"));
    assert_eq!((&state["key"], &state["targeting"]), (&Value::Text("a".into()), &Value::Null));
}

#[test]
fn what_is_made_anew_is_named_in_the_plan() {
    let resource = known("andon_scale").unwrap();
    let of = |service: &str| {
        let service = ("service".to_owned(), Value::Text(service.into()));
        let object = Object::from([("environment".to_owned(), Value::Text("e".into())), service]);
        Some(value(Some(&object), resource.attributes()))
    };
    let (prior, proposed, config) = (of("web"), of("mail"), of("mail"));
    let (_, anew) = plan(p::Plan { type_name: "andon_scale".into(), prior, proposed, config }).unwrap();
    assert_eq!(anew, ["service"]);
}

#[test]
fn a_question_of_tomorrow_is_unimplemented() {
    assert_eq!(Provider::default().call("GetMetadata", &[]).unwrap_err().0, Status::UNIMPLEMENTED);
}

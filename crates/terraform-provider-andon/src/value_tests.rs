//! What goes through the wire comes out as it was.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use proptest::prelude::*;

use super::*;
use crate::schema::{Attribute, Kind};

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(Value::Unknown),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| Value::Number(n.into())),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no such number", |n| n.is_finite())
            .prop_map(|n| Value::Number(serde_json::Number::from_f64(n).unwrap())),
        any::<String>().prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            proptest::collection::btree_map(any::<String>(), inner, 0..4).prop_map(Value::Map),
        ]
    })
}

const SCHEMA: [Attribute; 2] =
    [Attribute::required("a", Kind::Text, ""), Attribute::computed("b", Kind::Texts, "")];

proptest! {
    #[test]
    fn what_is_packed_is_unpacked_as_it_was(a in any_value(), b in any_value()) {
        let object = Object::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        prop_assert_eq!(unpack(&pack(Some(&object), &SCHEMA)).unwrap(), Some(object));
    }

    #[test]
    fn foreign_bytes_make_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = unpack(&bytes);
        let _ = stored(&bytes);
    }
}

#[test]
fn an_object_has_all_attributes_of_its_schema_and_no_others() {
    let object = Object::from([("a".to_owned(), Value::Bool(true)), ("z".to_owned(), Value::Bool(true))]);
    let back = unpack(&pack(Some(&object), &SCHEMA)).unwrap().unwrap();
    assert_eq!(back, Object::from([("a".to_owned(), Value::Bool(true)), ("b".to_owned(), Value::Null)]));
}

#[test]
fn null_is_no_object_at_all() {
    assert_eq!(pack(None, &SCHEMA), [0xc0]);
    assert_eq!(unpack(&[0xc0]).unwrap(), None);
}

#[test]
fn not_known_is_written_as_go_reads_it() {
    let object = Object::from([("a".to_owned(), Value::Unknown)]);
    let bytes = pack(Some(&object), &SCHEMA[..1]);
    assert_eq!(bytes, [0x81, 0xa1, b'a', 0xd4, 0x00, 0x00]);
    // With a refinement, which is extension 12.
    assert_eq!(unpack(&[0x81, 0xa1, b'a', 0xc7, 0x02, 0x0c, 0x01, 0xc2]).unwrap(), Some(object));
}

#[test]
fn a_tower_of_lists_is_refused() {
    let mut bytes = vec![0x91; 10_000];
    bytes.push(0xc0);
    assert!(unpack(&bytes).is_err());
}

//! Values as Terraform sends them: MessagePack with an extension for what is not known yet, JSON in stored states. Knows no resource.
//!
//! Source: docs/plugin-protocol/object-wire-format.md of hashicorp/terraform. An object always has all attributes of its schema.

use std::collections::BTreeMap;

use rmpv::Value as Packed;
use serde_json::Value as Json;

use crate::schema::Attribute;
use crate::trouble::Trouble;

/// Values are nested no deeper: a hostile sender gets an error and no full stack.
const DEEPEST: usize = 32;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing was given.
    Null,
    /// Known after apply.
    Unknown,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A text.
    Text(String),
    /// Values by name.
    Map(BTreeMap<String, Value>),
    /// Values in order.
    List(Vec<Value>),
}

/// The attributes of a resource.
pub type Object = BTreeMap<String, Value>;

impl Value {
    /// The text; none for anything else.
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    /// The whole number, zero or more; none for anything else.
    pub fn whole(&self) -> Option<u64> {
        match self {
            Value::Number(number) => number.as_u64().or_else(|| {
                number.as_f64().filter(|n| n.fract() == 0.0 && (0.0..9.0e15).contains(n)).map(|n| n as u64)
            }),
            _ => None,
        }
    }

    /// A text, or nothing.
    pub fn of(text: Option<&str>) -> Value {
        text.map_or(Value::Null, |text| Value::Text(text.to_owned()))
    }

    /// Anything of an answer of the server, as a value.
    pub fn read(json: &Json) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(yes) => Value::Bool(*yes),
            Json::Number(number) => Value::Number(number.clone()),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(list) => Value::List(list.iter().map(Value::read).collect()),
            Json::Object(map) => {
                Value::Map(map.iter().map(|(name, value)| (name.clone(), Value::read(value))).collect())
            }
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number.into())
    }
}

/// The object in a message; none: null, which says that there is none.
///
/// # Errors
/// When the bytes are no MessagePack, or no object.
pub fn unpack(bytes: &[u8]) -> Result<Option<Object>, Trouble> {
    let broken = |why: &str| Trouble::new(format!("Terraform sent a value that cannot be read: {why}"));
    if bytes.is_empty() {
        return Ok(None);
    }
    let packed = rmpv::decode::read_value_with_max_depth(&mut &*bytes, DEEPEST)
        .map_err(|error| broken(&error.to_string()))?;
    match read(packed).ok_or_else(|| broken("it holds what no schema of this provider has"))? {
        Value::Map(object) => Ok(Some(object)),
        Value::Null => Ok(None),
        _ => Err(broken("it is no object")),
    }
}

fn read(packed: Packed) -> Option<Value> {
    Some(match packed {
        Packed::Nil => Value::Null,
        // 0 is "not known", 12 the same with what is known of it all the same; every other is to be taken as not known.
        Packed::Ext(..) => Value::Unknown,
        Packed::Boolean(yes) => Value::Bool(yes),
        Packed::Integer(number) => Value::Number(match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => return None,
        }),
        Packed::F32(number) => Value::Number(serde_json::Number::from_f64(number.into())?),
        Packed::F64(number) => Value::Number(serde_json::Number::from_f64(number)?),
        Packed::String(text) => Value::Text(text.into_str()?),
        Packed::Binary(_) => return None,
        Packed::Array(list) => Value::List(list.into_iter().map(read).collect::<Option<_>>()?),
        Packed::Map(pairs) => {
            let pair = |(name, value): (Packed, Packed)| Some((name.as_str()?.to_owned(), read(value)?));
            Value::Map(pairs.into_iter().map(pair).collect::<Option<_>>()?)
        }
    })
}

/// The object as bytes, with exactly the attributes of the schema; none is null.
pub fn pack(object: Option<&Object>, schema: &[Attribute]) -> Vec<u8> {
    let packed = match object {
        None => Packed::Nil,
        Some(object) => Packed::Map(
            schema
                .iter()
                .map(|a| (a.name.into(), write(object.get(a.name).unwrap_or(&Value::Null))))
                .collect(),
        ),
    };
    let mut bytes = Vec::new();
    // Writing into memory does not fail.
    let _ = rmpv::encode::write_value(&mut bytes, &packed);
    bytes
}

fn write(value: &Value) -> Packed {
    match value {
        Value::Null => Packed::Nil,
        Value::Unknown => Packed::Ext(0, vec![0]),
        Value::Bool(yes) => Packed::Boolean(*yes),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => number.into(),
            (None, Some(number), _) => number.into(),
            (None, None, number) => number.unwrap_or_default().into(),
        },
        Value::Text(text) => text.as_str().into(),
        Value::List(list) => Packed::Array(list.iter().map(write).collect()),
        Value::Map(map) => {
            Packed::Map(map.iter().map(|(name, value)| (name.as_str().into(), write(value))).collect())
        }
    }
}

/// A stored state as an object. What the schema does not have is left out by [`pack`].
///
/// # Errors
/// When it is no JSON object.
pub fn stored(json: &[u8]) -> Result<Object, Trouble> {
    match serde_json::from_slice::<Json>(json).map(|json| Value::read(&json)) {
        Ok(Value::Map(object)) => Ok(object),
        Ok(_) => Err(Trouble::new("the stored state is no object".into())),
        Err(error) => Err(Trouble::new(format!("the stored state cannot be read: {error}"))),
    }
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;

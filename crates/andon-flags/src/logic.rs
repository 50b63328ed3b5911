//! Evaluating a compiled rule: JsonLogic's arithmetic of truth, comparison and conversion, and flagd's own operators. Compiles nothing.

use std::borrow::Cow;

use serde_json::{Map, Number, Value, json};

use crate::murmur;
use crate::numbers::{arithmetic, number, ordered};
use crate::rule::{Call, Each, Rule, Share};
use crate::semver;

/// What a rule can see.
pub struct Root<'a> {
    /// The evaluation context, with `targetingKey` in it.
    pub context: &'a Map<String, Value>,
    /// The flag, for `$flagd.flagKey` and for hashing.
    pub flag: &'a str,
    /// Seconds since 1970, for `$flagd.timestamp`.
    pub now: i64,
}

#[derive(Clone, Copy)]
pub(crate) struct Data<'a> {
    root: &'a Root<'a>,
    /// Inside a list operator only the item is seen.
    item: Option<&'a Value>,
}

pub(crate) type Out<'a> = Cow<'a, Value>;

const NULL: Out<'static> = Cow::Owned(Value::Null);

/// The result of a rule.
pub fn run<'a>(rule: &'a Rule, root: &'a Root<'a>) -> Out<'a> {
    eval(rule, Data { root, item: None })
}

pub(crate) fn eval<'a>(rule: &'a Rule, data: Data<'a>) -> Out<'a> {
    match rule {
        Rule::Literal(value) => Cow::Borrowed(value),
        Rule::List(rules) => {
            Cow::Owned(Value::Array(rules.iter().map(|rule| eval(rule, data).into_owned()).collect()))
        }
        Rule::Var(path, default) => match var(path.iter().map(String::as_str), data) {
            Some(found) => found,
            None => default.as_ref().map_or(NULL, |default| eval(default, data)),
        },
        Rule::VarBy(path, default) => {
            let path = text(&eval(path, data));
            let parts = path.split('.').filter(|part| !part.is_empty());
            match var(parts, data) {
                Some(found) => found,
                None => default.as_ref().map_or(NULL, |default| eval(default, data)),
            }
        }
        Rule::If(parts) => {
            for pair in parts.chunks(2) {
                match pair {
                    [condition, value] if truthy(&eval(condition, data)) => return eval(value, data),
                    [otherwise] => return eval(otherwise, data),
                    _ => {}
                }
            }
            NULL
        }
        Rule::And(rules) => first(rules, data, |value| !truthy(value)),
        Rule::Or(rules) => first(rules, data, truthy),
        Rule::Each(each, list, body) => each_of(*each, &eval(list, data), body, data),
        Rule::Reduce(list, body, start) => {
            let mut accumulator = eval(start, data).into_owned();
            let list = eval(list, data);
            for current in list.as_array().into_iter().flatten() {
                let item = json!({ "current": current, "accumulator": accumulator });
                accumulator = eval(body, Data { root: data.root, item: Some(&item) }).into_owned();
            }
            Cow::Owned(accumulator)
        }
        Rule::Fractional(key, shares) => fractional(key.as_deref(), shares, data),
        Rule::Call(call, arguments) => invoke(*call, arguments, data),
    }
}

fn first<'a>(rules: &'a [Rule], data: Data<'a>, stop: fn(&Value) -> bool) -> Out<'a> {
    let mut last = NULL;
    for rule in rules {
        last = eval(rule, data);
        if stop(&last) {
            break;
        }
    }
    last
}

fn var<'a, 'p>(mut path: impl Iterator<Item = &'p str> + Clone, data: Data<'a>) -> Option<Out<'a>> {
    let mut found = match (data.item, path.clone().next()) {
        (Some(item), _) => item,
        (None, None) => return Some(Cow::Owned(Value::Object(data.root.context.clone()))),
        (None, Some("$flagd")) => {
            return match path.nth(1) {
                Some("flagKey") => Some(Cow::Owned(data.root.flag.into())),
                Some("timestamp") => Some(Cow::Owned(data.root.now.into())),
                _ => None,
            };
        }
        (None, Some(name)) => {
            path.next();
            data.root.context.get(name)?
        }
    };
    for part in path {
        found = match found {
            Value::Object(map) => map.get(part)?,
            Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    (!found.is_null()).then_some(Cow::Borrowed(found))
}

fn each_of<'a>(each: Each, list: &Value, body: &Rule, data: Data<'_>) -> Out<'a> {
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    let result = |item: &Value| eval(body, Data { root: data.root, item: Some(item) }).into_owned();
    let holds = |item: &Value| truthy(&eval(body, Data { root: data.root, item: Some(item) }));
    Cow::Owned(match each {
        Each::Map => Value::Array(items.iter().map(result).collect()),
        Each::Filter => Value::Array(items.iter().filter(|item| holds(item)).cloned().collect()),
        Each::All => (!items.is_empty() && items.iter().all(holds)).into(),
        Each::None => (!items.iter().any(holds)).into(),
        Each::Some => items.iter().any(holds).into(),
    })
}

/// Version 2 of flagd: the bucket is `(hash * sum of weights) >> 32`, the first range that holds it wins. Null when there is nothing to
/// hash or a weight is no whole number.
fn fractional<'a>(key: Option<&'a Rule>, shares: &'a [Share], data: Data<'a>) -> Out<'a> {
    let explicit = key.map(|key| eval(key, data));
    let hash = match explicit.as_deref() {
        Some(Value::String(text)) => murmur::hash(text.as_bytes()),
        Some(value) if !value.is_null() => return NULL,
        _ => {
            match data.root.context.get("targetingKey").and_then(Value::as_str).filter(|key| !key.is_empty())
            {
                Some(user) => murmur::hash_both(data.root.flag.as_bytes(), user.as_bytes()),
                None => return NULL,
            }
        }
    };
    let weight = |share: &'a Share| match &share.weight {
        None => Some(1),
        Some(rule) => match &*eval(rule, data) {
            Value::Null => Some(1),
            Value::Number(number) => {
                number.as_f64().filter(|n| n.fract() == 0.0).map(|n| n.clamp(0.0, 4e9) as u64)
            }
            _ => None,
        },
    };
    let Some(total) = shares.iter().try_fold(0u64, |sum, share| Some(sum + weight(share)?)) else {
        return NULL;
    };
    let Ok(total) = i32::try_from(total).map(|total| total as u32) else { return NULL };
    let bucket = u64::from(murmur::bucket(hash, total));
    let mut end = 0;
    for share in shares {
        end += weight(share).unwrap_or(0);
        if bucket < end {
            return eval(&share.variant, data);
        }
    }
    NULL
}

fn invoke<'a>(call: Call, arguments: &'a [Rule], data: Data<'a>) -> Out<'a> {
    let get = |n: usize| arguments.get(n).map_or(NULL, |rule| eval(rule, data));
    let all = || arguments.iter().map(|rule| eval(rule, data));
    Cow::Owned(match call {
        Call::Equal => loose_eq(&get(0), &get(1)).into(),
        Call::NotEqual => (!loose_eq(&get(0), &get(1))).into(),
        Call::Same => same(&get(0), &get(1)).into(),
        Call::NotSame => (!same(&get(0), &get(1))).into(),
        Call::Less => ordered(arguments, data, |order| order.is_lt()).into(),
        Call::LessOrEqual => ordered(arguments, data, |order| order.is_le()).into(),
        Call::Greater => ordered(arguments, data, |order| order.is_gt()).into(),
        Call::GreaterOrEqual => ordered(arguments, data, |order| order.is_ge()).into(),
        Call::Not => (!truthy(&get(0))).into(),
        Call::Truthy => truthy(&get(0)).into(),
        Call::In => contains(&get(1), &get(0)).into(),
        Call::Add
        | Call::Subtract
        | Call::Multiply
        | Call::Divide
        | Call::Remainder
        | Call::Min
        | Call::Max => of_number(arithmetic(call, arguments, data)),
        Call::Cat => all().map(|value| text(&value)).collect::<String>().into(),
        Call::Substr => {
            substr(&text(&get(0)), number(&get(1)), arguments.get(2).map(|_| number(&get(2)))).into()
        }
        Call::Merge => {
            let parts = all().flat_map(|value| match value.into_owned() {
                Value::Array(items) => items,
                one => vec![one],
            });
            Value::Array(parts.collect())
        }
        Call::Missing => {
            let names: Vec<Value> = match get(0).into_owned() {
                Value::Array(names) => names,
                _ => all().map(Cow::into_owned).collect(),
            };
            missing(names, data)
        }
        Call::MissingSome => {
            let names = get(1).as_array().cloned().unwrap_or_default();
            let (wanted, count) = (number(&get(0)), names.len());
            match missing(names, data) {
                Value::Array(absent) if (count - absent.len()) as f64 >= wanted => json!([]),
                absent => absent,
            }
        }
        Call::StartsWith => of_two(arguments, data, |text, part| text.starts_with(part)),
        Call::EndsWith => of_two(arguments, data, |text, part| text.ends_with(part)),
        Call::SemVer => match (arguments.len(), version(&get(0)), &*get(1), version(&get(2))) {
            (3, Some(left), Value::String(operator), Some(right)) => {
                semver::compare(&left, operator, &right).map_or(Value::Null, Value::from)
            }
            _ => Value::Null,
        },
    })
}

fn missing(names: Vec<Value>, data: Data<'_>) -> Value {
    let absent = |name: &Value| {
        let name = text(name);
        let parts: Vec<&str> = name.split('.').collect();
        let found = var(parts.iter().copied(), Data { root: data.root, item: data.item });
        found.is_none_or(|value| value.as_str() == Some(""))
    };
    Value::Array(names.into_iter().filter(absent).collect())
}

fn of_two(arguments: &[Rule], data: Data<'_>, holds: fn(&str, &str) -> bool) -> Value {
    let [left, right] = arguments else { return Value::Null };
    match (&*eval(left, data), &*eval(right, data)) {
        (Value::String(text), Value::String(part)) => holds(text, part).into(),
        _ => Value::Null,
    }
}

fn version(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Empty text, empty list, zero, false and null are falsy.
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64().is_some_and(|n| n != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
    }
}

/// Whole numbers stay whole, so that `1 + 1` prints as `2`; what is no number is null.
fn of_number(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 {
        (n as i64).into()
    } else {
        Number::from_f64(n).map_or(Value::Null, Value::Number)
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(n) if n.fract() == 0.0 && n.abs() < 1e15 => format!("{n:.0}"),
            _ => number.to_string(),
        },
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn loose_eq(a: &Value, b: &Value) -> bool {
    use Value as V;
    match (a, b) {
        (V::Null, _) | (_, V::Null) => a.is_null() && b.is_null(),
        (V::Number(_) | V::Bool(_), V::Number(_) | V::Bool(_) | V::String(_))
        | (V::String(_), V::Number(_) | V::Bool(_)) => number(a) == number(b),
        _ => a == b,
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        // Nothing is in an empty text, not even itself, as in JavaScript's JsonLogic.
        (Value::String(whole), Value::String(part)) => !whole.is_empty() && whole.contains(part.as_str()),
        (Value::Array(items), part) => items.iter().any(|item| same(item, part)),
        _ => false,
    }
}

/// By characters; a negative start counts from the end, a negative length leaves that many off.
fn substr(text: &str, start: f64, length: Option<f64>) -> String {
    let count = text.chars().count() as f64;
    let from = if start < 0.0 { (count + start).max(0.0) } else { start.min(count) };
    let until = match length {
        None => count,
        Some(length) if length < 0.0 => (count + length).max(from),
        Some(length) => from + length,
    };
    text.chars().skip(from as usize).take((until - from).max(0.0) as usize).collect()
}

#[cfg(test)]
#[path = "logic_tests.rs"]
mod tests;

//! Arithmetic and order in rules, with JavaScript's conversions. A result that is no number stays so through a whole formula.

use std::cmp::Ordering;

use serde_json::Value;

use crate::logic::{Data, Out, eval};
use crate::rule::{Call, Rule};

/// What is no number makes the whole sum no number, and that compares with nothing: a rule over a missing attribute matches nobody.
pub(crate) fn arithmetic(call: Call, arguments: &[Rule], data: Data<'_>) -> f64 {
    let get = |n: usize| arguments.get(n).map_or(f64::NAN, |rule| number_of(rule, data));
    let each = || arguments.iter().map(|rule| number_of(rule, data));
    // Sums and products read numbers and texts only, the other operators count null and booleans as well, as in JavaScript.
    let plain = || {
        arguments.iter().map(|rule| match rule {
            rule if is_arithmetic(rule) => number_of(rule, data),
            rule => match &*eval(rule, data) {
                Value::Null | Value::Bool(_) => f64::NAN,
                Value::String(text) if text.trim().is_empty() => f64::NAN,
                value => number(value),
            },
        })
    };
    let extreme = |pick: fn(f64, f64) -> f64| {
        let either = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { pick(a, b) };
        each().reduce(either).unwrap_or(f64::NAN)
    };
    match call {
        Call::Add => plain().sum(),
        Call::Multiply => plain().product(),
        Call::Subtract if arguments.len() == 1 => -get(0),
        Call::Subtract => get(0) - get(1),
        Call::Divide => get(0) / get(1),
        Call::Remainder => get(0) % get(1),
        Call::Min => extreme(f64::min),
        Call::Max => extreme(f64::max),
        _ => f64::NAN,
    }
}

fn is_arithmetic(rule: &Rule) -> bool {
    use Call as C;
    let arithmetic = |c: &Call| {
        matches!(c, C::Add | C::Subtract | C::Multiply | C::Divide | C::Remainder | C::Min | C::Max)
    };
    matches!(rule, Rule::Call(call, _) if arithmetic(call))
}

/// The number that a rule gives. Arithmetic inside arithmetic stays a number, also when it is none.
fn number_of(rule: &Rule, data: Data<'_>) -> f64 {
    match rule {
        Rule::Call(call, arguments) if is_arithmetic(rule) => arithmetic(*call, arguments, data),
        rule => number(&eval(rule, data)),
    }
}

/// A value as a number.
pub(crate) fn number(value: &Value) -> f64 {
    match value {
        Value::Null => 0.0,
        Value::Bool(is) => f64::from(u8::from(*is)),
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::String(text) if text.trim().is_empty() => 0.0,
        Value::String(text) => text.trim().parse().unwrap_or(f64::NAN),
        Value::Array(_) | Value::Object(_) => f64::NAN,
    }
}

/// A side of a comparison.
enum Side<'a> {
    Number(f64),
    Value(Out<'a>),
}

fn side<'a>(rule: &'a Rule, data: Data<'a>) -> Side<'a> {
    if is_arithmetic(rule) { Side::Number(number_of(rule, data)) } else { Side::Value(eval(rule, data)) }
}

/// Two texts compare as texts, anything else as numbers; three values ask whether the middle one lies between.
pub(crate) fn ordered(rules: &[Rule], data: Data<'_>, holds: fn(Ordering) -> bool) -> bool {
    rules.len() >= 2
        && rules.windows(2).all(|pair| order(&side(&pair[0], data), &side(&pair[1], data)).is_some_and(holds))
}

fn order(a: &Side<'_>, b: &Side<'_>) -> Option<Ordering> {
    if let (Side::Value(a), Side::Value(b)) = (a, b)
        && let (Value::String(a), Value::String(b)) = (&**a, &**b)
    {
        return Some(a.cmp(b));
    }
    let number = |side: &Side<'_>| match side {
        Side::Number(n) => *n,
        Side::Value(value) => number(value),
    };
    number(a).partial_cmp(&number(b))
}

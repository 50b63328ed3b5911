//! Whether two answers say the same: status, then the body, JSON by value and anything else by bytes. Pure.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;

/// The longest excerpt of a difference, in characters.
const EXCERPT: usize = 80;

/// One answer as far as it is compared.
pub(crate) struct Answer {
    pub status: u16,
    pub json: bool,
    pub body: VecDeque<Bytes>,
}

/// Where two answers differ, and what each says there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Differs {
    pub at: String,
    pub primary: String,
    pub shadow: String,
}

/// The first difference.
pub(crate) fn differ(primary: &Answer, shadow: &Answer) -> Option<Differs> {
    if primary.status != shadow.status {
        let (primary, shadow) = (primary.status.to_string(), shadow.status.to_string());
        return Some(Differs { at: "status".into(), primary, shadow });
    }
    let (a, b) = (joined(&primary.body), joined(&shadow.body));
    if a == b {
        return None;
    }
    if primary.json
        && shadow.json
        && let (Ok(a), Ok(b)) = (serde_json::from_slice::<Value>(&a), serde_json::from_slice::<Value>(&b))
    {
        return in_json(&a, &b, &mut String::new());
    }
    let at = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let from = at.saturating_sub(EXCERPT / 4);
    let near = |bytes: &[u8]| excerpt(&String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()));
    Some(Differs { at: format!("body, byte {at}"), primary: near(&a), shadow: near(&b) })
}

fn joined(chunks: &VecDeque<Bytes>) -> Vec<u8> {
    chunks.iter().flatten().copied().collect()
}

fn in_json(a: &Value, b: &Value, path: &mut String) -> Option<Differs> {
    let inside = |path: &mut String, key: &str, a: Option<&Value>, b: Option<&Value>| {
        let length = path.len();
        path.push('/');
        path.push_str(&key.replace('~', "~0").replace('/', "~1"));
        let found = match (a, b) {
            (Some(a), Some(b)) => in_json(a, b, path),
            (a, b) => {
                let say = |value: Option<&Value>| {
                    value.map_or("(absent)".into(), |value| excerpt(&value.to_string()))
                };
                Some(Differs { at: format!("body {path}"), primary: say(a), shadow: say(b) })
            }
        };
        path.truncate(length);
        found
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            a.keys().chain(added).find_map(|key| inside(path, key, a.get(key), b.get(key)))
        }
        (Value::Array(a), Value::Array(b)) => {
            (0..a.len().max(b.len())).find_map(|at| inside(path, &at.to_string(), a.get(at), b.get(at)))
        }
        _ if a == b => None,
        _ => Some(Differs {
            at: format!("body {path}"),
            primary: excerpt(&a.to_string()),
            shadow: excerpt(&b.to_string()),
        }),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, json: bool, body: &'static str) -> Answer {
        Answer { status, json, body: VecDeque::from([Bytes::from_static(body.as_bytes())]) }
    }

    #[test]
    fn the_order_of_keys_is_no_difference() {
        let a = answer(200, true, r#"{"a": 1, "b": [1, 2]}"#);
        let b = answer(200, true, r#"{"b":[1,2],"a":1}"#);
        assert_eq!(differ(&a, &b), None);
        let (a, b) = (answer(200, false, "{\"a\":1}"), answer(200, false, "{\"a\": 1}"));
        assert!(differ(&a, &b).is_some(), "what is not JSON is compared by bytes");
    }

    #[test]
    fn a_difference_says_where_it_is() {
        let a = answer(200, true, r#"{"items":[{"price":10}],"n":1}"#);
        let b = answer(200, true, r#"{"items":[{"price":12}],"n":1}"#);
        let found = differ(&a, &b).unwrap();
        assert_eq!(
            (found.at.as_str(), found.primary.as_str(), found.shadow.as_str()),
            ("body /items/0/price", "10", "12")
        );
        let found = differ(&a, &answer(200, true, r#"{"items":[{"price":10}]}"#)).unwrap();
        assert_eq!((found.at.as_str(), found.shadow.as_str()), ("body /n", "(absent)"));
        let found = differ(&a, &answer(500, true, "")).unwrap();
        assert_eq!((found.at.as_str(), found.shadow.as_str()), ("status", "500"));
    }
}

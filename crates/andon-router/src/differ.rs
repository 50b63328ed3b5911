//! Where two answers differ: status, chosen headers, then the body, JSON by value and field by field, anything else by bytes. Pure.
//!
//! Places are named so that they group: `body /items/*/price` is one place, however many items there are. What is
//! shown of a difference has passed `redact`.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use serde_json::{Number, Value};

use crate::redact;

/// Places told apart within one pair of answers.
const PLACES: usize = 200;
/// Headers that say something to the user. Others carry times, numbers of requests and names of machines.
const HEADERS: [&str; 14] = [
    "access-control-allow-origin",
    "allow",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "deprecation",
    "link",
    "location",
    "retry-after",
    "strict-transport-security",
    "vary",
    "www-authenticate",
];
/// The most of an unpacked body that is compared, in bytes.
const UNPACKED: u64 = 4 << 20;
/// What stands in for a field that is not there.
const ABSENT: &str = "(absent)";

/// One answer as far as it is compared.
pub(crate) struct Answer {
    pub status: u16,
    pub json: bool,
    /// Its body is packed with gzip.
    pub gzip: bool,
    pub headers: Vec<(HeaderName, String)>,
    pub body: VecDeque<Bytes>,
}

/// What one pair of answers says at one place, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub primary: String,
    pub shadow: String,
}

/// The headers of an answer that are compared; of cookies the names.
pub(crate) fn chosen(headers: &HeaderMap) -> Vec<(HeaderName, String)> {
    let text = |name: &str| {
        let all: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        (!all.is_empty()).then(|| all.join(", "))
    };
    let own = HEADERS.iter().filter_map(|name| Some((HeaderName::from_static(name), text(name)?)));
    let cookies = headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let mut named: Vec<&str> = cookies.filter_map(|cookie| Some(cookie.split_once('=')?.0.trim())).collect();
    named.sort_unstable();
    let named = (!named.is_empty()).then(|| (HeaderName::from_static("set-cookie"), named.join(", ")));
    own.chain(named).collect()
}

/// Every place where they differ. One status against another says it all: the rest is then not looked at.
pub(crate) fn differ(primary: &Answer, shadow: &Answer) -> BTreeMap<String, Said> {
    let mut found = BTreeMap::new();
    if primary.status != shadow.status {
        let said = Said { primary: primary.status.to_string(), shadow: shadow.status.to_string() };
        found.insert("status".to_owned(), said);
        return found;
    }
    for (name, _) in primary.headers.iter().chain(&shadow.headers) {
        let say = |answer: &Answer| {
            answer.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
        };
        let (a, b) = (say(primary), say(shadow));
        if a != b {
            let show =
                |value: Option<String>| value.map_or(ABSENT.into(), |v| redact::text(name.as_str(), &v));
            found.insert(format!("header {name}"), Said { primary: show(a), shadow: show(b) });
        }
    }
    let (a, b) = (said(primary), said(shadow));
    if a == b {
        return found;
    }
    if primary.json
        && shadow.json
        && let (Ok(a), Ok(b)) = (serde_json::from_slice::<Value>(&a), serde_json::from_slice::<Value>(&b))
    {
        in_json(&a, &b, &mut "body ".to_owned(), "", &mut found);
        return found;
    }
    let at = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    // From the beginning of the word in which they part, so that half of a secret is not mistaken for a word.
    let word = |byte: &u8| byte.is_ascii_whitespace();
    let line = a.get(..at).unwrap_or_default().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let tail = line.len().min(200);
    let from = at
        - line.get(line.len() - tail..).map_or(0, |tail| {
            tail.iter()
                .position(word)
                .filter(|_| tail.len() == 200)
                .map_or(tail.len(), |skip| tail.len() - skip)
        });
    let near = |bytes: &[u8]| {
        let rest = bytes.get(from..).unwrap_or_default();
        redact::text("body", &String::from_utf8_lossy(rest.get(..rest.len().min(1000)).unwrap_or_default()))
    };
    found.insert("body".into(), Said { primary: near(&a), shadow: near(&b) });
    found
}

/// The body as it was meant. One that cannot be unpacked, or is longer than is compared, stands as it came.
fn said(answer: &Answer) -> Vec<u8> {
    let sent: Vec<u8> = answer.body.iter().flatten().copied().collect();
    if !answer.gzip {
        return sent;
    }
    let mut meant = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(sent.as_slice()).take(UNPACKED + 1).read_to_end(&mut meant);
    if read.is_ok() && meant.len() as u64 <= UNPACKED { meant } else { sent }
}

fn in_json(a: &Value, b: &Value, path: &mut String, name: &str, found: &mut BTreeMap<String, Said>) {
    if found.len() >= PLACES {
        return;
    }
    let inside = |key: &str, path: &mut String| {
        let length = path.len();
        path.push('/');
        path.push_str(&redact::key(key).replace('~', "~0").replace('/', "~1"));
        length
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let length = inside(key, path);
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => in_json(a, b, path, key, found),
                    (a, b) => note(path, key, a, b, found),
                }
                path.truncate(length);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (a, b) in a.iter().zip(b) {
                let length = path.len();
                path.push_str("/*");
                in_json(a, b, path, name, found);
                path.truncate(length);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            let said = |list: &Vec<Value>| format!("{} items", list.len());
            let said = Said { primary: said(a), shadow: said(b) };
            found.entry(format!("{path}, number of items")).or_insert(said);
        }
        (Value::Number(a), Value::Number(b)) if same(a, b) => {}
        _ if a == b => {}
        _ => note(path, name, Some(a), Some(b), found),
    }
}

fn note(path: &str, name: &str, a: Option<&Value>, b: Option<&Value>, found: &mut BTreeMap<String, Said>) {
    let say = |value: Option<&Value>| value.map_or(ABSENT.into(), |value| redact::json(name, value));
    found.entry(path.to_owned()).or_insert_with(|| Said { primary: say(a), shadow: say(b) });
}

/// 1, 1.0 and 1e0 are one number. Whole numbers are compared as such: a float cannot hold the large ones.
fn same(a: &Number, b: &Number) -> bool {
    match (a.is_f64(), b.is_f64()) {
        (false, false) => a == b,
        _ => a.as_f64() == b.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, json: bool, body: &'static str) -> Answer {
        let body = VecDeque::from([Bytes::from_static(body.as_bytes())]);
        Answer { status, json, gzip: false, headers: Vec::new(), body }
    }

    fn places(a: &Answer, b: &Answer) -> Vec<String> {
        differ(a, b).into_keys().collect()
    }

    #[test]
    fn the_order_of_keys_and_the_way_a_number_is_written_are_no_difference() {
        let a = answer(200, true, r#"{"a": 1, "b": [1, 2e0], "big": 9007199254740993}"#);
        let b = answer(200, true, r#"{"big":9007199254740993,"b":[1.0,2],"a":1.0}"#);
        assert!(differ(&a, &b).is_empty());
        let c = answer(200, true, r#"{"a": 1, "b": [1, 2], "big": 9007199254740992}"#);
        assert_eq!(places(&a, &c), ["body /big"], "a float would not have seen it");
        let (a, b) = (answer(200, false, "{\"a\":1}"), answer(200, false, "{\"a\": 1}"));
        assert_eq!(places(&a, &b), ["body"], "what is not JSON is compared by bytes");
    }

    #[test]
    fn every_field_that_differs_is_named_and_items_are_one_field() {
        let a = answer(200, true, r#"{"items":[{"price":10},{"price":11}],"n":1,"by":{"4711":{"x":1}}}"#);
        let b = answer(200, true, r#"{"items":[{"price":12},{"price":13}],"by":{"4711":{"x":2}}}"#);
        assert_eq!(places(&a, &b), ["body /by/*/x", "body /items/*/price", "body /n"]);
        let said = &differ(&a, &b)["body /items/*/price"];
        assert_eq!((said.primary.as_str(), said.shadow.as_str()), ("10", "12"));
        assert_eq!(differ(&a, &b)["body /n"].shadow, ABSENT);
        assert_eq!(places(&a, &answer(500, true, "")), ["status"]);
        let fewer = answer(200, true, r#"{"items":[],"n":1,"by":{"4711":{"x":1}}}"#);
        assert_eq!(places(&a, &fewer), ["body /items, number of items"]);
    }

    #[test]
    fn a_packed_answer_is_compared_as_it_was_meant_and_a_bomb_is_not_unpacked() {
        let packed = |text: &[u8]| {
            let mut into = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut into, text).unwrap();
            let body = VecDeque::from([Bytes::from(into.finish().unwrap())]);
            Answer { status: 200, json: true, gzip: true, headers: Vec::new(), body }
        };
        let (a, b) = (packed(br#"{"a":1,"b":2}"#), packed(br#"{"b":3,"a":1}"#));
        assert_eq!(places(&a, &b), ["body /b"]);
        assert_eq!(
            places(&a, &answer(200, true, r#"{"b":2,"a":1}"#)),
            [""; 0],
            "packed or not is no difference"
        );
        let bomb = vec![b' '; (UNPACKED + 1) as usize];
        assert_eq!(places(&packed(&bomb), &a), ["body"]);
    }

    #[test]
    fn headers_that_speak_to_users_count_and_those_of_machines_do_not() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            pairs.iter().for_each(|(name, value)| {
                headers.append(HeaderName::from_static(name), value.parse().unwrap());
            });
            Answer { headers: chosen(&headers), ..answer(200, false, "") }
        };
        let a = with(&[("cache-control", "no-store"), ("date", "then"), ("set-cookie", "sid=abc; Path=/")]);
        let b = with(&[("cache-control", "public"), ("date", "now"), ("set-cookie", "sid=def; Path=/")]);
        assert_eq!(places(&a, &b), ["header cache-control"]);
        let c = with(&[("cache-control", "no-store"), ("set-cookie", "other=abc")]);
        assert_eq!(places(&a, &c), ["header set-cookie"]);
    }

    #[test]
    fn a_body_of_hostile_shape_names_a_bounded_number_of_places() {
        let many = |value: u8| {
            let fields: Vec<String> = (0..5000).map(|n| format!("\"k{n}x\":{value}")).collect();
            let body = VecDeque::from([Bytes::from(format!("{{{}}}", fields.join(",")))]);
            Answer { status: 200, json: true, gzip: false, headers: Vec::new(), body }
        };
        assert!(differ(&many(1), &many(2)).len() <= PLACES);
    }
}

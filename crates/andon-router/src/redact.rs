//! What may be shown of an answer: excerpts without what looks like a secret or like a person. Pure.
//!
//! It errs towards removing. A value is judged by the name it stands under and by its own look; what neither gives away
//! stays, so a sample is a hint for those who may see the service's answers anyway and no proof of harmlessness.

use serde_json::Value;

/// The longest excerpt, in characters.
const EXCERPT: usize = 80;
/// What stands in for something removed.
pub(crate) const REMOVED: &str = "(removed)";
/// Parts of names under which secrets and personal things stand.
const NAMES: [&str; 22] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "auth",
    "apikey",
    "privatekey",
    "accesskey",
    "session",
    "cookie",
    "credential",
    "signature",
    "csrf",
    "xsrf",
    "otp",
    "email",
    "phone",
    "iban",
    "ssn",
    "cardnumber",
    "birth",
];
/// Words before something secret, as in `Bearer abc` and `password=abc`.
const SCHEMES: [&str; 3] = ["bearer", "basic", "digest"];

/// Whether what has this name is kept to itself.
fn secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    NAMES.iter().any(|word| plain.contains(word)) && plain != "author" && plain != "authors"
}

/// Whether a word looks like a secret, a person's address or the number of a card.
fn secret_word(word: &str) -> bool {
    let (digits, letters) = (
        word.bytes().filter(u8::is_ascii_digit).count(),
        word.bytes().filter(u8::is_ascii_alphabetic).count(),
    );
    let of_a_token = |b: u8| b.is_ascii_alphanumeric() || b"-_.+/=~".contains(&b);
    let address = word.split_once('@').is_some_and(|(who, at)| !who.is_empty() && at.contains('.'));
    let token = word.len() >= 20 && word.bytes().all(of_a_token) && digits >= 2 && letters >= 2;
    let card = digits >= 13 && letters == 0 && word.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    address || token || card || word.starts_with("eyJ")
}

/// A text that stands under this name.
pub(crate) fn text(name: &str, text: &str) -> String {
    if secret_name(name) {
        return REMOVED.into();
    }
    excerpt(&words(text))
}

/// A key of an object, `*` where it is a number or a name of one thing among many.
pub(crate) fn key(key: &str) -> String {
    let number = !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit());
    if number || secret_word(key) { "*".into() } else { excerpt(key) }
}

/// A value that stands under this name; what is inside of it is judged by its own names.
pub(crate) fn json(name: &str, value: &Value) -> String {
    excerpt(&clean(name, value).to_string())
}

/// The path of a request: parts that look like secrets are removed.
pub(crate) fn path(path: &str) -> String {
    let parts: Vec<&str> =
        path.split('/').map(|part| if secret_word(part) { REMOVED } else { part }).collect();
    excerpt(&parts.join("/"))
}

fn clean(name: &str, value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        _ if secret_name(name) => REMOVED.into(),
        Value::String(text) => words(text).into(),
        Value::Number(number) if secret_word(&number.to_string()) => REMOVED.into(),
        Value::Number(_) => value.clone(),
        Value::Array(all) => all.iter().map(|value| clean(name, value)).collect(),
        Value::Object(all) => {
            let shown = |key: &str| if secret_word(key) { REMOVED.to_owned() } else { key.to_owned() };
            all.iter().map(|(key, value)| (shown(key), clean(key, value))).collect()
        }
    }
}

/// The text with every suspicious word taken out.
fn words(text: &str) -> String {
    let cut = |c: char| c.is_whitespace() || "\"'<>()[]{},;:=&?|".contains(c);
    let (mut said, mut rest, mut hide) = (String::new(), text, false);
    while !rest.is_empty() {
        let end = rest.find(cut).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let gap = after.find(|c| !cut(c)).unwrap_or(after.len());
        let (between, next) = after.split_at(gap);
        said.push_str(if !word.is_empty() && (hide || secret_word(word)) { REMOVED } else { word });
        said.push_str(between);
        if !word.is_empty() {
            let scheme = SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(word));
            // `password: x` and `token=x`, but not a sentence about tokens; `Authorization: Bearer x` hides both.
            hide = scheme || (secret_name(word) && between.contains(['=', ':']));
        }
        rest = next;
    }
    said
}

fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        let secrets = [
            ("note", "Bearer abc123"),
            ("note", "write to jane.doe@example.org please"),
            ("note", "eyJhbGciOi.eyJzdWIi.sig"),
            ("note", "key 4f3c2b1a09d8e7f6a5b4c3d2 ends"),
            ("note", "password=hunter2&x=1"),
            ("note", "4111111111111111"),
            ("user_password", "plain"),
            ("X-Auth-Token", "plain"),
            ("e_mail", "plain"),
        ];
        for (name, value) in secrets {
            for shown in [text(name, value), super::json(name, &json!(value))] {
                assert!(shown.contains(REMOVED), "{name}: {shown}");
                for leak in ["abc123", "jane", "eyJ", "4f3c", "hunter2", "4111", "plain"] {
                    assert!(!shown.contains(leak), "{name}: {shown}");
                }
            }
        }
        let inside =
            super::json("all", &json!({ "user": { "token": "x1", "name": "Ann" }, "tokens": ["x2"] }));
        assert!(inside.contains("Ann") && !inside.contains("x1") && !inside.contains("x2"), "{inside}");
        assert_eq!(path("/reset/4f3c2b1a09d8e7f6a5b4c3d2/now"), "/reset/(removed)/now");
    }

    #[test]
    fn what_is_no_secret_is_shown_as_it_stands() {
        for (name, value) in
            [("price", "12.50"), ("author", "Ann"), ("cache-control", "max-age=3600, public")]
        {
            assert_eq!(text(name, value), value);
        }
        assert_eq!(super::json("n", &json!([1, 2.5, null, true])), "[1,2.5,null,true]");
        assert_eq!((key("17"), key("price")), ("*".into(), "price".into()));
    }
}

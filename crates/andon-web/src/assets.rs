//! Style, script and mark, embedded. Their addresses carry a hash of what they are, so that a browser keeps each for a year.

use std::sync::LazyLock;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("assets/andon.css");
const SCRIPT: &str = include_str!("assets/andon.js");
const GREEN: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="12" fill="#1c7c54"/></svg>"##;
const RED: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect x="4" y="4" width="24" height="24" fill="#b42318"/></svg>"##;

fn address(name: &str, text: &str) -> String {
    format!("/assets/{name}?{}", hex::encode(&Sha256::digest(text.as_bytes())[..6]))
}

/// Where the style is.
pub fn style() -> &'static str {
    static ADDRESS: LazyLock<String> = LazyLock::new(|| address("andon.css", STYLE));
    &ADDRESS
}

/// Where the script is.
pub fn script() -> &'static str {
    static ADDRESS: LazyLock<String> = LazyLock::new(|| address("andon.js", SCRIPT));
    &ADDRESS
}

/// Where the tab's mark is: a green dot, or a red square while the line is stopped.
pub fn icon(stopped: bool) -> &'static str {
    if stopped { "/assets/red.svg" } else { "/assets/green.svg" }
}

/// Answers `/assets/…`.
pub async fn serve(request: Request) -> Response {
    let (kind, text) = match request.uri().path() {
        "/assets/andon.css" => ("text/css; charset=utf-8", STYLE),
        "/assets/andon.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "/assets/green.svg" => ("image/svg+xml", GREEN),
        "/assets/red.svg" => ("image/svg+xml", RED),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let keep = match request.uri().query() {
        Some(_) => "public, max-age=31536000, immutable",
        None => "public, max-age=3600",
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_stays_small_and_the_look_within_its_budget() {
        assert!(SCRIPT.len() < 8 * 1024, "the script has {} bytes", SCRIPT.len());
        assert!(STYLE.len() + SCRIPT.len() < 60 * 1024);
        assert!(style().starts_with("/assets/andon.css?"));
    }
}

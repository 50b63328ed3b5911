//! Answers and troubles as JSON. A trouble is `{"error": "what", "hint": "what to do"}`.

use andon_line::Refusal;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

/// Something that was not done, for the client.
#[derive(Debug)]
pub struct Trouble(pub StatusCode, pub String);

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Trouble(status, refusal.to_string())
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (error, hint) = match self.1.split_once("\nhint: ") {
            Some((error, hint)) => (error.to_owned(), Some(hint.to_owned())),
            None => (self.1, None),
        };
        (self.0, Json(json!({ "error": error, "hint": hint }))).into_response()
    }
}

/// What a handler gives back.
pub type Answer<T = serde_json::Value> = Result<Json<T>, Trouble>;

/// A command that was carried out.
pub fn done() -> Json<serde_json::Value> {
    Json(json!({ "done": true }))
}

//! Routes as a table, so that a test can try every one with every role.

use std::sync::Arc;

use andon_line::Line;
use andon_model::event::Role;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::MethodRouter;
use http::Method;

use crate::guard::{self, Guard, Watch};

/// Largest body of a request that is not a push, in bytes.
pub const BODY: usize = 4 << 20;

/// One route.
#[derive(Debug, Clone)]
pub struct Door {
    /// The method it answers.
    pub method: Method,
    /// Its path, in axum's form.
    pub path: &'static str,
    /// The role it needs; none: everyone may come in.
    pub needs: Option<Role>,
    /// What answers.
    pub handler: MethodRouter<Arc<Line>>,
    /// Whether its body may have any length (a push has its own limit).
    pub any_length: bool,
    /// Whether it only reads although it is a POST: a flag's evaluation, a fetch by git. It is not counted as a change.
    pub reads: bool,
}

impl Door {
    /// A door that needs a role.
    pub fn new(method: Method, path: &'static str, needs: Role, handler: MethodRouter<Arc<Line>>) -> Door {
        Door { method, path, needs: Some(needs), handler, any_length: false, reads: false }
    }

    /// A door for everyone.
    pub fn public(method: Method, path: &'static str, handler: MethodRouter<Arc<Line>>) -> Door {
        Door { method, path, needs: None, handler, any_length: false, reads: false }
    }

    /// The same door, of which nothing is changed by whoever comes in.
    pub fn only_reads(self) -> Door {
        Door { reads: true, ..self }
    }
}

/// The service that answers all doors, with the guard in front. Everything else is not found.
pub fn open(line: Arc<Line>, doors: Vec<Door>) -> Router {
    let guard = Guard::new(Arc::clone(&line));
    let mut router = Router::new();
    for door in doors {
        let limit = if door.any_length { DefaultBodyLimit::disable() } else { DefaultBodyLimit::max(BODY) };
        let state = Watch { guard: guard.clone(), needs: door.needs, reads: door.reads };
        let guarded: MethodRouter<Arc<Line>> = door.handler.layer(from_fn_with_state(state, guard::stand));
        router = router.route(door.path, guarded.layer(limit));
    }
    let router = router.fallback(guard::nothing_here).layer(from_fn(guard::shape));
    router.layer(from_fn(guard::headers)).layer(from_fn(guard::whole)).with_state(line)
}

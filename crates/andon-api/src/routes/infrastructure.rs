//! Infrastructure: the http state backend of Terraform and OpenTofu, and what people ask of states. Runs are asked for in `infrastructure_runs`.
//!
//! The protocol is that of Terraform's http backend (developer.hashicorp.com/terraform/language/backend/http): GET, POST, DELETE on the
//! state's address, LOCK and UNLOCK on the same; or, as GitLab and Gitea have it, POST and DELETE on `ADDRESS/lock`. A refused lock is 423
//! with the holder: Terraform prints its `ID` as it stands, so a sentence stands there.

use std::collections::HashMap;
use std::sync::Arc;

use andon_environment::states::Denied;
use andon_line::stations::infrastructure::backend::{LARGEST, Writer};
use andon_line::stations::infrastructure::{Scope, StateRefusal};
use andon_line::view;
use andon_line::{Caller, Line, Project};
use andon_model::event::{Actor, Role};
use andon_model::{EnvironmentName, StateName};
use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use base64::Engine;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use md5::{Digest as _, Md5};
use serde::Deserialize;
use serde_json::json;

use super::number;
use crate::answer::{Answer, Trouble, done};
use crate::door::Door;
use crate::guard::By;

/// Largest body of LOCK and UNLOCK, in bytes.
const LOCK_BODY: usize = 64 << 10;
/// RFC 1864; Terraform sends it with each body and takes it from each answer.
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// The doors of infrastructure. A state shows secrets, so that reading one needs the same role as writing it.
pub(super) fn doors() -> Vec<Door> {
    use Role::{Deployer, Viewer};
    let mut doors = vec![
        Door::new(Method::POST, "/api/v1/{project}/state/{environment}", Deployer, any(state)),
        Door::new(Method::POST, "/api/v1/{project}/state/{environment}/lock", Deployer, any(lock)),
        Door::new(Method::POST, "/api/v1/{project}/state/{environment}/{layer}", Deployer, any(state)),
        Door::new(Method::POST, "/api/v1/{project}/state/{environment}/{layer}/lock", Deployer, any(lock)),
    ];
    // They have their own limits.
    doors.iter_mut().for_each(|door| door.any_length = true);
    doors.extend([
        Door::new(Method::GET, "/api/v1/{project}/infrastructure/{environment}", Viewer, get(show)),
        Door::new(
            Method::POST,
            "/api/v1/{project}/infrastructure/{environment}/restore",
            Deployer,
            post(restore),
        ),
        Door::new(Method::POST, "/api/v1/{project}/infrastructure/{environment}/lock", Deployer, post(hold)),
        Door::new(
            Method::POST,
            "/api/v1/{project}/infrastructure/{environment}/unlock",
            Deployer,
            post(free),
        ),
    ]);
    doors
}

type Names = Path<HashMap<String, String>>;

/// What a request to a state is about.
struct Wanted {
    project: Arc<Project>,
    name: StateName,
    writer: Writer,
    caller: Caller,
}

fn wanted(
    line: &Line,
    names: &HashMap<String, String>,
    request: &Request,
    caller: Caller,
) -> Result<Wanted, Trouble> {
    let of = |key: &str| names.get(key).map(String::as_str).unwrap_or_default();
    let layer = names.get("layer").map(|layer| number::<EnvironmentName>(layer)).transpose()?;
    let name = StateName { environment: number(of("environment"))?, layer };
    let project = line.project(of("project"))?;
    let run = request.extensions().get::<Scope>().map(|scope| scope.run);
    let by = run.map_or_else(|| caller.actor(), |run| Actor::line(&format!("infrastructure {run}")));
    Ok(Wanted { project, name, writer: Writer { by, run }, caller })
}

/// GET, POST, DELETE, LOCK, UNLOCK on a state's address.
async fn state(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(names): Names,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Result<Response, Trouble> {
    let wanted = wanted(&line, &names, &request, caller)?;
    let Wanted { project, name, writer, .. } = &wanted;
    // An empty `ID` is what Terraform sends where locking is off.
    let lock = query.get("ID").filter(|id| !id.is_empty()).cloned();
    match request.method().as_str() {
        "GET" => match line.read_state(project, name).await? {
            Some(document) => {
                let headers =
                    [(header::CONTENT_TYPE, "application/json".to_owned()), (CONTENT_MD5, md5(&document))];
                Ok((headers, document).into_response())
            }
            None => Err(Trouble(StatusCode::NOT_FOUND, format!("{name} has no state yet"))),
        },
        "POST" | "PUT" => {
            let document = body(request, LARGEST).await?;
            let stored = line.store_state(project, writer, name, lock, document).await;
            answer(&line, name, stored)
        }
        "DELETE" => answer(&line, name, line.delete_state(project, writer, name, lock.as_deref()).await),
        "LOCK" => take(&line, &wanted, request).await,
        "UNLOCK" => give_back(&line, &wanted, request).await,
        other => Err(Trouble(StatusCode::METHOD_NOT_ALLOWED, format!("a state takes no {other}"))),
    }
}

/// POST and DELETE on `ADDRESS/lock`, for those who set `lock_method` so.
async fn lock(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path(names): Names,
    request: Request,
) -> Result<Response, Trouble> {
    let wanted = wanted(&line, &names, &request, caller)?;
    match request.method().as_str() {
        "POST" | "PUT" | "LOCK" => take(&line, &wanted, request).await,
        "DELETE" | "UNLOCK" => give_back(&line, &wanted, request).await,
        other => Err(Trouble(StatusCode::METHOD_NOT_ALLOWED, format!("a lock takes no {other}"))),
    }
}

async fn take(line: &Line, wanted: &Wanted, request: Request) -> Result<Response, Trouble> {
    let body = body(request, LOCK_BODY).await?;
    let done = line.lock_state(&wanted.project, &wanted.writer, &wanted.name, &body).await;
    answer(line, &wanted.name, done)
}

async fn give_back(line: &Line, wanted: &Wanted, request: Request) -> Result<Response, Trouble> {
    let body = body(request, LOCK_BODY).await?;
    let owner = wanted.caller.may(Role::Owner).is_ok();
    let done = line.unlock_state(&wanted.project, &wanted.writer, owner, &wanted.name, &body).await;
    answer(line, &wanted.name, done)
}

fn answer(line: &Line, name: &StateName, done: Result<(), StateRefusal>) -> Result<Response, Trouble> {
    match done {
        Ok(()) => Ok(StatusCode::OK.into_response()),
        Err(StateRefusal::Denied(Denied::Locked { holder, .. })) => {
            let body = json!({
                "ID": holder.sentence(name, line.now()),
                "Operation": holder.info.operation,
                "Info": "",
                "Who": holder.info.who,
                "Version": holder.info.version,
                "Created": holder.since.rfc3339(),
                "Path": name.to_string(),
            });
            Ok((StatusCode::LOCKED, Json(body)).into_response())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

impl From<StateRefusal> for Trouble {
    fn from(refusal: StateRefusal) -> Trouble {
        match refusal {
            StateRefusal::Denied(denied @ Denied::NoVersion { .. }) => {
                Trouble(StatusCode::NOT_FOUND, denied.to_string())
            }
            StateRefusal::Denied(denied) => Trouble(StatusCode::CONFLICT, denied.to_string()),
            StateRefusal::Other(refusal) => refusal.into(),
        }
    }
}

/// The body, whole, and as its sender sent it.
async fn body(request: Request, most: usize) -> Result<Vec<u8>, Trouble> {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, most).await.map_err(|_| {
        let why =
            format!("the body is larger than {} MiB\nhint: split the infrastructure into layers", most >> 20);
        Trouble(StatusCode::PAYLOAD_TOO_LARGE, why)
    })?;
    whole(&parts.headers, &bytes)?;
    Ok(bytes.into())
}

fn whole(headers: &HeaderMap, bytes: &[u8]) -> Result<(), Trouble> {
    match headers.get(CONTENT_MD5) {
        Some(said) if said.as_bytes() != md5(bytes).as_bytes() => {
            let why = "the body is not what its Content-MD5 says\nhint: something on the way changed it; send it again";
            Err(Trouble(StatusCode::BAD_REQUEST, why.into()))
        }
        _ => Ok(()),
    }
}

fn md5(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(Md5::digest(bytes))
}

async fn show(
    State(line): State<Arc<Line>>,
    Path((project, environment)): Path<(String, String)>,
) -> Answer<view::InfrastructureView> {
    let project = line.project(&project)?;
    Ok(Json(view::infrastructure::infrastructure(&project, &number(&environment)?, line.now())?))
}

/// Which state of the environment is meant.
fn named(environment: &str, layer: Option<EnvironmentName>) -> Result<StateName, Trouble> {
    Ok(StateName { environment: number(environment)?, layer })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    version: u32,
    layer: Option<EnvironmentName>,
}

async fn restore(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, environment)): Path<(String, String)>,
    Json(what): Json<Restore>,
) -> Answer {
    let (project, name) = (line.project(&project)?, named(&environment, what.layer)?);
    let serial = line
        .restore_state(&project, &caller, &name, what.version)
        .await
        .map_err(|refusal| held(&line, &name, refusal))?;
    Ok(Json(json!({ "state": name, "serial": serial, "version": what.version })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    why: String,
    layer: Option<EnvironmentName>,
}

async fn hold(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, environment)): Path<(String, String)>,
    Json(what): Json<Hold>,
) -> Answer {
    let (project, name) = (line.project(&project)?, named(&environment, what.layer)?);
    line.hold_state(&project, &caller, &name, &what.why)
        .await
        .map_err(|refusal| held(&line, &name, refusal))?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Free {
    #[serde(default)]
    force: bool,
    layer: Option<EnvironmentName>,
}

async fn free(
    State(line): State<Arc<Line>>,
    By(caller): By,
    Path((project, environment)): Path<(String, String)>,
    Json(what): Json<Free>,
) -> Answer {
    let (project, name) = (line.project(&project)?, named(&environment, what.layer)?);
    line.free_state(&project, &caller, &name, what.force).await?;
    Ok(done())
}

/// People read who holds it in the error itself.
fn held(line: &Line, name: &StateName, refusal: StateRefusal) -> Trouble {
    match refusal {
        StateRefusal::Denied(Denied::Locked { holder, .. }) => {
            let why = format!(
                "{name} is held by {}\nhint: wait until it is free",
                holder.sentence(name, line.now())
            );
            Trouble(StatusCode::CONFLICT, why)
        }
        other => other.into(),
    }
}

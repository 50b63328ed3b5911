//! The page of the hosts and its forms. Who may come in and from where is decided before a request arrives here.

use std::sync::Arc;

use andon_line::{Line, Refusal, view};
use andon_model::HostName;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;

use crate::act::{Fields, back, field, parse};
use crate::said::Said;
use crate::show::Who;
use crate::{pages, shell};

/// All hosts.
pub async fn show(State(line): State<Arc<Line>>, Who(caller): Who, headers: HeaderMap) -> Response {
    let said = Said::read(&headers);
    let main = pages::hosts::hosts(&view::hosts::hosts(&line), &caller);
    let mut answer = shell::outside("Hosts", Some(&caller), said.as_ref(), main).into_response();
    if said.is_some() {
        Said::forget(answer.headers_mut());
    }
    answer
}

/// Empties one, lets it take instances again, or lets it leave.
pub async fn treat(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((host, command)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let treated = async {
        let (host, why): (HostName, _) = (parse(&host)?, field(&fields, "why"));
        let name = host.clone();
        match command.as_str() {
            "drain" => {
                line.empty_host(&caller, host, false, why).await.map(|()| format!("{name} is emptied"))
            }
            "resume" => line.keep_host(&caller, host).await.map(|()| format!("{name} takes instances again")),
            "leave" => line
                .empty_host(&caller, host, true, why)
                .await
                .map(|()| format!("{name} leaves when it is empty")),
            _ => Err(Refusal::Unknown("a host can be emptied, take instances again, or leave".into())),
        }
    };
    back("/hosts", treated.await)
}

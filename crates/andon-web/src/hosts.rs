//! The page of the hosts and runners, and its forms. Who may come in and from where is decided before a request arrives here.

use std::sync::Arc;

use andon_line::{Line, Refusal, view};
use andon_model::{HostName, RunnerName};
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
    let main = pages::hosts::hosts(&view::hosts::hosts(&line), &view::runners::runners(&line), &caller);
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

/// Gives a runner no more jobs, or jobs again, or lets it leave.
pub async fn treat_runner(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((runner, command)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let treated = async {
        let (runner, why): (RunnerName, _) = (parse(&runner)?, field(&fields, "why"));
        let name = runner.clone();
        match command.as_str() {
            "drain" => line
                .empty_runner(&caller, runner, false, why)
                .await
                .map(|()| format!("{name} gets no more jobs")),
            "resume" => line.keep_runner(&caller, runner).await.map(|()| format!("{name} gets jobs again")),
            "leave" => line
                .empty_runner(&caller, runner, true, why)
                .await
                .map(|()| format!("{name} leaves when its jobs are over")),
            _ => Err(Refusal::Unknown("a runner gets no more jobs, gets jobs again, or leaves".into())),
        }
    };
    back("/hosts", treated.await)
}

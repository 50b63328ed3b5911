//! Forms: each is one command of andon-line, an answer in one sentence, and the way back to the page where its effect is seen.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use andon_line::stations::environment::commands::NewEnvironment;
use andon_line::stations::pipeline::again::Again;
use andon_line::stations::{flags, release};
use andon_line::{Line, Project, Refusal};
use andon_model::{
    AndonId, ChangeId, EnvironmentName, InfraRunId, JobName, ReleaseId, RunId, ServiceName, Span,
};
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};

use crate::said::Said;
use crate::show::Who;

/// What a form sends.
pub type Fields = Form<BTreeMap<String, String>>;

/// The text of a field, empty if it was left out.
pub fn field<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map(|text| text.trim()).unwrap_or_default()
}

/// Back to a page, which says what became of it.
pub fn back(to: &str, said: Result<String, Refusal>) -> Response {
    let mut answer = Redirect::to(to).into_response();
    let said = match said {
        Ok(words) => Said::done(words),
        Err(refusal) => Said::not(refusal.to_string()),
    };
    said.keep(answer.headers_mut());
    answer
}

pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|error: T::Err| Refusal::Bad(error.to_string()))
}

/// A path below a project that is safe to go to: names only, whatever was asked for.
fn below(project: &str, rest: &str) -> String {
    let plain = |text: &str| {
        text.chars().filter(|c| c.is_ascii_alphanumeric() || "-/".contains(*c)).collect::<String>()
    };
    format!("/{}/{}", plain(project).trim_matches('/'), plain(rest)).trim_end_matches('/').to_owned()
}

/// A new project.
pub async fn create_project(State(line): State<Arc<Line>>, Who(caller): Who, fields: Fields) -> Response {
    let made = async {
        let project =
            line.create_project(&caller, parse(field(&fields, "name"))?, field(&fields, "trunk")).await?;
        Ok(project.name.clone())
    };
    match made.await {
        Ok(name) => back(
            &format!("/{name}"),
            Ok(format!("the project {name} is there. Its repository is {}/{name}.git", line.settings.url)),
        ),
        Err(refusal) => back("/", Err(refusal)),
    }
}

/// Stops the line.
pub async fn pull(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path(name): Path<String>,
    fields: Fields,
) -> Response {
    let pulled = async {
        let project = line.project(&name)?;
        line.pull(&project, &caller, field(&fields, "why"), "person", Vec::new()).await
    };
    match pulled.await {
        Ok(andon) => {
            back(&below(&name, &format!("andons/{}", andon.0)), Ok(format!("The line is stopped: {andon}")))
        }
        Err(refusal) => back(&below(&name, ""), Err(refusal)),
    }
}

/// What people do in an andon's room.
pub async fn treat(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, andon, command)): Path<(String, String, String)>,
    fields: Fields,
) -> Response {
    let to = below(&name, &format!("andons/{andon}"));
    let treated = async {
        let (project, id) = (line.project(&name)?, parse::<AndonId>(&andon)?);
        let why = field(&fields, "why");
        match command.as_str() {
            "acknowledge" => line.acknowledge(&project, &caller, id).await.map(|()| format!("{id} is yours")),
            "note" => line.note(&project, &caller, id, why).await.map(|()| "noted".into()),
            "release" => {
                line.release_cord(&project, &caller, id, why).await.map(|()| format!("{id} is over"))
            }
            _ => Err(Refusal::Unknown("an andon can be acknowledged, noted, released".into())),
        }
    };
    back(&to, treated.await)
}

/// Takes a change back before it lands.
pub async fn abandon(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, change)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let abandoned = async {
        let id: ChangeId = parse(&change)?;
        line.abandon(&*line.project(&name)?, &caller, id, field(&fields, "why")).await?;
        Ok(format!("{id} is taken back"))
    };
    back(&below(&name, &format!("changes/{change}")), abandoned.await)
}

/// Lets what a change makes of `andon.yaml` land.
pub async fn approve_definition(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, change)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let approved = async {
        let id: ChangeId = parse(&change)?;
        let project = line.project(&name)?;
        // What the page showed, and nothing newer.
        let read = Some(field(&fields, "patch_set")).filter(|text| !text.is_empty()).map(parse::<u32>);
        let why = field(&fields, "why");
        let patch_set = line.approve_definition(&project, &caller, (id, read.transpose()?), why).await?;
        Ok(format!("what patch set {patch_set} of {id} makes of andon.yaml is approved"))
    };
    back(&below(&name, &format!("changes/{change}")), approved.await)
}

/// Tests trunk again.
pub async fn test_trunk(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path(name): Path<String>,
) -> Response {
    let asked = async { line.test_trunk(&*line.project(&name)?, &caller).await };
    match asked.await {
        Ok(run) => back(&below(&name, &format!("runs/{}", run.0)), Ok(format!("{run} tests trunk as it is"))),
        Err(refusal) => back(&below(&name, "queue"), Err(refusal)),
    }
}

/// Makes a run once more.
pub async fn run_again(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, run)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let made = async {
        let fresh = !field(&fields, "fresh").is_empty();
        let again = Again { run: parse::<RunId>(&run)?, jobs: Vec::new(), fresh };
        line.run_again(&*line.project(&name)?, &caller, &again).await
    };
    match made.await {
        Ok(made) => {
            back(&below(&name, &format!("runs/{}", made.0)), Ok(format!("{made} tests it once more")))
        }
        Err(refusal) => back(&below(&name, &format!("runs/{run}")), Err(refusal)),
    }
}

/// Answers when a run asks people.
pub async fn answer(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, run, job, command)): Path<(String, String, String, String)>,
    fields: Fields,
) -> Response {
    let answered = async {
        let (yes, words) = match command.as_str() {
            "approve" => (true, "approved"),
            "refuse" => (false, "refused"),
            _ => return Err(Refusal::Unknown("it can be approved or refused".into())),
        };
        let about = (parse::<RunId>(&run)?, parse::<JobName>(&job)?);
        line.answer(&*line.project(&name)?, &caller, about, yes, field(&fields, "why")).await?;
        Ok(format!("{job} of run-{run} is {words}"))
    };
    back(&below(&name, &format!("runs/{run}")), answered.await)
}

/// Puts a test into quarantine.
pub async fn quarantine(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path(name): Path<String>,
    fields: Fields,
) -> Response {
    let begun = async {
        let (test, why) = (field(&fields, "test"), field(&fields, "why"));
        let (owner, lasts) = (given(&fields, "owner")?, parse::<Span>(field(&fields, "lasts"))?);
        line.quarantine(&*line.project(&name)?, &caller, test, owner, why, lasts).await
    };
    back(&below(&name, "tests"), begun.await)
}

/// Lets a test count again.
pub async fn end_quarantine(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path(name): Path<String>,
    fields: Fields,
) -> Response {
    let ended = async { line.end_quarantine(&*line.project(&name)?, &caller, field(&fields, "test")).await };
    back(&below(&name, "tests"), ended.await)
}

/// Makes a backup.
pub async fn back_up(State(line): State<Arc<Line>>, Who(caller): Who) -> Response {
    let made = line.back_up(&caller).await;
    back(
        "/recovery",
        made.map(|backup| format!("{} holds everything up to event {}", backup.name, backup.seq)),
    )
}

/// Holds a drill. It takes longer than a reader waits: it goes on by itself.
pub async fn drill(State(line): State<Arc<Line>>, Who(caller): Who) -> Response {
    let begun = caller.may(andon_model::event::Role::Owner).map(|()| {
        tokio::spawn(async move {
            if let Err(error) = line.drill(&caller).await {
                tracing::error!(%error, "the drill was not held");
            }
        });
        "a drill is being held; its result appears here".to_owned()
    });
    back("/recovery", begun)
}

/// An environment like another.
pub async fn create_environment(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path(name): Path<String>,
    fields: Fields,
) -> Response {
    let made = async {
        let wanted = NewEnvironment {
            name: given(&fields, "name")?,
            like: given(&fields, "like")?,
            lasts: given(&fields, "lasts")?,
            change: given(&fields, "change")?,
        };
        line.create_environment(&*line.project(&name)?, &caller, wanted).await
    };
    match made.await {
        Ok(made) => back(
            &below(&name, &format!("environments/{made}")),
            Ok(format!("the environment {made} is being created from code")),
        ),
        Err(refusal) => back(&below(&name, "environments"), Err(refusal)),
    }
}

/// A field that may be left empty.
fn given<T: FromStr<Err: std::fmt::Display>>(fields: &Fields, name: &str) -> Result<Option<T>, Refusal> {
    Some(field(fields, name)).filter(|text| !text.is_empty()).map(parse).transpose()
}

/// Keeps deployments out of an environment, or lets them in again where no reason is given.
pub async fn hold(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    on_environment(&line, &name, &environment, async |project, place| {
        let why = Some(field(&fields, "why")).filter(|why| !why.is_empty());
        let words = match why {
            Some(_) => format!("{place} takes no deployments"),
            None => format!("{place} takes deployments again"),
        };
        line.hold_environment(&project, &caller, place, why).await?;
        Ok(words)
    })
    .await
}

/// Another number of instances than code says.
pub async fn scale(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    on_environment(&line, &name, &environment, async |project, place| {
        let (service, replicas): (ServiceName, Option<u32>) =
            (parse(field(&fields, "service"))?, given(&fields, "replicas")?);
        let words = match replicas {
            Some(replicas) => format!("{service} is to run {replicas} times"),
            None => format!("{service} is to run as often as code says"),
        };
        line.scale(&project, &caller, place, service, replicas).await?;
        Ok(words)
    })
    .await
}

/// A form on the page of an environment: what it does, and what it says when it is done.
async fn on_environment<F>(line: &Line, name: &str, environment: &str, act: F) -> Response
where
    F: AsyncFnOnce(Arc<Project>, EnvironmentName) -> Result<String, Refusal>,
{
    let done = async { act(line.project(name)?, parse(environment)?).await };
    back(&below(name, &format!("environments/{environment}")), done.await)
}

/// Ends an environment.
pub async fn destroy(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let ended = async {
        let place: EnvironmentName = parse(&environment)?;
        line.destroy_environment(&*line.project(&name)?, &caller, place, false, field(&fields, "why")).await
    };
    match ended.await {
        Ok(()) => {
            back(&below(&name, "environments"), Ok(format!("the environment {environment} is destroyed")))
        }
        Err(refusal) => back(&below(&name, &format!("environments/{environment}")), Err(refusal)),
    }
}

/// Approves a plan that ends something.
pub async fn approve_infrastructure(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment, run)): Path<(String, String, String)>,
    fields: Fields,
) -> Response {
    let approved = async {
        let (run, typed) = (parse::<InfraRunId>(&run)?, field(&fields, "environment"));
        let project = line.project(&name)?;
        let missing =
            line.approve_infrastructure(&project, &caller, run, typed, field(&fields, "why")).await?;
        Ok(match missing {
            0 => format!("{run} is applied now"),
            missing => format!("{run} waits for {missing} more"),
        })
    };
    back(&below(&name, &format!("environments/{environment}/infrastructure")), approved.await)
}

/// Asks a run of the infrastructure tool to save and end.
pub async fn stop_infrastructure(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment, run)): Path<(String, String, String)>,
) -> Response {
    let stopped = async {
        let run = parse::<InfraRunId>(&run)?;
        line.stop_infrastructure(&*line.project(&name)?, &caller, run).await?;
        Ok(format!("{run} is being stopped"))
    };
    back(&below(&name, &format!("environments/{environment}/infrastructure")), stopped.await)
}

/// Takes what a run left off the display.
pub async fn forget_lost(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let forgotten = async {
        let (place, address) = (parse::<EnvironmentName>(&environment)?, field(&fields, "address"));
        let project = line.project(&name)?;
        line.forget_lost(&project, &caller, &place, address, field(&fields, "why")).await?;
        Ok(format!("{address} is not shown any more"))
    };
    back(&below(&name, &format!("environments/{environment}/infrastructure")), forgotten.await)
}

/// Makes an environment anew from code.
pub async fn rebuild(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    on_environment(&line, &name, &environment, async |project, place| {
        let words = format!("the environment {place} is being rebuilt from code");
        line.destroy_environment(&project, &caller, place, true, field(&fields, "why")).await?;
        Ok(words)
    })
    .await
}

/// Moves the end of an environment.
pub async fn extend(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    on_environment(&line, &name, &environment, async |project, place| {
        let lasts: Span = parse(field(&fields, "lasts"))?;
        let words = format!("the environment {place} ends in {lasts}");
        line.extend_environment(&project, &caller, place, lasts).await?;
        Ok(words)
    })
    .await
}

/// Puts the newest artifact, or that of a change, beside what serves.
pub async fn deploy(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    on_environment(&line, &name, &environment, async |project, place| {
        let change = Some(field(&fields, "change"))
            .filter(|text| !text.is_empty())
            .map(parse::<ChangeId>)
            .transpose()?;
        let id = line.deploy(&project, &caller, place, change).await?;
        Ok(format!("{id} starts beside what serves; no user is moved by it"))
    })
    .await
}

/// Back to the revision before.
pub async fn roll_back(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, environment)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    let back_again = async {
        let place: EnvironmentName = parse(&environment)?;
        let service =
            Some(field(&fields, "service")).filter(|text| !text.is_empty()).map(parse).transpose()?;
        line.roll_back(&*line.project(&name)?, &caller, &place, service.as_ref()).await
    };
    match back_again.await {
        Ok(id) => back(
            &below(&name, &format!("releases/{}", id.0)),
            Ok(format!("{id} brings the revision before back")),
        ),
        Err(refusal) => back(&below(&name, &format!("environments/{environment}")), Err(refusal)),
    }
}

/// Moves a release.
pub async fn move_release(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, number, command)): Path<(String, String, String)>,
    fields: Fields,
) -> Response {
    use release::Command;
    let moved = async {
        let id: ReleaseId = parse(&number)?;
        let (command, words) = match command.as_str() {
            "promote" => (Command::Promote, format!("{id} goes on")),
            "pause" => (Command::Pause, format!("{id} stands still")),
            "resume" => (Command::Resume, format!("{id} goes on")),
            "approve" => (Command::Approve, format!("{id} is approved")),
            "abort" => (Command::Abort, format!("{id} is taken back: everyone is on the revision before")),
            _ => {
                return Err(Refusal::Unknown(
                    "a release can be promoted, paused, resumed, approved, taken back".into(),
                ));
            }
        };
        line.move_release(&*line.project(&name)?, &caller, id, command, field(&fields, "why")).await?;
        Ok(words)
    };
    back(&below(&name, &format!("releases/{number}")), moved.await)
}

/// Changes a flag.
pub async fn flag(
    State(line): State<Arc<Line>>,
    Who(caller): Who,
    Path((name, command)): Path<(String, String)>,
    fields: Fields,
) -> Response {
    use flags::Command;
    let changed = async {
        let group = || field(&fields, "group").to_owned();
        let command = match command.as_str() {
            "create" => Command::Create,
            "remove" => Command::Remove,
            "on" => Command::Switch(true),
            "off" => Command::Switch(false),
            "ramp" => Command::Ramp(parse(field(&fields, "percent"))?),
            "open-to" => Command::OpenTo(group()),
            "close-to" => Command::CloseTo(group()),
            "kill" => Command::Kill(field(&fields, "why").to_owned()),
            "restore" => Command::Restore,
            _ => {
                return Err(Refusal::Unknown(
                    "a flag can be created, removed, on, off, ramped, opened, closed, killed, restored"
                        .into(),
                ));
            }
        };
        line.flag(&*line.project(&name)?, &caller, field(&fields, "key"), command).await
    };
    back(&below(&name, "flags"), changed.await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_never_leads_to_another_site() {
        for (project, rest) in
            [("/evil.example", "x"), ("\\evil", "x"), ("a\r\nb", "andons/1\r\nSet-Cookie: x")]
        {
            let to = below(project, rest);
            assert!(
                to.starts_with('/') && !to.starts_with("//") && !to.contains(['\\', '\r', '\n', ':', '.']),
                "{to:?}"
            );
        }
    }
}

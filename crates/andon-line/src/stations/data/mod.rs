//! Databases of environments: made before the instances that need them, migrated, dropped with their environment, and templates refreshed.
//! What is due is decided in andon-environment, PostgreSQL is driven by andon-data; `commands` is what people ask.
//!
//! A password is derived from this data directory's key: it is kept nowhere and told to nobody but the instances.

mod commands;
mod drill;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use andon_data::{DataError, Label, Refresh, Server, Use, Wanted};
use andon_environment::data::migration::{self, Entry, Migration};
use andon_environment::data::{self, Due};
use andon_model::event::{
    Actor, DataMigrated, DataWanted, Event, MigrationRan, Phase, PlannedService, TemplateSealed,
};
use andon_model::{DatabaseName, DeploymentId, EnvironmentName, Oid, Span, Time};
use tokio_util::sync::CancellationToken;

use super::Pulse;
use crate::intake::plain;
use crate::{Line, Project, Refusal};

/// The station's name in the journal.
const STATION: &str = "data";
/// Between two looks at what is due.
const QUIET: Duration = Duration::from_secs(1);
/// Between two looks for databases that no journal knows.
const SWEEP: Span = Span::secs(60);
/// How long a deployment waits for a PostgreSQL that does not answer.
const PATIENCE: Span = Span::secs(60);
/// The most migrations of one database.
const MOST: usize = 10_000;
/// The environment that no sweep touches: a journal that was set back may not know it yet.
const PRODUCTION: &str = "production";

/// The administrator's address of a PostgreSQL server. Shows nothing of itself.
#[derive(Clone)]
pub struct Address(pub String);

impl Address {
    /// Whether it can be reached from the server's own host only.
    pub fn is_here(&self) -> bool {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        let local = ["127.", "localhost", "[::1]"];
        // Without a host, or with a path as one, it is a socket in the file system.
        host.is_empty() || host.starts_with("%2F") || local.iter().any(|name| host.starts_with(name))
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address")
    }
}

/// What this process is doing right now.
#[derive(Default)]
struct Hands {
    on: Mutex<BTreeSet<String>>,
    swept: Mutex<Option<Time>>,
}

pub(super) async fn run(line: Arc<Line>, project: Arc<Project>, stop: CancellationToken) {
    let mut pulse = Pulse::new(&line, &project, stop.clone(), QUIET);
    let hands = Arc::new(Hands::default());
    loop {
        let done = step(&line, &project, &hands, &stop).await;
        if !pulse.beat(done, STATION).await {
            return;
        }
    }
}

async fn step(
    line: &Arc<Line>,
    project: &Arc<Project>,
    hands: &Arc<Hands>,
    stop: &CancellationToken,
) -> Result<(), Refusal> {
    let due = {
        let state = project.state();
        let warm = super::environment::keep_warm(&state, line.now());
        data::due(&state.estate, &warm.into_iter().map(|(environment, _)| environment).collect())
    };
    for due in due {
        let key = match &due {
            // One at a time in an environment.
            Due::Drop(environment, _) => environment.to_string(),
            Due::Migrate(id, _) => match project.state().estate.deployments.get(id) {
                Some(deployment) => deployment.environment.to_string(),
                None => continue,
            },
            Due::Refresh(database, _) => format!("/{database}"),
        };
        if !hands.on.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            continue;
        }
        let (line, project, hands, stop) = (line.clone(), project.clone(), hands.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                done = act(&line, &project, due) => if let Err(error) = done {
                    tracing::error!(project = %project.name, %error, "work on a database could not go on, it is tried again");
                    tokio::time::sleep(super::AFTER_ERROR).await;
                },
            }
            hands.on.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        });
    }
    sweep(line, project, hands).await
}

async fn act(line: &Line, project: &Project, due: Due) -> Result<(), Refusal> {
    match due {
        Due::Drop(environment, database) => {
            let place = (environment.clone(), database.clone());
            let name = project.state().estate.data.databases.get(&place).map(|found| found.name.clone());
            let Some(name) = name else { return Ok(()) };
            line.postgres()?.drop(&name).await?;
            line.tell(project, STATION, vec![Event::DatabaseDropped { environment, database }]).await
        }
        Due::Migrate(deployment, phase) => migrate(line, project, deployment, phase).await,
        Due::Refresh(database, from) => refresh(line, project, database, from).await,
    }
}

/// Drops what carries our mark and is in no journal: clones of environments that are not there, templates that were replaced or never sealed.
async fn sweep(line: &Line, project: &Project, hands: &Hands) -> Result<(), Refusal> {
    let Some(server) = &line.data else { return Ok(()) };
    let now = line.now();
    {
        let mut swept = hands.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_some_and(|last| now.since(last) < SWEEP) {
            return Ok(());
        }
        *swept = Some(now);
    }
    for (name, label) in server.labelled().await? {
        if label.project == project.name && astray(project, &name, &label) {
            tracing::warn!(%name, "a database is in no journal and is dropped");
            if let Err(error) = server.drop(&name).await {
                tracing::warn!(%name, %error, "it could not be dropped, it is tried again");
            }
        }
    }
    Ok(())
}

fn astray(project: &Project, name: &str, label: &Label) -> bool {
    let state = project.state();
    let data = &state.estate.data;
    match &label.of {
        Use::Environment(environment) => {
            let lives = state.estate.environments.contains_key(environment);
            let known = data.databases.values().any(|database| database.name == name);
            !lives && !known && environment.as_str() != PRODUCTION
        }
        // Whoever holds the drill drops them.
        Use::Drill(_) => false,
        Use::Template(_) => data.templates.get(&label.database).is_none_or(|template| {
            let sealed = template.sealed.as_ref().is_some_and(|(sealed, _)| sealed.name == name);
            !sealed && template.asked.is_none()
        }),
    }
}

/// Takes a deployment's databases through one phase and records how it went.
async fn migrate(line: &Line, project: &Project, id: DeploymentId, phase: Phase) -> Result<(), Refusal> {
    let (wanted, started) = {
        let estate = &project.state().estate;
        let started = estate.deployments.get(&id).map(|deployment| deployment.started);
        match (estate.data.wanted.get(&id).cloned(), started) {
            (Some(wanted), Some(started)) => (wanted, started),
            _ => return Ok(()),
        }
    };
    let done = prepare(line, project, &wanted, phase).await;
    let (ok, why, schema) = match done {
        Ok(schema) => (true, String::new(), schema),
        // What has time is tried again.
        Err(Failed::Server(DataError::Connect(why)))
            if phase == Phase::Contract || line.now().since(started) < PATIENCE =>
        {
            return Err(Refusal::Broken(DataError::Connect(why).to_string()));
        }
        Err(Failed::Server(error)) => (false, error.to_string(), BTreeMap::new()),
        Err(Failed::Line(refusal)) => return Err(refusal),
        Err(Failed::None(why)) => (false, why, BTreeMap::new()),
    };
    let (environment, why) = (wanted.environment, plain(&why));
    let event = DataMigrated { deployment: id, environment, phase, ok, why, schema };
    line.tell(project, STATION, vec![Event::DataMigrated(event)]).await
}

/// Why a phase came to nothing: by PostgreSQL or the files, by ourselves, or because there is no PostgreSQL.
enum Failed {
    Server(DataError),
    Line(Refusal),
    None(String),
}

impl From<DataError> for Failed {
    fn from(error: DataError) -> Failed {
        Failed::Server(error)
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Failed {
        Failed::Line(refusal)
    }
}

async fn prepare(
    line: &Line,
    project: &Project,
    wanted: &DataWanted,
    phase: Phase,
) -> Result<BTreeMap<DatabaseName, andon_model::Digest>, Failed> {
    let server = line.postgres().map_err(|refusal| Failed::None(refusal.to_string()))?;
    let mut schema = BTreeMap::new();
    for (database, folder) in &wanted.databases {
        let environment = &wanted.environment;
        let password = line.database_password(project, environment, database);
        let place = (environment.clone(), database.clone());
        let (known, template, unused) = {
            let estate = &project.state().estate;
            let known = estate.data.databases.get(&place).cloned();
            let template = match &known {
                Some(known) => known.template.clone(),
                None => estate.data.template_for(environment, database).map(str::to_owned),
            };
            let serving = estate.environments.get(environment).map(|e| e.serving.is_empty());
            (known, template, serving.unwrap_or(false))
        };
        let name = match &known {
            Some(known) => known.name.clone(),
            None => {
                let wanted = Wanted {
                    project: &project.name,
                    environment,
                    database,
                    password: &password,
                    template: template.as_deref(),
                };
                let name = server.make(&wanted).await?;
                let made = Event::DatabaseMade {
                    environment: environment.clone(),
                    database: database.clone(),
                    name: name.clone(),
                    template,
                };
                line.tell(project, STATION, vec![made]).await?;
                name
            }
        };
        let files = match folder {
            Some(folder) => files(project, &wanted.commit, folder).await?,
            None => Vec::new(),
        };
        if folder.is_some() {
            let (ledger, done) = server.migrate(&name, &password, &files, phase, unused).await;
            record(line, project, wanted, database, ledger).await?;
            done?;
        }
        schema.insert(database.clone(), server.shape(&name).await?);
    }
    Ok(schema)
}

/// Records what is in the ledger and not yet in the journal: also what ran just before a server was killed.
async fn record(
    line: &Line,
    project: &Project,
    wanted: &DataWanted,
    database: &DatabaseName,
    ledger: Vec<Entry>,
) -> Result<(), Refusal> {
    let place = (wanted.environment.clone(), database.clone());
    line.decide(project, Actor::line(STATION), |state, _| {
        let known = state.estate.data.databases.get(&place);
        let known: BTreeSet<&str> =
            known.into_iter().flat_map(|known| &known.ran).map(|ran| ran.name.as_str()).collect();
        let new = ledger.into_iter().filter(|entry| !known.contains(entry.name.as_str()));
        let ran = new.map(|entry| MigrationRan {
            deployment: wanted.deployment,
            environment: wanted.environment.clone(),
            database: database.clone(),
            name: plain(&entry.name),
            phase: entry.phase,
            checksum: entry.checksum,
            took: Span(entry.took),
        });
        Ok((ran.map(Event::MigrationRan).collect(), ()))
    })
    .await
}

/// The migrations of a commit.
async fn files(project: &Project, commit: &Oid, folder: &str) -> Result<Vec<Migration>, Failed> {
    let refused = |why: String| Failed::Server(DataError::Rules(why));
    let broken = |error: andon_git::GitError| Failed::Line(error.into());
    let Some(names) = project.repository.names(commit, folder).await.map_err(broken)? else {
        return Err(refused(format!("its commit has no folder {folder} of migrations")));
    };
    let names: Vec<String> = names.into_iter().filter(|name| name.ends_with(".sql")).collect();
    if names.len() > MOST {
        return Err(refused(format!("{folder} holds more than {MOST} migrations")));
    }
    let mut files = Vec::new();
    for name in names {
        let path = format!("{folder}/{name}");
        let text = project.repository.file(commit, &path, migration::LARGEST).await;
        let text = text.map_err(|error| refused(error.to_string()))?.unwrap_or_default();
        files.push(migration::read(&name, &text).map_err(|error| refused(error.to_string()))?);
    }
    Ok(files)
}

/// Copies, masks and seals; records the template or why there is none.
async fn refresh(
    line: &Line,
    project: &Project,
    database: DatabaseName,
    from: EnvironmentName,
) -> Result<(), Refusal> {
    let began = line.now();
    let made = template(line, project, &database, &from, began).await;
    let event = match made {
        Ok(name) => {
            let took = line.now().since(began);
            Event::TemplateSealed(TemplateSealed { database, from, name, took })
        }
        Err(Failed::Line(refusal)) => return Err(refusal),
        Err(Failed::Server(error)) => Event::RefreshFailed { database, why: plain(&error.to_string()) },
        Err(Failed::None(why)) => Event::RefreshFailed { database, why: plain(&why) },
    };
    line.tell(project, STATION, vec![event]).await
}

async fn template(
    line: &Line,
    project: &Project,
    database: &DatabaseName,
    from: &EnvironmentName,
    began: Time,
) -> Result<String, Failed> {
    let server = line.postgres().map_err(|refusal| Failed::None(refusal.to_string()))?;
    let none = |why: &str| Failed::None(why.to_owned());
    let defined = project.trunk_definition().await?;
    let Some(Ok(definition)) = defined.as_deref() else {
        return Err(none("trunk has no andon.yaml that can be read"));
    };
    let mask = definition.databases.get(database).and_then(|found| found.mask.clone());
    let mask = mask.ok_or_else(|| none("andon.yaml names no mask file for it"))?;
    let (source, commit) = {
        let state = project.state();
        let place = (from.clone(), database.clone());
        let source = state.estate.data.databases.get(&place).map(|found| found.name.clone());
        (source, state.queue.trunk.clone())
    };
    let (Some(source), Some(commit)) = (source, commit) else {
        return Err(none("the database to copy is not there any more"));
    };
    let text =
        project.repository.file(&commit, &mask, 1 << 20).await.map_err(|error| Failed::Line(error.into()))?;
    let text = text.ok_or_else(|| Failed::None(format!("trunk has no file {mask}")))?;
    let rules = andon_data::rules(&text)?;
    // Of the project and not of an environment: the same value is masked alike in every copy.
    let key = line.vault.derive(&format!("mask {}", project.name));
    let at = u64::try_from(began.0).unwrap_or(0);
    let refresh = Refresh { project: &project.name, database, from: &source, rules: &rules, key: &key, at };
    Ok(server.refresh(&refresh).await?)
}

impl From<DataError> for Refusal {
    fn from(error: DataError) -> Refusal {
        Refusal::Broken(error.to_string())
    }
}

impl Line {
    /// The PostgreSQL server, if this server was given one.
    pub(crate) fn postgres(&self) -> Result<&Server, Refusal> {
        self.data.as_ref().ok_or_else(|| {
            Refusal::Conflict(
                "this server has no PostgreSQL\nhint: start it with --postgres postgresql://USER:PASSWORD@HOST:PORT/postgres"
                    .into(),
            )
        })
    }

    fn database_password(
        &self,
        project: &Project,
        environment: &EnvironmentName,
        database: &DatabaseName,
    ) -> String {
        let whole = self.vault.derive(&format!("database {} {environment} {database}", project.name));
        whole.chars().take(40).collect()
    }

    /// What a service's instances are told of its databases.
    pub(crate) fn database_env(
        &self,
        project: &Project,
        environment: &EnvironmentName,
        service: &PlannedService,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut env = BTreeMap::new();
        for database in &service.databases {
            let place = (environment.clone(), database.clone());
            let name = project.state().estate.data.databases.get(&place).map(|found| found.name.clone());
            let name = name.ok_or_else(|| format!("its database {database} is not there"))?;
            let server = self.postgres().map_err(|refusal| refusal.to_string())?;
            let url = server.url(&name, &self.database_password(project, environment, database));
            if service.databases.len() == 1 {
                env.insert("DATABASE_URL".into(), url.clone());
            }
            env.insert(format!("{}_URL", database.as_str().to_uppercase().replace('-', "_")), url);
        }
        Ok(env)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_on_loopback_or_a_socket_is_here_and_no_other_is() {
        let is_here = |address: &str| Address(address.to_owned()).is_here();
        for here in [
            "postgresql://u:p@127.0.0.1:5432/postgres",
            "postgresql://u@localhost/x",
            "postgresql:///x",
            "postgresql://u:p@[::1]:5432/x",
            "postgresql://u@%2Fvar%2Frun/x",
        ] {
            assert!(is_here(here), "{here}");
        }
        for there in ["postgresql://u:p%40@10.0.0.5:5432/postgres", "postgresql://u:127.0.0.1@db.example/x"] {
            assert!(!is_here(there), "{there}");
        }
    }
}

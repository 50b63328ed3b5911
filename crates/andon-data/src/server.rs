//! Databases and their roles: made, dropped, listed. Every step can be done again: what a killed server left half done is completed or found.

use std::time::Duration;

use andon_model::{DatabaseName, EnvironmentName, ProjectName};
use postgres_protocol::password;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use crate::label::{Label, Use, name};
use crate::{DataError, said_by};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// A PostgreSQL server, spoken to by an administrator.
#[derive(Clone)]
pub struct Server {
    admin: Config,
    /// Marks what is ours.
    id: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A database that is to be there.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Of this project.
    pub project: &'a ProjectName,
    /// In this environment.
    pub environment: &'a EnvironmentName,
    /// Which.
    pub database: &'a DatabaseName,
    /// Its role's; hexadecimal digits.
    pub password: &'a str,
    /// Cloned from this one.
    pub template: Option<&'a str>,
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

impl Server {
    /// The server at this address, as `postgresql://USER:PASSWORD@HOST:PORT/postgres`. `id` tells what is ours from what is others'.
    pub fn new(address: &str, id: &str) -> Result<Server, DataError> {
        let mut admin: Config = address.parse().map_err(|error: tokio_postgres::Error| {
            // The error's source may hold the password.
            DataError::Address(error.to_string())
        })?;
        if admin.get_hosts().is_empty() {
            return Err(DataError::Address("it names no host".into()));
        }
        admin.connect_timeout(CONNECT).application_name("andon");
        Ok(Server { admin, id: id.to_owned() })
    }

    /// Where a role reaches a database of its name, in the form that drivers read.
    pub fn url(&self, name: &str, password: &str) -> String {
        let port = self.admin.get_ports().first().copied().unwrap_or(5432);
        match self.admin.get_hosts().first() {
            Some(Host::Unix(path)) => {
                format!("postgresql://{name}:{password}@/{name}?host={}&port={port}", path.display())
            }
            Some(Host::Tcp(host)) if host.contains(':') => {
                format!("postgresql://{name}:{password}@[{host}]:{port}/{name}")
            }
            Some(Host::Tcp(host)) => format!("postgresql://{name}:{password}@{host}:{port}/{name}"),
            None => String::new(),
        }
    }

    /// The administrator's settings, for tools that read them from their environment: variable and value.
    pub(crate) fn tool_env(&self) -> Vec<(&'static str, String)> {
        let mut env = Vec::new();
        match self.admin.get_hosts().first() {
            Some(Host::Unix(path)) => env.push(("PGHOST", path.display().to_string())),
            Some(Host::Tcp(host)) => env.push(("PGHOST", host.clone())),
            None => {}
        }
        env.push(("PGPORT", self.admin.get_ports().first().copied().unwrap_or(5432).to_string()));
        env.extend(self.admin.get_user().map(|user| ("PGUSER", user.to_owned())));
        let password = self.admin.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        env.extend(password.map(|password| ("PGPASSWORD", password)));
        env
    }

    pub(crate) async fn connect(config: &Config) -> Result<Client, DataError> {
        let (client, connection) = config.connect(NoTls).await?;
        // Ends with the client.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        Ok(client)
    }

    /// An administrator's session.
    pub(crate) async fn admin(&self, database: Option<&str>) -> Result<Client, DataError> {
        let mut config = self.admin.clone();
        if let Some(database) = database {
            config.dbname(database);
        }
        Self::connect(&config).await
    }

    /// A session of a database's own role.
    pub(crate) async fn owner(&self, name: &str, password: &str) -> Result<Client, DataError> {
        let mut config = self.admin.clone();
        config.dbname(name).user(name).password(password);
        Self::connect(&config).await
    }

    /// Which database that is, whether it is there or not.
    pub fn label(&self, project: &ProjectName, database: &DatabaseName, of: Use) -> Label {
        Label { andon: self.id.clone(), project: project.clone(), database: database.clone(), of }
    }

    /// Makes a database with a role of its own, or completes it. Returns its name.
    pub async fn make(&self, wanted: &Wanted<'_>) -> Result<String, DataError> {
        self.make_as(wanted, Use::Environment(wanted.environment.clone())).await
    }

    /// The same for a drill: beside the environment's own, under another name.
    pub async fn make_for_drill(&self, wanted: &Wanted<'_>) -> Result<String, DataError> {
        self.make_as(wanted, Use::Drill(wanted.environment.clone())).await
    }

    async fn make_as(&self, wanted: &Wanted<'_>, of: Use) -> Result<String, DataError> {
        let label = self.label(wanted.project, wanted.database, of);
        let name = name(wanted.project, &label.of, wanted.database);
        let mut admin = self.admin(None).await?;
        self.role(&mut admin, &name, &label, Some(wanted.password)).await?;
        let there = admin.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name]).await?;
        if there.is_none() {
            let template =
                wanted.template.map(|from| format!(" TEMPLATE {}", quoted(from))).unwrap_or_default();
            let make = format!("CREATE DATABASE {0} OWNER {0}{template}", quoted(&name));
            admin.batch_execute(&make).await?;
        }
        admin.batch_execute(&format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", quoted(&name))).await?;
        if let Some(template) = wanted.template {
            // What the template's role owns in here becomes the environment's own.
            let inside = self.admin(Some(&name)).await?;
            let hand_over = format!("REASSIGN OWNED BY {} TO {}", quoted(template), quoted(&name));
            inside.batch_execute(&hand_over).await?;
        }
        Ok(name)
    }

    /// A role with its mark, in one transaction. Without a password nobody logs in as it.
    pub(crate) async fn role(
        &self,
        admin: &mut Client,
        name: &str,
        label: &Label,
        password: Option<&str>,
    ) -> Result<(), DataError> {
        let known = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1";
        let found = admin.query_opt(known, &[&name]).await?;
        let verifier = password.map(|clear| password::scram_sha_256(clear.as_bytes()));
        let login = verifier.map_or("NOLOGIN".to_owned(), |v| format!("LOGIN PASSWORD {}", literal(&v)));
        match found {
            Some(row) => {
                let comment: Option<String> = row.get(0);
                let ours = comment.and_then(|text| serde_json::from_str::<Label>(&text).ok());
                if ours.as_ref() != Some(label) {
                    return Err(DataError::Foreign(name.to_owned()));
                }
                admin.batch_execute(&format!("ALTER ROLE {} {login}", quoted(name))).await?;
            }
            None => {
                let comment = serde_json::to_string(label).unwrap_or_default();
                let made = admin.transaction().await?;
                made.batch_execute(&format!(
                    "CREATE ROLE {0} {login}; COMMENT ON ROLE {0} IS {1}",
                    quoted(name),
                    literal(&comment)
                ))
                .await?;
                made.commit().await?;
            }
        }
        Ok(())
    }

    /// Drops a database and its role, whoever is connected. What is not there is no error; what is not ours is.
    pub async fn drop(&self, name: &str) -> Result<(), DataError> {
        let admin = self.admin(None).await?;
        let known = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1";
        let Some(row) = admin.query_opt(known, &[&name]).await? else { return Ok(()) };
        let comment: Option<String> = row.get(0);
        let label = comment.and_then(|text| serde_json::from_str::<Label>(&text).ok());
        if label.is_none_or(|label| label.andon != self.id) {
            return Err(DataError::Foreign(name.to_owned()));
        }
        let name = quoted(name);
        let sealed =
            "SELECT 1 FROM pg_database WHERE quote_ident(datname) = quote_ident($1) AND datistemplate";
        if admin.query_opt(sealed, &[&name.trim_matches('"')]).await?.is_some() {
            admin.batch_execute(&format!("ALTER DATABASE {name} IS_TEMPLATE false")).await?;
        }
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        admin.batch_execute(&format!("DROP ROLE IF EXISTS {name}")).await?;
        Ok(())
    }

    /// Everything that carries this server's mark: name and what it is for.
    pub async fn labelled(&self) -> Result<Vec<(String, Label)>, DataError> {
        let admin = self.admin(None).await?;
        let all = "SELECT rolname::text, shobj_description(oid, 'pg_authid') FROM pg_roles \
                   WHERE rolname LIKE 'andon\\_%'";
        let rows = admin.query(all, &[]).await?;
        let ours = |row: &tokio_postgres::Row| {
            let label: Label = serde_json::from_str(&row.get::<_, Option<String>>(1)?).ok()?;
            (label.andon == self.id).then(|| (row.get(0), label))
        };
        Ok(rows.iter().filter_map(ours).collect())
    }

    /// Bytes on disk.
    pub async fn size(&self, name: &str) -> Result<u64, DataError> {
        let admin = self.admin(None).await?;
        let row = admin.query_one("SELECT pg_database_size($1::text::name)", &[&name]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }
}

/// An error of a statement as a migration's.
pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), said_by)
}

//! Templates: a database copied by `pg_dump` and `pg_restore`, masked once, sealed. Until it is sealed it is nobody's template, and what a
//! killed server left of it is found by its mark.

use std::process::Stdio;

use andon_environment::data::mask::{self, Column, Rules};
use andon_model::{DatabaseName, ProjectName};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::label::{Use, name};
use crate::server::quoted;
use crate::{DataError, Server};

/// The largest mask file, in bytes.
const LARGEST: usize = 1 << 20;
/// Bytes of a tool's complaint that are told.
const WORDS: u64 = 2000;

/// Every column of every table, without the ledger and without partitions, which go with their table.
const COLUMNS: &str = "SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
       NOT a.attnotnull, a.attgenerated <> ''
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'andon') AND n.nspname NOT LIKE 'pg\\_%'
 ORDER BY 1, 2, a.attnum";

/// A template that is to be made.
#[derive(Debug, Clone)]
pub struct Refresh<'a> {
    /// Of this project.
    pub project: &'a ProjectName,
    /// Of which of its databases.
    pub database: &'a DatabaseName,
    /// The database that is copied.
    pub from: &'a str,
    /// What becomes of its columns.
    pub rules: &'a Rules,
    /// Nobody without it can try values out.
    pub key: &'a str,
    /// When it begins, in milliseconds: part of its name.
    pub at: u64,
}

/// The rules in the text of a mask file.
pub fn rules(text: &str) -> Result<Rules, DataError> {
    if text.len() > LARGEST {
        return Err(DataError::Rules(format!("the mask file is larger than {LARGEST} bytes")));
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet().to_string();
        let first = error.lines().next().unwrap_or_default();
        let hint = "tables: { users: { id: keep, email: email }, sessions: truncate }";
        DataError::Rules(format!("the mask file cannot be read: {first}\nhint: write it like {hint}"))
    })
}

impl Server {
    /// Copies, masks and seals. Returns the template's name. Rules that do not fit are told before anything is copied.
    pub async fn refresh(&self, refresh: &Refresh<'_>) -> Result<String, DataError> {
        let source = self.admin(Some(refresh.from)).await?;
        mask::plan(refresh.rules, &columns(&source).await?)
            .map_err(|why| DataError::Rules(why.to_string()))?;
        drop(source);
        let of = Use::Template(refresh.at);
        let template = name(refresh.project, &of, refresh.database);
        let made = self.copy(refresh, of, &template).await;
        if made.is_err()
            && let Err(error) = self.drop(&template).await
        {
            tracing::warn!(%error, %template, "what is left of a copy could not be dropped, the sweep tries again");
        }
        made.map(|()| template)
    }

    async fn copy(&self, refresh: &Refresh<'_>, of: Use, template: &str) -> Result<(), DataError> {
        let mut admin = self.admin(None).await?;
        let label = self.label(refresh.project, refresh.database, of);
        self.role(&mut admin, template, &label, None).await?;
        let name = quoted(template);
        // The administrator's: handing over what the role owns in a clone must not take the template along.
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
        admin
            .batch_execute(&format!(
                "REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CREATE ON DATABASE {name} TO {name}"
            ))
            .await?;
        let inside = self.admin(Some(template)).await?;
        inside.batch_execute(&format!("GRANT ALL ON SCHEMA public TO {name}")).await?;
        self.pour(refresh.from, template).await?;
        // Asked again of the copy: what is masked is what was copied.
        let columns = columns(&inside).await?;
        let statements =
            mask::plan(refresh.rules, &columns).map_err(|why| DataError::Rules(why.to_string()))?;
        // No trigger acts on what is masked, and nothing of it is written to the database's own log.
        inside.batch_execute("SET log_statement = 'none'; SET log_min_error_statement = 'panic'; SET log_min_duration_statement = -1; SET session_replication_role = replica").await?;
        inside.execute("SELECT set_config('andon.mask_key', $1, false)", &[&refresh.key]).await?;
        for statement in &statements {
            inside.batch_execute(statement).await?;
        }
        let views =
            "SELECT format('REFRESH MATERIALIZED VIEW %I.%I', schemaname, matviewname) FROM pg_matviews";
        for row in inside.query(views, &[]).await? {
            inside.batch_execute(row.get(0)).await?;
        }
        // Rows as they were before lie in the files and in the statistics until they are written anew.
        inside.batch_execute("VACUUM (FULL, ANALYZE)").await?;
        drop(inside);
        let seal = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false IS_TEMPLATE true");
        admin.batch_execute(&seal).await?;
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()";
        admin.execute(others, &[&template]).await?;
        Ok(())
    }

    /// `pg_dump | pg_restore`: everything but large objects, rights and what belongs to replication.
    async fn pour(&self, from: &str, into: &str) -> Result<(), DataError> {
        let wrong = |tool: &str, error: std::io::Error| {
            DataError::Tool(format!(
                "{tool} cannot be run: {error}\nhint: install PostgreSQL's client programs"
            ))
        };
        let command = |program: &str| {
            let mut command = Command::new(program);
            command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
            command.envs(self.tool_env()).kill_on_drop(true).stderr(Stdio::piped());
            command
        };
        let dump = [
            "--format=custom",
            "--compress=0",
            "--no-owner",
            "--no-acl",
            "--no-blobs",
            "--no-publications",
            "--no-subscriptions",
            "--dbname",
            from,
        ];
        let mut dump = command("pg_dump")
            .args(dump)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| wrong("pg_dump", error))?;
        let mut rows = dump.stdout.take().ok_or_else(|| DataError::Tool("pg_dump has no output".into()))?;
        let restore = ["--no-owner", "--no-acl", "--exit-on-error", "--role", into, "--dbname", into];
        let mut restore = command("pg_restore")
            .args(restore)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| wrong("pg_restore", error))?;
        let mut sink =
            restore.stdin.take().ok_or_else(|| DataError::Tool("pg_restore has no input".into()))?;
        let words = [dump.stderr.take(), restore.stderr.take()];
        let [dump_words, restore_words] = words.map(|words| tokio::spawn(last_words(words)));
        let poured = tokio::io::copy(&mut rows, &mut sink).await;
        drop(sink);
        let ended = (dump.wait().await, restore.wait().await);
        let failed = |tool: &str, words: String| {
            Err(DataError::Tool(format!(
                "{tool} failed: {}",
                words.lines().next().unwrap_or("it said nothing")
            )))
        };
        match ended {
            (Ok(dumped), _) if !dumped.success() && poured.is_ok() => {
                failed("pg_dump", dump_words.await.unwrap_or_default())
            }
            (_, Ok(restored)) if !restored.success() => {
                failed("pg_restore", restore_words.await.unwrap_or_default())
            }
            (Ok(_), Ok(_)) => poured.map(drop).map_err(|error| wrong("pg_restore", error)),
            (Err(error), _) | (_, Err(error)) => Err(wrong("pg_dump", error)),
        }
    }
}

/// The beginning of what a tool complains of. It is read to the end, so that the tool never waits for us.
async fn last_words(stderr: Option<tokio::process::ChildStderr>) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let mut words = Vec::new();
    let _ = (&mut stderr).take(WORDS).read_to_end(&mut words).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&words).into_owned()
}

async fn columns(session: &tokio_postgres::Client) -> Result<Vec<Column>, DataError> {
    let rows = session.query(COLUMNS, &[]).await?;
    let column = |row: &tokio_postgres::Row| Column {
        schema: row.get(0),
        table: row.get(1),
        name: row.get(2),
        kind: row.get(3),
        length: row.get::<_, Option<i32>>(4).and_then(|length| u32::try_from(length).ok()),
        nullable: row.get(5),
        generated: row.get(6),
    };
    Ok(rows.iter().map(column).collect())
}

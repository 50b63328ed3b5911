//! Migrations in a database: the ledger `andon.migrations`, each migration in a transaction of its own, one runner at a time; and the
//! canonical text of a database's shape.

use std::time::Instant;

use andon_environment::data::migration::{self, Entry, Migration};
use andon_model::Digest;
use andon_model::event::Phase;
use tokio_postgres::Client;

use crate::server::told;
use crate::{DataError, Server};

/// Taken by whoever migrates: the letters of "andon".
const LOCK: i64 = 0x61_6e_64_6f_6e;
/// A statement that takes longer is stopped; a lock that is not to be had in this time is given up, so that users do not queue behind it.
const LIMITS: &str =
    "SET statement_timeout = '15min'; SET lock_timeout = '10s'; SET client_min_messages = warning";

const LEDGER: &str = "CREATE SCHEMA IF NOT EXISTS andon;
CREATE TABLE IF NOT EXISTS andon.migrations (
    name text PRIMARY KEY, phase text NOT NULL, checksum text NOT NULL,
    took_ms bigint NOT NULL, ran_at timestamptz NOT NULL DEFAULT now())";

/// Tables, columns, constraints, indexes, views and functions, without the ledger.
const SHAPE: &str = "SELECT line FROM (
  SELECT format('column %s.%s.%s %s %s %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                CASE WHEN a.attnotnull THEN 'required' ELSE 'optional' END, coalesce(pg_get_expr(d.adbin, d.adrelid), '')) AS line
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE c.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped
     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'andon') AND n.nspname NOT LIKE 'pg\\_%'
  UNION ALL SELECT format('constraint %s %s %s', n.nspname, c.conname, pg_get_constraintdef(c.oid))
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
   WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'andon') AND n.nspname NOT LIKE 'pg\\_%'
  UNION ALL SELECT format('index %s', indexdef) FROM pg_indexes
   WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'andon') AND schemaname NOT LIKE 'pg\\_%'
  UNION ALL SELECT format('view %s.%s %s', schemaname, viewname, definition) FROM pg_views
   WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'andon') AND schemaname NOT LIKE 'pg\\_%'
  UNION ALL SELECT format('function %s.%s(%s) %s', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), md5(coalesce(p.prosrc, '')))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'andon') AND n.nspname NOT LIKE 'pg\\_%'
) AS shape ORDER BY line COLLATE \"C\"";

impl Server {
    /// Runs what is pending of a phase and returns the whole ledger. A failure leaves what ran before it, and nothing of itself.
    pub async fn migrate(
        &self,
        name: &str,
        password: &str,
        files: &[Migration],
        phase: Phase,
        unused: bool,
    ) -> (Vec<Entry>, Result<(), DataError>) {
        let mut ledger = Vec::new();
        let done = async {
            let mut session = self.owner(name, password).await?;
            session.batch_execute(LIMITS).await?;
            // Of a session: it goes with the connection, also when we are killed.
            session.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
            session.batch_execute(LEDGER).await?;
            ledger = read(&session).await?;
            let next = migration::plan(files, &ledger, phase, unused);
            for file in next.map_err(|refused| DataError::Rules(refused.to_string()))? {
                let entry = run(&mut session, file).await?;
                ledger.push(entry);
            }
            Ok(())
        };
        let done = done.await;
        (ledger, done)
    }

    /// Names the shape of a database: two of one digest have the same tables, columns, constraints, indexes, views and functions.
    pub async fn shape(&self, name: &str) -> Result<Digest, DataError> {
        let session = self.admin(Some(name)).await?;
        // Names are written whole.
        session.batch_execute("SET search_path = ''").await?;
        let rows = session.query(SHAPE, &[]).await?;
        let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        Ok(Digest::of(lines.join("\n").as_bytes()))
    }
}

async fn read(session: &Client) -> Result<Vec<Entry>, DataError> {
    let all = "SELECT name, phase, checksum, took_ms FROM andon.migrations ORDER BY ran_at, name";
    let rows = session.query(all, &[]).await?;
    let entry = |row: &tokio_postgres::Row| {
        let checksum: String = row.get(2);
        Some(Entry {
            name: row.get(0),
            phase: if row.get::<_, &str>(1) == "contract" { Phase::Contract } else { Phase::Expand },
            checksum: checksum.parse().ok()?,
            took: u64::try_from(row.get::<_, i64>(3)).unwrap_or(0),
        })
    };
    let broken = || DataError::Rules("the ledger andon.migrations holds what no migration wrote".into());
    rows.iter().map(|row| entry(row).ok_or_else(broken)).collect()
}

async fn run(session: &mut Client, file: &Migration) -> Result<Entry, DataError> {
    let failed = |why: String| DataError::Migration { name: file.name.clone(), why };
    let began = Instant::now();
    let within = session.transaction().await?;
    let number = "SELECT pg_current_xact_id()::text";
    let before: String = within.query_one(number, &[]).await?.get(0);
    within.batch_execute(&file.sql).await.map_err(|error| failed(told(&error)))?;
    let after: String = within.query_one(number, &[]).await.map_err(|error| failed(told(&error)))?.get(0);
    if before != after {
        let why = "it ends its own transaction, so that it cannot be undone as a whole; take COMMIT and ROLLBACK out";
        return Err(failed(why.into()));
    }
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let line = "INSERT INTO andon.migrations (name, phase, checksum, took_ms) VALUES ($1, $2, $3, $4)";
    let (phase, sum) = (file.phase.to_string(), file.checksum.to_string());
    let took_ms = i64::try_from(took).unwrap_or(i64::MAX);
    within
        .execute(line, &[&file.name, &phase, &sum, &took_ms])
        .await
        .map_err(|error| failed(told(&error)))?;
    within.commit().await.map_err(|error| failed(told(&error)))?;
    Ok(Entry { name: file.name.clone(), phase: file.phase, checksum: file.checksum.clone(), took })
}

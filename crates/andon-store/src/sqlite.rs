//! The embedded engine: SQLite in WAL mode with `synchronous=FULL`, written by one task that commits all waiting batches together.
//!
//! Group commit: batches that arrive while a commit is on its way to the disk share the next one, so many projects cost one flush.

use std::path::Path;

use andon_model::{Recorded, Span, Time};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite, SqlitePool, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::journal::{Batch, Fence, Journal, JournalError, Lease};

/// Batches that may wait for the writer before callers are held back.
const WAITING: usize = 1024;
/// Batches in one commit: bounds how long the first of them waits for the last.
const TOGETHER: usize = 256;

/// The table layout. Statements are only ever added at the end; each is safe to run again.
const LAYOUT: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS events (
       seq INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, version INTEGER NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL,
       UNIQUE (stream, version)) STRICT",
    "CREATE TABLE IF NOT EXISTS leases (
       name TEXT PRIMARY KEY, holder TEXT NOT NULL, fence INTEGER NOT NULL, until INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS layout (version INTEGER NOT NULL) STRICT",
];

type Reply = oneshot::Sender<Result<Vec<Recorded>, JournalError>>;

/// The journal in one file.
#[derive(Debug, Clone)]
pub struct SqliteJournal {
    pool: SqlitePool,
    writer: mpsc::Sender<(Batch, Reply)>,
}

fn engine(error: sqlx::Error) -> JournalError {
    JournalError::Engine(error.to_string())
}

impl SqliteJournal {
    /// Opens or creates the file. Spawns the writer on the current runtime; it ends when the last handle is dropped.
    pub async fn open(file: &Path) -> Result<SqliteJournal, JournalError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(std::time::Duration::from_secs(5));
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.map_err(engine)?;
        for statement in LAYOUT {
            sqlx::query(statement).execute(&pool).await.map_err(engine)?;
        }
        let (writer, inbox) = mpsc::channel(WAITING);
        tokio::spawn(write(pool.clone(), inbox));
        Ok(SqliteJournal { pool, writer })
    }

    /// Writes everything that is recorded at this moment into a file of its own, which must not be there yet.
    pub async fn snapshot(&self, file: &Path) -> Result<(), JournalError> {
        let name = file.to_str().ok_or_else(|| JournalError::Engine("the path is no text".into()))?;
        sqlx::query("VACUUM INTO ?").bind(name).execute(&self.pool).await.map_err(engine)?;
        Ok(())
    }

    /// Closes the file when everything that waits is written: from then on it is one file without companions.
    pub async fn close(self) {
        drop(self.writer);
        self.pool.close().await;
    }
}

impl Journal for SqliteJournal {
    async fn append(&self, batch: Batch) -> Result<Vec<Recorded>, JournalError> {
        let stopped = || JournalError::Engine("the writer has stopped".into());
        let (reply, answer) = oneshot::channel();
        self.writer.send((batch, reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn read(&self, after: u64, limit: u32) -> Result<Vec<Recorded>, JournalError> {
        let rows = sqlx::query("SELECT seq, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?")
            .bind(after.cast_signed())
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(engine)?;
        rows.iter().map(|row| decode(row.get::<i64, _>(0).cast_unsigned(), row.get(1))).collect()
    }

    async fn acquire(
        &self,
        lease: &str,
        holder: &str,
        now: Time,
        lasts: Span,
    ) -> Result<Option<Lease>, JournalError> {
        let until = now + lasts;
        let row = sqlx::query(
            "INSERT INTO leases (name, holder, fence, until) VALUES (?1, ?2, 1, ?4)
             ON CONFLICT (name) DO UPDATE SET holder = ?2, fence = fence + 1, until = ?4 WHERE until <= ?3 OR holder = ?2
             RETURNING fence",
        )
        .bind(lease)
        .bind(holder)
        .bind(now.0)
        .bind(until.0)
        .fetch_optional(&self.pool)
        .await
        .map_err(engine)?;
        Ok(row.map(|row| Lease { fence: Fence { lease: lease.to_owned(), number: row.get(0) }, until }))
    }

    async fn renew(&self, fence: &Fence, until: Time) -> Result<bool, JournalError> {
        let done = sqlx::query("UPDATE leases SET until = ? WHERE name = ? AND fence = ?")
            .bind(until.0)
            .bind(&fence.lease)
            .bind(fence.number)
            .execute(&self.pool)
            .await
            .map_err(engine)?;
        Ok(done.rows_affected() == 1)
    }
}

fn decode(seq: u64, body: &str) -> Result<Recorded, JournalError> {
    serde_json::from_str(body)
        .map(|recorded| Recorded { seq, ..recorded })
        .map_err(|error| JournalError::Unreadable { seq, why: error.to_string() })
}

async fn write(pool: SqlitePool, mut inbox: mpsc::Receiver<(Batch, Reply)>) {
    let mut waiting = Vec::with_capacity(TOGETHER);
    while inbox.recv_many(&mut waiting, TOGETHER).await > 0 {
        let (batches, replies): (Vec<Batch>, Vec<Reply>) = waiting.drain(..).unzip();
        match commit(&pool, &batches).await {
            Ok(outcomes) => {
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // A caller that went away has nobody to tell; the record stands.
                    let _ = reply.send(outcome);
                }
            }
            Err(error) => {
                tracing::error!(%error, "commit failed");
                for reply in replies {
                    let _ = reply.send(Err(JournalError::Engine(error.to_string())));
                }
            }
        }
    }
}

type Outcome = Result<Vec<Recorded>, JournalError>;

/// One transaction for all batches. A refused batch writes nothing and does not disturb the others.
async fn commit(pool: &SqlitePool, batches: &[Batch]) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let mut outcomes = Vec::with_capacity(batches.len());
    for batch in batches {
        outcomes.push(match refusal(&mut tx, batch).await? {
            Some(error) => Err(error),
            None => insert(&mut tx, batch).await?,
        });
    }
    tx.commit().await?;
    Ok(outcomes)
}

fn stream(batch: &Batch) -> &str {
    batch.project.as_ref().map_or("", |project| project.as_str())
}

async fn refusal(
    tx: &mut Transaction<'_, Sqlite>,
    batch: &Batch,
) -> Result<Option<JournalError>, sqlx::Error> {
    if let Some(fence) = &batch.fence {
        let row = sqlx::query("SELECT fence FROM leases WHERE name = ?")
            .bind(&fence.lease)
            .fetch_optional(&mut **tx)
            .await?;
        if row.is_none_or(|row| row.get::<i64, _>(0) != fence.number) {
            return Ok(Some(JournalError::Fenced { lease: fence.lease.clone() }));
        }
    }
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM events WHERE stream = ?")
        .bind(stream(batch))
        .fetch_one(&mut **tx)
        .await?;
    let actual = row.get::<i64, _>(0).cast_unsigned();
    Ok((actual != batch.expected).then_some(JournalError::Conflict { expected: batch.expected, actual }))
}

async fn insert(tx: &mut Transaction<'_, Sqlite>, batch: &Batch) -> Result<Outcome, sqlx::Error> {
    let mut recorded = Vec::with_capacity(batch.events.len());
    for (version, new) in (batch.expected + 1..).zip(&batch.events) {
        let mut event = Recorded {
            seq: 0,
            at: batch.at,
            by: new.by.clone(),
            project: batch.project.clone(),
            event: new.event.clone(),
        };
        let body = serde_json::to_string(&event).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let row =
            sqlx::query("INSERT INTO events (stream, version, at, body) VALUES (?, ?, ?, ?) RETURNING seq")
                .bind(stream(batch))
                .bind(version.cast_signed())
                .bind(batch.at.0)
                .bind(body)
                .fetch_one(&mut **tx)
                .await?;
        event.seq = row.get::<i64, _>(0).cast_unsigned();
        recorded.push(event);
    }
    Ok(Ok(recorded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_embedded_engine_keeps_the_journals_contract() {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("journal.db");
        andon_testkit::journal_contract!(SqliteJournal::open(&file).await.unwrap());
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_opening_again() {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("journal.db");
        let event = crate::NewEvent {
            by: andon_model::Actor::line("test"),
            event: andon_model::Event::ProjectCreated { trunk: "main".into() },
        };
        let batch = Batch { project: None, expected: 0, at: Time(1), events: vec![event], fence: None };
        SqliteJournal::open(&file).await.unwrap().append(batch).await.unwrap();
        assert_eq!(SqliteJournal::open(&file).await.unwrap().read(0, 10).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_event_of_a_newer_version_is_an_error_and_not_skipped() {
        let room = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(&room.path().join("journal.db")).await.unwrap();
        sqlx::query("INSERT INTO events (stream, version, at, body) VALUES ('', 1, 1, '{\"seq\":0}')")
            .execute(&journal.pool)
            .await
            .unwrap();
        assert!(matches!(journal.read(0, 10).await, Err(JournalError::Unreadable { seq: 1, .. })));
    }
}

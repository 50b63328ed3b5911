//! What is derived from the journal and its blobs and would take long to derive again, by key. It may be deleted: whoever keeps
//! something here says up to which event it is true, and derives the rest. Knows no meaning of what it keeps.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

use crate::JournalError;

const LAYOUT: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS progress (shelf TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS kept (shelf TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (shelf, key)) STRICT, WITHOUT ROWID",
];

/// Shelves of keys and texts in one file.
#[derive(Debug, Clone)]
pub struct Derived {
    pool: SqlitePool,
}

fn engine(error: sqlx::Error) -> JournalError {
    JournalError::Engine(error.to_string())
}

impl Derived {
    /// Opens or creates the file. What a power cut takes of the newest entries is derived again.
    pub async fn open(file: &Path) -> Result<Derived, JournalError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(std::time::Duration::from_secs(5));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(engine)?;
        for statement in LAYOUT {
            sqlx::query(statement).execute(&pool).await.map_err(engine)?;
        }
        Ok(Derived { pool })
    }

    /// The event up to which a shelf is true; 0: it is empty.
    pub async fn progress(&self, shelf: &str) -> Result<u64, JournalError> {
        let row = sqlx::query("SELECT seq FROM progress WHERE shelf = ?")
            .bind(shelf)
            .fetch_optional(&self.pool)
            .await
            .map_err(engine)?;
        Ok(row.map_or(0, |row| row.get::<i64, _>(0).cast_unsigned()))
    }

    /// All entries of a shelf in order of their keys.
    pub async fn all(&self, shelf: &str) -> Result<Vec<(String, String)>, JournalError> {
        let rows = sqlx::query("SELECT key, body FROM kept WHERE shelf = ? ORDER BY key")
            .bind(shelf)
            .fetch_all(&self.pool)
            .await
            .map_err(engine)?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Those of its entries that have these keys.
    pub async fn some(&self, shelf: &str, keys: &[String]) -> Result<Vec<(String, String)>, JournalError> {
        let mut found = Vec::new();
        for key in keys {
            let row = sqlx::query("SELECT body FROM kept WHERE shelf = ? AND key = ?")
                .bind(shelf)
                .bind(key)
                .fetch_optional(&self.pool)
                .await
                .map_err(engine)?;
            found.extend(row.map(|row| (key.clone(), row.get(0))));
        }
        Ok(found)
    }

    /// Entries that are new or other than before, and that the shelf is true up to this event now: both or neither.
    pub async fn keep(
        &self,
        shelf: &str,
        seq: u64,
        entries: &[(String, String)],
    ) -> Result<(), JournalError> {
        let mut turn = self.pool.begin().await.map_err(engine)?;
        for (key, body) in entries {
            sqlx::query("INSERT INTO kept (shelf, key, body) VALUES (?1, ?2, ?3) ON CONFLICT (shelf, key) DO UPDATE SET body = ?3")
                .bind(shelf)
                .bind(key)
                .bind(body)
                .execute(&mut *turn)
                .await
                .map_err(engine)?;
        }
        sqlx::query(
            "INSERT INTO progress (shelf, seq) VALUES (?1, ?2) ON CONFLICT (shelf) DO UPDATE SET seq = ?2",
        )
        .bind(shelf)
        .bind(seq.cast_signed())
        .execute(&mut *turn)
        .await
        .map_err(engine)?;
        turn.commit().await.map_err(engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, body: &str) -> (String, String) {
        (key.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn a_shelf_keeps_what_is_newest_and_says_how_far_it_is_true() {
        let room = tempfile::tempdir().unwrap();
        let file = room.path().join("derived.db");
        let derived = Derived::open(&file).await.unwrap();
        assert_eq!(derived.progress("tests of shop").await.unwrap(), 0);
        derived.keep("tests of shop", 7, &[entry("b", "1"), entry("a", "1")]).await.unwrap();
        derived.keep("tests of shop", 9, &[entry("b", "2")]).await.unwrap();
        derived.keep("tests of other", 3, &[entry("a", "x")]).await.unwrap();
        drop(derived);
        let derived = Derived::open(&file).await.unwrap();
        assert_eq!(derived.all("tests of shop").await.unwrap(), [entry("a", "1"), entry("b", "2")]);
        assert_eq!(
            derived.some("tests of shop", &["b".into(), "c".into()]).await.unwrap(),
            [entry("b", "2")]
        );
        assert_eq!(
            (
                derived.progress("tests of shop").await.unwrap(),
                derived.progress("tests of other").await.unwrap()
            ),
            (9, 3)
        );
    }
}

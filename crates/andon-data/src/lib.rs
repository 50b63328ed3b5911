//! Drives a PostgreSQL server: makes and drops databases, runs migrations, makes masked templates. What is due, which migration runs and how
//! a column is masked is decided in andon-environment.
//!
//! Every database belongs to a role of the same name. The role carries, as its comment, which server of ours made it and for what; role and
//! comment come to be in one transaction, so that whatever a killed server left is found by [`Server::labelled`].

mod copy;
mod label;
mod ledger;
mod server;

pub use copy::{Refresh, rules};
pub use label::{Label, Use, name};
pub use server::{Server, Wanted};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The server's address.
    #[error(
        "the address of PostgreSQL cannot be read: {0}\nhint: write postgresql://USER:PASSWORD@HOST:PORT/postgres"
    )]
    Address(String),
    /// It does not answer.
    #[error(
        "PostgreSQL does not answer: {0}\nhint: see that it runs and that the address given by --postgres is right"
    )]
    Connect(String),
    /// It refused a statement.
    #[error("PostgreSQL refused: {0}")]
    Refused(String),
    /// A migration is not allowed, or the mask does not fit.
    #[error("{0}")]
    Rules(String),
    /// A migration failed; nothing of it is left.
    #[error("the migration {name} failed and left nothing behind: {why}")]
    Migration {
        /// Which.
        name: String,
        /// What the database said.
        why: String,
    },
    /// `pg_dump` or `pg_restore`.
    #[error("{0}")]
    Tool(String),
    /// Something of that name belongs to somebody else.
    #[error(
        "{0} is there already and is not this server's\nhint: give this server a PostgreSQL of its own, or remove what is there"
    )]
    Foreign(String),
}

impl From<tokio_postgres::Error> for DataError {
    fn from(error: tokio_postgres::Error) -> DataError {
        match error.as_db_error() {
            Some(said) => DataError::Refused(said_by(said)),
            None => DataError::Connect(error.to_string()),
        }
    }
}

/// In the database's own words; its detail may hold values of rows and is left out.
fn said_by(said: &tokio_postgres::error::DbError) -> String {
    let hint = said.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{} [{}]{hint}", said.message(), said.code().code())
}

//! Databases in the terminal: what there is, which migrations ran, a new template.

use std::time::Duration;

use andon_line::view::Mark;
use andon_line::view::data::DataView;
use clap::Subcommand;
use serde_json::json;

use super::Place;
use crate::cli::Common;
use crate::client::{Failure, status};
use crate::say::say;

/// Between two looks whether a template is there.
const LOOK: Duration = Duration::from_millis(300);

/// `andon data …`.
#[derive(Debug, Subcommand)]
pub enum Data {
    /// Databases of environments, and the templates that they are cloned from.
    List,
    /// Make a new template: a copy of an environment's database, masked by the rules of its mask file.
    Refresh {
        /// The database.
        database: String,
        /// The environment whose data is copied.
        #[arg(long, default_value = "production")]
        from: String,
        /// Return when it is sealed, or failed.
        #[arg(long)]
        wait: bool,
    },
    /// Which migrations ran where.
    Migrations,
}

/// Does it.
pub fn data(common: &Common, data: Data) -> Result<(), Failure> {
    let place = Place::find(common)?;
    match data {
        Data::List => place.show("/data", list).map(drop),
        Data::Migrations => place.show("/data", migrations).map(drop),
        Data::Refresh { database, from, wait } => {
            let path = format!("/data/{database}/refresh");
            if database.parse::<andon_model::DatabaseName>().is_err() {
                return Err(format!("{database:?} is not a database's name").into());
            }
            let words = format!("a template of {database} is made from {from}");
            place.command(&path, &json!({ "from": from }), |_| words)?;
            if wait { until_made(&place, &database) } else { Ok(()) }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a terminal that waits: it asks again after a pause")]
fn until_made(place: &Place, database: &str) -> Result<(), Failure> {
    loop {
        let view: DataView = super::read(place.client.get(&format!("{}/data", place.base))?)?;
        let row = view.templates.iter().find(|row| row.database == database);
        match row {
            Some(row) if row.mark == Mark::Live => std::thread::sleep(LOOK),
            Some(row) => {
                say!("{} {} {}", row.mark.sign(), row.database, row.says);
                let ok = row.mark == Mark::Go;
                return if ok { Ok(()) } else { Err(Failure { words: String::new(), status: status::NO }) };
            }
            None => return Ok(()),
        }
    }
}

fn list(view: &DataView) {
    if view.databases.is_empty() {
        say!("no environment has a database");
    }
    for row in &view.databases {
        let from = row.template.as_ref().map_or_else(String::new, |from| format!(", cloned from {from}"));
        say!("{} {} of {}: {}{from}", row.mark.sign(), row.database, row.environment, row.name);
        if let Some(why) = &row.failed {
            say!("  {why}");
        }
    }
    for row in &view.templates {
        let name = row.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        say!("{} template{name} of {} {}", row.mark.sign(), row.database, row.says);
    }
}

fn migrations(view: &DataView) {
    for row in &view.databases {
        let shape = row.schema.as_deref().map_or("not known", |digest| digest.get(..19).unwrap_or(digest));
        say!("{} {} of {}, shape {shape}", row.mark.sign(), row.database, row.environment);
        for name in &row.migrations {
            say!("  {name}");
        }
        if let Some(why) = &row.failed {
            say!("  {why}");
        }
    }
}

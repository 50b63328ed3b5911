//! Databases in a disaster drill: made again from migrations, beside those that are in use, and dropped when it is over. A backup holds no
//! rows, so none come back: that is left to the backups of PostgreSQL itself.

use andon_data::{Use, Wanted};
use andon_environment::Estate;
use andon_model::event::{Event, Phase};
use andon_model::{DatabaseName, EnvironmentName, Oid};

use super::{Failed, STATION, files};
use crate::{Line, Project, Refusal};

/// A database that is to be there again.
type Again = (EnvironmentName, DatabaseName, Oid, Option<String>);

/// What environments have, each with the commit and the folder of its newest deployment that needed it.
fn known(estate: &Estate) -> Vec<Again> {
    let live = estate.data.databases.iter().filter(|(_, database)| !database.ended);
    let each = live.filter_map(|((environment, database), _)| {
        let mut wanted =
            estate.data.wanted.values().rev().filter(|wanted| &wanted.environment == environment);
        let newest = wanted.find(|wanted| wanted.databases.contains_key(database))?;
        let folder = newest.databases.get(database).cloned().flatten();
        Some((environment.clone(), database.clone(), newest.commit.clone(), folder))
    });
    each.collect()
}

impl Line {
    /// Makes every database that the journal knows of again, empty but for what migrations put into it. For the second server of a drill.
    pub(crate) async fn make_databases_again(&self) -> Result<(), Refusal> {
        for project in self.projects() {
            let all = known(&project.state().estate);
            for again in all {
                self.make_again(&project, again).await?;
            }
        }
        Ok(())
    }

    async fn make_again(&self, project: &Project, again: Again) -> Result<(), Refusal> {
        let (environment, database, commit, folder) = again;
        let server = self.postgres()?;
        let password = self.database_password(project, &environment, &database);
        let wanted = Wanted {
            project: &project.name,
            environment: &environment,
            database: &database,
            password: &password,
            template: None,
        };
        let name = server.make_for_drill(&wanted).await?;
        if let Some(folder) = folder {
            let files = files(project, &commit, &folder).await.map_err(|failed| match failed {
                Failed::Line(refusal) => refusal,
                Failed::Server(error) => Refusal::Conflict(error.to_string()),
                Failed::None(why) => Refusal::Conflict(why),
            })?;
            // Nobody is served by it yet: all of them run, in their order.
            let (_, done) = server.migrate(&name, &password, &files, Phase::Expand, true).await;
            done.map_err(|error| {
                Refusal::Conflict(format!("{database} of {environment} cannot be made: {error}"))
            })?;
        }
        // From here on the second server's instances are told of this one.
        let made = Event::DatabaseMade { environment, database, name, template: None };
        self.tell(project, STATION, vec![made]).await
    }

    /// Drops what drills made. Without PostgreSQL there is nothing.
    pub(crate) async fn drop_drill_databases(&self) -> Result<(), Refusal> {
        let Some(server) = &self.data else { return Ok(()) };
        for (name, label) in server.labelled().await? {
            if matches!(label.of, Use::Drill(_)) {
                server.drop(&name).await?;
            }
        }
        Ok(())
    }
}

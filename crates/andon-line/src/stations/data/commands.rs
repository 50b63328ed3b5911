//! What people ask of databases: a new template.

use andon_model::event::{Event, Role};
use andon_model::{DatabaseName, EnvironmentName};

use crate::{Caller, Line, Project, Refusal};

impl Line {
    /// Asks for a new template of a database: a masked copy of what an environment has.
    pub async fn refresh_data(
        &self,
        project: &Project,
        caller: &Caller,
        database: DatabaseName,
        from: EnvironmentName,
    ) -> Result<(), Refusal> {
        caller.may(Role::Deployer)?;
        self.postgres()?;
        let defined = project.trunk_definition().await?;
        let masked = match defined.as_deref() {
            Some(Ok(definition)) => definition.databases.get(&database).map(|found| found.mask.is_some()),
            _ => None,
        };
        match masked {
            None => {
                return Err(Refusal::Unknown(format!(
                    "andon.yaml on trunk declares no database {database}\nhint: write it under `databases:`"
                )));
            }
            Some(false) => {
                return Err(Refusal::Conflict(format!(
                    "nothing says what becomes of the columns of {database}\nhint: name a file under `mask:` of this database"
                )));
            }
            Some(true) => {}
        }
        self.decide(project, caller.actor(), |state, _| {
            let data = &state.estate.data;
            let there = data.databases.get(&(from.clone(), database.clone())).is_some_and(|d| !d.ended);
            if !there {
                return Err(Refusal::Unknown(format!(
                    "{from} has no database {database}\nhint: `andon data list` shows those there are"
                )));
            }
            if data.templates.get(&database).is_some_and(|template| template.asked.is_some()) {
                return Err(Refusal::Conflict(format!("a template of {database} is being made already")));
            }
            Ok((vec![Event::RefreshAsked { database, from }], ()))
        })
        .await
    }
}

//! Databases of environments as the journal tells them, and what is due to them. [`migration`] and [`mask`] say what would be run; none of
//! it is run here.
//!
//! A database lives as long as its environment: a rebuild keeps it, since data is not made from code. Copies for others than production
//! are clones of a template whose columns were all judged by rules. A migration that took something away leaves no way back.

pub mod mask;
pub mod migration;

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{
    DataMigrated, DataWanted, Event, MigrationRan, Phase, PlannedService, Recorded, TemplateSealed,
};
use andon_model::{DatabaseName, DeploymentId, Digest, EnvironmentName, Time};
use serde::Serialize;

use crate::estate::{DeploymentState, Estate};

/// The environment whose data is real.
const PRODUCTION: &str = "production";

/// One database.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Database {
    /// As PostgreSQL has it.
    pub name: String,
    /// The template it was cloned from.
    pub template: Option<String>,
    /// Digest of its shape after the last migration.
    pub schema: Option<Digest>,
    /// What ran in it, in order.
    pub ran: Vec<MigrationRan>,
    /// Since when.
    pub made: Time,
    /// Its environment is over.
    pub ended: bool,
}

/// A template, or the wish for one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Template {
    /// The one that is cloned now, with when it was sealed.
    pub sealed: Option<(TemplateSealed, Time)>,
    /// A new one is being made, from this environment.
    pub asked: Option<EnvironmentName>,
    /// Why the last attempt came to nothing.
    pub failed: Option<String>,
}

/// Everything about databases in a project.
#[derive(Debug, Clone, Default)]
pub struct Data {
    /// Those that exist.
    pub databases: BTreeMap<(EnvironmentName, DatabaseName), Database>,
    /// Templates.
    pub templates: BTreeMap<DatabaseName, Template>,
    /// What each deployment needs.
    pub wanted: BTreeMap<DeploymentId, DataWanted>,
    migrated: BTreeMap<(DeploymentId, Order), DataMigrated>,
}

/// [`Phase`] with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Expand,
    Contract,
}

fn key(deployment: DeploymentId, phase: Phase) -> (DeploymentId, Order) {
    match phase {
        Phase::Expand => (deployment, Order::Expand),
        Phase::Contract => (deployment, Order::Contract),
    }
}

impl Data {
    /// Whether this deployment's databases are not there in the form it needs.
    pub fn lacks(&self, deployment: DeploymentId) -> bool {
        self.wanted.contains_key(&deployment)
            && !self.migrated.get(&key(deployment, Phase::Expand)).is_some_and(|done| done.ok)
    }

    /// Why this deployment will never have what it needs.
    pub fn hopeless(&self, deployment: DeploymentId) -> Option<String> {
        let done = self.migrated.get(&key(deployment, Phase::Expand)).filter(|done| !done.ok)?;
        Some(format!("its data could not be prepared: {}", done.why))
    }

    /// What became of a phase.
    pub fn migrated(&self, deployment: DeploymentId, phase: Phase) -> Option<&DataMigrated> {
        self.migrated.get(&key(deployment, phase))
    }

    /// The template that a database of this environment is cloned from: never where data is real.
    pub fn template_for(&self, environment: &EnvironmentName, database: &DatabaseName) -> Option<&str> {
        let (sealed, _) = self.templates.get(database)?.sealed.as_ref()?;
        let real = environment.as_str() == PRODUCTION || environment == &sealed.from;
        (!real).then_some(sealed.name.as_str())
    }

    /// Why users of an environment cannot go back behind what its database lost: the newest contract migration that ran after `to` was
    /// deployed and that a newer deployment brought.
    pub fn no_way_back(&self, environment: &EnvironmentName, to: DeploymentId) -> Option<String> {
        let of_it = self.databases.iter().filter(|((e, _), database)| e == environment && !database.ended);
        let mut ran = of_it.flat_map(|(_, database)| &database.ran);
        let lost = ran.rfind(|ran| ran.phase == Phase::Contract && ran.deployment > to)?;
        Some(format!(
            "the migration {} of {} took away what the revision before needs: it cannot serve any more",
            lost.name, lost.database
        ))
    }

    /// What became of the last phase in an environment.
    pub fn last(&self, environment: &EnvironmentName) -> Option<&DataMigrated> {
        self.migrated.values().rfind(|done| &done.environment == environment)
    }

    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::DataWanted(wanted) => drop(self.wanted.insert(wanted.deployment, wanted.clone())),
            Event::DatabaseMade { environment, database, name, template } => {
                let made = Database {
                    name: name.clone(),
                    template: template.clone(),
                    schema: None,
                    ran: Vec::new(),
                    made: recorded.at,
                    ended: false,
                };
                self.databases.insert((environment.clone(), database.clone()), made);
            }
            Event::DatabaseDropped { environment, database } => {
                self.databases.remove(&(environment.clone(), database.clone()));
            }
            Event::EnvironmentDestroyed { environment, rebuild: false, .. } => {
                let of_it = self.databases.iter_mut().filter(|((e, _), _)| e == environment);
                of_it.for_each(|(_, database)| database.ended = true);
            }
            Event::MigrationRan(ran) => {
                let place = (ran.environment.clone(), ran.database.clone());
                if let Some(database) = self.databases.get_mut(&place) {
                    database.ran.push(ran.clone());
                }
            }
            Event::DataMigrated(done) => {
                for (name, schema) in &done.schema {
                    let place = (done.environment.clone(), name.clone());
                    if let Some(database) = self.databases.get_mut(&place) {
                        database.schema = Some(schema.clone());
                    }
                }
                self.migrated.insert(key(done.deployment, done.phase), done.clone());
            }
            Event::RefreshAsked { database, from } => {
                self.templates.entry(database.clone()).or_default().asked = Some(from.clone());
            }
            Event::RefreshFailed { database, why } => {
                let template = self.templates.entry(database.clone()).or_default();
                (template.asked, template.failed) = (None, Some(why.clone()));
            }
            Event::TemplateSealed(sealed) => {
                let template = self.templates.entry(sealed.database.clone()).or_default();
                (template.asked, template.failed) = (None, None);
                template.sealed = Some((sealed.clone(), recorded.at));
            }
            _ => {}
        }
    }
}

/// What is to be done to databases.
#[derive(Debug, Clone, PartialEq)]
pub enum Due {
    /// Its environment is over.
    Drop(EnvironmentName, DatabaseName),
    /// Make what a deployment needs and run its migrations of one phase.
    Migrate(DeploymentId, Phase),
    /// Make a new template from this environment.
    Refresh(DatabaseName, EnvironmentName),
}

/// What is due now. `warm`: environments in which the revision before is kept for the way back: nothing is taken away there.
pub fn due(estate: &Estate, warm: &BTreeSet<EnvironmentName>) -> Vec<Due> {
    let data = &estate.data;
    let mut due = Vec::new();
    for ((environment, database), _) in data.databases.iter().filter(|(_, database)| database.ended) {
        // What still stops is not robbed of its database.
        if estate.instances_in(environment).next().is_none() {
            due.push(Due::Drop(environment.clone(), database.clone()));
        }
    }
    for deployment in data.wanted.keys().filter_map(|id| estate.deployments.get(id)) {
        let ended = |(place, database): (&(EnvironmentName, DatabaseName), &Database)| {
            place.0 == deployment.environment && database.ended
        };
        if data.databases.iter().any(ended) {
            continue;
        }
        match deployment.state {
            DeploymentState::Starting if data.migrated(deployment.id, Phase::Expand).is_none() => {
                due.push(Due::Migrate(deployment.id, Phase::Expand));
            }
            DeploymentState::Released { .. }
                if data.migrated(deployment.id, Phase::Contract).is_none()
                    && data.wanted[&deployment.id].databases.values().any(Option::is_some)
                    && !warm.contains(&deployment.environment)
                    && settled(estate, deployment.id, &deployment.environment) =>
            {
                due.push(Due::Migrate(deployment.id, Phase::Contract));
            }
            _ => {}
        }
    }
    for (database, template) in &data.templates {
        if let Some(from) = &template.asked {
            due.push(Due::Refresh(database.clone(), from.clone()));
        }
    }
    due
}

/// Whether a deployment is the newest in its environment, everybody is on it, and nobody is on the way to or from it. Who went back to the
/// revision before still needs what it would take away.
fn settled(estate: &Estate, id: DeploymentId, environment: &EnvironmentName) -> bool {
    let Some(newest) = estate.newest(environment).filter(|newest| newest.id == id) else { return false };
    let Some(place) = estate.environments.get(environment) else { return false };
    let on_it = |service: &PlannedService| {
        place.serving.get(&service.name).and_then(|serving| serving.stable.as_ref())
            == Some(&newest.revision())
    };
    newest.services.iter().all(on_it) && place.serving.values().all(|serving| serving.incoming.is_none())
}

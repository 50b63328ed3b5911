//! One change's way from its author to all users: stations with their moments, and what passed between them. Counts nothing over changes.

use andon_model::{ChangeId, EnvironmentName, Span, Time};
use serde::Serialize;

use crate::state::{Deployment, Flow, Point};

/// A station on the way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "station")]
pub enum Station {
    /// The first commit was written, by the author's clock.
    Authored,
    /// The server has it.
    Pushed,
    /// The patch set that was tested came, when it is not the first.
    PushedAgain,
    /// A run was asked for.
    RunQueued,
    /// Its first job began.
    RunStarted,
    /// The artifact was packed.
    ArtifactBuilt,
    /// The verdict was green.
    Green,
    /// Trunk holds it.
    Landed,
    /// It is being put into an environment.
    DeployStarted {
        /// Where.
        environment: EnvironmentName,
    },
    /// All its instances are healthy there.
    Deployed {
        /// Where.
        environment: EnvironmentName,
    },
    /// The first users have it there.
    FirstUsers {
        /// Where.
        environment: EnvironmentName,
    },
    /// Half of the users have it there.
    HalfOfUsers {
        /// Where.
        environment: EnvironmentName,
    },
    /// All users have it there.
    Everyone {
        /// Where.
        environment: EnvironmentName,
    },
}

impl Station {
    /// What goes on behind it, until the next one: a person, a runner or an environment at work, or nobody.
    pub fn kind(&self) -> Kind {
        match self {
            Station::Authored | Station::RunStarted | Station::DeployStarted { .. } => Kind::Working,
            // The author is at it again; the artifact is packed while the run goes on; a release watches its users.
            Station::ArtifactBuilt | Station::FirstUsers { .. } | Station::HalfOfUsers { .. } => {
                Kind::Working
            }
            _ => Kind::Waiting,
        }
    }

    /// As people say it.
    pub fn words(&self) -> String {
        match self {
            Station::Authored => "first commit".into(),
            Station::Pushed => "pushed".into(),
            Station::PushedAgain => "pushed again".into(),
            Station::RunQueued => "run queued".into(),
            Station::RunStarted => "run started".into(),
            Station::ArtifactBuilt => "artifact built".into(),
            Station::Green => "green".into(),
            Station::Landed => "landed".into(),
            Station::DeployStarted { environment } => format!("deploying to {environment}"),
            Station::Deployed { environment } => format!("deployed to {environment}"),
            Station::FirstUsers { environment } => format!("first users in {environment}"),
            Station::HalfOfUsers { environment } => format!("half of the users in {environment}"),
            Station::Everyone { environment } => format!("all users in {environment}"),
        }
    }
}

/// What passes between two stations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Someone or something is at work.
    Working,
    /// Nothing happens.
    Waiting,
}

/// A station that was reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mark {
    /// Which.
    #[serde(flatten)]
    pub station: Station,
    /// When.
    pub at: Time,
    /// The event that says so. Of [`Station::Authored`] it is the push.
    pub seq: u64,
}

/// What passed between two stations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Segment {
    /// From here.
    pub from: Station,
    /// To there.
    pub to: Station,
    /// Since when.
    pub since: Time,
    /// How long.
    pub took: Span,
    /// Work or waiting.
    pub kind: Kind,
}

/// A change's way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// The change.
    pub change: ChangeId,
    /// Its title.
    pub title: String,
    /// Stations in order of time.
    pub marks: Vec<Mark>,
    /// What passed between them; together exactly from the first to the last mark.
    pub segments: Vec<Segment>,
    /// It will go no further.
    pub abandoned: bool,
}

impl Timeline {
    /// The moment of a station, if it was reached.
    pub fn at(&self, station: &Station) -> Option<&Mark> {
        self.marks.iter().find(|mark| &mark.station == station)
    }

    /// Time of one kind.
    pub fn total(&self, kind: Kind) -> Span {
        Span(self.segments.iter().filter(|segment| segment.kind == kind).map(|segment| segment.took.0).sum())
    }
}

impl Flow {
    /// Changes, oldest first.
    pub fn changes(&self) -> impl Iterator<Item = ChangeId> {
        self.changes.keys().copied()
    }

    /// The way of a change so far.
    pub fn timeline(&self, id: ChangeId) -> Option<Timeline> {
        let change = self.changes.get(&id)?;
        let mut marks = vec![
            Mark { station: Station::Authored, at: change.authored, seq: change.pushed.seq },
            mark(Station::Pushed, change.pushed),
        ];
        let again = change.patch_sets.get(&change.tested).filter(|point| **point != change.pushed);
        marks.extend(again.map(|point| mark(Station::PushedAgain, *point)));
        if let Some(run) = change.run.and_then(|run| self.runs.get(&run)) {
            marks.push(mark(Station::RunQueued, run.queued));
            marks.extend(run.started.map(|point| mark(Station::RunStarted, point)));
            marks.extend(run.artifact.map(|point| mark(Station::ArtifactBuilt, point)));
            marks.extend(run.green.map(|point| mark(Station::Green, point)));
        }
        marks.extend(change.landed.map(|point| mark(Station::Landed, point)));
        let mut seen: Vec<&EnvironmentName> = Vec::new();
        for deployment in change.deployments.iter().filter_map(|id| self.deployments.get(id)) {
            if !seen.contains(&&deployment.environment) {
                seen.push(&deployment.environment);
                marks.extend(
                    self.carrier(id, &deployment.environment)
                        .into_iter()
                        .flat_map(|carrier| self.delivery(carrier)),
                );
            }
        }
        // The journal's order is the order of things; the clock may have been set back in between.
        marks[1..].sort_by_key(|mark| mark.seq);
        let segments = marks.windows(2).map(|pair| segment(&pair[0], &pair[1])).collect();
        Some(Timeline {
            change: id,
            title: change.title.clone(),
            marks,
            segments,
            abandoned: change.abandoned,
        })
    }

    /// The deployment that brought a change to everyone in an environment, or the newest one that tries to.
    pub(crate) fn carrier(&self, change: ChangeId, environment: &EnvironmentName) -> Option<&Deployment> {
        let own = || {
            let all = self.changes.get(&change).map_or(&[][..], |change| &change.deployments);
            all.iter().filter_map(|id| self.deployments.get(id)).filter(|d| &d.environment == environment)
        };
        own().filter(|d| d.everyone.is_some()).min_by_key(|d| d.everyone).or_else(|| own().next_back())
    }

    fn delivery(&self, deployment: &Deployment) -> Vec<Mark> {
        let environment = || deployment.environment.clone();
        let reached = [
            (Station::DeployStarted { environment: environment() }, Some(deployment.started)),
            (Station::Deployed { environment: environment() }, deployment.up),
            (Station::FirstUsers { environment: environment() }, self.first_users(deployment)),
            (Station::HalfOfUsers { environment: environment() }, self.half(deployment)),
            (Station::Everyone { environment: environment() }, deployment.everyone),
        ];
        reached.into_iter().filter_map(|(station, point)| Some(mark(station, point?))).collect()
    }
}

fn mark(station: Station, point: Point) -> Mark {
    Mark { station, at: point.at, seq: point.seq }
}

fn segment(from: &Mark, to: &Mark) -> Segment {
    // Between two pushes the author is at it again; that is work, though `pushed` itself is followed by waiting.
    let kind = if to.station == Station::PushedAgain { Kind::Working } else { from.station.kind() };
    Segment {
        from: from.station.clone(),
        to: to.station.clone(),
        since: from.at,
        took: to.at.since(from.at),
        kind,
    }
}

//! Which page of a project a path names. The one place that knows the paths of pages; draws nothing.

use std::str::FromStr;

use andon_model::{AndonId, ChangeId, EnvironmentName, JobName, ProjectName, ReleaseId, RunId};

/// A page of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The line with everything on it.
    Wall,
    /// What lands next.
    Queue,
    /// One change.
    Change(ChangeId),
    /// One run.
    Run(RunId),
    /// The output of a job.
    Log(RunId, JobName),
    /// All environments.
    Environments,
    /// One environment.
    Environment(EnvironmentName),
    /// Two environments against each other.
    Parity(EnvironmentName, EnvironmentName),
    /// Infrastructure of an environment.
    Infrastructure(EnvironmentName),
    /// The tests.
    Tests,
    /// All releases.
    Releases,
    /// One release.
    Release(ReleaseId),
    /// All flags.
    Flags,
    /// All andons.
    Andons,
    /// The room of one andon.
    Andon(AndonId),
    /// The metrics.
    Flow,
}

impl Place {
    /// The project and its page; none: there is no such page.
    pub fn read(path: &str) -> Option<(ProjectName, Place)> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (project, rest) = parts.split_first()?;
        let place = match rest {
            [] => Place::Wall,
            ["queue"] => Place::Queue,
            ["changes", n] => Place::Change(ChangeId(number(n)?)),
            ["runs", n] => Place::Run(RunId(number(n)?)),
            ["runs", n, job] => Place::Log(RunId(number(n)?), job.parse().ok()?),
            ["environments"] => Place::Environments,
            ["environments", name] => Place::Environment(name.parse().ok()?),
            ["environments", here, "diff", there] => Place::Parity(here.parse().ok()?, there.parse().ok()?),
            ["environments", name, "infrastructure"] => Place::Infrastructure(name.parse().ok()?),
            ["tests"] => Place::Tests,
            ["releases"] => Place::Releases,
            ["releases", n] => Place::Release(ReleaseId(number(n)?)),
            ["flags"] => Place::Flags,
            ["andons"] => Place::Andons,
            ["andons", n] => Place::Andon(AndonId(number(n)?)),
            ["flow"] => Place::Flow,
            _ => return None,
        };
        Some((project.parse().ok()?, place))
    }

    /// The entry of the bar that it belongs to.
    pub fn entry(&self) -> &'static str {
        match self {
            Place::Wall => "",
            Place::Queue | Place::Change(_) | Place::Run(_) | Place::Log(..) => "queue",
            Place::Environments | Place::Environment(_) | Place::Parity(..) | Place::Infrastructure(_) => {
                "environments"
            }
            Place::Tests => "tests",
            Place::Releases | Place::Release(_) => "releases",
            Place::Flags => "flags",
            Place::Andons | Place::Andon(_) => "andons",
            Place::Flow => "flow",
        }
    }
}

/// Pages have one address each: only the plain number is one.
fn number(text: &str) -> Option<u32> {
    u32::from_str(text).ok().filter(|n| n.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_address() {
        assert_eq!(Place::read("/shop").unwrap().1, Place::Wall);
        assert_eq!(Place::read("/shop/changes/7").unwrap().1, Place::Change(ChangeId(7)));
        for none in [
            "/",
            "/Shop",
            "/shop/changes/07",
            "/shop/changes/%237",
            "/shop/environments/../x",
            "/shop/nothing",
        ] {
            assert!(Place::read(none).is_none(), "{none} is a page");
        }
    }
}

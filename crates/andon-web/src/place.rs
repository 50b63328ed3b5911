//! Which page of a project a path names. The one place that knows the paths of pages; draws nothing.

use std::str::FromStr;

use andon_line::view::coverage::Sort;
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
    /// The coverage of a run, sorted, of one of its folders.
    Coverage(RunId, Sort, String),
    /// A source file as a run saw it.
    Source(RunId, String),
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
            ["coverage", n] => Place::Coverage(RunId(number(n)?), Sort::default(), String::new()),
            ["coverage", n, sort, folder @ ..] => {
                Place::Coverage(RunId(number(n)?), Sort::of(sort)?, plain(folder)?)
            }
            ["source", n, path @ ..] if !path.is_empty() => Place::Source(RunId(number(n)?), plain(path)?),
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
            Place::Coverage(..) | Place::Source(..) => "tests",
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

/// The path of a file or a folder, its escapes resolved; none if it leads anywhere else.
fn plain(parts: &[&str]) -> Option<String> {
    let text = parts.join("/");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let (byte, behind) = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                (u8::try_from(digit(high)? * 16 + digit(low)?).ok()?, behind)
            }
            (b'%', _) => return None,
            (byte, behind) => (*byte, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    let path = String::from_utf8(bytes).ok()?;
    let inside = path.split('/').all(|part| !matches!(part, "" | "." | "..")) || path.is_empty();
    (inside && path.len() <= 4096 && !path.contains(char::is_control)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_address() {
        assert_eq!(Place::read("/shop").unwrap().1, Place::Wall);
        assert_eq!(Place::read("/shop/changes/7").unwrap().1, Place::Change(ChangeId(7)));
        let source = |path: &str| Place::read(path).map(|(_, place)| place);
        assert_eq!(source("/shop/source/7/src/a%20b.py"), Some(Place::Source(RunId(7), "src/a b.py".into())));
        let folder = Place::Coverage(RunId(7), Sort::Missing, "src".into());
        assert_eq!(source("/shop/coverage/7/missing/src"), Some(folder));
        for none in [
            "/shop/source/7",
            "/shop/source/7/../x",
            "/shop/source/7/a%2f%2e%2e",
            "/shop/source/7/%zz",
            "/shop/coverage/7/size",
        ] {
            assert!(source(none).is_none(), "{none} is a page");
        }
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

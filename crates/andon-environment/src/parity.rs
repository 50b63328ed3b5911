//! Two environments against each other: what each is made of, what differs, what may differ, and one number. Pure; reads no environment.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::{Digest, Limits, Packages, Pins, PlannedService, RuntimeKind, ServiceName, Size, Time};
use serde::{Deserialize, Serialize};

use crate::estate::{Deployment, Environment, Serving};
use crate::exception::Exception;

/// What a fact is about, in the order in which people ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Which artifact serves.
    Version,
    /// Which variables a service gets: their names, never their values.
    Configuration,
    /// Command, health path, image, replicas, writable paths.
    Shape,
    /// What one instance may use.
    Limits,
    /// What separates instances from each other and from the host.
    Isolation,
    /// What Terraform or Ansible made.
    Infrastructure,
    /// Software of the operating system.
    Packages,
    /// Tables and columns.
    Schema,
    /// What flags say there.
    Flags,
}

impl Subject {
    /// The word that people and exceptions use.
    pub fn word(self) -> &'static str {
        match self {
            Subject::Version => "version",
            Subject::Configuration => "configuration",
            Subject::Shape => "shape",
            Subject::Limits => "limits",
            Subject::Isolation => "isolation",
            Subject::Infrastructure => "infrastructure",
            Subject::Packages => "packages",
            Subject::Schema => "schema",
            Subject::Flags => "flags",
        }
    }
}

/// Everything known of one environment that ought to be alike in another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Picture(pub BTreeMap<(Subject, String), String>);

impl Picture {
    /// Adds a fact.
    pub fn add(&mut self, subject: Subject, what: impl Into<String>, value: impl Into<String>) {
        self.0.insert((subject, what.into()), value.into());
    }

    /// What the journal tells of an environment: the deployment of every service that serves there.
    pub fn of<'a>(
        environment: &Environment,
        deployment: impl Fn(&Serving) -> Option<&'a Deployment>,
    ) -> Picture {
        let mut made = Picture::default();
        for (name, serving) in &environment.serving {
            let Some(deployment) = deployment(serving) else { continue };
            made.brought(name, &deployment.artifact, deployment.runtime, &deployment.pins);
            if let Some(service) = deployment.service(name) {
                let replicas = environment.scaled.get(name).copied();
                made.service(service, replicas.unwrap_or(service.replicas));
            }
        }
        made
    }

    /// What code makes of an environment that gets these services of one artifact. `scaled`: instances that a person chose.
    pub fn planned(
        services: &[PlannedService],
        artifact: &Digest,
        runtime: RuntimeKind,
        pins: &Pins,
        scaled: &BTreeMap<ServiceName, u32>,
    ) -> Picture {
        let mut made = Picture::default();
        for service in services {
            made.brought(&service.name, artifact, runtime, pins);
            made.service(service, scaled.get(&service.name).copied().unwrap_or(service.replicas));
        }
        made
    }

    /// Adds what only a look at running instances tells.
    pub fn observed(&mut self, seen: &Picture) {
        let told = |subject: &Subject| matches!(subject, Subject::Isolation | Subject::Packages);
        self.0.extend(
            seen.0.iter().filter(|((subject, _), _)| told(subject)).map(|(k, v)| (k.clone(), v.clone())),
        );
    }

    /// Without everything about these subjects.
    pub fn without(mut self, subjects: &[Subject]) -> Picture {
        self.0.retain(|(subject, _), _| !subjects.contains(subject));
        self
    }

    fn brought(&mut self, name: &ServiceName, artifact: &Digest, runtime: RuntimeKind, pins: &Pins) {
        self.add(Subject::Version, name.as_str(), artifact.to_string());
        self.add(Subject::Shape, "runtime", runtime.to_string());
        for (folder, tree) in &pins.folders {
            self.add(Subject::Infrastructure, format!("folder {folder}"), tree.short());
        }
    }

    fn service(&mut self, service: &PlannedService, replicas: u32) {
        let name = &service.name;
        for key in service.env.keys() {
            self.add(Subject::Configuration, format!("{name} {key}"), "set");
        }
        self.add(Subject::Shape, format!("{name} command"), service.command.join(" "));
        self.add(Subject::Shape, format!("{name} replicas"), replicas.to_string());
        let health = service.health.as_deref().unwrap_or("an open port");
        self.add(Subject::Shape, format!("{name} health"), health);
        if let Some(image) = &service.image {
            self.add(Subject::Shape, format!("{name} image"), image);
        }
        if !service.writes.is_empty() {
            self.add(Subject::Shape, format!("{name} writes"), service.writes.join(" "));
        }
        let Limits { memory, cpu_millis, processes } = service.limits;
        let said = |value: Option<String>| value.unwrap_or_else(|| "no limit".into());
        self.add(
            Subject::Limits,
            format!("{name} memory"),
            said(memory.map(|bytes| Size(bytes).to_string())),
        );
        let cpu = cpu_millis.map(|millis| format!("{}.{:03}", millis / 1000, millis % 1000));
        self.add(Subject::Limits, format!("{name} cpu"), said(cpu));
        self.add(Subject::Limits, format!("{name} processes"), said(processes.map(|n| n.to_string())));
    }
}

/// One fact of two environments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is about.
    pub subject: Subject,
    /// Which of them.
    pub what: String,
    /// In the first; none: there is no such thing.
    pub here: Option<String>,
    /// In the second.
    pub there: Option<String>,
    /// Why it may differ, where it may.
    pub allowed: Option<Exception>,
}

/// Two environments compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// What differs, allowed or not.
    pub differences: Vec<Row>,
    /// Facts that are alike.
    pub alike: usize,
}

impl Parity {
    /// Compares two environments. An exception that ended allows nothing.
    pub fn between(here: &Picture, there: &Picture, exceptions: &[Exception], now: Time) -> Parity {
        let keys: BTreeSet<_> = here.0.keys().chain(there.0.keys()).collect();
        let total = keys.len();
        let differs = keys.into_iter().filter(|key| here.0.get(*key) != there.0.get(*key));
        let differences: Vec<Row> = differs
            .map(|key| Row {
                subject: key.0,
                what: key.1.clone(),
                here: here.0.get(key).cloned(),
                there: there.0.get(key).cloned(),
                allowed: Exception::find(exceptions, &format!("{} {}", key.0.word(), key.1), now).cloned(),
            })
            .collect();
        Parity { alike: total - differences.len(), differences }
    }

    /// Differences that nothing allows.
    pub fn unexplained(&self) -> impl Iterator<Item = &Row> {
        self.differences.iter().filter(|row| row.allowed.is_none())
    }

    /// Says of differing packages which they are: by their digests, with what each stands for.
    pub fn name_packages(&mut self, known: &BTreeMap<String, Packages>) {
        let of = |value: &Option<String>| known.get(value.as_deref()?);
        for row in self.differences.iter_mut().filter(|row| row.subject == Subject::Packages) {
            if let (Some(here), Some(there)) = (of(&row.here), of(&row.there)) {
                let (here, there) = (tell(here, there), tell(there, here));
                (row.here, row.there) = (Some(here), Some(there));
            }
        }
    }

    /// Why fewer than `least` hundredths are not enough, with the first differences that nothing allows. None: they are.
    pub fn short_of(&self, least: u8, here: &str, there: &str) -> Option<String> {
        /// More of them are only counted.
        const TOLD: usize = 3;
        if self.percent() >= least {
            return None;
        }
        let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "not there".into());
        let first: Vec<String> = self
            .unexplained()
            .take(TOLD)
            .map(|row| {
                format!(
                    "{} {} ({} against {})",
                    row.subject.word(),
                    row.what,
                    said(&row.here),
                    said(&row.there)
                )
            })
            .collect();
        let more = self.unexplained().count() - first.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(format!(
            "{here} and {there} would be {} % alike, and {least} % are asked for; what differs: {}{more}",
            self.percent(),
            first.join(", ")
        ))
    }

    /// Hundredths of the facts that are alike or allowed to differ, rounded down: 100 only where nothing is unexplained.
    pub fn percent(&self) -> u8 {
        let total = self.alike + self.differences.len();
        let good = total - self.unexplained().count();
        (good * 100).checked_div(total).unwrap_or(100) as u8
    }
}

/// Packages in words: how many, and the first of those that are not the same in the other.
fn tell(here: &Packages, there: &Packages) -> String {
    /// More of them are only counted.
    const NAMED: usize = 8;
    let kind = if here.kind.is_empty() { "no package records" } else { here.kind.as_str() };
    let differ = here.versions.iter().filter(|(name, version)| there.versions.get(*name) != Some(version));
    let mut differ: Vec<(&String, &String)> = differ.collect();
    // Other versions of what both have say more than what only one has.
    differ.sort_by_key(|(name, _)| !there.versions.contains_key(*name));
    let named: Vec<String> =
        differ.iter().take(NAMED).map(|(name, version)| format!("{name} {version}")).collect();
    let more = differ.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let which = if named.is_empty() {
        String::new()
    } else {
        format!("; other than there: {}{more}", named.join(", "))
    };
    format!("{kind}, {} packages{which}", here.versions.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(facts: &[(&str, &str)]) -> Picture {
        let mut made = Picture::default();
        facts.iter().for_each(|(what, value)| made.add(Subject::Shape, *what, *value));
        made
    }

    #[test]
    fn every_difference_is_told_and_the_number_is_whole_only_without_any() {
        let here = picture(&[("web replicas", "2"), ("web command", "./web"), ("api command", "./api")]);
        assert_eq!(Parity::between(&here, &here, &[], Time(0)).percent(), 100);
        let there = picture(&[("web replicas", "1"), ("web command", "./web")]);
        let parity = Parity::between(&here, &there, &[], Time(0));
        let told: Vec<_> =
            parity.differences.iter().map(|row| (row.what.as_str(), row.there.as_deref())).collect();
        assert_eq!(told, [("api command", None), ("web replicas", Some("1"))]);
        assert_eq!(parity.percent(), 33);
    }

    #[test]
    fn a_difference_with_a_reason_counts_as_alike_until_the_reason_ends() {
        let (here, there) = (picture(&[("web replicas", "2")]), picture(&[("web replicas", "1")]));
        let allowed =
            Exception { what: "shape * replicas".into(), why: "staging is small".into(), until: Time(10) };
        let at = |now| Parity::between(&here, &there, std::slice::from_ref(&allowed), Time(now));
        assert_eq!((at(9).percent(), at(10).percent()), (100, 0));
        assert_eq!(at(9).differences[0].allowed.as_ref().map(|e| e.why.as_str()), Some("staging is small"));
    }

    #[test]
    fn too_little_parity_is_told_with_its_number_and_the_first_differences() {
        let here = picture(&[("web a", "1"), ("web b", "1"), ("web c", "1"), ("web d", "1"), ("web e", "1")]);
        let there = picture(&[("web a", "2"), ("web b", "2"), ("web c", "2"), ("web e", "1")]);
        let parity = Parity::between(&here, &there, &[], Time(0));
        let words = parity.short_of(95, "staging", "production").unwrap();
        assert!(words.contains("20 % alike, and 95 % are asked for"), "{words}");
        assert!(words.contains("shape web a (1 against 2)") && words.ends_with("and 1 more"), "{words}");
        assert_eq!(parity.short_of(20, "staging", "production"), None);
        // What may differ does not count.
        let any = Exception { what: "shape *".into(), why: "small".into(), until: Time(10) };
        assert_eq!(Parity::between(&here, &there, &[any], Time(0)).short_of(100, "a", "b"), None);
    }

    #[test]
    fn packages_that_differ_are_named_first_those_that_both_have() {
        let packages = |all: &[(&str, &str)]| Packages {
            kind: "dpkg".into(),
            versions: all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        };
        let here = packages(&[("aa", "1"), ("openssl", "3.0.1"), ("zlib", "1")]);
        let there = packages(&[("openssl", "3.0.2"), ("zlib", "1")]);
        let (one, other) = (here.digest().to_string(), there.digest().to_string());
        let (mut first, mut second) = (Picture::default(), Picture::default());
        first.add(Subject::Packages, "web", &one);
        second.add(Subject::Packages, "web", &other);
        let mut parity = Parity::between(&first, &second, &[], Time(0));
        parity.name_packages(&[(one, here), (other, there)].into());
        let row = &parity.differences[0];
        let said = row.here.as_deref().unwrap();
        assert_eq!(said, "dpkg, 3 packages; other than there: openssl 3.0.1, aa 1");
        assert_eq!(row.there.as_deref(), Some("dpkg, 2 packages; other than there: openssl 3.0.2"));
        let many: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "1")).collect();
        assert!(tell(&packages(&many), &Packages::default()).ends_with("and 92 more"));
        assert_eq!(tell(&Packages::default(), &packages(&many)), "no package records, 0 packages");
    }

    #[test]
    fn two_environments_without_anything_are_alike() {
        assert_eq!(Parity::between(&Picture::default(), &Picture::default(), &[], Time(0)).percent(), 100);
    }
}

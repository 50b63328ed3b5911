//! How databases are named and marked. Knows no server.

use andon_model::{DatabaseName, Digest, EnvironmentName, ProjectName};
use serde::{Deserialize, Serialize};

/// PostgreSQL cuts longer names off.
const LONGEST: usize = 63;

/// Whose a role is, and with it its database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label {
    /// Which data directory of ours made it.
    pub andon: String,
    /// For which project.
    pub project: ProjectName,
    /// Which of its databases.
    pub database: DatabaseName,
    /// What for.
    pub of: Use,
}

/// What a database is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// An environment's own.
    Environment(EnvironmentName),
    /// Like an environment's own, for as long as a drill lasts.
    Drill(EnvironmentName),
    /// Others are cloned from it; made at this time, in milliseconds.
    Template(u64),
}

/// `andon_PROJECT_ENVIRONMENT_DATABASE`. No part holds a `_`, so that no two places share a name; one that is too long ends in a digest.
pub fn name(project: &ProjectName, of: &Use, database: &DatabaseName) -> String {
    let of = match of {
        Use::Environment(environment) => environment.to_string(),
        // An environment's name begins otherwise.
        Use::Drill(environment) => format!("-drill-{environment}"),
        Use::Template(made) => format!("-template-{made}"),
    };
    let whole = format!("andon_{project}_{of}_{database}");
    if whole.len() <= LONGEST {
        return whole;
    }
    let digest = Digest::of(whole.as_bytes()).to_string();
    let digest: String = digest.chars().filter(char::is_ascii_hexdigit).rev().take(16).collect();
    format!("{}__{digest}", &whole[..LONGEST - 18])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(project: &str, environment: &str, database: &str) -> String {
        let of = Use::Environment(environment.parse().unwrap());
        name(&project.parse().unwrap(), &of, &database.parse().unwrap())
    }

    #[test]
    fn no_two_places_share_a_name_and_none_is_cut_off() {
        assert_eq!(made("shop", "staging", "main"), "andon_shop_staging_main");
        assert_ne!(made("a-b", "c", "main"), made("a", "b-c", "main"));
        let long = "a".repeat(40);
        let (one, two) = (made(&long, &long, "main"), made(&long, &long, "mail"));
        assert!(one.len() <= 63 && one != two, "{one} {two}");
    }
}

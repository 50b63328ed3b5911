//! What a data plane is told: hosts, revisions, weights, backends. Checked here; put into force by a plane.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use http::HeaderName;
use serde::{Deserialize, Serialize};

/// One deployed version of a service.
pub use andon_model::event::Revision as RevisionName;

/// Everything that is routed. A host that no route names is answered with 404.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// One for each service that users may reach.
    pub routes: Vec<Route>,
}

/// Where the users of one service go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Host names, without port; case does not matter.
    pub hosts: Vec<String>,
    /// The key under which everything about the service is counted: `project/environment/service`.
    pub service: String,
    /// The revision that serves whoever the candidate does not.
    pub stable: RevisionName,
    /// The revision that users are being moved to.
    pub candidate: Option<Candidate>,
    /// The revision that sees a copy of the traffic and answers nobody.
    pub mirror: Option<Mirror>,
    /// Where the instances of each revision listen.
    pub backends: HashMap<RevisionName, Vec<SocketAddr>>,
    /// Counts up with every change of weight or revisions: signals are kept apart by it.
    pub epoch: u64,
    /// Latencies in µs; a subject of the stable revision that is slower is counted once for each. At most 32.
    pub slow_thresholds_us: Vec<u64>,
    /// The same for the candidate, in the same order. Fixed for as long as a release lasts.
    pub candidate_slow_thresholds_us: Vec<u64>,
    /// A request header that names the user, such as `x-user-id`; where it is missing the router's cookie counts.
    pub subject_header: Option<String>,
    /// Its instances are stopped until somebody asks: requests wait for the next table.
    pub asleep: bool,
    /// What its instances speak.
    pub protocol: Protocol,
    /// Who asks for a revision instead of being given one, while there is a candidate. The first that fits counts.
    pub forced: Vec<Forced>,
}

/// Requests that carry this go to that side, and are no witnesses of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// Where it stands.
    pub by: By,
    /// Name of the header or cookie.
    pub name: String,
    /// What it has to say, exactly.
    pub value: String,
    /// To which side.
    pub to: crate::signals::Arm,
}

/// Where a request says which side it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// In a header.
    Header,
    /// In a cookie.
    Cookie,
}

/// What an instance speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 in the clear, known beforehand, as gRPC wants it.
    Http2,
}

impl Route {
    /// A route that sends everyone to one revision.
    pub fn to(service: &str, hosts: &[&str], stable: RevisionName, backends: Vec<SocketAddr>) -> Route {
        Route {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            service: service.to_owned(),
            backends: HashMap::from([(stable.clone(), backends)]),
            stable,
            candidate: None,
            mirror: None,
            epoch: 0,
            slow_thresholds_us: Vec::new(),
            candidate_slow_thresholds_us: Vec::new(),
            subject_header: None,
            asleep: false,
            protocol: Protocol::Http1,
            forced: Vec::new(),
        }
    }
}

/// The revision that users are being moved to, and how many of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which.
    pub revision: RevisionName,
    /// Its share of subjects in basis points, 0 to 10 000.
    pub weight_bp: u16,
    /// Kept for a whole release, so that who was moved once stays; another one for each release.
    pub salt: String,
}

/// The revision that sees a copy of the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Which.
    pub revision: RevisionName,
    /// Share of requests in basis points, 0 to 10 000.
    pub percent_bp: u16,
    /// Whether its answers are compared with those that users got.
    pub compare: bool,
    /// Whether methods that may change something are copied too. Only for a revision that writes nowhere real.
    pub all_methods: bool,
}

/// Why a table was refused. The table in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two routes claim one host.
    #[error(
        "host {0} stands in two routes\nhint: each host belongs to one service; take it out of one `hosts` list"
    )]
    HostTwice(String),
    /// Two routes describe one service.
    #[error("service {0} has two routes\nhint: give all its hosts to one route")]
    ServiceTwice(String),
    /// A share of more than everything.
    #[error("a share of {1} basis points for {0} is more than all\nhint: 10000 basis points are 100 %")]
    TooMuch(String, u16),
    /// The candidate is the stable revision.
    #[error(
        "service {0} has the same revision as stable and as candidate\nhint: a finished release has no candidate"
    )]
    SameTwice(String),
    /// Not the name of a header.
    #[error("{1:?} of service {0} is not the name of a header\nhint: write it like x-user-id")]
    NotAHeader(String, String),
    /// More latencies than are told apart.
    #[error("service {0} has more than 32 slow thresholds\nhint: a few well-placed quantiles tell as much")]
    TooManyThresholds(String),
}

/// A host as it is looked up: lower case, no port, no final dot.
pub fn plain_host(host: &str) -> Cow<'_, str> {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

/// Refuses what would send users somewhere by accident.
pub fn check(table: &RouteTable) -> Result<(), TableError> {
    let (mut hosts, mut services) = (HashSet::new(), HashSet::new());
    for route in &table.routes {
        let service = || route.service.clone();
        if !services.insert(&route.service) {
            return Err(TableError::ServiceTwice(service()));
        }
        let own: HashSet<String> = route.hosts.iter().map(|host| plain_host(host).into_owned()).collect();
        if let Some(host) = own.into_iter().find(|host| !hosts.insert(host.clone())) {
            return Err(TableError::HostTwice(host));
        }
        let shares =
            [route.candidate.as_ref().map(|c| c.weight_bp), route.mirror.as_ref().map(|m| m.percent_bp)];
        if let Some(share) = shares.into_iter().flatten().find(|share| *share > 10_000) {
            return Err(TableError::TooMuch(service(), share));
        }
        if route.candidate.as_ref().is_some_and(|candidate| candidate.revision == route.stable) {
            return Err(TableError::SameTwice(service()));
        }
        let names = route.forced.iter().filter(|forced| forced.by == By::Header).map(|forced| &forced.name);
        if let Some(header) =
            route.subject_header.iter().chain(names).find(|name| name.parse::<HeaderName>().is_err())
        {
            return Err(TableError::NotAHeader(service(), header.clone()));
        }
        if route.slow_thresholds_us.len().max(route.candidate_slow_thresholds_us.len()) > 32 {
            return Err(TableError::TooManyThresholds(service()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_whatever_their_case_and_port() {
        for host in ["Web.Example", "web.example:8080", "web.example.", "WEB.EXAMPLE.:80"] {
            assert_eq!(plain_host(host), "web.example");
        }
        assert_eq!(plain_host("[::1]:80"), "::1");
    }

    #[test]
    fn a_table_that_would_surprise_is_refused() {
        let name = |text: &str| RevisionName(text.to_owned());
        let route = |service: &str, host: &str| Route::to(service, &[host], name("a"), vec![]);
        let table = |routes| RouteTable { routes };
        assert_eq!(check(&table(vec![route("x", "h"), route("y", "i")])), Ok(()));
        let twice = check(&table(vec![route("x", "h"), route("y", "H")]));
        assert_eq!(twice, Err(TableError::HostTwice("h".into())));
        let mut same = route("x", "h");
        same.candidate = Some(Candidate { revision: name("a"), weight_bp: 1, salt: String::new() });
        assert_eq!(check(&table(vec![same])), Err(TableError::SameTwice("x".into())));
        let mut much = route("x", "h");
        much.candidate = Some(Candidate { revision: name("b"), weight_bp: 10_001, salt: String::new() });
        assert_eq!(check(&table(vec![much])), Err(TableError::TooMuch("x".into(), 10_001)));
    }
}

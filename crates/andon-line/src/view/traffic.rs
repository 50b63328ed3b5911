//! Who moves users, whether it does what the journal says, and where users of each service go.

use serde::{Deserialize, Serialize};

use crate::Line;

/// The data plane at this moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrafficView {
    /// What people call it.
    pub plane: String,
    /// Why it does not do what the journal says; none: it does.
    pub behind: Option<String>,
    /// What it cannot do.
    pub lacks: Vec<String>,
    /// By service.
    pub routes: Vec<RouteRow>,
}

/// Where the users of one service go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteRow {
    /// `project/environment/service`.
    pub service: String,
    /// Its names.
    pub hosts: Vec<String>,
    /// Its instances speak HTTP/2 in the clear.
    pub http2: bool,
    /// The revision that serves.
    pub stable: String,
    /// The revision that users are being moved to.
    pub candidate: Option<String>,
    /// Its share of users, in basis points.
    pub weight_bp: u16,
}

/// The data plane at this moment, as it should be and as it says it is.
pub fn traffic(line: &Line) -> TrafficView {
    let plane = line.plane();
    let row = |route: andon_traffic::Route| RouteRow {
        service: route.service,
        hosts: route.hosts,
        http2: route.protocol == andon_traffic::Protocol::Http2,
        stable: route.stable.0,
        weight_bp: route.candidate.as_ref().map_or(0, |candidate| candidate.weight_bp),
        candidate: route.candidate.map(|candidate| candidate.revision.0),
    };
    TrafficView {
        plane: plane.name().to_owned(),
        behind: plane.behind(),
        lacks: plane.lacks().iter().map(ToString::to_string).collect(),
        routes: line.route_table().routes.into_iter().map(row).collect(),
    }
}

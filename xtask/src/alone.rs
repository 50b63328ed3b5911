//! `xtask alone PORT STABLE CANDIDATE [SHADOW]`: the router by itself on one thread, between ports of this machine, with a candidate at 5 %. For benches and profiles of the
//! router alone. Serves until it is killed.

use std::collections::HashMap;
use std::net::SocketAddr;

use andon_router::{Candidate, Mirror, RevisionName, Route, RouteTable, Router};

/// The host that it answers.
pub const HOST: &str = "web.production.shop.localhost";

/// A route as the benches have it: histograms, stickiness by cookie, slow thresholds, a candidate.
pub fn table(stable: u16, candidate: u16, shadow: Option<u16>, weight_bp: u16, epoch: u64) -> RouteTable {
    let local = |port: u16| vec![SocketAddr::from(([127, 0, 0, 1], port))];
    let name = |text: &str| RevisionName(text.to_owned());
    let mut backends =
        HashMap::from([(name("stable"), local(stable)), (name("candidate"), local(candidate))]);
    backends.extend(shadow.map(|port| (name("shadow"), local(port))));
    let mirror = shadow.map(|_| Mirror {
        revision: name("shadow"),
        percent_bp: 10_000,
        compare: true,
        all_methods: false,
    });
    let route = Route {
        candidate: Some(Candidate { revision: name("candidate"), weight_bp, salt: "release-1".into() }),
        backends,
        mirror,
        epoch,
        slow_thresholds_us: vec![500, 1_000, 2_000, 5_000],
        candidate_slow_thresholds_us: vec![500, 1_000, 2_000, 5_000],
        ..Route::to("shop/production/web", &[HOST], name("stable"), Vec::new())
    };
    RouteTable { routes: vec![route] }
}

/// Serves.
pub fn run(args: &[String]) -> Result<(), String> {
    let ports: Vec<u16> = args.iter().filter_map(|port| port.parse().ok()).collect();
    let [port, stable, candidate, shadow @ ..] = ports.as_slice() else {
        return Err("usage: cargo xtask alone PORT STABLE CANDIDATE [SHADOW]".into());
    };
    crate::pump::single()?.block_on(async {
        let router = Router::new();
        let table = table(*stable, *candidate, shadow.first().copied(), 500, 1);
        router.set(table).map_err(|error| error.to_string())?;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", *port)).await;
        router.serve(listener.map_err(|error| error.to_string())?, std::future::pending()).await;
        Ok(())
    })
}

//! `cargo xtask bench AREA`: measures one area and keeps its figures.

use crate::{
    containers, data, environments, line, logs, order, pipeline, proxies, recovery, release, states, traffic,
    validation,
};

/// Measures the area.
pub fn run(area: Option<&str>, more: &[String]) -> Result<(), String> {
    match area {
        Some("line") => line::run(),
        Some("pipeline") => pipeline::run(),
        Some("logs") => logs::run(),
        Some("order") => order::run(more),
        Some("environments") => environments::run(),
        Some("docker") => containers::run(),
        Some("data") => data::run(),
        Some("recovery") => recovery::run(),
        Some("states") => states::run(),
        Some("router") => traffic::run(),
        Some("proxies") => proxies::run(),
        Some("release") => release::run(more),
        Some("validation") => validation::run(),
        _ => Err("usage: cargo xtask bench line|pipeline|logs|order FILE.csv...|router|proxies|release [RUNS [PART…]]|environments|docker|data|states|recovery|validation"
            .to_owned()),
    }
}

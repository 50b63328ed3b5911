//! `cargo xtask bench docker`: the same with containers, and what a thousand environments of them leave with the engine. Starts no engine.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use crate::environments::{ALONE, at_once, create, cycles, end, rebuild};
use crate::figure::{Figure, keep, quantile};
use crate::house::{House, binary, pause};

/// Environments at the same time that come and go.
const HANDS: usize = 4;
const NOTES: &str = "The release binary and Docker Engine: the same three services, each a container with an image that is at hand (the artifact on an \
    empty one) and limits, in a network of their environment. *Create* and *rebuild* as with processes. Counted at the end are containers, images, networks and \
    volumes that carry the server's label, beside those of production.";

/// Measures and keeps.
pub fn run() -> Result<(), String> {
    let house = House::open(&binary()?)?;
    let source = std::fs::read_to_string(crate::root().join("examples/docker/serve.rs"));
    let source = source.map_err(|error| format!("examples/docker/serve.rs: {error}"))?;
    let service = |name: &str| {
        format!(
            "  {name}: {{ command: [./serve], health: /healthz, limits: {{ memory: 64MiB, cpu: 1, processes: 32 }} }}\n"
        )
    };
    let yaml = format!(
        "version: 1
pipeline:
  jobs:
    package:
      run: |
        mkdir dist
        target=$(rustc -vV | sed -n 's/^host: //p')
        rustc --edition 2021 -O -C target-feature=+crt-static --target $target serve.rs -o dist/serve
      artifact: dist
services:
{}{}{}environments: {{ production: {{ runtime: docker, release: way }} }}
releases: {{ way: {{ blue-green: {{ keep: 1s }} }} }}
",
        service("web"),
        service("cart"),
        service("mail"),
    );
    house.served(house.propose("Begin", &[("andon.yaml", &yaml), ("serve.rs", &source)])?)?;
    let (mut made, mut rebuilt) = (Vec::new(), Vec::new());
    for n in 0..ALONE {
        let name = format!("alone-{n}");
        made.push(create(&house, &name)?);
        rebuilt.push(rebuild(&house, &name)?);
        end(&house, &name)?;
    }
    let mut figures = vec![
        Figure::lower("create with 3 services: median", quantile(&mut made, 0.5), "s", None),
        Figure::lower("create with 3 services: p95", quantile(&mut made, 0.95), "s", Some(15.0)),
        Figure::lower("rebuild: median", quantile(&mut rebuilt, 0.5), "s", None),
        Figure::lower("rebuild: p95", quantile(&mut rebuilt, 0.95), "s", Some(10.0)),
    ];
    let before = of_server(&house)?;
    let cycles = cycles();
    at_once(HANDS, |hand| {
        for n in (hand..cycles).step_by(HANDS) {
            create(&house, &format!("cycle-{n}"))?;
            end(&house, &format!("cycle-{n}"))?;
        }
        Ok(())
    })?;
    let begun = Instant::now();
    let mut left = of_server(&house)?;
    while left != before && begun.elapsed().as_secs() < 60 {
        pause(500);
        left = of_server(&house)?;
    }
    let left = left.difference(&before).count();
    figures.push(Figure::lower(
        format!("left by {cycles} environments that came and went"),
        left as f64,
        "",
        Some(0.0),
    ));
    for (kind, id) in of_server(&house)? {
        // It goes on running there else.
        let force: &[&str] = if matches!(kind, "container" | "image") { &["-f"] } else { &[] };
        docker(&[&[kind, "rm"], force, &[id.as_str()]].concat())?;
    }
    keep("docker", figures, NOTES)
}

/// What the bench's server has with the engine: kind and id.
fn of_server(house: &House) -> Result<BTreeSet<(&'static str, String)>, String> {
    let server = house.room.join("data/docker/server");
    let server =
        std::fs::read_to_string(&server).map_err(|error| format!("{}: {error}", server.display()))?;
    let label = format!("label=andon.server={}", server.trim());
    let mut all = BTreeSet::new();
    for kind in ["container", "image", "network", "volume"] {
        let every: &[&str] = if matches!(kind, "container" | "image") { &["-a"] } else { &[] };
        let found = docker(&[&[kind, "ls", "-q", "--filter", &label], every].concat())?;
        all.extend(found.lines().map(|id| (kind, id.to_owned())));
    }
    Ok(all)
}

fn docker(args: &[&str]) -> Result<String, String> {
    let out = Command::new("docker").args(args).output().map_err(|error| format!("docker: {error}"))?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

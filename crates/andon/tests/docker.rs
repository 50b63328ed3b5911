//! Environments of containers, on the real binary and a real engine: made, seen to drift, healed, rebuilt, ended; nothing is left.
//!
//! Needs a Docker Engine that answers (`tools/with-docker` starts one). Without it the tests say SKIPPED, and fail where CI=true.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use support::{Repo, Server, of_type};

const HOST: &str = "web.production.shop.localhost";

/// What `docker` says, with its error output where it fails.
fn docker(args: &[&str]) -> Result<String, String> {
    let out = Command::new("docker").args(args).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

/// Whether there is an engine; says SKIPPED where not.
fn engine(test: &str) -> bool {
    let Err(why) = docker(&["version", "--format", "{{.Server.Version}}"]) else { return true };
    println!("SKIPPED: {test} ({why})");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "in CI a component that is missing is a failure");
    false
}

/// The example, in a repository of its own.
fn example() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/docker");
    let files = std::fs::read_dir(dir).unwrap().flatten();
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    files.map(|file| (file.file_name().into_string().unwrap(), text(&file.path()))).collect()
}

/// A server, and what it made on the engine, which ends with it.
struct Shop {
    server: Server,
    repo: Repo,
}

impl Shop {
    fn new(files: &[(String, String)]) -> Shop {
        let files: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let (server, repo) = Server::with_project(&files);
        Shop { server, repo }
    }

    fn label(&self) -> String {
        let name = std::fs::read_to_string(self.server.room.path().join("data/docker/server")).unwrap();
        format!("label=andon.server={name}")
    }

    /// Containers of an environment, by id.
    fn containers(&self, environment: &str) -> Vec<String> {
        let environment = format!("label=andon.environment={environment}");
        let listed =
            docker(&["ps", "-aq", "--no-trunc", "--filter", &self.label(), "--filter", &environment]);
        listed.unwrap().lines().map(str::to_owned).collect()
    }

    /// Everything of this server that is on the engine.
    fn left(&self) -> Vec<String> {
        let label = self.label();
        let name = label.rsplit('=').next().unwrap().to_owned();
        let mut left = Vec::new();
        for args in [vec!["ps", "-aq", "--filter", &label], vec!["network", "ls", "-q", "--filter", &label]] {
            left.extend(docker(&args).unwrap().lines().map(|line| format!("{}: {line}", args[0])));
        }
        let images = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).unwrap();
        left.extend(images.lines().filter(|image| image.contains(&name)).map(str::to_owned));
        left
    }

    /// Waits until everybody in production gets `version`.
    fn serves(&self, version: &str) {
        let got = self.server.visit(HOST, "/");
        assert_eq!(got, (200, format!("{version}\n")));
    }

    /// Waits for drift of this kind that is seen, and then healed. How long it took to be seen.
    fn drifts_and_heals(&self, what: &str, since: usize, by_hand: Instant) -> std::time::Duration {
        let found = |kind: &str| {
            let journal = self.server.journal();
            let new = of_type(&journal[since..], kind).into_iter();
            new.map(|event| event["event"].to_string()).find(|event| event.contains(what))
        };
        let seen = until(&format!("{what} is seen"), || found("drift_seen"));
        let took = by_hand.elapsed();
        println!("{what} seen after {took:?}: {seen}");
        until(&format!("{what} is healed"), || found("drift_healed"));
        self.server.until("production is whole again", "/environments/production", |view| {
            view["drifts"].as_array().is_some_and(Vec::is_empty)
        });
        took
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.server.kill();
        let label = self.label();
        if let Ok(all) = docker(&["ps", "-aq", "--filter", &label]) {
            all.lines().for_each(|id| drop(docker(&["rm", "-fv", id])));
        }
        if let Ok(all) = docker(&["network", "ls", "-q", "--filter", &label]) {
            all.lines().for_each(|id| drop(docker(&["network", "rm", id])));
        }
        for image in self.left() {
            drop(docker(&["rmi", "-f", &image]));
        }
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed().as_secs() < 60, "never seen: {what}");
        support::pause();
    }
}

#[test]
fn an_environment_of_containers_lives_and_leaves_nothing() {
    if !engine("an environment of containers") {
        return;
    }
    let shop = Shop::new(&example());
    let first = shop.repo.propose("Serve from containers");
    shop.server.served(first);
    shop.serves("v1");
    println!("{:#?}", shop.left());
    let begun = Instant::now();
    let since = shop.server.journal().len();
    docker(&["rm", "-f", &shop.containers("production")[0]]).unwrap();
    shop.drifts_and_heals("process of web", since, begun);
}

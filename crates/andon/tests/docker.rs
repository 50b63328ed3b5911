//! Environments of containers, on the real binary and a real engine: made, seen to drift, healed, rebuilt, ended; nothing is left.
//!
//! Needs a Docker Engine that answers (`tools/with-docker` starts one). Without it the tests say SKIPPED, and fail where CI=true.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use support::example::Example;
use support::{Containers, Repo, Server, of_type};

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

/// A server with the example.
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
        Containers::of(&self.server).label()
    }

    /// Containers of an environment, by id.
    fn containers(&self, environment: &str) -> Vec<String> {
        let environment = format!("label=andon.environment={environment}");
        let listed =
            docker(&["ps", "-aq", "--no-trunc", "--filter", &self.label(), "--filter", &environment]);
        listed.unwrap().lines().map(str::to_owned).collect()
    }

    /// Those that run.
    fn running(&self, environment: &str) -> Vec<String> {
        let environment = format!("label=andon.environment={environment}");
        let listed = docker(&["ps", "-q", "--no-trunc", "--filter", &self.label(), "--filter", &environment]);
        listed.unwrap().lines().map(str::to_owned).collect()
    }

    /// What a user of production gets.
    fn visit(&self, path: &str) -> (u16, String) {
        self.server.visit(HOST, path)
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
fn an_environment_of_containers_lives_drifts_heals_and_leaves_nothing() {
    if !engine("an environment of containers") {
        return;
    }
    let shop = Shop::new(&example());
    let first = shop.repo.propose("Serve from containers");
    shop.server.served(first);
    assert_eq!(shop.visit("/"), (200, "v1\n".into()));
    assert_eq!(shop.visit("/note"), (200, "noted\n".into()), "it may write what was said");
    assert!(shop.visit("/user").1.contains("Uid:\t65532"), "it is nobody");
    // One artifact went through both environments, and not one thing was seen to differ.
    let journal = shop.server.journal();
    let digests: Vec<&Value> =
        of_type(&journal, "deployment_started").iter().map(|event| &event["event"]["artifact"]).collect();
    assert!(digests.len() == 2 && digests[0] == digests[1], "{digests:?}");
    assert!(of_type(&journal, "drift_seen").is_empty());

    // Hands reach in: one removes a container, one writes into a file, one changes a setting.
    let mut slowest = std::time::Duration::ZERO;
    let mut by_hand = |what: &str, hand: &dyn Fn(&str)| {
        let since = shop.server.journal().len();
        let victim = shop.running("production").pop().unwrap();
        let begun = Instant::now();
        hand(&victim);
        slowest = slowest.max(shop.drifts_and_heals(what, since, begun));
    };
    by_hand("process of web", &|victim| drop(docker(&["rm", "-f", victim]).unwrap()));
    by_hand("file serve of web", &|victim| {
        let files = docker(&["inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", victim]).unwrap();
        let program = format!("{files}/app/serve");
        std::fs::remove_file(&program).unwrap();
        std::fs::write(program, "tampered").unwrap();
    });
    by_hand("\"what\":\"memory limit of web", &|victim| {
        docker(&["update", "--memory", "128m", "--memory-swap", "128m", victim]).unwrap();
    });
    println!("drift by hand is seen within {slowest:?}");
    assert_eq!(shop.visit("/"), (200, "v1\n".into()));

    // Rebuilt from code: nothing of it is as old as before, and it serves again.
    let before = shop.containers("production");
    let since = shop.server.journal().len();
    let begun = Instant::now();
    let asked =
        shop.server.post("/api/v1/shop/environments/production/rebuild", &json!({ "why": "to try it" }));
    assert_eq!(asked.0, 200, "{}", asked.1);
    until("production is rebuilt", || {
        let journal = shop.server.journal();
        let up = of_type(&journal[since..], "release_finished").len();
        (up > 0 && shop.visit("/").0 == 200).then_some(())
    });
    println!("rebuilt within {:?}", begun.elapsed());
    assert!(shop.containers("production").iter().all(|id| !before.contains(id)));

    // An environment that was asked for comes, and goes with all it had.
    let begun = Instant::now();
    let asked =
        shop.server.post("/api/v1/shop/environments", &json!({ "name": "try", "like": "production" }));
    assert_eq!(asked.0, 200, "{}", asked.1);
    until("it serves", || (shop.server.visit("web.try.shop.localhost", "/").0 == 200).then_some(()));
    println!("an environment of two instances serves after {:?}", begun.elapsed());
    let networks = || docker(&["network", "ls", "-q", "--filter", &shop.label()]).unwrap().lines().count();
    assert_eq!(networks(), 3);
    let asked = shop.server.post("/api/v1/shop/environments/try/destroy", &json!({ "why": "seen enough" }));
    assert_eq!(asked.0, 200, "{}", asked.1);
    until("it is gone", || (shop.containers("try").is_empty() && networks() == 2).then_some(()));
}

#[test]
fn the_example_goes_as_its_readme_says() {
    if !engine("the example of containers") {
        return;
    }
    let server = Server::fresh();
    let example = Example::open(&server, "docker");
    let [put, look, reach_in] = example.blocks()[..] else { panic!("the page has other blocks") };
    let run = |commands: &str| example.run(commands);
    let said = run(put);
    server.served(support::number(&said));
    let said = run(look);
    assert!(said.ends_with("v1\n"), "{said}");
    run(reach_in);
    until("it is healed", || of_type(&server.journal(), "drift_healed").pop().map(drop));
}

const COMPOSE: &str = "services:
  web:
    build: .
    ports: ['8080:9000']
    environment: { GREETING: hello }
    healthcheck: { test: [CMD, wget, -q, 'http://localhost:9000/healthz'] }
    deploy: { replicas: 2, resources: { limits: { memory: 64M } } }
  cache: { image: 'redis:7' }
";

/// The example's service, as a program that needs no image below it.
fn build_alone(source: &Path, to: &Path) {
    let about = Command::new("rustc").arg("-vV").output().unwrap();
    let about = String::from_utf8(about.stdout).unwrap();
    let target = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2021", "-O", "-C", "target-feature=+crt-static", "--target", target]);
    assert!(rustc.arg(source).arg("-o").arg(to).status().unwrap().success());
}

#[test]
fn a_repository_with_a_compose_file_goes_down_the_line_as_init_wrote_it() {
    if !engine("a Compose file") {
        return;
    }
    let mut server = Server::fresh();
    // Its jobs build images: the owner says that they may.
    server.kill();
    server.set("ANDON_DOCKER_IN_JOBS", "true");
    server.start();
    let dir = server.room.path().join("shop");
    std::fs::create_dir_all(&dir).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/docker/serve.rs");
    build_alone(&example, &dir.join("serve"));
    std::fs::write(dir.join("compose.yaml"), COMPOSE).unwrap();
    std::fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY serve /serve\nCMD [\"/serve\"]\n").unwrap();
    // What no file says, init asks for: how it is tested.
    std::fs::write(dir.join("test.sh"), "#!/bin/sh\ntest -x serve\n").unwrap();
    std::fs::set_permissions(dir.join("test.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(args).current_dir(&dir).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "Ann").env(format!("GIT_{who}_EMAIL"), "ann@example.com");
        }
        let out = git.output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    git(&["init", "-q", "-b", "main"]);
    let init = server.cli_in(&dir, &["init"]);
    let said = [init.stdout, init.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(init.status.success() && said.contains("cache (redis:7) is not built here"), "{said}");
    assert!(said.contains("how are tests run?"), "{said}");
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "Serve as before"]);
    let remote = format!("http://dev:{}@127.0.0.1:{}/shop.git", server.token, server.http);
    git(&["push", "-q", &remote, "HEAD:refs/for/main"]);
    server.served(1);
    assert_eq!(server.visit(HOST, "/"), (200, "v1\n".into()));
    let label = Containers::of(&server).label();
    let all =
        docker(&["ps", "-q", "--filter", &label, "--filter", "label=andon.environment=production"]).unwrap();
    assert_eq!(all.lines().count(), 2);
    let of = |what: &str| docker(&["inspect", "-f", what, all.lines().next().unwrap()]).unwrap();
    assert!(of("{{.Config.Env}}").contains("GREETING=hello"));
    assert_eq!(of("{{.HostConfig.Memory}}"), (64_u64 << 20).to_string());
}

#[test]
fn a_server_killed_while_containers_start_finishes_what_it_began() {
    if !engine("a server killed while containers start") {
        return;
    }
    let mut shop = Shop::new(&example());
    let first = shop.repo.propose("Serve from containers");
    // Killed at moments that nobody chose, until it serves.
    let mut dice = support::Dice::of_environment();
    let landed = |view: &Value| view["row"]["standing"] == "landed";
    shop.server.until("it landed", &format!("/changes/{first}"), landed);
    for _ in 0..6 {
        support::pass(dice.between(20, 700));
        shop.server.kill();
        shop.server.start();
    }
    shop.server.served(first);
    assert_eq!(shop.visit("/"), (200, "v1\n".into()));
    until("nothing is there twice", || {
        let found = [shop.containers("staging").len(), shop.containers("production").len()];
        (found == [1, 2]).then_some(())
    });
    // What is on the engine and in no journal is removed at the next start.
    let one = shop.containers("production").pop().unwrap();
    let image = docker(&["inspect", "-f", "{{.Config.Image}}", &one]).unwrap();
    let label = shop.label();
    let label = label.strip_prefix("label=").unwrap();
    let lost = ["andon.project=shop", "andon.instance=i900", "andon.environment=staging", label];
    let name = format!("andon-{}-shop-i900", label.split('=').nth(1).unwrap());
    let mut args = vec!["run", "-d", "--name", &name];
    lost.iter().for_each(|label| args.extend(["--label", label]));
    args.extend([image.as_str(), "./serve"]);
    docker(&args).unwrap();
    until("the orphan is removed", || docker(&["inspect", &name]).is_err().then_some(()));
}

#[test]
fn without_an_engine_a_deployment_fails_in_words_and_one_that_comes_later_is_found() {
    if !engine("an engine that comes later") {
        return;
    }
    let socket = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let room = tempfile::tempdir().unwrap();
    let later = room.path().join("docker.sock");
    let files: Vec<(String, String)> = example()
        .into_iter()
        .map(|(name, text)| {
            (name, text.replace("    replicas: 2\n", "    replicas: 1\n    start_within: 3s\n"))
        })
        .collect();
    let mut shop = Shop::new(&files);
    shop.server.kill();
    shop.server.set("DOCKER_HOST", &format!("unix://{}", later.display()));
    shop.server.start();
    shop.repo.propose("Serve from containers");
    let failed = until("the deployment fails", || {
        let journal = shop.server.journal();
        of_type(&journal, "deployment_finished").pop().map(|event| event["event"].clone())
    });
    let why = failed["why"].as_str().unwrap();
    assert!(failed["ok"] == false && why.contains("no container engine answers"), "{failed}");
    // The engine comes; the next change finds it.
    std::os::unix::fs::symlink(socket.trim_start_matches("unix://"), &later).unwrap();
    let andons = shop.server.view("/andons");
    let andon = andons["rows"].as_array().and_then(|rows| rows.first()).map(|row| row["id"].clone());
    println!("{andon:?}");
    shop.repo.follow();
    shop.repo.write("serve.rs", &shop.repo.read("serve.rs").replace("\"v1\"", "\"v2\""));
    let fixed = shop.repo.propose("Serve again\n\nFixes-Andon: A1");
    shop.server.served(fixed);
    assert_eq!(shop.visit("/"), (200, "v2\n".into()));
}

#[test]
fn a_shell_in_a_container_is_recorded_and_taints_and_is_no_drift() {
    if !engine("a shell in a container") {
        return;
    }
    // Given a staging of processes before a production of containers
    let mut files = example();
    for (name, text) in &mut files {
        if name == "andon.yaml" {
            *text = text.replace(
                "staging: { like: production,",
                "staging: { like: production, runtime: process, env: { HOST: 127.0.0.1 },",
            );
            assert!(text.contains("runtime: process"));
        }
    }
    let shop = Shop::new(&files);
    shop.server.served(shop.repo.propose("Serve from containers"));
    // The only program inside, a second time: it finds its own port taken, which it is nowhere else.
    let out = shop.server.cli(&["env", "shell", "production", "--reason", "to see", "--", "./serve"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(!out.status.success() && said.contains("in use"), "{said}");
    let view = shop.server.view("/environments/production");
    assert!(view["notes"].to_string().contains("tainted by owner: to see"), "{view}");
    let cast = shop.server.cli(&["env", "shells", "--recording", "S1"]);
    assert!(String::from_utf8_lossy(&cast.stdout).contains("in use"));
    let journal = shop.server.journal();
    assert!(of_type(&journal, "drift_seen").is_empty(), "a shell of ours is no stranger");
    // An image that holds nothing but the artifact has no packages, the host has: that is a difference, and is told.
    let diff = "/environments/staging/diff/production";
    let view =
        shop.server.until("packages differ", diff, |view| view["rows"].to_string().contains("packages"));
    let row =
        view["rows"].as_array().unwrap().iter().find(|row| row["subject"] == "packages").cloned().unwrap();
    assert_eq!(row["there"], "no package records, 0 packages", "{row}");
    if Path::new("/var/lib/dpkg/status").exists() {
        let here = row["here"].as_str().unwrap();
        assert!(here.starts_with("dpkg, ") && here.contains("other than there: "), "{row}");
    }
}

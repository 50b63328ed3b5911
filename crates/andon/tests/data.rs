//! Databases of environments, end to end: made before the instances, migrated, cloned masked, dropped. Needs PostgreSQL's server programs.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

mod support;

use andon_testkit::postgres::Cluster;
use support::{Repo, Server};

/// Serves what `psql` says, with the address that it is told: a service without a driver.
const APP: &str = r#"
import sys, http.server, os, subprocess
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sql = "select string_agg(email, ',' order by id) from users"
        out = subprocess.run(["psql", "-AtX", "-c", sql, os.environ["DATABASE_URL"]], capture_output=True)
        self.send_response(200 if out.returncode == 0 else 500)
        self.end_headers()
        self.wfile.write(out.stdout + out.stderr)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

const LINE: &str = r#"
version: 1
pipeline:
  jobs:
    package: { run: "mkdir dist && cp app.py dist/", artifact: dist }
databases:
  main: { migrations: db/migrations, mask: db/mask.yml }
services:
  web: { command: [python3, app.py, $PORT], health: /, databases: [main] }
environments:
  production: { release: all-at-once }
"#;

const FIRST: &str = "CREATE TABLE users (id int PRIMARY KEY, email text);
INSERT INTO users VALUES (1, 'canary@example.org')";

/// Databases and roles of ours.
fn names(cluster: &Cluster) -> String {
    cluster.ask(
        "postgres",
        "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname LIKE 'andon%'",
    )
}

fn shop(cluster: &Cluster) -> (Server, Repo) {
    let mut server = Server::fresh();
    server.kill();
    server.set("ANDON_POSTGRES", &cluster.url("postgres"));
    server.start();
    assert_eq!(server.post("/api/v1/projects", &serde_json::json!({ "name": "shop" })).0, 200);
    let files = [
        ("andon.yaml", LINE),
        ("app.py", APP),
        ("db/migrations/1.expand.sql", FIRST),
        ("db/mask.yml", "tables: { users: { id: keep, email: email } }\n"),
    ];
    let repo = Repo::new(&server, &files);
    (server, repo)
}

#[test]
fn an_environment_gets_a_masked_clone_that_goes_with_it_and_no_half_template_stays() {
    let Some(cluster) = Cluster::start() else { return };
    // Given a service whose first version makes its table
    let (mut server, repo) = shop(&cluster);
    server.served(repo.propose("Begin"));
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("canary@"));
    // When the server is killed while a template is being made
    assert!(server.cli(&["data", "refresh", "main"]).status.success());
    server.kill();
    server.start();
    // Then it makes one all the same
    server.until("a template is sealed", "/data", |view| view["templates"][0]["mark"] == "go");
    // And an environment that is asked for shows its data masked
    assert!(server.cli(&["env", "create", "try", "--ttl", "1h", "--wait"]).status.success());
    let shown = server.visit("web.try.shop.localhost", "/").1;
    assert!(shown.contains("@example.invalid") && !shown.contains("canary"), "{shown}");
    // And it goes with the environment
    assert!(server.cli(&["env", "destroy", "try"]).status.success());
    server.until("its database is dropped", "/data", |view| {
        view["databases"].as_array().is_some_and(|d| d.len() == 1)
    });
    assert!(!names(&cluster).contains("_try_"), "{}", names(&cluster));
    let journal = serde_json::to_string(&server.journal()).unwrap();
    assert!(!journal.contains("postgresql://") && !journal.contains("canary@"));
}

#[test]
fn a_migration_that_fails_fails_its_deployment_and_nobody_who_is_served() {
    let Some(cluster) = Cluster::start() else { return };
    let (server, repo) = shop(&cluster);
    server.served(repo.propose("Begin"));
    // Given a migration that fails: its deployment does, and who serves goes on
    repo.follow();
    repo.write("db/migrations/2.expand.sql", "ALTER TABLE nobody ADD x int");
    server.decided(repo.propose("Break the table"));
    let view = server.until("it is told", "/data", |view| view["databases"][0]["mark"] == "stop");
    assert!(view["databases"][0]["failed"].as_str().unwrap().contains("2.expand"), "{view}");
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("canary@"));
    assert_eq!(cluster.ask("andon_shop_production_main", "SELECT count(*) FROM andon.migrations"), "1");
}

fn said(out: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn a_drill_makes_databases_again_beside_those_in_use_and_drops_them() {
    let Some(cluster) = Cluster::start() else { return };
    let (server, repo) = shop(&cluster);
    server.served(repo.propose("Begin"));
    cluster.ask("andon_shop_production_main", "INSERT INTO users VALUES (2, 'real@example.org')");
    let before = names(&cluster);
    // When a drill is held, then the service comes back on a database of the drill
    let out = server.cli(&["drill", "--json"]);
    assert!(out.status.success(), "{}", said(&out));
    let drill: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(drill["served"].as_str().is_some() && drill["instances"] == 1, "{drill}");
    // And nothing of that is left, and nothing of what is real was touched
    assert_eq!(names(&cluster), before);
    let databases = "SELECT count(*) FROM pg_database WHERE datname LIKE '%drill%'";
    assert_eq!(cluster.ask("postgres", databases), "0");
    assert_eq!(server.visit("web.production.shop.localhost", "/").1, "canary@example.org,real@example.org\n");
    assert_eq!(cluster.ask("andon_shop_production_main", "SELECT count(*) FROM andon.migrations"), "1");
    // And the page of the environment names its database.
    let view = server.view("/environments/production");
    assert_eq!(view["databases"][0]["name"], "andon_shop_production_main", "{view}");
    assert_eq!(view["databases"][0]["migrations"][0], "1.expand", "{view}");
}

#[test]
fn what_took_something_away_leaves_no_way_back_and_the_release_says_what_to_do() {
    let Some(cluster) = Cluster::start() else { return };
    let (mut server, repo) = shop(&cluster);
    // The way back is kept for a minute; then what is not needed any more is taken away.
    server.patience = std::time::Duration::from_secs(240);
    server.served(repo.propose("Begin"));
    repo.follow();
    repo.write(
        "db/migrations/2.contract.sql",
        "ALTER TABLE users ADD note text; ALTER TABLE users DROP note",
    );
    repo.write("app.py", &APP.replace("import sys", "import sys  # second\nimport sys"));
    server.served(repo.propose("Take something away"));
    server.until("it is taken away", "/data", |view| {
        view["databases"][0]["migrations"].as_array().is_some_and(|ran| ran.len() == 2)
    });
    // When somebody wants to go back, then everybody stays where they are, and that is on record
    let release = server.view("/releases")["rows"][0]["number"].as_u64().unwrap();
    for _ in 0..2 {
        let out = server.cli(&["release", "rollback", "production"]);
        assert!(!out.status.success(), "{}", said(&out));
        assert!(said(&out).contains("is frozen") && said(&out).contains("go forward"), "{}", said(&out));
    }
    let frozen = |event: &&serde_json::Value| event["event"]["fact"]["is"] == "frozen";
    assert_eq!(server.journal().iter().filter(frozen).count(), 1, "it is told once");
    let view = server.view(&format!("/releases/{release}"));
    assert!(view["sentence"].as_str().unwrap().contains("land a change that mends it"), "{view}");
    assert!(view["row"]["words"].as_str().unwrap().contains("2.contract"), "{view}");
    assert!(!view["commands"].to_string().contains("rollback"), "{view}");
    assert!(server.visit("web.production.shop.localhost", "/").1.starts_with("canary@"));
}

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

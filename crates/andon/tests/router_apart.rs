//! `andon router`, the router in a process of its own: it goes on while the server is dead, is itself killed and comes back by its own disk, and what it counted
//! reaches the server in the end.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use support::{HELLO, Server, andon};

const LINE: &str = r#"
version: 1
pipeline: { jobs: { package: { run: "mkdir dist && cp app.py dist/", artifact: dist } } }
services: { web: { command: [python3, app.py, $PORT], health: / } }
environments: { production: { release: careful } }
releases: { careful: { canary: [ { weight: 50, for: 1h } ] } }
"#;
const HOST: &str = "web.production.shop.localhost";
const USERS: usize = 40;

/// A router apart, until dropped.
struct Apart {
    child: Child,
    port: u16,
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Apart {
    /// `token`: it joins; without, it comes back by what it remembers.
    fn start(server: &Server, token: Option<&str>) -> Apart {
        let mut command = Command::new(andon());
        command.args(["router", "--listen", "127.0.0.1:0", "--data"]).arg(server.room.path().join("apart"));
        command.env_remove("ANDON_SERVER").env_remove("ANDON_TOKEN");
        if let Some(token) = token {
            command.env("ANDON_SERVER", server.url()).env("ANDON_TOKEN", token);
        }
        let log =
            std::fs::File::options().create(true).append(true).open(server.room.path().join("apart.log"));
        let mut child = command.stdout(Stdio::piped()).stderr(log.unwrap()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().next();
        let said = said.and_then(Result::ok).unwrap_or_else(|| {
            panic!("{}", std::fs::read_to_string(server.room.path().join("apart.log")).unwrap_or_default())
        });
        let port = said.rsplit(':').next().and_then(|port| port.trim().parse().ok()).unwrap();
        Apart { child, port }
    }

    /// The version that each user gets.
    fn versions(&self) -> BTreeMap<usize, String> {
        let agent = ureq::Agent::new_with_defaults();
        let ask = |user: usize| {
            let request = agent.get(format!("http://127.0.0.1:{}/", self.port)).header("host", HOST);
            let mut answer = request.header("cookie", format!("andon-subject={user:032x}")).call().unwrap();
            let said = answer.body_mut().read_to_string().unwrap();
            (user, said.split(' ').next().unwrap_or_default().to_owned())
        };
        (0..USERS).map(ask).collect()
    }
}

#[test]
fn a_router_apart_serves_while_the_server_is_dead_and_what_it_counted_reaches_the_server() {
    let (mut server, repo) = Server::with_project(&[("app.py", HELLO), ("andon.yaml", LINE)]);
    let first = repo.propose("Begin");
    server.served(first);
    let token = server.token.clone();
    let apart = Apart::start(&server, Some(&token));
    assert!(apart.versions().values().all(|version| version == "v1"));

    repo.follow();
    repo.write("app.py", &HELLO.replace("\"v1\"", "\"v2\""));
    repo.commit("Another");
    let second = repo.propose("Another");
    server.decided(second);
    // The table with the candidate comes as a delta, by itself.
    let begun = std::time::Instant::now();
    let split = loop {
        if apart.versions().values().any(|version| version == "v2") {
            // Once more: the table may have come while they were asking.
            break apart.versions();
        }
        assert!(begun.elapsed() < server.patience, "no user of the router apart ever got the canary");
        support::pause();
    };
    let canary = split.values().filter(|version| *version == "v2").count();
    assert!((8..=32).contains(&canary), "half of {USERS} users were to get the canary, {canary} did");

    server.kill();
    assert_eq!(apart.versions(), split, "the server is dead and users moved");
    drop(apart);
    let apart = Apart::start(&server, None);
    assert_eq!(apart.versions(), split, "killed and back while the server is dead: users moved");

    server.start();
    // Nobody came to the server's own router: these users were all counted apart.
    let release = server.until("the counts of the router apart", "/releases/2", |view| {
        view["curve"].as_array().and_then(|curve| curve.last()).is_some_and(|last| {
            let users = |arm: &str| last[arm][1].as_u64().unwrap_or(0);
            users("stable") > 0 && users("stable") + users("canary") >= USERS as u64
        })
    });
    assert_eq!(release["row"]["weight_bp"], 5000, "{release}");
    assert_eq!(apart.versions(), split);
}

#[test]
fn who_is_no_owner_gets_no_table_and_hears_why() {
    let server = Server::fresh();
    let token = server.token_with(&["developer"]);
    let refused = Command::new(andon())
        .args(["router", "--listen", "127.0.0.1:0", "--data"])
        .arg(server.room.path().join("apart"))
        .env("ANDON_SERVER", server.url())
        .env("ANDON_TOKEN", token)
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("owner"), "{said}");
}

//! Hosts set up by Ansible, end to end on the real binary with the real ansible-playbook: set up before services start, tampered by hand, seen
//! with before and after, healed, rebuilt; unknown where a check says nothing; a server that is killed in the middle.
//!
//! Needs ansible-core, and one test terraform and an ssh server. Without them the tests say SKIPPED, and fail where CI=true. Two names with a
//! local connection stand for two hosts.

#![allow(clippy::print_stdout, reason = "a test says why it did not run")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{HELLO, Repo, Server, of_type, terraform_is_there};

/// The reason of runs that heal.
const HEAL: &str = "reality differs from its code";
const SECRET: &str = "hush-1b7f2c";

fn ansible_is_there(test: &str) -> bool {
    let there =
        Command::new("ansible-playbook").arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        println!("SKIPPED: {test} (ansible-playbook is not installed)");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
    }
    there
}

/// The files of the example, by their path in it.
fn example() -> Vec<(String, String)> {
    fn below(dir: &Path, name: &str, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let name = format!("{name}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                below(&entry.path(), &format!("{name}/"), found);
            } else {
                found.push((name, std::fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/ansible"), "", &mut found);
    found
}

/// A server that knows the place of the hosts and the secret, and a repository with these files.
fn given(files: &[(String, String)]) -> (Server, Repo, PathBuf) {
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let (mut server, repo) = Server::with_project(&files);
    // Each play takes seconds, on a busy host many of them.
    server.patience = std::time::Duration::from_secs(240);
    let place = server.room.path().join("hosts");
    server.kill();
    server.set("ANDON_INFRA_HOSTS", place.to_str().unwrap());
    server.set("ANDON_INFRA_password", SECRET);
    server.start();
    (server, repo, place)
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn mode(path: &Path) -> Option<u32> {
    Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

fn settled(server: &Server) -> Value {
    server.until("no run is open", "/infrastructure/production", |view| {
        let runs = view["runs"].as_array().unwrap();
        !runs.is_empty() && runs.iter().all(|run| run["place"].is_null())
    })
}

/// Waits for a difference of these words that is seen after this place of the journal, and then for its healing.
fn drifts_and_heals(server: &Server, since: usize, what: &str, before: &str, after: &str) {
    let told = |kind: &str, words: &str| {
        let journal = server.journal();
        let new: Vec<Value> = of_type(&journal[since..], kind).iter().map(|e| e["event"].clone()).collect();
        new.into_iter().find(|event| event.to_string().contains(words))
    };
    server.until(&format!("{what} is seen"), "/environments/production", |_| {
        told("drift_seen", what).is_some()
    });
    let drift = told("drift_seen", what).unwrap()["drift"].clone();
    assert_eq!((drift["before"].as_str(), drift["after"].as_str()), (Some(before), Some(after)), "{drift}");
    server.until(&format!("{what} is healed"), "/environments/production", |_| {
        told("drift_healed", what).is_some()
    });
}

#[test]
fn hosts_are_set_up_before_services_start_and_again_when_somebody_changes_them_by_hand() {
    if !ansible_is_there("hosts from their setup to their end") {
        return;
    }
    let (server, repo, place) = given(&example());
    server.served(repo.propose("Set hosts up"));
    let production = place.join("production");
    let (page, password) = (production.join("web1/page"), production.join("web1/password"));
    assert_eq!(text(&page).as_deref(), Some("hello from one\n"));
    assert_eq!(text(&production.join("web2/page")).as_deref(), Some("hello from two\n"));
    assert_eq!(text(&password).unwrap().trim(), SECRET);
    let journal = server.journal();
    let seq = |kind: &str| of_type(&journal, kind)[0]["seq"].as_u64().unwrap();
    assert!(seq("infra_finished") < seq("instance_planned"), "an instance was planned before its hosts");
    let tool = of_type(&journal, "infra_started")[0]["event"]["tool"].as_str().unwrap().to_owned();
    assert!(tool.starts_with("ansible 2"), "{tool}");

    // What cannot be checked is unknown, and nothing else is.
    let view = server.until("something is unknown", "/infrastructure/production", |view| {
        view["unknown"].as_array().is_some_and(|unknown| !unknown.is_empty())
    });
    let unknown: Vec<&str> =
        view["unknown"].as_array().unwrap().iter().map(|u| u.as_str().unwrap()).collect();
    assert!(unknown.len() == 2 && unknown.iter().all(|what| what.contains("Tell the host")), "{unknown:?}");
    assert!(of_type(&server.journal(), "drift_seen").is_empty());

    // A file's content; its mode; something that may not be shown.
    let since = server.journal().len();
    std::fs::write(&page, "by hand\n").unwrap();
    drifts_and_heals(&server, since, "host web1: The page", "hello from one", "by hand");
    assert_eq!(text(&page).as_deref(), Some("hello from one\n"));
    let since = server.journal().len();
    std::fs::write(&password, "by hand\n").unwrap();
    std::fs::set_permissions(production.join("web2"), std::fs::Permissions::from_mode(0o700)).unwrap();
    drifts_and_heals(&server, since, "host web1: The password", "(sensitive)", "(sensitive)");
    drifts_and_heals(&server, since, "host web2: The host's folder", "0755", "0700");
    assert_eq!((text(&password).unwrap().trim(), mode(&production.join("web2"))), (SECRET, Some(0o755)));

    // A heal is one play: the look before it was its check, and the look after it tells that it helped.
    let journal = server.journal();
    let heals = of_type(&journal, "infra_queued").into_iter().filter(|e| e["event"]["why"] == HEAL);
    for run in heals.map(|heal| &heal["event"]["run"]) {
        let plays =
            of_type(&journal, "infra_started").into_iter().filter(|e| e["event"]["run"] == *run).count();
        assert!(plays <= 1, "{run} made {plays} plays");
    }

    // When it is rebuilt, then what ends with it is gone in between, and everything is back.
    settled(&server);
    std::fs::write(production.join("web2/old"), "of before").unwrap();
    let out = server.cli(&["env", "rebuild", "production", "--wait"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(text(&production.join("web2/old")), None);
    assert_eq!(text(&page).as_deref(), Some("hello from one\n"));
    let actions: Vec<Value> =
        of_type(&server.journal(), "infra_queued").iter().map(|e| e["event"]["action"].clone()).collect();
    assert!(actions.contains(&json!("destroy")), "{actions:?}");

    // A plan says what would be done, and does nothing.
    settled(&server);
    let plan = server.cli(&["infra", "plan", "production"]);
    let words = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.status.success() && words.contains("nothing was changed"), "{words}");

    // The secret is where it was put, and in nothing that anybody is told or that is kept.
    let runs = settled(&server)["runs"].as_array().unwrap().clone();
    for run in &runs {
        let log = server.cli(&["infra", "log", run["run"].as_str().unwrap(), "--json"]);
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        assert!(!log.contains(SECRET) && log.contains("\"andon\""), "{log}");
    }
    assert!(!server.journal().iter().any(|event| event.to_string().contains(SECRET)));
    assert!(!server.view("/infrastructure/production").to_string().contains(SECRET));
    server.until("no room is left with a secret in it", "/infrastructure/production", |_| {
        let rooms = std::fs::read_dir(server.room.path().join("data/infrastructure/shop")).unwrap().flatten();
        rooms.into_iter().all(|room| !room.path().join("variables.json").exists())
    });
    assert!(!server.stderr().contains(SECRET));
}

const LINE: &str = "
version: 1
pipeline: { jobs: { package: { run: 'mkdir dist && cp app.py dist/', artifact: dist } } }
services: { web: { command: [python3, app.py, $PORT], health: / } }
environments:
  production:
    PROTECTED
    infrastructure: { ansible: { folder: setup, connection: local, hosts: { web: { web1: {} } }, look_every: 5s } }
";

fn small(tasks: &str, protected: &str) -> Vec<(String, String)> {
    let playbook = format!(
        "- hosts: web\n  gather_facts: false\n  vars: {{ place: \"{{{{ lookup('env', 'HOSTS') }}}}\" }}\n  tasks:\n{tasks}"
    );
    let files = [
        ("app.py", HELLO),
        ("andon.yaml", &LINE.replace("PROTECTED", protected)),
        ("setup/site.yml", &playbook),
    ];
    files.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec()
}

/// An ssh server of one's own, on the loopback and for one key.
struct Host {
    child: std::process::Child,
    port: u16,
    key: PathBuf,
    known: PathBuf,
}

impl Host {
    const SSHD: &str = "/usr/sbin/sshd";

    fn is_there() -> bool {
        let there = Path::new(Host::SSHD).exists();
        if !there {
            println!("SKIPPED: hosts over ssh ({} is not installed)", Host::SSHD);
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "in CI a component that is missing is a failure"
            );
        }
        there
    }

    fn start(room: &Path) -> Host {
        std::fs::create_dir_all(room).unwrap();
        let key = |name: &str| {
            let file = room.join(name);
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status();
            assert!(made.unwrap().success());
            file
        };
        let (own, user, known) = (key("host"), key("user"), room.join("known"));
        // Where root starts it, it wants an empty folder of this name; it says so if there is none.
        let _ = std::fs::create_dir_all("/run/sshd");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let words = std::fs::read_to_string(own.with_extension("pub")).unwrap();
        std::fs::write(&known, format!("[127.0.0.1]:{port} {words}")).unwrap();
        let mut host = Host { child: Host::serve(&own, &user, port), port, key: user, known };
        host.wait();
        host
    }

    fn serve(own: &Path, user: &Path, port: u16) -> std::process::Child {
        let mut sshd = Command::new(Host::SSHD);
        sshd.args(["-D", "-f", "/dev/null", "-p", &port.to_string(), "-h"]).arg(own);
        let keys = format!("AuthorizedKeysFile={}", user.with_extension("pub").display());
        let options = [
            "ListenAddress=127.0.0.1",
            "StrictModes=no",
            "UsePAM=no",
            "PidFile=none",
            "PasswordAuthentication=no",
            "Subsystem=sftp internal-sftp",
            &keys,
        ];
        for option in options {
            sshd.args(["-o", option]);
        }
        sshd.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    }

    fn wait(&mut self) {
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "sshd ended");
            support::pause();
        }
    }

    fn down(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn up(&mut self) {
        self.child = Host::serve(&self.key.with_file_name("host"), &self.key, self.port);
        self.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.down();
    }
}

const OVER_SSH: &str = r#"
version: 1
pipeline: { jobs: { package: { run: 'mkdir dist && cp app.py dist/', artifact: dist } } }
services: { web: { command: [python3, app.py, $PORT], health: / } }
environments:
  production:
    infrastructure:
      terraform: infra
      look_every: 1h
      variables: { port: "PORT_OF_HOST" }
      ansible:
        folder: setup
        look_every: 3s
        hosts:
          web:
            web1:
              ansible_host: "${infrastructure.address}"
              ansible_port: "${infrastructure.port}"
              ansible_user: "USER"
              ansible_ssh_private_key_file: "KEY"
              ansible_ssh_common_args: "-o UserKnownHostsFile=KNOWN -o IdentitiesOnly=yes"
"#;

#[test]
fn a_host_that_terraform_made_is_set_up_over_ssh_and_one_that_is_away_is_unknown_and_never_clean() {
    let title = "hosts over ssh";
    if !ansible_is_there(title) || !terraform_is_there(title) || !Host::is_there() {
        return;
    }
    let (server, repo, place) = given(&small(
        "    - { name: The folder, ansible.builtin.file: { path: PLACE, state: directory } }\n    - { name: The page, ansible.builtin.copy: { dest: PLACE/page, content: \"over ssh\\n\", mode: \"0644\" } }\n",
        "",
    ));
    let mut host = Host::start(&server.room.path().join("sshd"));
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let line = OVER_SSH.replace("PORT_OF_HOST", &host.port.to_string()).replace("USER", user.trim());
    let line = line.replace("KEY", host.key.to_str().unwrap()).replace("KNOWN", host.known.to_str().unwrap());
    repo.write("andon.yaml", &line);
    repo.write("setup/site.yml", &repo.read("setup/site.yml").replace("PLACE", place.to_str().unwrap()));
    repo.write(
        "infra/main.tf",
        "variable \"port\" { type = number }\nresource \"terraform_data\" \"host\" { input = { address = \"127.0.0.1\", port = var.port } }\n\
         output \"address\" { value = terraform_data.host.output.address }\noutput \"port\" { value = terraform_data.host.output.port }\n",
    );
    server.served(repo.propose("Set a host up over ssh"));
    let page = place.join("page");
    assert_eq!(text(&page).as_deref(), Some("over ssh\n"));
    let journal = server.journal();
    let tools: Vec<&str> =
        of_type(&journal, "infra_started").iter().map(|e| e["event"]["tool"].as_str().unwrap()).collect();
    assert!(
        tools.first().unwrap().starts_with("terraform") && tools.last().unwrap().starts_with("ansible"),
        "{tools:?}"
    );

    let since = server.journal().len();
    std::fs::write(&page, "by hand\n").unwrap();
    drifts_and_heals(&server, since, "host web1: The page", "over ssh", "by hand");
    assert_eq!(text(&page).as_deref(), Some("over ssh\n"));

    // Nobody knows how a host is that does not answer: that is no drift and nothing is healed.
    settled(&server);
    host.down();
    std::fs::write(&page, "while it was away\n").unwrap();
    let since = server.journal().len();
    server.until("it is unknown", "/infrastructure/production", |view| {
        view["unknown"].to_string().contains("web1")
    });
    assert!(of_type(&server.journal()[since..], "infra_queued").is_empty());
    let shown = server.cli(&["infra", "show", "production"]);
    let words = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(words.contains("▲ unknown: ") && words.contains("web1"), "{words}");
    host.up();
    server.until("it is healed", "/infrastructure/production", |view| {
        view["unknown"] == json!([]) && text(&page).as_deref() == Some("over ssh\n")
    });
}

#[test]
fn a_playbook_that_fails_gives_the_deployment_up_with_its_task_and_the_modules_words() {
    if !ansible_is_there("a playbook that fails") {
        return;
    }
    let (server, repo, _) =
        given(&small("    - { name: Break, ansible.builtin.fail: { msg: out of paint } }\n", ""));
    repo.propose("broken");
    server.until("the deployment was given up", "/environments/production", |view| {
        view.to_string().contains("its infrastructure could not be applied: web1: Break: out of paint")
    });
    assert!(of_type(&server.journal(), "instance_planned").is_empty());
}

#[test]
fn in_a_protected_environment_what_nobody_can_check_waits_for_people() {
    if !ansible_is_there("the guard over a playbook") {
        return;
    }
    let tasks =
        "    - { name: Anything, ansible.builtin.shell: 'mkdir -p {{ place }} && touch {{ place }}/done' }\n";
    let (server, repo, place) = given(&small(tasks, "protected: { approvals: 1 }"));
    let change = repo.propose("a command");
    let view = server.until("it waits for approval", "/infrastructure/production", |view| {
        view["runs"][0]["mark"] == "wait" && view["runs"][0]["guarded"] != json!([])
    });
    assert!(view["runs"][0]["guarded"][0].as_str().unwrap().contains("web1: Anything"), "{view}");
    assert!(!place.join("done").exists(), "it was done without approval");
    let run = view["runs"][0]["run"].as_str().unwrap().to_owned();
    let approved = server.cli(&["infra", "approve", &run, "--environment", "production", "--why", "seen"]);
    assert!(approved.status.success(), "{}", String::from_utf8_lossy(&approved.stderr));
    server.served(change);
    assert!(place.join("done").exists());
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_playbook_adopts_it_and_does_nothing_twice() {
    if !ansible_is_there("kill in the middle of a playbook") {
        return;
    }
    let tasks = "    - { name: Once, ansible.builtin.shell: 'mkdir -p {{ place }}; echo made >> {{ place }}/log; until test -e {{ place }}/go; do sleep 0.1; done' }\n";
    let (mut server, repo, place) = given(&small(tasks, ""));
    let change = repo.propose("first");
    server.until("it is being played", "/infrastructure/production", |_| place.join("log").exists());
    server.kill();
    server.start();
    std::fs::write(place.join("go"), "").unwrap();
    server.served(change);
    assert_eq!(text(&place.join("log")).as_deref(), Some("made\n"));
    let journal = server.journal();
    assert_eq!(of_type(&journal, "infra_applying").len(), 1);
    assert_eq!(of_type(&journal, "infra_finished").len(), 1);
}

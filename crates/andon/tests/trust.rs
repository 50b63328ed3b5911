//! What guards trunk comes from trunk: who edits `andon.yaml` does not get past it by that; on the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::process::Output;

use serde_json::{Value, json};
use support::{Repo, Server, number, of_type};

const YAML: &str = "version: 1
pipeline:
  jobs:
    unit:
      run: cp cov.lcov out.lcov
      reports: { coverage: out.lcov }
    ask: { stage: late, approve: { roles: [releaser], why: Does it look right? } }
validation: { coverage: { lines: 50 } }
";

/// Half of its lines ran.
const HALF: &str = "SF:app.py\nDA:1,1\nDA:2,0\nend_of_record\n";
/// A quarter did.
const QUARTER: &str = "SF:app.py\nDA:1,1\nDA:2,0\nDA:3,0\nDA:4,0\nend_of_record\n";

/// Somebody who may push and nothing else.
struct Author {
    remote: String,
    token: String,
}

impl Author {
    fn of(server: &Server) -> Author {
        let token = server.token_with(&["developer"]);
        Author {
            remote: format!("{}/shop.git", server.url().replace("://", &format!("://dev:{token}@"))),
            token,
        }
    }

    fn propose(&self, repo: &Repo, message: &str) -> (u32, String) {
        repo.commit(message);
        let out = repo.try_git(&["push", &self.remote, "HEAD:refs/for/main"]);
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{words}");
        (number(&words), words)
    }
}

/// A server whose trunk has the file.
fn begun(yaml: &str) -> (Server, Repo, Author) {
    let (server, repo) = Server::with_project(&[("andon.yaml", yaml), ("cov.lcov", HALF)]);
    let author = Author::of(&server);
    // The first push of a project takes nothing away from anybody: no owner is asked, whoever pushes it.
    let (first, _) = author.propose(&repo, "Begin");
    if yaml.contains("ask:") {
        say_yes(&server, first);
    }
    assert_eq!(server.decided(first)["row"]["standing"], "landed");
    repo.follow();
    (server, repo, author)
}

fn change(server: &Server, change: u32) -> Value {
    server.view(&format!("/changes/{change}"))
}

fn words(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// Waits until the newest run of the change asks, and says yes to it: the name of the job that asked.
fn say_yes(server: &Server, id: u32) -> String {
    let view = server.until("its run asks", &format!("/changes/{id}"), |view| {
        view["row"]["words"].as_str().is_some_and(|words| words.contains("waits for any releaser"))
    });
    let run = view["row"]["run"].as_u64().unwrap();
    let jobs = server.view(&format!("/runs/{run}"))["jobs"].clone();
    let asks = jobs.as_array().unwrap().iter().find(|job| !job["asks"].is_null()).unwrap();
    let name = asks["name"].as_str().unwrap().to_owned();
    let said = server.cli(&["run", "approve", &run.to_string(), &name, "--why", "looks right"]);
    assert!(said.status.success(), "{}", words(&said));
    name
}

fn waits_for_an_owner(server: &Server, id: u32) -> Value {
    server.until("it waits for an owner", &format!("/changes/{id}"), |view| {
        view["row"]["words"]
            .as_str()
            .is_some_and(|words| words.contains("green; waits for an owner's approval"))
    })
}

#[test]
fn an_author_cannot_edit_an_approval_away_and_an_owner_approves_each_patch_set_of_that() {
    let (server, repo, author) = begun(YAML);
    let without = YAML.lines().filter(|line| !line.contains("ask:")).collect::<Vec<_>>().join("\n") + "\n";
    repo.write("andon.yaml", &without);
    let (id, said) = author.propose(&repo, "Nobody need be asked");
    assert!(said.contains("it changes andon.yaml") && said.contains("an owner's approval"), "{said}");
    // Trunk's question is asked all the same, and a yes to that is not a yes to what the change makes of the file.
    assert_eq!(say_yes(&server, id), "ask");
    let view = waits_for_an_owner(&server, id);
    let edits = &view["definition"]["edits"];
    assert_eq!(edits[0], json!({ "says": "the job ask is gone", "loosens": true }), "{edits}");
    let queue = server.view("/queue").to_string();
    assert!(queue.contains("waits for an owner's approval: it changes andon.yaml"), "{queue}");
    let shown = words(&server.cli(&["change", "show", &id.to_string()]));
    assert!(shown.contains("the job ask is gone") && shown.contains("andon change approve"), "{shown}");
    // The author may not; others are not held up meanwhile.
    let path = format!("/api/v1/shop/changes/{id}/approve");
    assert_eq!(server.post_as(&author.token, &path, &json!({ "why": "I say so" })).0, 403);
    let releaser = server.token_with(&["releaser"]);
    assert_eq!(server.post_as(&releaser, &path, &json!({ "why": "I say so" })).0, 403);
    assert_eq!(server.post(&path, &json!({ "why": " " })).0, 400, "an approval has a reason");
    assert!(of_type(&server.journal(), "landed").len() == 1);
    // The owner approves; what comes after is another question.
    let approved = server.cli(&["change", "approve", &id.to_string(), "--why", "agreed on Monday"]);
    assert!(approved.status.success(), "{}", words(&approved));
    let (status, twice) = server.post(&path, &json!({ "why": "again" }));
    assert!(matches!(status, 409), "{twice}");
    let view = server.decided(id);
    assert_eq!(view["row"]["standing"], "landed");
    assert!(view["definition"]["says"].as_str().unwrap().contains("agreed on Monday"), "{view}");
    let journal = server.journal();
    let given = of_type(&journal, "definition_approved");
    assert_eq!(
        (given.len(), &given[0]["event"]["patch_set"], &given[0]["event"]["by_push"]),
        (1, &json!(1), &json!(false))
    );
    // From now on trunk does not ask.
    repo.follow();
    repo.write("README", "more");
    let (plain, said) = author.propose(&repo, "Say more");
    assert!(!said.contains("andon.yaml"), "{said}");
    let view = server.decided(plain);
    assert_eq!((&view["row"]["standing"], &view["definition"]), (&json!("landed"), &Value::Null));
}

#[test]
fn an_approval_holds_for_its_patch_set_and_no_other() {
    let (server, repo, author) =
        begun(&YAML.replace(
            "    ask: { stage: late, approve: { roles: [releaser], why: Does it look right? } }\n",
            "",
        ));
    // It is red for another reason, so that it stays while it is approved.
    repo.write("andon.yaml", &repo.read("andon.yaml").replace("run: cp cov.lcov out.lcov", "run: 'false'"));
    let (id, _) = author.propose(&repo, "Test nothing");
    assert_eq!(server.decided(id)["row"]["standing"], "refused");
    assert!(server.cli(&["change", "approve", &id.to_string(), "--why", "fine"]).status.success());
    server.until("it was tested again and refused", &format!("/changes/{id}"), |view| {
        view["runs"].as_array().unwrap().len() == 2 && view["row"]["standing"] == "refused"
    });
    // The author makes something else of it under the same change.
    repo.write(
        "andon.yaml",
        &repo.read("andon.yaml").replace("run: 'false'", "run: cat cov.lcov > out.lcov"),
    );
    repo.git(&["add", "-A"]);
    repo.git(&["commit", "-q", "--amend", "--no-edit"]);
    let out = repo.try_git(&["push", &author.remote, "HEAD:refs/for/main"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("patch set 2") && said.contains("an owner's approval"), "{said}");
    waits_for_an_owner(&server, id);
    // Whoever looked at the first does not approve the second.
    let out = server.cli(&["change", "approve", &id.to_string(), "--why", "fine", "--patch-set", "1"]);
    assert!(!out.status.success() && words(&out).contains("patch set 2 by now"), "{}", words(&out));
    assert!(
        server
            .cli(&["change", "approve", &id.to_string(), "--why", "fine", "--patch-set", "2"])
            .status
            .success()
    );
    assert_eq!(server.decided(id)["row"]["standing"], "landed");
}

#[test]
fn an_author_cannot_lower_a_limit_and_an_owner_can() {
    let (server, repo, author) =
        begun(&YAML.replace(
            "    ask: { stage: late, approve: { roles: [releaser], why: Does it look right? } }\n",
            "",
        ));
    repo.write("andon.yaml", &repo.read("andon.yaml").replace("lines: 50", "lines: 20"));
    repo.write("cov.lcov", QUARTER);
    let (id, _) = author.propose(&repo, "Ask less of us");
    let view = server.decided(id);
    assert_eq!(
        view["row"]["standing"], "refused",
        "trunk's limit holds as long as nobody approved the new one"
    );
    assert!(view["reasons"].to_string().contains("50"), "{}", view["reasons"]);
    assert_eq!(view["definition"]["edits"][0]["says"], "the limit coverage.lines: `50` becomes `20`");
    let run = server.view(&format!("/runs/{}", view["row"]["run"]));
    assert!(run["notes"].to_string().contains("trunk's limits hold too"), "{}", run["notes"]);
    // With the approval it is judged by its own, and lands without anybody pushing it again.
    assert!(server.cli(&["change", "approve", &id.to_string(), "--why", "for the rewrite"]).status.success());
    server.until("it landed", &format!("/changes/{id}"), |view| view["row"]["standing"] == "landed");
    // An owner's own edit is approved by his push, and says so.
    repo.follow();
    repo.write("andon.yaml", &repo.read("andon.yaml").replace("lines: 20", "lines: 10"));
    let own = repo.propose("Ask even less");
    let view = server.decided(own);
    assert_eq!(view["row"]["standing"], "landed");
    assert!(view["definition"]["says"].as_str().unwrap().contains("by pushing it"), "{}", view["definition"]);
    assert!(change(&server, own)["timeline"].to_string().contains("by whoever pushed it"));
}

#[test]
fn trunk_says_who_approves_and_not_the_change() {
    let (server, repo, author) = begun(
        "version: 1\npipeline: { jobs: { unit: { run: 'true' } } }\ndefinition: { approve: releaser, not_author: true }\n",
    );
    // What the author makes of the rule does not hold for the change that makes it.
    repo.write(
        "andon.yaml",
        "version: 1\npipeline: { jobs: { unit: { run: 'true' } } }\ndefinition: { approve: none }\n",
    );
    let (id, said) = author.propose(&repo, "Ask nobody");
    assert!(said.contains("a releaser who did not push it"), "{said}");
    let waits =
        |view: &Value| view["row"]["words"].as_str().is_some_and(|words| words.contains("green; waits for"));
    server.until("it waits", &format!("/changes/{id}"), waits);
    let releaser = server.token_with(&["releaser"]);
    let path = format!("/api/v1/shop/changes/{id}/approve");
    assert_eq!(server.post_as(&releaser, &path, &json!({ "why": "fine" })).0, 200);
    assert_eq!(server.decided(id)["row"]["standing"], "landed");
    // From now on nobody is asked.
    repo.follow();
    repo.write(
        "andon.yaml",
        "version: 1\npipeline: { jobs: { unit: { run: ':' } } }\ndefinition: { not_author: true }\n",
    );
    let (id, _) = author.propose(&repo, "Somebody else looks");
    assert_eq!(server.decided(id)["row"]["standing"], "landed");
    // Where somebody else has the role, an owner does not approve his own edit by pushing it; alone he does.
    repo.follow();
    repo.write("andon.yaml", "version: 1\npipeline: { jobs: { unit: { run: 'true' } } }\n");
    let alone = repo.propose("I am the only owner");
    assert_eq!(server.decided(alone)["row"]["standing"], "landed");
    repo.follow();
    repo.write(
        "andon.yaml",
        "version: 1\npipeline: { jobs: { unit: { run: ':' } } }\ndefinition: { not_author: true }\n",
    );
    assert_eq!(server.decided(repo.propose("Two pairs of eyes"))["row"]["standing"], "landed");
    let second = server.token_with(&["owner"]);
    repo.follow();
    repo.write("andon.yaml", "version: 1\npipeline: { jobs: { unit: { run: 'true' } } }\n");
    let own = repo.propose("Mine");
    server.until("it waits", &format!("/changes/{own}"), waits);
    let path = format!("/api/v1/shop/changes/{own}/approve");
    let (status, said) = server.post(&path, &json!({ "why": "I wrote it" }));
    assert!(status == 409 && said.to_string().contains("ask another owner"), "{said}");
    assert_eq!(server.post_as(&second, &path, &json!({ "why": "I read it" })).0, 200);
    assert_eq!(server.decided(own)["row"]["standing"], "landed");
}

#[test]
fn what_a_change_says_of_environments_is_so_when_it_has_landed_and_not_before() {
    let yaml = "version: 1
pipeline: { jobs: { unit: { run: 'true' } } }
environments: { production: {} }
";
    let (server, repo, author) = begun(yaml);
    server.until("production is there", "/environments", |view| view.to_string().contains("production"));
    repo.write(
        "andon.yaml",
        &(yaml.replace("production: {}", "production: {}, backdoor: {}") + "cord: { pull_on: [] }\n"),
    );
    let (id, _) = author.propose(&repo, "A place of my own");
    let view = waits_for_an_owner(&server, id);
    assert!(view["definition"]["edits"].to_string().contains("backdoor"), "{}", view["definition"]);
    assert!(!server.view("/environments").to_string().contains("backdoor"));
    assert!(server.cli(&["change", "approve", &id.to_string(), "--why", "for the trial"]).status.success());
    server.until("it is there", "/environments", |view| view.to_string().contains("backdoor"));
}

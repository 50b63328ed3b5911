//! What a team says about its pipeline and what becomes of it, on the real binary with the real git: plans, matrices, conditions, retries,
//! people who are asked, groups, outputs, caches, replays, runs made again.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use serde_json::{Value, json};
use support::{Repo, Server, of_type};

const TRUE: &str = "version: 1\npipeline: { jobs: { unit: { run: \"true\" } } }\n";

fn yaml(jobs: &str) -> String {
    format!("version: 1\npipeline:\n  jobs:\n{jobs}")
}

fn with(jobs: &str) -> (Server, Repo) {
    Server::with_project(&[("andon.yaml", &yaml(jobs))])
}

/// A job of a run's view.
fn job<'a>(view: &'a Value, name: &str) -> &'a Value {
    let jobs = view["jobs"].as_array().unwrap();
    jobs.iter().find(|job| job["name"] == name).unwrap_or_else(|| panic!("no job {name} in {view:#}"))
}

fn words<'a>(view: &'a Value, name: &str) -> &'a str {
    job(view, name)["words"].as_str().unwrap()
}

fn log(server: &Server, run: u32, job: &str) -> String {
    let out = server.cli(&["run", "log", &run.to_string(), job]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn said(out: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// What jobs of the project have as their home: the one place that a test and a job both reach.
fn home(server: &Server) -> std::path::PathBuf {
    let home = server.room.path().join("data/jobs/shop/home");
    std::fs::create_dir_all(&home).unwrap();
    home
}

/// The newest run of a change.
fn run_of(server: &Server, change: u32) -> u32 {
    let runs = server.view(&format!("/changes/{change}"))["runs"].clone();
    runs.as_array().unwrap().iter().filter_map(|run| run["number"].as_u64()).max().unwrap() as u32
}

fn finished(server: &Server, run: u32) -> Value {
    server.until(&format!("run-{run} is over"), &format!("/runs/{run}"), |view| view["finished"] == true)
}

#[test]
fn a_matrix_of_a_template_runs_each_combination_with_its_values_in_the_environment() {
    let file = "version: 1
pipeline:
  env: { LEVEL: pipeline, OTHER: pipeline }
  templates:
    module:
      parameters: { module: , greeting: hello }
      job: { env: { LEVEL: template }, run: \"echo $WITH_GREETING $WITH_MODULE $MATRIX_PYTHON $LEVEL $OTHER; mkdir out; echo x > out/$MATRIX_PYTHON\", outputs: [out/$MATRIX_PYTHON] }
  jobs:
    unit: { use: module, with: { module: cart }, matrix: { python: [\"3.11\", \"3.12\"] }, env: { OTHER: job } }
    all: { takes: [unit], run: \"ls out\" }
";
    let (server, repo) = Server::with_project(&[("andon.yaml", file)]);
    let change = repo.propose("Begin");
    assert_eq!(server.decided(change)["row"]["standing"], "landed", "{}", server.view("/runs/1"));
    assert_eq!(log(&server, 1, "unit-3.11").trim(), "hello cart 3.11 template job");
    assert_eq!(log(&server, 1, "unit-3.12").trim(), "hello cart 3.12 template job");
    assert_eq!(
        log(&server, 1, "all").trim(),
        "3.11\n3.12",
        "a job has the outputs of all that it takes from"
    );
}

#[test]
fn a_local_run_has_the_plan_and_the_verdict_of_the_server() {
    let (server, repo) = with(
        "    unit: { run: \"echo from $ANDON_JOB; test -e good\", matrix: { n: [1, 2] } }
    package: { stage: late, run: 'mkdir d; echo made > d/f', outputs: [d/] }
    check: { stage: late, takes: [package], run: cat d/f }
",
    );
    repo.write("good", "");
    let change = repo.propose("Begin");
    server.decided(change);
    let plan = server.view("/runs/1")["plan"].as_str().unwrap().to_owned();
    assert!(plan.starts_with("sha256:"), "{plan}");
    let local = |args: &[&str]| {
        let all: Vec<&str> = ["run", "local"].into_iter().chain(args.iter().copied()).collect();
        server.cli_in(&repo.dir, &all)
    };
    let shown = said(&local(&["--show"]));
    assert!(shown.contains(&plan), "{shown}");
    // And the server shows the very bytes that bear the name.
    let whole = server.view("/runs/1/plan");
    let shown: Value = serde_json::from_str(&said(&local(&["--show", "--json"]))).unwrap();
    assert_eq!(whole, shown["plan"]);
    let out = local(&[]);
    assert!(out.status.success(), "{}", said(&out));
    let text = said(&out);
    assert!(
        text.contains(&plan) && text.contains("● unit-2 passed") && text.contains("● check passed"),
        "{text}"
    );
    // What is not committed counts when it is asked for.
    std::fs::remove_file(repo.dir.join("good")).unwrap();
    assert!(local(&["--json"]).status.success());
    let out = local(&["--dirty", "--job", "unit-1"]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let text = said(&out);
    assert!(text.contains("from unit-1") && text.contains("■ unit-1 failed with exit status 1"), "{text}");
    let kept = text.lines().find_map(|line| line.trim().strip_prefix("whole output: ")).unwrap();
    std::fs::remove_dir_all(std::path::Path::new(kept).parent().unwrap()).unwrap();
    assert!(text.contains("– unit-2 is not needed: it was not asked for"), "{text}");
}

#[test]
fn a_job_whose_paths_are_untouched_passes_as_not_needed_and_the_run_is_never_left_pending() {
    let (server, repo) = with(
        "    docs: { run: echo docs, when: { paths: [docs/] } }
    unit: { run: echo unit, needs: [docs], when: { not_paths: ['*.md'] } }
",
    );
    let first = repo.propose("Begin");
    server.decided(first);
    assert_eq!(words(&server.view("/runs/1"), "docs").split(' ').next(), Some("passed"), "trunk was empty");
    repo.follow();
    repo.write("src/a", "1");
    let second = repo.propose("Code");
    assert_eq!(server.decided(second)["row"]["standing"], "landed");
    let view = server.view("/runs/2");
    assert_eq!(words(&view, "docs"), "not needed: no file of docs/ changed");
    assert!(words(&view, "unit").starts_with("passed"), "what needs it runs all the same");
    repo.follow();
    repo.write("a.md", "1");
    let third = repo.propose("Words");
    assert_eq!(server.decided(third)["row"]["standing"], "landed", "nothing was needed at all");
    // On trunk everything runs.
    assert!(server.cli(&["run", "trunk"]).status.success());
    let view = finished(&server, 4);
    assert!(
        words(&view, "docs").starts_with("passed") && words(&view, "unit").starts_with("passed"),
        "{view:#}"
    );
}

#[test]
fn a_run_waits_for_a_person_and_goes_on_or_stops_by_what_they_say() {
    let (server, repo) = with(
        "    unit: { run: 'true' }
    ask: { needs: [unit], approve: { roles: [releaser], why: 'Is it safe?', not_author: true } }
    after: { needs: [ask], run: echo on }
",
    );
    let first = repo.propose("Begin");
    let asked = server.until("somebody is asked", "/runs/1", |view| !job(view, "ask")["asks"].is_null());
    assert_eq!(job(&asked, "ask")["asks"]["what"], "Is it safe?");
    assert!(words(&asked, "ask").contains("any releaser"), "{asked:#}");
    assert!(words(&asked, "after").contains("waits for ask"), "{asked:#}");
    // Whoever pushed does not approve, whoever has another role is not asked, and a reason is needed.
    let own = server.cli(&["run", "approve", "1", "ask", "--why", "I like it"]);
    assert!(said(&own).contains("does not approve it here") && !own.status.success(), "{}", said(&own));
    let path = "/api/v1/shop/runs/1/jobs/ask/approve";
    let stranger = server.token_with(&["developer"]);
    assert_eq!(server.post_as(&stranger, path, &json!({ "why": "me too" })).0, 409);
    let releaser = server.token_with(&["releaser"]);
    assert_eq!(server.post_as(&releaser, path, &json!({ "why": " " })).0, 400);
    assert_eq!(server.post_as(&releaser, path, &json!({ "why": "seen in staging" })).0, 200);
    assert_eq!(server.decided(first)["row"]["standing"], "landed");
    assert_eq!(words(&server.view("/runs/1"), "ask"), "approved by user-releaser: seen in staging");
    assert_eq!(server.post_as(&releaser, path, &json!({ "why": "again" })).0, 409, "it is answered");
    repo.follow();
    repo.write("a", "1");
    let second = repo.propose("More");
    server.until("somebody is asked", "/runs/2", |view| !job(view, "ask")["asks"].is_null());
    let no = server.cli(&["run", "refuse", "2", "ask", "--why", "not on a Friday"]);
    assert!(no.status.success(), "the author may always say no: {}", said(&no));
    let view = server.decided(second);
    assert_eq!(view["row"]["words"], "job ask was refused: not on a Friday");
    let by: Vec<_> =
        server.journal().into_iter().filter(|e| e["event"]["type"] == "approval_given").collect();
    assert_eq!(by[0]["by"], json!({ "user": "user-releaser" }));
}

#[test]
fn nobody_who_says_yes_in_time_is_a_no() {
    let (server, repo) = with("    ask: { approve: { why: 'On?', within: 1s } }\n");
    let change = repo.propose("Begin");
    let view = server.decided(change);
    assert_eq!(view["row"]["words"], "job ask was refused: nobody said yes within 1.0 s");
}

#[test]
fn jobs_of_a_group_wait_for_each_other_over_runs_and_say_so() {
    let (server, repo) =
        with("    deploy: { group: db, run: 'while [ ! -e \"$HOME/go\" ]; do sleep 0.02; done' }\n");
    let go = home(&server).join("go");
    let change = repo.propose("Begin");
    server.until("it runs", "/runs/1", |view| words(view, "deploy").starts_with("since"));
    std::fs::write(&go, "").unwrap();
    server.decided(change);
    std::fs::remove_file(&go).unwrap();
    // Two runs of trunk at once want the same.
    for _ in 0..2 {
        assert!(server.cli(&["run", "trunk"]).status.success());
    }
    server.until("the first runs", "/runs/2", |view| words(view, "deploy").starts_with("since"));
    let waits =
        server.until("the second waits", "/runs/3", |view| words(view, "deploy").contains("one job of db"));
    assert_eq!(words(&waits, "deploy"), "waits for run-2 deploy: one job of db at a time");
    // Trunk's jobs have a home of their own.
    std::fs::write(home(&server).with_file_name("home-of-trunk").join("go"), "").unwrap();
    for run in [2, 3] {
        assert_eq!(finished(&server, run)["verdict"], "green");
    }
}

#[test]
fn what_was_green_with_the_same_inputs_is_replayed_with_its_log_and_its_outputs() {
    let (server, repo) = with(
        "    build: { reads: ['src/**'], outputs: [out], run: 'ls; date +%N; cat src/* > out' }
    check: { takes: [build], run: cat out }
",
    );
    repo.write("src/a", "one");
    repo.write("README.md", "words");
    server.decided(repo.propose("Begin"));
    let first = log(&server, 1, "build");
    assert_eq!(first.lines().next(), Some("src"), "it sees nothing but what it reads: {first}");
    repo.follow();
    repo.write("README.md", "more words");
    server.decided(repo.propose("Words"));
    let view = server.view("/runs/2");
    assert!(words(&view, "build").contains("replayed from run-1"), "{view:#}");
    assert_eq!(log(&server, 2, "build"), first);
    assert_eq!(log(&server, 2, "check"), "one");
    repo.follow();
    repo.write("src/b", "two");
    server.decided(repo.propose("Code"));
    assert!(words(&server.view("/runs/3"), "build").starts_with("passed after"));
    assert_eq!(log(&server, 3, "check"), "onetwo");
    // Whoever does not believe it has it run.
    assert!(server.cli(&["run", "trunk"]).status.success());
    assert!(words(&finished(&server, 4), "build").contains("replayed from run-3"));
    let out = server.cli(&["run", "again", "4", "--job", "build", "--fresh"]);
    assert!(out.status.success(), "{}", said(&out));
    let view = finished(&server, 5);
    assert!(words(&view, "build").starts_with("passed after"), "{view:#}");
    assert!(words(&view, "check").starts_with("passed after"), "what takes from it is run, too: {view:#}");
}

#[test]
fn what_a_change_that_did_not_land_left_is_for_that_change_alone() {
    let file = |extra: &str| {
        yaml(&format!(
            "    build: {{ cache: {{ key: [lock], paths: [deps/] }}, run: 'cat deps/made || true; mkdir -p deps; echo \"{extra}\" > deps/made' }}
    read: {{ reads: [lock], run: 'echo ran' }}
    last: {{ needs: [build, read], run: 'test ! -e red' }}
"
        ))
    };
    let (server, repo) = Server::with_project(&[("andon.yaml", TRUE)]);
    server.decided(repo.propose("Begin"));
    repo.follow();
    repo.write("andon.yaml", &file("poison"));
    repo.write("lock", "1");
    repo.write("red", "");
    let poison = repo.propose("Poison");
    assert_eq!(server.decided(poison)["row"]["standing"], "refused");
    // Its own next patch set begins with it.
    repo.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "Poison again"]);
    assert!(repo.push().0);
    let last = server.until("the second patch set is refused", &format!("/changes/{poison}"), |view| {
        view["row"]["standing"] == "refused" && view["runs"].as_array().unwrap().len() == 2
    });
    drop(last);
    let run = run_of(&server, poison);
    assert_eq!(log(&server, run, "build").trim(), "poison");
    assert!(
        words(&server.view(&format!("/runs/{run}")), "read").contains("replayed"),
        "its own result counts for it"
    );
    // Another change with the same files does not.
    repo.follow();
    repo.write("andon.yaml", &file("poison"));
    repo.write("lock", "1");
    repo.commit("Clean");
    let (ok, text) = repo.push_as(&["-o", "topic=clean", "HEAD:refs/for/main"]);
    assert!(ok, "{text}");
    let clean = support::number(&text);
    assert_ne!(clean, poison);
    assert_eq!(server.decided(clean)["row"]["standing"], "landed");
    let run = run_of(&server, clean);
    assert!(!log(&server, run, "build").contains("poison\n"), "{}", log(&server, run, "build"));
    assert!(words(&server.view(&format!("/runs/{run}")), "read").starts_with("passed after"));
    // What landed is for everybody, also for trunk.
    assert!(server.cli(&["run", "trunk"]).status.success());
    let view = finished(&server, run + 1);
    assert_eq!(log(&server, run + 1, "build").trim(), "poison", "the landed one left this very word");
    assert!(words(&view, "read").contains(&format!("replayed from run-{run}")), "{view:#}");
}

#[test]
fn a_red_run_is_made_again_without_repeating_what_was_green() {
    let (server, repo) = Server::with_project(&[("andon.yaml", TRUE)]);
    repo.write(
        "andon.yaml",
        &yaml(
            "    build: { run: 'date +%N; mkdir dist; echo 1 > dist/a', artifact: dist }
    flaky: { run: 'test -e \"$HOME/mended\"', needs: [build] }
",
        ),
    );
    let change = repo.propose("Begin");
    assert_eq!(server.decided(change)["row"]["standing"], "refused");
    let green = log(&server, 1, "build");
    std::fs::write(home(&server).join("mended"), "").unwrap();
    let out = server.cli(&["run", "again", "run-1"]);
    assert!(said(&out).contains("run-2"), "{}", said(&out));
    assert_eq!(server.decided(change)["row"]["standing"], "landed", "{}", server.view("/runs/2"));
    let view = server.view("/runs/2");
    assert!(words(&view, "build").contains("replayed from run-1"), "{view:#}");
    assert_eq!((log(&server, 2, "build"), view["again"].as_u64()), (green, Some(1)));
    assert!(!view["artifact"].is_null(), "what it built is what is deployed");
    let journal = server.journal();
    let started: Vec<_> =
        of_type(&journal, "job_started").iter().map(|e| e["event"]["job"].clone()).collect();
    assert_eq!(started, ["build", "flaky", "flaky"], "attempts are not repeated");
    let out = server.cli(&["run", "again", "1"]);
    assert!(said(&out).contains("on trunk already"), "{}", said(&out));
}

#[test]
fn others_land_while_a_person_is_waited_for_and_a_yes_holds_on_the_newer_trunk() {
    let (server, repo) = with("    unit: { run: 'true' }\n");
    server.decided(repo.propose("Begin"));
    repo.follow();
    repo.write("andon.yaml", &yaml("    ask: { when: { paths: [risky] }, approve: { why: 'Risk it?' } }\n    unit: { run: 'true' }\n"));
    server.decided({
        let change = repo.propose("Ask from now on");
        server.until("somebody is asked", "/runs/2", |view| !job(view, "ask")["asks"].is_null());
        assert!(server.cli(&["run", "approve", "2", "ask", "--why", "of course"]).status.success());
        change
    });
    repo.follow();
    repo.write("risky", "1");
    let risky = repo.propose("Risky");
    server.until("somebody is asked", "/runs/3", |view| !job(view, "ask")["asks"].is_null());
    repo.follow();
    repo.write("plain", "1");
    let plain = repo.propose("Plain");
    assert_eq!(server.decided(plain)["row"]["standing"], "landed", "it did not wait");
    let row = server.view(&format!("/changes/{risky}"))["row"].clone();
    assert_eq!((row["standing"].as_str(), row["mark"].as_str()), (Some("testing"), Some("wait")));
    assert!(row["words"].as_str().unwrap().contains("ask of run-3 waits for any releaser"), "{row}");
    assert!(server.cli(&["run", "approve", "3", "ask", "--why", "risk it"]).status.success());
    assert_eq!(server.decided(risky)["row"]["standing"], "landed");
    // Trunk had moved: what landed was tested on it, and nobody was asked again.
    let last = run_of(&server, risky);
    assert!(last > 4, "{last}");
    assert!(words(&server.view(&format!("/runs/{last}")), "ask").contains("risk it"));
    let journal = server.journal();
    let asked = of_type(&journal, "approval_asked").len();
    assert_eq!((asked, of_type(&journal, "approval_given").len()), (2, 2));
}

#[test]
fn a_question_and_what_was_handed_on_outlive_a_server_that_is_killed() {
    let (mut server, repo) = with(
        "    build: { run: 'date +%N > out', outputs: [out] }
    ask: { needs: [build], approve: { why: 'On?' } }
    check: { needs: [ask], takes: [build], run: cat out }
",
    );
    let change = repo.propose("Begin");
    let asked = server.until("somebody is asked", "/runs/1", |view| !job(view, "ask")["asks"].is_null());
    for _ in 0..3 {
        server.kill();
        server.start();
        assert_eq!(job(&server.view("/runs/1"), "ask")["asks"], job(&asked, "ask")["asks"]);
    }
    assert!(server.cli(&["run", "approve", "run-1", "ask", "--why", "seen"]).status.success());
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
    assert!(!log(&server, 1, "check").trim().is_empty());
    let journal = server.journal();
    for kind in ["approval_asked", "job_outputs", "approval_given"] {
        assert_eq!(of_type(&journal, kind).len(), 1, "{kind} happened once");
    }
}

#[test]
fn what_runs_beside_a_job_is_reached_by_its_steps_and_ends_with_it() {
    let ask = r#"python3 -c 'import os,urllib.request as r; print(r.urlopen("http://127.0.0.1:" + os.environ["WEB_PORT"] + "/file").read())'"#;
    let file = format!(
        "version: 1
pipeline:
  jobs:
    unit:
      services: {{ web: {{ run: 'echo beside; exec python3 -m http.server --bind 127.0.0.1 $WEB_PORT' }} }}
      steps:
        - name: ask
          run: |
            {ask}
        - {{ name: again, run: 'test -n \"$WEB_PORT\"' }}
"
    );
    let (server, repo) = Server::with_project(&[("andon.yaml", &file), ("file", "inside")]);
    assert_eq!(
        server.decided(repo.propose("Begin"))["row"]["standing"],
        "landed",
        "{}",
        server.view("/runs/1")
    );
    let said = log(&server, 1, "unit");
    assert!(said.contains("beside") && said.contains("b'inside'"), "{said}");
    // Nothing of it is left behind: whatever listened had the attempt's mark in its environment.
    let room = server.room.path().to_string_lossy().into_owned();
    let left = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let environ = String::from_utf8_lossy(&environ).into_owned();
        environ.contains("WEB_PORT=") && environ.contains(&room)
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_service_that_cannot_be_reached_makes_its_job_red_and_says_why() {
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = format!("run: sleep 9, port: {}", holder.local_addr().unwrap().port());
    let (server, repo) = with("    unit: { run: 'true' }\n");
    server.decided(repo.propose("Begin"));
    for (run, (service, says)) in (2..).zip([
        (taken.as_str(), "is taken already"),
        ("run: 'echo I give up; exit 3'", "ended before it could be reached"),
        ("run: sleep 60, within: 1s", "does not listen on port"),
    ]) {
        repo.follow();
        let jobs = format!("    unit: {{ services: {{ bad: {{ {service} }} }}, run: echo never }}\n");
        repo.write("andon.yaml", &yaml(&jobs));
        repo.commit(service);
        let (ok, text) = repo.push_as(&["-o", &format!("topic=t{run}"), "HEAD:refs/for/main"]);
        assert!(ok, "{text}");
        let view = server.decided(support::number(&text));
        assert_eq!(view["row"]["words"], "job unit failed with exit status 1");
        let said = log(&server, run, "unit");
        assert!(said.contains(says) && !said.contains("never"), "{said}");
    }
}

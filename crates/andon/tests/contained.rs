//! Jobs in containers, on the real binary and a real engine: the steps of a job run in one container of its image with what any job has; it is
//! gone with the job, however that ends.
//!
//! Needs a Docker Engine that answers (`tools/with-docker` starts one). Without it the tests say SKIPPED, and fail where CI=true. There is
//! no registry: the image is made of a shell and a few tools of this machine, under names that no machine has them by.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Server, of_type, pause};

/// What an image needs to be one, and a few tools.
const TOOLS: [&str; 10] = ["sh", "cat", "sleep", "touch", "mkdir", "id", "test", "setsid", "head", "tr"];

/// Whether there is an engine; says SKIPPED where not.
fn engine(test: &str) -> bool {
    let out = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    let there = out.is_ok_and(|out| out.status.success());
    if !there {
        println!("SKIPPED: {test} (no container engine)");
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "in CI a component that is missing is a failure"
        );
    }
    there
}

/// An image of this machine's files, which is gone with it.
struct Image(String);

impl Image {
    fn new(name: &str) -> Image {
        let image = format!("andon-test-{name}:{}", std::process::id());
        let mut files = BTreeSet::new();
        let which = |tool: &str| {
            let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
            let path = String::from_utf8(found.stdout).unwrap().trim().to_owned();
            if path.starts_with('/') { path } else { format!("/usr/bin/{tool}") }
        };
        let mut tar = tar::Builder::new(Vec::new());
        for tool in TOOLS {
            let path = PathBuf::from(which(tool)).canonicalize().unwrap();
            tar.append_path_with_name(&path, format!("opt/tools/{tool}")).unwrap();
            let libraries = Command::new("ldd").arg(&path).output().unwrap().stdout;
            for word in
                String::from_utf8_lossy(&libraries).split_whitespace().filter(|word| word.starts_with('/'))
            {
                files.insert(word.to_owned());
            }
        }
        for file in files {
            let real = PathBuf::from(&file).canonicalize().unwrap();
            tar.append_path_with_name(real, file.trim_start_matches('/')).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(9);
        header.set_mode(0o644);
        tar.append_data(&mut header, "of-the-image", &b"the image"[..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        let mut import = Command::new("docker")
            .args([
                "import",
                "--change",
                "ENV PATH=/opt/tools",
                "--change",
                "ENV FROM_IMAGE=yes",
                "-",
                &image,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        import.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(import.wait().unwrap().success());
        Image(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["image", "rm", "-f", &self.0]).output();
    }
}

/// Containers of jobs of this server, running or not.
fn containers(image: &Image) -> Vec<String> {
    let out = Command::new("docker")
        .args(["ps", "-aq", "--filter", "label=andon.jobs", "--filter", &format!("ancestor={}", image.0)])
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn wait_for(what: &str, mut seen: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !seen() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never seen: {what}");
        pause();
    }
}

fn home(server: &Server) -> PathBuf {
    server.room.path().join("data/jobs/shop/home")
}

fn log(server: &Server, job: &str) -> String {
    let (_, log) = server.get(&format!("/api/v1/shop/runs/1/jobs/{job}/log"));
    log.as_str().map_or_else(|| log.to_string(), str::to_owned)
}

/// A job whose second step waits in its container.
fn waiting(image: &Image) -> String {
    format!(
        r#"
version: 1
pipeline:
  jobs:
    unit:
      image: {}
      steps:
        - {{ name: First, run: "echo first; (trap '' TERM; setsid sleep 1000 &) ; touch $HOME/begun" }}
        - {{ name: Second, run: "while [ ! -e $HOME/go ]; do sleep 0.02; done; echo second" }}
"#,
        image.0
    )
}

#[test]
fn the_steps_of_a_job_run_in_a_container_of_its_image_and_leave_what_any_job_leaves() {
    if !engine("jobs in containers") {
        return;
    }
    let image = Image::new("steps");
    let yaml = format!(
        r#"
version: 1
pipeline:
  jobs:
    build:
      image: {}
      limits: {{ memory: 256MiB, processes: 64 }}
      network: false
      outputs: [out/]
      reports: {{ tests: report.xml }}
      steps:
        - {{ name: Look, run: "cat /of-the-image; echo; echo $FROM_IMAGE $PATH; cat app.txt; test ! -e /etc/passwd; test ! -e /var/run/docker.sock" }}
        - {{ name: Build, run: "mkdir out; echo built > out/it; echo '<testsuite name=\"s\"><testcase name=\"one\"/></testsuite>' > report.xml" }}
    use: {{ takes: [build], run: cat out/it }}
    starve: {{ image: {}, limits: {{ memory: 32MiB }}, needs: [use], run: "exec head -c 300000000 /dev/zero | tr '\\0' x | (read -r line; echo $line)" }}
"#,
        image.0, image.0
    );
    let (server, repo) = Server::with_project(&[("andon.yaml", &yaml), ("app.txt", "the app\n")]);
    let change = repo.propose("Build in a container");
    let decided = server.decided(change);
    let built = log(&server, "build");
    let seen = server.view("/runs/1");
    assert!(built.contains("the image\nyes /opt/tools\nthe app\n"), "{built}\n{seen}\n{}", server.stderr());
    assert_eq!(log(&server, "use"), "built\n");
    let view = server.view("/runs/1");
    let job = view["jobs"].as_array().unwrap().iter().find(|job| job["name"] == "build").unwrap().clone();
    assert_eq!(job["tests"], json!([1, 0, 0]));
    assert_eq!(job["steps"].as_array().unwrap().len(), 2);
    assert!(job["isolation"]["has"].to_string().contains("a container of"), "{job}");
    // Nobody lands what starves.
    assert_eq!(decided["row"]["standing"], "refused");
    let words = decided["row"]["words"].to_string();
    assert!(words.contains("starve"), "{words}");
    wait_for("no container is left", || containers(&image).is_empty());
}

#[test]
fn a_job_in_a_container_is_taken_up_after_the_servers_death_and_its_steps_are_recorded_once() {
    if !engine("a job in a container and the server's death") {
        return;
    }
    let image = Image::new("adopted");
    let (mut server, repo) = Server::with_project(&[("andon.yaml", &waiting(&image))]);
    let change = repo.propose("Wait");
    wait_for("the first step", || home(&server).join("begun").exists());
    server.kill();
    server.start();
    std::fs::write(home(&server).join("go"), "").unwrap();
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
    let journal = server.journal();
    assert_eq!(of_type(&journal, "job_started").len(), 1);
    let steps: Vec<&Value> =
        of_type(&journal, "step_finished").into_iter().map(|event| &event["event"]["name"]).collect();
    assert_eq!(steps, [&json!("First"), &json!("Second")]);
    wait_for("no container is left", || containers(&image).is_empty());
}

#[test]
fn a_job_in_a_container_that_nobody_needs_any_more_is_gone_whole_and_one_whose_shim_is_killed_too() {
    if !engine("the end of a job in a container") {
        return;
    }
    let image = Image::new("ended");
    let (mut server, repo) = Server::with_project(&[("andon.yaml", &waiting(&image))]);
    let change = repo.propose("Wait");
    wait_for("the first step", || home(&server).join("begun").exists());
    assert_eq!(containers(&image).len(), 1);
    let (status, said) =
        server.post(&format!("/api/v1/shop/changes/{change}/abandon"), &json!({ "why": "enough" }));
    assert_eq!(status, 200, "{said}");
    wait_for("no container is left", || containers(&image).is_empty());
    // As when the machine goes down: the shim is gone, and so is the server.
    std::fs::remove_file(home(&server).join("begun")).unwrap();
    repo.write("two", "2");
    let change = repo.propose("Again");
    wait_for("the first step", || home(&server).join("begun").exists());
    server.kill();
    let rooms = std::fs::read_dir(server.room.path().join("data/jobs/shop/attempts")).unwrap();
    for room in rooms.flatten() {
        let state = std::fs::read(room.path().join("state.json")).unwrap_or_default();
        let state: Value = serde_json::from_slice(&state).unwrap_or_default();
        if let Some(shim) = state["shim"]["pid"].as_u64() {
            let _ = Command::new("kill").args(["-9", &shim.to_string()]).stderr(Stdio::null()).status();
        }
    }
    std::fs::write(home(&server).join("go"), "").unwrap();
    server.start();
    assert_eq!(server.decided(change)["row"]["standing"], "landed");
    assert_eq!(of_type(&server.journal(), "job_lost").len(), 1);
    wait_for("no container is left", || containers(&image).is_empty());
}

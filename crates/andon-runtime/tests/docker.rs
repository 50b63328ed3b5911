//! Containers of a real engine: what they are on, what they may, what is seen of hands that reach into them, and that nothing is left.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

mod station;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use andon_model::{Digest, EnvironmentName, Limits, Packages, Span};
use andon_runtime::{
    DockerRuntime, Exit, Runtime, RuntimeError, Said, Shell, ShellOrder, Size, Spec, Terminal,
};
use station::{artifact, get, until};

const SERVE: [&str; 4] = ["./station", "serve", "$HOST", "$PORT"];

/// A runtime of one's own; what it made ends with it.
struct Host {
    runtime: DockerRuntime,
    room: tempfile::TempDir,
}

impl Host {
    fn new(test: &str) -> Option<Host> {
        let room = tempfile::tempdir().unwrap();
        let runtime = station::docker(test, room.path())?;
        Some(Host { runtime, room })
    }

    fn spec(&self, id: &str, words: &[&str]) -> (Spec, SocketAddr) {
        let address = self.runtime.place(&staging(), &BTreeSet::new(), None).unwrap();
        let spec = Spec {
            address: Some(address.ip()),
            environment: Some(staging()),
            stop_within: Span::secs(2),
            artifact: Some(Digest::of(&artifact())),
            writes: vec!["data".into()],
            ..Spec::new(id, words, address.port())
        };
        (spec, address)
    }

    fn begin(&self, spec: &Spec) {
        self.runtime.prepare(spec, &mut &artifact()[..]).unwrap();
        self.runtime.start(spec).unwrap();
    }

    fn serving(&self, id: &str) -> SocketAddr {
        let (spec, address) = self.spec(id, &SERVE);
        self.begin(&spec);
        until("it answers", || get(address, "/"));
        address
    }

    fn name(&self, id: &str) -> String {
        format!("andon-{}-shop-{id}", self.runtime.server())
    }

    /// Everything on the engine that is ours.
    fn left(&self) -> Vec<String> {
        let label = format!("label=andon.server={}", self.runtime.server());
        let mut left = lines(&["ps", "-aq", "--filter", &label]);
        left.extend(lines(&["network", "ls", "-q", "--filter", &label]));
        let images = lines(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        left.extend(images.into_iter().filter(|image| image.contains(self.runtime.server())));
        left
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for seen in self.runtime.list().unwrap_or_default() {
            let _ = self.runtime.remove(&seen.id);
        }
        let _ = self.runtime.clear(&staging());
    }
}

fn staging() -> EnvironmentName {
    "staging".parse().unwrap()
}

fn docker(args: &[&str]) -> Result<String, String> {
    let out = Command::new("docker").args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

fn lines(args: &[&str]) -> Vec<String> {
    docker(args).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_container_may_write_what_was_said_and_nothing_else() {
    let Some(host) = Host::new("a container may write") else { return };
    let address = host.serving("i1");
    let write = |path: &str| get(address, &format!("/write={path}")).unwrap();
    assert_eq!((write("data/x"), write("/tmp/x")), ("Ok(())".into(), "Ok(())".into()));
    for path in ["lib/text", "new", "/new", "/etc/passwd"] {
        assert!(write(path).starts_with("Err"), "{path} was written");
    }
    let status = get(address, "/read=/proc/self/status").unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Uid:"), "65532\t65532\t65532\t65532");
    assert_eq!((field("CapEff:"), field("CapBnd:")), ("0".repeat(16), "0".repeat(16)));
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(host.runtime.differences("i1").unwrap(), []);
    let isolation = host.runtime.isolation(&staging());
    assert!(isolation.has.iter().any(|has| has == "read-only release"), "{isolation:?}");
}

#[test]
fn what_takes_more_than_its_limit_is_ended() {
    let Some(host) = Host::new("limits") else { return };
    if !host.runtime.about().unwrap().memory {
        println!("SKIPPED: limits (the engine cannot limit memory)");
        return;
    }
    let (spec, _) = host.spec("i1", &["./station", "eat"]);
    let limits = Limits { memory: Some(32 << 20), cpu_millis: Some(500), processes: Some(20) };
    host.begin(&Spec { limits, ..spec });
    let ended = || host.runtime.list().unwrap().into_iter().find_map(|seen| seen.exit);
    let exit = until("it is ended", ended);
    assert_eq!(exit, Exit::OutOfMemory(limits.memory));
    assert_eq!(exit.to_string(), "was killed: it used more memory than its limit of 32 MiB");
    assert_eq!(host.runtime.settings("i1").unwrap(), []);
}

#[test]
fn a_hand_in_a_container_is_seen() {
    let Some(host) = Host::new("a hand in a container") else { return };
    host.serving("i1");
    let name = host.name("i1");
    let mut news = host.runtime.watch().unwrap();
    until("the engine is listened to", || news.has_changed().unwrap().then_some(()));
    // The root is read-only, whoever asks.
    let refused = docker(&["exec", "--user", "0", &name, "./station", "write", "lib/text"]).unwrap_err();
    assert!(refused.contains("ReadOnlyFilesystem"), "{refused}");
    assert!(docker(&["cp", "/etc/hostname", &format!("{name}:/app/lib/text")]).is_err());
    assert_eq!(host.runtime.differences("i1").unwrap(), []);
    news.mark_unchanged();
    // Settings.
    docker(&["update", "--restart", "always", &name]).unwrap();
    until("the engine tells", || news.has_changed().unwrap().then_some(()));
    let found = host.runtime.settings("i1").unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].before.as_str(), found[0].after.as_str()), ("no", "always"));
    docker(&["update", "--restart", "no", &name]).unwrap();
    let network = format!("andon-{}-shop-staging", host.runtime.server());
    docker(&["network", "disconnect", &network, &name]).unwrap();
    assert_eq!(host.runtime.settings("i1").unwrap()[0].after, "none");
    // A process of somebody else, and its end.
    let mut by_hand = Command::new("docker").args(["exec", &name, "./station", "wait"]).spawn().unwrap();
    let stranger = until("the stranger is seen", || host.runtime.foreign().unwrap().pop());
    assert_eq!((stranger.instance.as_str(), stranger.command.as_str()), ("i1", "./station wait"));
    assert!(host.runtime.kill_foreign(stranger.process).unwrap());
    by_hand.wait().unwrap();
    until("it is gone", || host.runtime.foreign().unwrap().is_empty().then_some(()));
}

/// Files that change below the container, as an intruder on the host would change them.
#[test]
fn a_file_that_changed_is_named_with_before_and_after() {
    let Some(host) = Host::new("a file that changed") else { return };
    host.serving("i1");
    let merged = docker(&["inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", &host.name("i1")]).unwrap();
    if !std::path::Path::new(&merged).is_dir() {
        println!("SKIPPED: a file that changed (this engine's files cannot be reached: {merged:?})");
        return;
    }
    std::fs::write(format!("{merged}/app/lib/text"), "changed").unwrap();
    std::fs::write(format!("{merged}/app/backdoor"), "new").unwrap();
    let found = host.runtime.differences("i1").unwrap();
    let words: Vec<String> =
        found.iter().map(|d| format!("{}: {} -> {}", d.path, d.before, d.after)).collect();
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words[0].starts_with("backdoor: absent -> sha256:"), "{words:?}");
    assert!(words[1].starts_with("lib/text: sha256:982d9e3eb996 -> "), "{words:?}");
}

#[test]
fn an_artifact_is_put_on_an_image_that_is_at_hand_and_an_image_runs_as_it_is() {
    let Some(host) = Host::new("images") else { return };
    // A base with a program and a user of its own.
    let base = format!("andon-test-base:{}", host.runtime.server());
    let room = host.room.path().join("base");
    std::fs::create_dir_all(room.join("bin")).unwrap();
    std::fs::copy(station::program(), room.join("bin/below")).unwrap();
    let tar = host.room.path().join("base.tar");
    assert!(
        Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&room).arg(".").status().unwrap().success()
    );
    docker(&["import", "-c", "USER 1234", "-c", "ENV COLOUR=blue", tar.to_str().unwrap(), &base]).unwrap();
    let (spec, address) = host.spec("i1", &["below", "serve", "$HOST", "$PORT"]);
    let on_base = Spec { image: Some(base.clone()), ..spec.clone() };
    let missing = Spec { image: Some("andon-test-none:1".into()), ..spec };
    let refused = host.runtime.prepare(&missing, &mut &artifact()[..]);
    assert!(matches!(refused, Err(RuntimeError::NoImage(name)) if name == "andon-test-none:1"));
    host.begin(&on_base);
    until("it answers", || get(address, "/"));
    assert_eq!(get(address, "/read=lib/text").unwrap(), "text");
    assert_eq!(get(address, "/env=COLOUR").unwrap(), "blue");
    assert!(get(address, "/read=/proc/self/status").unwrap().contains("Uid:\t1234"));
    assert_eq!(host.runtime.differences("i1").unwrap(), []);
    // What a job saved is loaded, layer by layer the same, and nobody else's name is moved.
    let saved = host.room.path().join("image.tar");
    let id = docker(&["inspect", "-f", "{{.Id}}", &base]).unwrap();
    docker(&["save", "-o", saved.to_str().unwrap(), &base]).unwrap();
    let mut packed = tar::Builder::new(Vec::new());
    packed.append_path_with_name(&saved, "image.tar").unwrap();
    let packed = packed.into_inner().unwrap();
    let (spec, address) = host.spec("i2", &["/bin/below", "serve", "$HOST", "$PORT"]);
    let spec = Spec { artifact: Some(Digest::of(&packed)), writes: Vec::new(), ..spec };
    host.runtime.prepare(&spec, &mut &packed[..]).unwrap();
    host.runtime.start(&spec).unwrap();
    until("it answers", || get(address, "/"));
    assert_eq!(docker(&["inspect", "-f", "{{.Image}}", &host.name("i2")]).unwrap(), id);
    host.runtime.remove("i1").unwrap();
    host.runtime.remove("i2").unwrap();
    // The team's own image stays.
    assert_eq!(docker(&["inspect", "-f", "{{.Id}}", &base]).unwrap(), id);
    docker(&["rmi", &base]).unwrap();
}

#[test]
fn instances_come_and_go_and_leave_nothing() {
    let Some(host) = Host::new("instances come and go") else { return };
    for round in 0..10 {
        let id = format!("i{round}");
        let (spec, _) = host.spec(&id, &SERVE);
        host.begin(&spec);
        assert_eq!(host.left().len(), 3, "a container, a network, an image: {:?}", host.left());
        let volumes = lines(&["inspect", "-f", "{{range .Mounts}}{{.Name}}{{end}}", &host.name(&id)]);
        assert_eq!(volumes.len(), 1);
        host.runtime.remove(&id).unwrap();
        host.runtime.clear(&staging()).unwrap();
        assert_eq!(host.left(), Vec::<String>::new());
        assert!(docker(&["volume", "inspect", &volumes[0]]).is_err(), "a volume is left");
    }
    let files: Vec<_> = std::fs::read_dir(host.room.path().join("shop")).unwrap().flatten().collect();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn what_a_killed_server_had_begun_is_finished_or_found() {
    let Some(host) = Host::new("what a killed server had begun") else { return };
    let (spec, address) = host.spec("i1", &SERVE);
    // Killed after the image was loaded; after the container was made; with half an image on the disk.
    host.runtime.prepare(&spec, &mut &artifact()[..]).unwrap();
    std::fs::create_dir_all(host.room.path().join("shop/new-i7/release")).unwrap();
    let anew = DockerRuntime::new(host.room.path(), "shop").unwrap();
    assert!(!host.room.path().join("shop/new-i7").exists());
    assert_eq!(anew.server(), host.runtime.server());
    anew.prepare(&spec, &mut &artifact()[..]).unwrap();
    anew.start(&spec).unwrap();
    docker(&["kill", &host.name("i1")]).unwrap();
    docker(&["rm", &host.name("i1")]).unwrap();
    let image = lines(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let image = image.into_iter().find(|image| image.contains(host.runtime.server())).unwrap();
    docker(&["create", "--name", &host.name("i1"), &image, "./station", "exit", "1"]).unwrap();
    let anew = DockerRuntime::new(host.room.path(), "shop").unwrap();
    anew.start(&spec).unwrap();
    until("it answers", || get(address, "/"));
}

#[test]
fn three_services_of_an_environment_answer() {
    let Some(host) = Host::new("three services") else { return };
    let mut took = Vec::new();
    for _ in 0..10 {
        let begun = std::time::Instant::now();
        let mut used = BTreeSet::new();
        for id in ["i1", "i2", "i3"] {
            let (spec, _) = host.spec(id, &SERVE);
            let address = host.runtime.place(&staging(), &used, None).unwrap();
            assert!(used.insert(address));
            host.begin(&Spec { address: Some(address.ip()), ..spec });
        }
        used.iter().for_each(|address| drop(until("it answers", || get(*address, "/"))));
        took.push(begun.elapsed());
        ["i1", "i2", "i3"].iter().for_each(|id| host.runtime.remove(id).unwrap());
        host.runtime.clear(&staging()).unwrap();
    }
    took.sort();
    println!(
        "three services, one after the other, from nothing: median {:?}, slowest of ten {:?}",
        took[5], took[9]
    );
}

/// Everything a shell says until it ends: output, errors, status.
fn heard(shell: &mut Shell) -> (String, String, Option<i32>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match until("it says something", || shell.output.try_recv().ok()) {
            Said::Out(bytes) => out.extend(bytes),
            Said::Err(bytes) => err.extend(bytes),
            Said::Ended(code) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return (text(&out), text(&err), code);
            }
        }
    }
}

#[test]
fn a_shell_in_a_container_says_what_it_did_and_ends_with_whoever_held_it() {
    let Some(host) = Host::new("a shell in a container") else { return };
    host.serving("i1");
    let order = |name: &str, words: &[&str], terminal: bool| ShellOrder {
        name: format!("{}#{name}", host.room.path().display()),
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        terminal: terminal.then(|| Terminal { kind: "vt100".into(), size: Size { columns: 100, rows: 40 } }),
    };
    let open = |order: &ShellOrder| host.runtime.shell("i1", order).unwrap();
    let (out, err, code) = heard(&mut open(&order("1", &["./station", "exit", "7"], false)));
    assert_eq!((out.as_str(), err.as_str(), code), ("first\n", "second\n", Some(7)));
    // With a terminal there is one output, and lines end as terminals have it.
    let (out, _, code) = heard(&mut open(&order("2", &["./station", "exit", "0"], true)));
    assert_eq!((out.as_str(), code), ("first\r\nsecond\r\n", Some(0)));
    let (out, err, code) = heard(&mut open(&order("3", &["/no/such/program"], false)));
    assert!(code != Some(0) && format!("{out}{err}").contains("no/such/program"), "{out} {err} {code:?}");
    // While it is held it is no stranger; another hand is.
    let shell = open(&order("4", &["./station", "wait"], false));
    let mark = format!("ANDON_SHELL={}#4\0", host.room.path().display());
    let marked = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let environ =
            |entry: &std::fs::DirEntry| std::fs::read(entry.path().join("environ")).unwrap_or_default();
        all.filter(|entry| String::from_utf8_lossy(&environ(entry)).contains(&mark)).count()
    };
    until("it runs", || (marked() > 0).then_some(()));
    assert_eq!(host.runtime.foreign().unwrap(), []);
    docker(&["exec", "-d", &host.name("i1"), "./station", "wait"]).unwrap();
    let foreign = host.runtime.foreign().unwrap();
    assert_eq!(foreign.len(), 1, "{foreign:?}");
    drop(shell);
    until("nothing of it runs", || (marked() == 0).then_some(()));
    host.runtime.stop("i1").unwrap();
    let refused = host.runtime.shell("i1", &order("5", &["./station", "wait"], false));
    assert!(matches!(refused, Err(RuntimeError::NoShell { .. })), "{refused:?}");
}

#[test]
fn a_container_has_the_packages_of_its_image_and_one_that_holds_nothing_has_none() {
    let Some(host) = Host::new("packages of a container") else { return };
    host.serving("i1");
    assert_eq!(host.runtime.packages("i1").unwrap(), Some(Packages::default()));
    let base = format!("andon-packages-{}:1", host.runtime.server());
    let mut tar = tar::Builder::new(Vec::new());
    let records = "C:Q1\nP:musl\nV:1.2.4-r2\n\nP:zlib\nV:1.3-r0\n";
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(records.len() as u64);
    tar.append_data(&mut header, "lib/apk/db/installed", records.as_bytes()).unwrap();
    let file = host.room.path().join("base.tar");
    std::fs::write(&file, tar.into_inner().unwrap()).unwrap();
    docker(&["import", file.to_str().unwrap(), &base]).unwrap();
    let (spec, address) = host.spec("i2", &SERVE);
    host.begin(&Spec { image: Some(base.clone()), ..spec });
    until("it answers", || get(address, "/"));
    let found = host.runtime.packages("i2").unwrap().unwrap();
    assert_eq!(
        (found.kind.as_str(), found.versions["musl"].as_str(), found.versions.len()),
        ("apk", "1.2.4-r2", 2)
    );
    host.runtime.remove("i2").unwrap();
    docker(&["image", "rm", "-f", &base]).unwrap();
}

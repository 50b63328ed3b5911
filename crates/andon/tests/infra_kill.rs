//! Power cuts in the middle of an apply, with the real terraform: the server, the tool or both are killed at moments that nobody chose. Afterwards
//! what exists is what the state says: nothing is left that nobody knows, nothing is missing.
//!
//! `ANDON_KILL_POINTS` says how often (default 6), `ANDON_SEED` repeats a run. With `ANDON_KILL_POINT_FIGURES=FILE` the sums are kept.

#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{Dice, HELLO, Server, of_type, pass, terraform_is_there};

const LINE: &str = r#"
version: 1
pipeline: { jobs: { package: { run: "mkdir dist && cp app.py dist/", artifact: dist } } }
services: { web: { command: [python3, app.py, $PORT], health: / } }
environments:
  production:
    infrastructure: { terraform: infra/, look_every: 1h, variables: { place: "PLACE" } }
"#;

/// A world in which orphans can be counted: whatever is made has a name that is drawn anew each time and known to its state alone, as in
/// clouds. Who forgets a name leaves its thing behind.
const CODE: &str = r#"
variable "place" { type = string }
locals { wanted = toset(compact(split("\n", file("${var.place}/wanted")))) }
resource "terraform_data" "name" { for_each = local.wanted }
resource "terraform_data" "thing" {
  for_each = local.wanted
  input    = { file = "${var.place}/things/${each.key}.${terraform_data.name[each.key].id}" }
  provisioner "local-exec" { command = "sleep 0.3; touch ${self.input.file}; sleep 0.4" }
  provisioner "local-exec" {
    when    = destroy
    command = "sleep 0.2; rm -f ${self.input.file}"
  }
}
"#;

/// Things that can be wanted.
const ALL: u64 = 7;

struct World {
    server: Server,
    place: PathBuf,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Server,
    Tool,
    Both,
}

impl World {
    fn want(&self, things: &BTreeSet<String>) {
        let lines: Vec<&str> = things.iter().map(String::as_str).collect();
        std::fs::write(self.place.join("wanted"), lines.join("\n")).unwrap();
    }

    fn exists(&self) -> BTreeSet<String> {
        let things = std::fs::read_dir(self.place.join("things")).unwrap().flatten();
        things.map(|thing| thing.file_name().to_string_lossy().into_owned()).collect()
    }

    /// What the state says there is, by the same names.
    fn known(&self) -> BTreeSet<String> {
        let (status, state) = self.server.get("/api/v1/shop/state/production");
        assert_eq!(status, 200, "{state}");
        let names =
            state["resources"].as_array().unwrap().iter().filter(|resource| resource["name"] == "name");
        let name = |instance: &Value| {
            let (key, id) = (&instance["index_key"], &instance["attributes"]["id"]);
            format!("{}.{}", key.as_str().unwrap(), id.as_str().unwrap())
        };
        names.flat_map(|resource| resource["instances"].as_array().unwrap().iter().map(name)).collect()
    }

    /// What was wanted of it.
    fn names(&self) -> BTreeSet<String> {
        self.known().iter().map(|name| name.split('.').next().unwrap().to_owned()).collect()
    }

    /// Processes of the tool: whatever works in a room of a run.
    fn tools(&self) -> Vec<String> {
        let rooms = self.server.room.path().join("data/infrastructure/shop");
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let ours = processes.filter(|entry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&rooms))
        });
        ours.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn kill_tools(&self) {
        loop {
            let tools = self.tools();
            if tools.is_empty() {
                return;
            }
            let _ = Command::new("kill").arg("-9").args(&tools).stderr(std::process::Stdio::null()).status();
            support::pause();
        }
    }

    fn idle(&self) -> Value {
        self.server.until("no run is open", "/infrastructure/production", |view| {
            view["runs"].as_array().unwrap().iter().all(|run| run["place"].is_null())
        })
    }

    fn apply(&self) {
        let asked = self.server.post("/api/v1/shop/infrastructure/production/apply", &json!({}));
        assert_eq!(asked.0, 200, "{}", asked.1);
    }
}

fn draw(dice: &mut Dice) -> BTreeSet<String> {
    (0..ALL).filter(|_| dice.between(0, 3) > 0).map(|n| format!("t{n}")).collect()
}

#[test]
fn whenever_an_apply_is_killed_nothing_is_left_that_no_state_knows() {
    if !terraform_is_there("kills at random points of an apply") {
        return;
    }
    let points: u64 =
        std::env::var("ANDON_KILL_POINTS").ok().and_then(|points| points.parse().ok()).unwrap_or(6);
    let mut dice = Dice::of_environment();
    let (server, repo) = Server::with_project(&[("app.py", HELLO), ("infra/main.tf", CODE)]);
    let place = server.room.path().join("place");
    std::fs::create_dir_all(place.join("things")).unwrap();
    let mut world = World { server, place };
    repo.write("andon.yaml", &LINE.replace("PLACE", world.place.to_str().unwrap()));
    world.want(&draw(&mut dice));
    world.server.served(repo.propose("first"));
    for point in 1..=points {
        let wanted = draw(&mut dice);
        world.want(&wanted);
        world.apply();
        // An apply of this world takes a second or two, and planning it as long: two of three are killed while they apply.
        let applying = dice.between(0, 3) > 0;
        let begun = |world: &World| of_type(&world.server.journal(), "infra_applying").len();
        let before = begun(&world);
        if applying && wanted != world.names() {
            world
                .server
                .until("it is being applied", "/infrastructure/production", |_| begun(&world) > before);
        }
        let after = dice.between(0, if applying { 1500 } else { 4000 });
        let victim = [Victim::Server, Victim::Tool, Victim::Both][dice.between(0, 3) as usize];
        pass(after);
        if victim != Victim::Tool {
            world.server.kill();
        }
        if victim != Victim::Server {
            world.kill_tools();
        }
        if victim != Victim::Tool {
            world.server.start();
        }
        world.idle();
        // A tool that was killed while the server looked on has failed: a person asks for it again.
        if victim == Victim::Tool {
            world.apply();
            world.idle();
        }
        let (exists, known) = (world.exists(), world.known());
        let adopted = of_type(&world.server.journal(), "infra_adopted").len();
        let when = if applying { "of applying" } else { "" };
        println!(
            "point {point}: {victim:?} after {after} ms {when}, {adopted} adopted until now, {} things",
            exists.len()
        );
        assert_eq!(
            exists, known,
            "point {point}: {victim:?} after {after} ms; left: what exists, right: what is known"
        );
        assert_eq!(world.names(), wanted, "point {point}");
        let view = world.server.view("/infrastructure/production");
        assert!(view["states"][0]["lock"].is_null(), "point {point}: a lock stayed: {view}");
    }
    let adopted = of_type(&world.server.journal(), "infra_adopted").len();
    println!("{points} points, 0 orphans, {adopted} resources taken into the state");
    keep(points, adopted);
}

fn keep(points: u64, adopted: usize) {
    let Ok(file) = std::env::var("ANDON_KILL_POINT_FIGURES") else { return };
    let sums = json!({ "points": points, "orphans": 0, "adopted": adopted });
    std::fs::write(Path::new(&file), sums.to_string()).unwrap();
}

//! A house for attempts in a test: rooms, orders, and looks at what is left. The executable of a test is its own shim.

#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use andon_model::Span;
use andon_runner::{End, News, Order, Room, Runner, Step, StepEnd};
use andon_sandbox::{Bounds, Means};

/// How long anything that should happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of a sandbox a case has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None.
    Bare,
    /// All but namespaces.
    Landlocked,
    /// All that the host permits.
    Confined,
}

/// Cases by their names.
pub type Cases = [(&'static str, fn(&House))];

/// Lists and runs cases as a test harness would, each once in every kind of sandbox.
pub fn main(kinds: &[Kind], cases: &Cases) {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "job-shim") {
        std::process::exit(andon_runner::shim::main(Path::new(&args[1])));
    }
    let named = |kind: &Kind, name: &str| format!("{}::{name}", format!("{kind:?}").to_lowercase());
    let all = || {
        kinds.iter().flat_map(|kind| cases.iter().map(move |(name, case)| (named(kind, name), *kind, case)))
    };
    if args.iter().any(|arg| arg == "--list") {
        let ignored = args.iter().any(|arg| arg == "--ignored");
        for (name, ..) in all().filter(|_| !ignored) {
            println!("{name}: test");
        }
        return;
    }
    let wanted = |name: &str| args.iter().all(|arg| arg.starts_with('-') || name.contains(arg.as_str()));
    for (name, kind, case) in all().filter(|(name, ..)| wanted(name)) {
        let house = House::new(kind);
        let lacks = match kind {
            Kind::Bare => None,
            Kind::Landlocked => house.means().landlock.err(),
            Kind::Confined => house.means().namespaces.err(),
        };
        if let Some(why) = lacks {
            skipped(&name, &why);
            continue;
        }
        case(&house);
        println!("test {name} ... ok");
    }
}

/// Said aloud, and not to be overlooked where everything has to be there.
fn skipped(name: &str, why: &str) {
    println!("SKIPPED: {name} ({why})");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{name}: {why}");
}

/// Where attempts of one test live.
pub struct House {
    room: tempfile::TempDir,
    kind: Kind,
    means: std::cell::OnceCell<Means>,
    next: Cell<u32>,
}

impl House {
    fn new(kind: Kind) -> House {
        // Not in /tmp: that is another place to a job.
        let room = tempfile::Builder::new().prefix("andon-job-").tempdir_in("/var/tmp").unwrap();
        House { room, kind, means: Default::default(), next: Cell::new(0) }
    }

    /// As another server on the same data would have it.
    pub fn runner(&self) -> Runner {
        let name = self.room.path().file_name().unwrap().to_str().unwrap().to_owned();
        let new = || Runner::new(std::env::current_exe().unwrap(), self.room.path(), name.clone());
        let all = || new().means().clone();
        let why = "the test wants it so";
        let means = self.means.get_or_init(|| match self.kind {
            Kind::Bare => Means { groups: all().groups, ..Means::none(why) },
            Kind::Landlocked => Means { namespaces: Err(why.into()), ..all() },
            Kind::Confined => all(),
        });
        new().with(means.clone())
    }

    pub fn means(&self) -> Means {
        self.runner().means().clone()
    }

    /// Whether a limit of this kind holds for all processes together.
    pub fn can_limit(&self, what: &str) -> bool {
        let lacks = self.means().groups.lacks;
        let lack = lacks.iter().find(|(controller, _)| format!("{controller:?}").to_lowercase() == what);
        if let Some((_, why)) = lack {
            skipped(&format!("a limit of {what}"), why);
        }
        lack.is_none()
    }

    /// One step, in a working copy and a room of its own.
    pub fn order(&self, script: &str) -> Order {
        self.next.set(self.next.get() + 1);
        let dir = self.room.path().join("attempts").join(format!("a{}", self.next.get()));
        std::fs::create_dir_all(dir.join("tree")).unwrap();
        Order {
            name: format!("a{}", self.next.get()),
            steps: vec![Step {
                name: "run".into(),
                script: script.into(),
                env: BTreeMap::new(),
                timeout_ms: None,
                service: None,
            }],
            workdir: dir.join("tree"),
            log: dir.join("log"),
            room: dir,
            env: BTreeMap::from([("PATH".into(), std::env::var("PATH").unwrap())]),
            timeout: Span::secs(60),
            quiet: None,
            grace: Span(200),
            secrets: Vec::new(),
            log_limit: 1 << 30,
            limits: Bounds::default(),
            image: None,
            network: true,
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }

    pub fn run(&self, order: &Order, cancel: impl Future<Output = ()>) -> End {
        block_on(self.runner().run(order, cancel))
    }

    /// To its end, with the steps that were heard of.
    pub fn follow(&self, order: &Order) -> (End, Vec<StepEnd>) {
        block_on(async {
            let mut running = self.runner().start(order).await.unwrap();
            let mut seen = Vec::new();
            loop {
                match running.next().await {
                    News::Steps(steps) => seen.extend(steps),
                    News::Ended(end) => return (end, seen),
                }
            }
        })
    }

    pub fn log(&self, order: &Order) -> String {
        std::fs::read_to_string(&order.log).unwrap_or_default()
    }

    /// Processes that belong to it, shims too.
    pub fn left(&self, order: &Order) -> Vec<String> {
        of(&order.room)
    }

    pub fn path(&self) -> &Path {
        self.room.path()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.room.path().join("attempts")).into_iter().flatten().flatten() {
            let _ = self.runner().end(&Room::at(&entry.path()));
        }
    }
}

fn of(room: &Path) -> Vec<String> {
    let table = andon_sandbox::process::table().unwrap();
    let named = |stat: &&andon_sandbox::process::Stat| {
        let command = stat.process.command();
        !stat.zombie
            && (stat.process.variable("ANDON_ATTEMPT").is_some_and(|mark| Path::new(&mark) == room)
                || command.contains(&*room.to_string_lossy()))
    };
    table
        .values()
        .filter(named)
        .map(|stat| format!("{} {}", stat.process.pid, stat.process.command()))
        .collect()
}

pub fn alive(room: &Path) -> bool {
    !of(room).is_empty()
}

pub fn kill_shim(room: &Path) {
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(room.join("state.json")).unwrap()).unwrap();
    let process: andon_sandbox::Process = serde_json::from_value(state["shim"].clone()).unwrap();
    assert!(process.signal(rustix::process::Signal::KILL).unwrap());
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// When the file is there.
pub async fn until(file: PathBuf) {
    let begun = Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < PATIENCE, "never seen: {}", file.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

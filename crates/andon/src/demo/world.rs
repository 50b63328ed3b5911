//! Where the demo plays: a server of its own, a repository, customers. Uses the doors that everyone has: git, the command line, the API.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use andon_model::event::{Event, ReleaseEnd};
use andon_model::{ChangeId, DeploymentId, Recorded, ReleaseId, RunId};
use serde_json::{Value, json};

use super::happened::Happened;
use super::load::{Load, Shape};
use super::report::Report;
use super::shop;
use crate::client::{Client, Login};

/// The project's name.
pub const PROJECT: &str = "shop";
/// How long a server may take to start.
const START: Duration = Duration::from_secs(15);
/// How long a change may take to land.
pub const LANDING: Duration = Duration::from_secs(30);
/// How long an artifact may take on its way to users.
pub const RELEASING: Duration = Duration::from_secs(45);

/// The stage.
#[derive(Debug)]
pub struct World {
    /// What is said.
    pub report: Report,
    /// What is recorded.
    pub happened: Arc<Happened>,
    /// The API.
    pub client: Client,
    /// Customers of production, once it serves.
    pub load: Option<Load>,
    /// The server's address.
    pub url: String,
    /// Where customers ask.
    pub router: SocketAddr,
    /// Everything lies below.
    pub dir: PathBuf,
    runtime: tokio::runtime::Handle,
    exe: PathBuf,
    server: Child,
}

/// How a release went.
#[derive(Debug, Clone)]
pub struct Moved {
    /// Its number.
    pub release: ReleaseId,
    /// The new revision.
    pub to: String,
    /// Its kind: `canary`.
    pub kind: &'static str,
    /// How it ended.
    pub how: ReleaseEnd,
    /// The reason in the journal.
    pub why: String,
    /// Counts and evidence at its end.
    pub explanation: Value,
    /// Each change of weight: basis points, milliseconds since it began to move users, reason.
    pub weights: Vec<(u16, i64, String)>,
    /// From the push of the change to the end, in seconds.
    pub since_push: f64,
    /// From the first user on the new revision to the end, in seconds.
    pub since_users: f64,
    /// Who ended it.
    pub by: String,
}

impl World {
    /// Starts a server, enters by its owner link, makes the project.
    pub fn open(
        report: Report,
        runtime: tokio::runtime::Handle,
        listen: Option<SocketAddr>,
        router: Option<SocketAddr>,
    ) -> Result<World, String> {
        let exe = std::env::current_exe().map_err(|error| error.to_string())?;
        let dir = std::env::temp_dir().join(format!("andon-demo-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("repo")).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut server = serve(&exe, &dir, listen, router)?;
        let greeting = greeting(&mut server, &dir);
        let entered = greeting.and_then(|greeting| enter(&greeting).map(|client| (greeting, client)));
        let (greeting, client) = entered.inspect_err(|_| end(&mut server))?;
        let made =
            client.post("/api/v1/projects", &json!({ "name": PROJECT })).map_err(|failure| failure.words);
        let followed = made.and_then(|_| Happened::follow(Client::with(client.login.clone()), &base()));
        let happened = followed.inspect_err(|_| end(&mut server))?;
        let world = World {
            report,
            happened,
            client,
            load: None,
            url: greeting.url,
            router: greeting.router,
            dir,
            runtime,
            exe,
            server,
        };
        world.git(&["init", "-q", "-b", "work"])?;
        let remote = format!("http://demo:{}@{}/{PROJECT}.git", world.client.login.token, host(&world.url));
        world.git(&["remote", "add", "andon", &remote])?;
        Ok(world)
    }

    /// The working copy.
    pub fn repository(&self) -> PathBuf {
        self.dir.join("repo")
    }

    /// Where the server keeps the files of an instance.
    pub fn instance(&self, id: &str) -> PathBuf {
        self.dir.join("data").join("instances").join(PROJECT).join(id).join("release")
    }

    /// git in the working copy, untouched by the settings of whoever runs the demo.
    pub fn git(&self, arguments: &[&str]) -> Result<String, String> {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(self.repository()).stdin(Stdio::null());
        git.env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "Ada").env(format!("GIT_{who}_EMAIL"), "ada@shop.example");
        }
        let out = git.output().map_err(|error| format!("git cannot be run: {error}\nhint: install git"))?;
        let said = String::from_utf8_lossy(if out.status.success() { &out.stdout } else { &out.stderr })
            .trim()
            .to_owned();
        let secret = &self.client.login.token;
        if out.status.success() {
            Ok(said)
        } else {
            Err(format!("git {}: {said}", arguments[0]).replace(secret, "…"))
        }
    }

    /// A command of this binary. The outer error is that it could not be run; inside are its success and what it said.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
            .current_dir(&self.dir)
            .env("ANDON_SERVER", &self.url)
            .env("ANDON_TOKEN", &self.client.login.token);
        command.env("ANDON_PROJECT", PROJECT);
        self.report.step(&format!("$ andon {}", arguments.join(" ")));
        command
    }

    /// Runs a command of this binary that has to succeed. Returns what it said.
    pub fn andon(&self, arguments: &[&str]) -> Result<String, String> {
        let out = self.command(arguments).output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match out.status.success() {
            true => Ok(text(&out.stdout)),
            false => Err(format!(
                "andon {} said: {} {}",
                arguments.join(" "),
                text(&out.stdout),
                text(&out.stderr)
            )),
        }
    }

    /// Reads a view of the project.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.client.get(&format!("{}{path}", base())).map_err(|failure| failure.words)
    }

    /// Commits a change on trunk as it is now, and pushes it for review. `trailer` is put under its message.
    pub fn push(&self, change: &shop::Change, trailer: &str) -> Result<ChangeId, String> {
        self.git(&["fetch", "-q", "andon", "main"])?;
        self.git(&["checkout", "-q", "-f", "-B", "work", "FETCH_HEAD"])?;
        shop::apply(&self.repository(), change)?;
        self.commit_and_push(change.title, trailer)
    }

    /// Commits everything and pushes it.
    pub fn commit_and_push(&self, title: &str, trailer: &str) -> Result<ChangeId, String> {
        self.git(&["add", "-A"])?;
        let message = if trailer.is_empty() { title.to_owned() } else { format!("{title}\n\n{trailer}") };
        self.git(&["commit", "-q", "-m", &message])?;
        let head = self.git(&["rev-parse", "HEAD"])?;
        // A topic tells two changes apart that one person commits within a second.
        let topic = format!("topic={head}");
        self.git(&["push", "-q", "-o", &topic, "andon", "HEAD:refs/for/main"])?;
        let change = self.happened.wait("the push to be recorded", LANDING, |events| {
            events.iter().find_map(|event| match &event.event {
                Event::ChangePushed(push) if push.head.to_string() == head => Some(push.change),
                _ => None,
            })
        })?;
        self.report.step(&format!("git push: {change} {title}"));
        Ok(change)
    }

    /// Waits until a change is on trunk, and returns the seconds that it took since its push.
    pub fn landed(&self, change: ChangeId) -> Result<f64, String> {
        let what = format!("{change} to land");
        let (landed, pushed) = self
            .happened
            .wait(&what, LANDING, |events| {
                let pushed = pushed(events, change)?;
                events.iter().find_map(|event| match &event.event {
                    Event::Landed { change: c, .. } if *c == change => Some(Ok((event.at, pushed.at))),
                    Event::ChangeRefused { change: c, why, .. } if *c == change => Some(Err(why.clone())),
                    _ => None,
                })
            })?
            .map_err(|why| format!("{change} was refused: {why}"))?;
        let took = landed.since(pushed).as_secs_f64();
        self.report.step(&format!("{change} is on trunk after {took:.1} s: what landed is what was tested"));
        Ok(took)
    }

    /// Waits until a change is refused. Returns its run and why.
    pub fn refused(&self, change: ChangeId) -> Result<(Option<RunId>, String), String> {
        self.happened.wait(&format!("{change} to be refused"), LANDING, |events| {
            events.iter().find_map(|event| match &event.event {
                Event::ChangeRefused { change: c, run, why, .. } if *c == change => {
                    Some(Ok((*run, why.clone())))
                }
                Event::Landed { change: c, .. } if *c == change => Some(Err(format!("{change} landed"))),
                _ => None,
            })
        })?
    }

    /// Waits until the first release that brings a change to an environment is over.
    pub fn released(&self, change: ChangeId, environment: &str) -> Result<Moved, String> {
        let what = format!("the release of {change} in {environment} to end");
        self.happened.wait(&what, RELEASING, |events| {
            let deployment = deployment(events, change, environment)?;
            if let Some(why) = failed(events, deployment) {
                return Some(Err(format!("{change} did not get to users of {environment}: {why}")));
            }
            moved(events, change, deployment).map(Ok)
        })?
    }

    /// Waits until a release of a change in an environment has begun to move users, or to copy their requests.
    pub fn begun(&self, change: ChangeId, environment: &str) -> Result<ReleaseId, String> {
        let what = format!("the release of {change} in {environment} to begin");
        self.happened.wait(&what, RELEASING, |events| {
            let deployment = deployment(events, change, environment)?;
            events.iter().find_map(|event| match &event.event {
                Event::ReleaseStarted { release, deployment: d, .. } if *d == deployment => Some(*release),
                _ => None,
            })
        })
    }

    /// Customers come.
    pub fn open_doors(&mut self, shape: Shape) {
        let host = format!("shop.production.{PROJECT}.localhost");
        self.load = Some(Load::start(&self.runtime, self.router, &host, shape));
    }

    /// The customers.
    pub fn customers(&self) -> Result<&Load, String> {
        self.load.as_ref().ok_or_else(|| "production never served: there are no customers".to_owned())
    }

    /// Waits until the server ends by itself or somebody says that it is enough.
    pub fn linger(&mut self) {
        let _ = self.happened.wait("the end", Duration::from_secs(u64::from(u32::MAX)), |_| None::<()>);
    }

    /// Stops everything and removes it.
    pub fn close(&mut self) {
        self.load = None;
        end(&mut self.server);
        let instances = self.dir.join("data").join("instances").join(PROJECT);
        // Services outlive their server, so that it can be replaced; the demo's end with it.
        if let Ok(runtime) = andon_runtime::ProcessRuntime::new(instances, self.exe.clone()) {
            let found = runtime.list().unwrap_or_default();
            std::thread::scope(|scope| {
                for instance in &found {
                    scope.spawn(|| runtime.remove(&instance.id));
                }
            });
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            self.report.say(&format!("▲ {} could not be removed: {error}", self.dir.display()));
        }
    }
}

/// `/api/v1/PROJECT`.
pub fn base() -> String {
    format!("/api/v1/{PROJECT}")
}

fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

struct Greeting {
    url: String,
    router: SocketAddr,
    once: String,
}

fn serve(
    exe: &Path,
    dir: &Path,
    listen: Option<SocketAddr>,
    router: Option<SocketAddr>,
) -> Result<Child, String> {
    let any = || SocketAddr::from(([127, 0, 0, 1], 0));
    let log = std::fs::File::create(dir.join("server.log")).map_err(|error| error.to_string())?;
    let mut command = Command::new(exe);
    command.arg("serve").arg("--data").arg(dir.join("data"));
    command.arg("--listen").arg(listen.unwrap_or_else(any).to_string());
    command.arg("--router").arg(router.unwrap_or_else(any).to_string());
    // Settings of another server of this machine are not for this one.
    for name in ["ANDON_URL", "ANDON_LISTEN", "ANDON_ROUTER", "ANDON_DATA", "ANDON_SLOTS"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command.spawn().map_err(|error| format!("{}: {error}", exe.display()))
}

/// What the server says when it is ready.
fn greeting(server: &mut Child, dir: &Path) -> Result<Greeting, String> {
    let out = server.stdout.take().ok_or("the server's output cannot be read")?;
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        // Read to its end: a server whose words nobody takes would stop.
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    let (mut url, mut port, mut once) = (None, None, None);
    while once.is_none() {
        let Ok(line) = heard.recv_timeout(START) else {
            let log = std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
            return Err(format!("the server did not start: {}", log.trim()));
        };
        let words = line.trim();
        url = url.or_else(|| words.split_once("is ready: ").map(|(_, url)| url.to_owned()));
        port =
            port.or_else(|| words.split_once(".localhost:").and_then(|(_, port)| port.parse::<u16>().ok()));
        once = words.split_once("once=").map(|(_, once)| once.to_owned());
    }
    match (url, port, once) {
        (Some(url), Some(port), Some(once)) => {
            Ok(Greeting { url, router: SocketAddr::from(([127, 0, 0, 1], port)), once })
        }
        _ => Err("the server's greeting is not understood".into()),
    }
}

fn enter(greeting: &Greeting) -> Result<Client, String> {
    let door = |token: &str| Client::with(Login { server: greeting.url.clone(), token: token.to_owned() });
    let session = door(&greeting.once).post("/api/v1/enter", &json!({ "once": greeting.once }));
    let session = session.map_err(|failure| failure.words)?;
    let token = session["token"].as_str().ok_or("the server gave no token")?;
    let issued = door(token).post("/api/v1/tokens", &json!({ "name": "demo", "roles": ["owner"] }));
    let issued = issued.map_err(|failure| failure.words)?;
    Ok(door(issued["token"].as_str().ok_or("the server gave no token")?))
}

/// Asks a server to stop, and waits until it has.
fn end(server: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process};
    if let Some(pid) = i32::try_from(server.id()).ok().and_then(Pid::from_raw)
        && matches!(server.try_wait(), Ok(None))
    {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = server.wait();
}

fn pushed(events: &[Recorded], change: ChangeId) -> Option<&Recorded> {
    events.iter().find(|event| matches!(&event.event, Event::ChangePushed(push) if push.change == change))
}

fn deployment(events: &[Recorded], change: ChangeId, place: &str) -> Option<DeploymentId> {
    events.iter().find_map(|event| match &event.event {
        Event::DeploymentStarted { deployment, environment, changes, .. }
            if environment.as_str() == place && changes.contains(&change) =>
        {
            Some(*deployment)
        }
        _ => None,
    })
}

fn failed(events: &[Recorded], id: DeploymentId) -> Option<String> {
    events.iter().find_map(|event| match &event.event {
        Event::DeploymentFinished { deployment, ok: false, why } if *deployment == id => Some(why.clone()),
        Event::EnvironmentTested { deployment, ok: false, why, .. } if *deployment == id => Some(why.clone()),
        _ => None,
    })
}

fn moved(events: &[Recorded], change: ChangeId, id: DeploymentId) -> Option<Moved> {
    let pushed = pushed(events, change)?.at;
    let (release, to, kind, began) = events.iter().find_map(|event| match &event.event {
        Event::ReleaseStarted { release, deployment, to, strategy, .. } if *deployment == id => {
            Some((*release, to.0.clone(), strategy.kind(), event.at))
        }
        _ => None,
    })?;
    let of_it = |event: &Recorded| match &event.event {
        Event::WeightChanged { release: r, basis_points, why } if *r == release => {
            Some((*basis_points, event.at, why.clone()))
        }
        _ => None,
    };
    let first = events.iter().find_map(of_it).map_or(began, |(_, at, _)| at);
    let since = |at: andon_model::Time| at.0 - first.0;
    events.iter().find_map(|event| match &event.event {
        Event::ReleaseFinished { release: r, how, why, explanation } if *r == release => Some(Moved {
            release,
            to: to.clone(),
            kind,
            how: *how,
            why: why.clone(),
            explanation: explanation.clone(),
            weights: events.iter().filter_map(of_it).map(|(bp, at, why)| (bp, since(at), why)).collect(),
            since_push: event.at.since(pushed).as_secs_f64(),
            since_users: event.at.since(first).as_secs_f64(),
            by: event.by.to_string(),
        }),
        _ => None,
    })
}

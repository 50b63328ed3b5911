//! A server of one's own to measure: the release binary on free ports with an empty data directory and a repository. Judges nothing.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running server, its data and a clone of its project `shop`.
pub struct House {
    pub room: PathBuf,
    pub http: u16,
    pub router: u16,
    /// More words of its command line.
    settings: Vec<String>,
    token: String,
    child: Option<Child>,
    agent: ureq::Agent,
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}

/// Builds and names the release binary; `ANDON_BIN` names another one, to try a bench with.
pub fn binary() -> Result<PathBuf, String> {
    if let Some(binary) = std::env::var_os("ANDON_BIN") {
        return Ok(binary.into());
    }
    let built = Command::new("cargo")
        .args(["build", "--release", "--quiet", "-p", "andon"])
        .current_dir(crate::root())
        .status();
    match built {
        Ok(status) if status.success() => Ok(target().join("release/andon")),
        Ok(status) => Err(format!("the release build ended with {status}")),
        Err(error) => Err(format!("cargo: {error}")),
    }
}

fn free_port() -> Result<u16, String> {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Below the range of outgoing connections: the load that is to come would else take it between two starts.
    for _ in 0..100 {
        let port = 10_000 + (RandomState::new().build_hasher().finish() % 10_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port was found".into())
}

impl House {
    /// Opens one with a project.
    pub fn open(binary: &Path) -> Result<House, String> {
        House::open_with(binary, &[])
    }

    /// The same, with these words more on the server's command line.
    pub fn open_with(binary: &Path, settings: &[&str]) -> Result<House, String> {
        let room = Command::new("mktemp")
            .args(["-d", "-t", "andon-bench-XXXXXX"])
            .output()
            .map_err(|error| error.to_string())?;
        let room = PathBuf::from(String::from_utf8_lossy(&room.stdout).trim());
        let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
        let (http, router) = (free_port()?, free_port()?);
        let settings = settings.iter().map(|&word| word.to_owned()).collect();
        let mut house = House { room, http, router, settings, token: String::new(), child: None, agent };
        let (_, once) = house.start(binary)?;
        let once = once.ok_or("the server printed no owner link")?;
        let entered = house.post("/api/v1/enter", &json!({ "once": once }))?;
        house.token = entered["token"].as_str().ok_or("no session")?.to_owned();
        let issued = house.post("/api/v1/tokens", &json!({ "name": "bench", "roles": ["owner"] }))?;
        house.token = issued["token"].as_str().ok_or("no token")?.to_owned();
        house.post("/api/v1/projects", &json!({ "name": "shop" }))?;
        std::fs::create_dir(house.repo()).map_err(|error| error.to_string())?;
        house.git(&["init", "-q", "-b", "main"])?;
        Ok(house)
    }

    /// Starts it on its data: time to its words that it is ready, and the owner link's secret if it printed one.
    pub fn start(&mut self, binary: &Path) -> Result<(Duration, Option<String>), String> {
        let log = std::fs::File::options().create(true).append(true).open(self.room.join("stderr"));
        let begun = Instant::now();
        let mut child = Command::new(binary)
            .args([
                "serve",
                "--listen",
                &format!("127.0.0.1:{}", self.http),
                "--router",
                &format!("127.0.0.1:{}", self.router),
            ])
            .arg("--data")
            .arg(self.room.join("data"))
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.map_err(|error| error.to_string())?)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines().map_while(Result::ok);
        let ready = lines.next().is_some_and(|line| line.contains("is ready"));
        let took = begun.elapsed();
        self.child = Some(child);
        if !ready {
            return Err(format!(
                "the server did not start: {}",
                std::fs::read_to_string(self.room.join("stderr")).unwrap_or_default()
            ));
        }
        let once = lines.take(2).find_map(|line| Some(line.split_once("once=")?.1.trim().to_owned()));
        Ok((took, once))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What its commands are signed with.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Loses the machine: the server, everything that ran, and the data.
    pub fn lose(&mut self) -> Result<(), String> {
        self.end();
        std::fs::remove_dir_all(self.room.join("data")).map_err(|error| error.to_string())
    }

    /// Resident memory in megabytes.
    pub fn memory(&self) -> Result<f64, String> {
        let pid = self.child.as_ref().map(Child::id).ok_or("it does not run")?;
        let text =
            std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().map_err(|_| "VmRSS is no number")?;
        Ok(kilobytes / 1024.0)
    }

    /// The clone.
    pub fn repo(&self) -> PathBuf {
        self.room.join("repo")
    }

    /// Runs git in the clone.
    pub fn git(&self, args: &[&str]) -> Result<Output, String> {
        let mut command = Command::new("git");
        command
            .current_dir(self.repo())
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0");
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Bench")
                .env(format!("GIT_{who}_EMAIL"), "bench@example.com");
        }
        let out = command.output().map_err(|error| error.to_string())?;
        match out.status.success() {
            true => Ok(out),
            false => Err(format!("git {args:?}: {}", String::from_utf8_lossy(&out.stderr))),
        }
    }

    /// Commits these files on top of trunk and pushes them: the change's number.
    pub fn propose(&self, message: &str, files: &[(&str, &str)]) -> Result<u32, String> {
        let remote = format!("http://bench:{}@127.0.0.1:{}/shop.git", self.token, self.http);
        if self.git(&["fetch", "-q", &remote, "main"]).is_ok() {
            self.git(&["reset", "-q", "--hard", "FETCH_HEAD"])?;
        }
        for (name, text) in files {
            std::fs::write(self.repo().join(name), text).map_err(|error| error.to_string())?;
        }
        self.git(&["add", "-A"])?;
        self.git(&["commit", "-q", "-m", message])?;
        let out = self.git(&["push", &remote, "HEAD:refs/for/main"])?;
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        let number = words
            .split_once("/changes/")
            .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        number.and_then(|number| number.parse().ok()).ok_or(format!("no change in: {words}"))
    }

    /// Asks; an answer that is no success is an error.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        let answer = self
            .agent
            .get(format!("http://127.0.0.1:{}{path}", self.http))
            .header("authorization", self.bearer())
            .call();
        read(path, answer)
    }

    /// The text behind a path.
    pub fn text(&self, path: &str) -> Result<String, String> {
        let answer = self
            .agent
            .get(format!("http://127.0.0.1:{}{path}", self.http))
            .header("authorization", self.bearer())
            .call();
        answer
            .and_then(|mut answer| answer.body_mut().read_to_string())
            .map_err(|error| format!("{path}: {error}"))
    }

    /// Commands.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.agent.post(format!("http://127.0.0.1:{}{path}", self.http));
        let request =
            if self.token.is_empty() { request } else { request.header("authorization", self.bearer()) };
        read(path, request.send_json(body))
    }

    /// Sends bytes as they are, and gives the answer's back; one that is no success is an error.
    pub fn send(&self, method: &str, path: &str, body: String) -> Result<String, String> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.http))
            .header("authorization", self.bearer())
            .header("content-type", "application/json");
        let request = request.body(body).map_err(|error| error.to_string())?;
        let mut answer = self.agent.run(request).map_err(|error| format!("{path}: {error}"))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(1 << 26).read_to_string();
        let text = text.map_err(|error| format!("{path}: {error}"))?;
        if status == 200 { Ok(text) } else { Err(format!("{path}: {status} {text}")) }
    }

    /// Where its pages and doors are.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.http)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// All events.
    pub fn journal(&self) -> Result<Vec<Value>, String> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().and_then(|event| event["seq"].as_u64()).unwrap_or(0);
            match self.get(&format!("/api/v1/shop/journal?after={after}"))? {
                Value::Array(page) if !page.is_empty() => all.extend(page),
                _ => return Ok(all),
            }
        }
    }

    /// Looks at a view again and again until it says so.
    pub fn until(&self, path: &str, says: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let begun = Instant::now();
        loop {
            let view = self.get(&format!("/api/v1/shop{path}"))?;
            if says(&view) {
                return Ok(view);
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("never seen on {path}; last: {view:#}"));
            }
            pause(20);
        }
    }

    /// Until the change is on trunk.
    pub fn landed(&self, change: u32) -> Result<Value, String> {
        let view = self.until(&format!("/changes/{change}"), |view| {
            matches!(view["row"]["standing"].as_str(), Some("landed" | "refused"))
        })?;
        if view["row"]["standing"] == "landed" {
            Ok(view)
        } else {
            Err(format!("#{change}: {}", view["row"]["words"]))
        }
    }

    /// Until all users of production have the change.
    pub fn served(&self, change: u32) -> Result<(), String> {
        self.landed(change)?;
        let there = |view: &Value| {
            let places = view["places"].as_array().cloned().unwrap_or_default();
            places.iter().any(|place| place[0] == "production" && place[1] == "go")
        };
        self.until(&format!("/changes/{change}"), there).map(drop)
    }
}

impl House {
    /// Processes that work in this room, or were told of it.
    pub fn processes(&self) -> Vec<String> {
        let named = self.room.to_string_lossy().into_owned();
        let ours = |entry: std::fs::DirEntry| {
            let pid = entry
                .file_name()
                .to_str()
                .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))?
                .to_owned();
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            (cwd.starts_with(&self.room) || String::from_utf8_lossy(&command).contains(&named)).then_some(pid)
        };
        std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(ours).collect()
    }

    fn signal(&self, signal: &str) {
        for pid in self.processes() {
            let _ = Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status();
        }
    }
}

impl House {
    /// What instances have on the host is named after their directory.
    pub fn name_on_the_host(&self) -> Result<String, String> {
        let root = self.room.join("data/instances/shop").canonicalize().map_err(|error| error.to_string())?;
        Ok(format!("andon-{}", &sum(&root.to_string_lossy())?[..8]))
    }

    /// Services outlive their server on purpose: those of this room are taken down. Asked first: a shim that is killed cannot take away
    /// the groups it made.
    fn end(&mut self) {
        self.kill();
        let named = self.name_on_the_host();
        self.signal("-15");
        let asked = Instant::now();
        while !self.processes().is_empty() && asked.elapsed() < Duration::from_secs(10) {
            pause(20);
        }
        self.signal("-9");
        // Networks go with their environment, which is not ended here.
        let networks = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = networks.map(|entry| entry.file_name().to_string_lossy().into_owned());
        for name in names.filter(|name| named.as_ref().is_ok_and(|named| name.starts_with(named))) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.end();
        let _ = std::fs::remove_dir_all(&self.room);
    }
}

/// As the runtime names what it makes, told from outside.
pub fn sum(text: &str) -> Result<String, String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("sha256sum: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes()).map_err(|error| format!("sha256sum: {error}"))?;
    }
    let said = child.wait_with_output().map_err(|error| format!("sha256sum: {error}"))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    if said.len() < 64 { Err(format!("sha256sum: {said:?}")) } else { Ok(said) }
}

fn read(path: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let mut answer = answer.map_err(|error| format!("{path}: {error}"))?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().map_err(|error| format!("{path}: {error}"))?;
    match status {
        200 => serde_json::from_str(&text).map_err(|error| format!("{path}: {error}")),
        _ => Err(format!("{path}: {status} {text}")),
    }
}

/// Lets time pass: between two looks at another process, or because time itself is measured.
#[allow(clippy::disallowed_methods, reason = "another process is looked at from outside")]
pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

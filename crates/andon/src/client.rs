//! The command line's way to the server: address and token, requests, answers. Knows no command.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Exit statuses, also in the README.
pub mod status {
    /// The server said no, or the answer is no.
    pub const NO: u8 = 1;
    /// The command line makes no sense.
    pub const USAGE: u8 = 2;
    /// The server cannot be reached.
    pub const UNREACHABLE: u8 = 3;
}

/// Why a command did not succeed, with its exit status.
#[derive(Debug)]
pub struct Failure {
    /// What failed, why, and what to do.
    pub words: String,
    /// Exit status.
    pub status: u8,
}

impl From<String> for Failure {
    fn from(words: String) -> Failure {
        Failure { words, status: status::NO }
    }
}

impl From<&str> for Failure {
    fn from(words: &str) -> Failure {
        words.to_owned().into()
    }
}

/// What `andon login` keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Login {
    /// The server.
    pub server: String,
    /// The token.
    pub token: String,
}

fn file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(base.join("andon").join("login.json"))
}

/// Keeps a login, readable by this user alone.
pub fn keep(login: &Login) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = file().ok_or("there is no home directory to keep the login in")?;
    let write = || {
        std::fs::create_dir_all(file.parent().unwrap_or(&file))?;
        let text = serde_json::to_string(login)?;
        let mut out =
            std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&file)?;
        out.write_all(text.as_bytes())
    };
    write().map_err(|error| format!("{}: {error}", file.display()).into())
}

/// A server one is logged in to.
#[derive(Debug)]
pub struct Client {
    /// Where and as whom.
    pub login: Login,
    agent: ureq::Agent,
}

impl Client {
    /// From the environment, else from the kept login.
    pub fn new(server: Option<String>, token: Option<String>) -> Result<Client, Failure> {
        let kept: Option<Login> = file()
            .and_then(|file| std::fs::read_to_string(file).ok())
            .and_then(|text| serde_json::from_str(&text).ok());
        let server = server.or_else(|| kept.as_ref().map(|login| login.server.clone()));
        let server = server.unwrap_or_else(|| "http://127.0.0.1:7070".into());
        let same = kept.filter(|login| login.server == server);
        let token = token.or_else(|| same.map(|login| login.token)).ok_or_else(|| Failure {
            words: format!("you are not logged in to {server}\nhint: andon login {server}"),
            status: status::USAGE,
        })?;
        Ok(Client::with(Login { server, token }))
    }

    /// With a known login.
    pub fn with(login: Login) -> Client {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
        Client { login, agent: config.into() }
    }

    /// With a known login; an answer that takes longer than this is none.
    pub fn within(login: Login, longest: std::time::Duration) -> Client {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        Client { login, agent: config.timeout_global(Some(longest)).build().into() }
    }

    /// Reads.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        self.read(request.call())
    }

    /// Commands.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        self.read(request.send_json(body))
    }

    /// Commands with a text as it stands.
    pub fn post_text(&self, path: &str, text: &str) -> Result<Value, Failure> {
        let request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        self.read(request.send(text))
    }

    /// Deletes.
    pub fn delete(&self, path: &str) -> Result<Value, Failure> {
        let request = self.agent.delete(self.url(path)).header("authorization", self.bearer());
        self.read(request.call())
    }

    /// Streams: lines as they come.
    pub fn lines(&self, path: &str) -> Result<impl std::io::BufRead + use<>, Failure> {
        self.lines_of(path, &[])
    }

    /// The same, asked for more exactly.
    pub fn lines_of(
        &self,
        path: &str,
        wanted: &[(&str, &str)],
    ) -> Result<impl std::io::BufRead + use<>, Failure> {
        let request = self
            .agent
            .get(self.url(path))
            .query_pairs(wanted.iter().copied())
            .header("authorization", self.bearer());
        let answer = request.call().map_err(|error| self.unreachable(&error))?;
        if !answer.status().is_success() {
            return self.read(Ok(answer)).map(|_| unreachable!("an error status was read as success"));
        }
        Ok(std::io::BufReader::new(answer.into_body().into_reader()))
    }

    /// Reads a text as it stands.
    pub fn text(&self, path: &str) -> Result<String, Failure> {
        let mut text = String::new();
        let read =
            std::io::Read::read_to_string(&mut std::io::Read::take(self.lines(path)?, 64 << 20), &mut text);
        read.map_err(|error| format!("the answer ended too early: {error}"))?;
        Ok(text)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.login.server)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.login.token)
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let words =
            format!("{} cannot be reached: {error}\nhint: is `andon serve` running?", self.login.server);
        Failure { words, status: status::UNREACHABLE }
    }

    fn read(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, Failure> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string();
        let text = text.map_err(|error| self.unreachable(&error))?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status.is_success() {
            return Ok(value);
        }
        let error = value["error"]
            .as_str()
            .map_or_else(|| format!("the server answered {status}: {value}"), str::to_owned);
        let words = match value["hint"].as_str() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error,
        };
        Err(words.into())
    }
}

//! The server's HTTP API, as far as resources need it. The token goes into one header and nowhere else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::trouble::Trouble;

/// How long one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Answers are no larger, in bytes.
const LARGEST: u64 = 64 << 20;
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A project on a server, with the right to ask.
pub struct Api {
    server: String,
    token: String,
    project: String,
    agent: ureq::Agent,
    /// Terraform wants everything to end.
    pub stopped: AtomicBool,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("server", &self.server).field("project", &self.project).finish()
    }
}

impl Api {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// When one of them cannot be what it is said to be.
    pub fn new(server: &str, token: &str, project: &str) -> Result<Api, Trouble> {
        let server = server.trim_end_matches('/');
        if !(server.starts_with("http://") || server.starts_with("https://")) {
            let why = format!("{server:?} is no address of a server");
            return Err(Trouble::new(why).hint("write it like https://andon.example.com").at("server"));
        }
        if token.is_empty() || token.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let why = "the token is empty, or holds spaces or line ends".to_owned();
            return Err(Trouble::new(why).hint("copy it whole from `andon token create`").at("token"));
        }
        if project.is_empty() {
            return Err(Trouble::new("the project has no name".into())
                .hint("`andon projects` names those there are")
                .at("project"));
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(ANSWER_WITHIN));
        Ok(Api {
            server: server.to_owned(),
            token: token.to_owned(),
            project: plain(project),
            agent: config.build().into(),
            stopped: AtomicBool::new(false),
        })
    }

    /// Reads below the project. Parts of a path are names: they are written so that they stay one part.
    ///
    /// # Errors
    /// What the server says, with its hint; or that it does not answer.
    pub fn get(&self, path: &[&str]) -> Result<Json, Trouble> {
        let request =
            self.agent.get(self.url(path)).header("authorization", format!("Bearer {}", self.token));
        self.read(request.call())
    }

    /// As [`Api::get`]; none: there is no such thing.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn find(&self, path: &[&str]) -> Result<Option<Json>, Trouble> {
        match self.get(path) {
            Ok(found) => Ok(Some(found)),
            Err(trouble) if trouble.missing => {
                // A project that is not there is a mistake and no reason to take its things for gone.
                self.get(&["queue"])?;
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Commands.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn post(&self, path: &[&str], body: &Json) -> Result<Json, Trouble> {
        let request =
            self.agent.post(self.url(path)).header("authorization", format!("Bearer {}", self.token));
        self.read(request.header("content-type", "application/json").send(body.to_string()))
    }

    /// Looks until it is there.
    ///
    /// # Errors
    /// As the look; or when it takes longer, or Terraform wants to end.
    pub fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut() -> Result<Option<T>, Trouble>,
    ) -> Result<T, Trouble> {
        let begun = Instant::now();
        loop {
            if let Some(seen) = look()? {
                return Ok(seen);
            }
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Trouble::new(format!("Terraform was interrupted before {what}")));
            }
            if begun.elapsed() > within {
                let why = format!("{what} was not seen within {} s", within.as_secs());
                return Err(
                    Trouble::new(why).hint("`andon env show` says what it waits for; apply again later")
                );
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    fn url(&self, path: &[&str]) -> String {
        let path: Vec<String> = path.iter().map(|part| escaped(part)).collect();
        format!("{}/api/v1/{}/{}", self.server, escaped(&self.project), path.join("/"))
    }

    fn read(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Json, Trouble> {
        let unreachable = |error: ureq::Error| {
            Trouble::new(format!("{} does not answer: {error}", self.server))
                .hint("is `andon serve` running there? `server` or ANDON_SERVER says where it is looked for")
        };
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(LARGEST).read_to_string().map_err(unreachable)?;
        let value: Option<Json> = serde_json::from_str(&text).ok();
        if status.is_success() {
            return value.ok_or_else(|| {
                Trouble::new(format!("{} answers, but not as Andon does", self.server))
                    .hint("`server` or ANDON_SERVER has to be the address of its pages and API")
            });
        }
        let said = |name: &str| value.as_ref().and_then(|v| v[name].as_str()).map(plain);
        let mut trouble =
            Trouble::new(said("error").unwrap_or_else(|| format!("{} answered {status}", self.server)));
        trouble.hint = said("hint").unwrap_or_default();
        if status == 401 && trouble.hint.is_empty() {
            trouble.hint =
                "`token` or ANDON_TOKEN has to be a token of this server; `andon token create` makes one"
                    .into();
        }
        trouble.missing = status == 404;
        Err(trouble)
    }
}

/// Without control characters: it goes to a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// A name as one part of a path.
fn escaped(part: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => (b as char).to_string(),
        b => format!("%{b:02X}"),
    };
    match part {
        // The parts that mean something to a path.
        "flags.json" => part.to_owned(),
        _ => part.bytes().map(byte).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leaves_its_place_in_the_path() {
        let api =
            Api::new("http://a/", "t", "../shop").map_err(|t| t.summary).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            api.url(&["flags", "a/../b?c#d é"]),
            "http://a/api/v1/%2E%2E%2Fshop/flags/a%2F%2E%2E%2Fb%3Fc%23d%20%C3%A9"
        );
    }

    #[test]
    fn the_token_is_in_no_words() {
        let api = Api::new("http://127.0.0.1:1", "very-secret", "shop").map_err(|t| t.summary);
        let api = api.unwrap_or_else(|e| panic!("{e}"));
        let trouble = api.get(&["flags"]).expect_err("nobody listens there");
        assert!(!format!("{api:?}{trouble:?}").contains("very-secret"));
        assert!(trouble.summary.contains("does not answer") && !trouble.hint.is_empty(), "{trouble:?}");
        let bad = Api::new("http://a", "very secret\n", "shop").expect_err("no token has a space");
        assert!(!format!("{bad:?}").contains("very secret"));
    }
}

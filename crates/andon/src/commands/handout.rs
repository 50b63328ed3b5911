//! `andon tests next`: in a job, the tests to run now. Asks the server by the token that the job was given, and goes on asking while the server is away:
//! jobs outlive it.

use std::time::{Duration, Instant};

use andon_model::Digest;
use clap::Args;
use serde_json::{Value, json};

use super::{print_json, read};
use crate::cli::Common;
use crate::client::{Client, Failure, Login, status};

/// How long a server that is away is waited for.
const AWAY: Duration = Duration::from_secs(600);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// Options of `andon tests next`.
#[derive(Debug, Args)]
pub struct Next {
    /// Jobs that share these tests and ask at the same time.
    #[arg(long)]
    total: u32,
    /// Which list, where jobs of one run share several.
    #[arg(long, default_value = "tests")]
    name: String,
    /// Print them for a runner that wants them in one argument.
    #[arg(long = "as", value_enum, default_value_t)]
    form: super::tests::Form,
}

/// The server's answer.
#[derive(Debug, serde::Deserialize)]
struct Given {
    unknown: bool,
    tests: Vec<String>,
}

/// Prints what is to be run next.
pub fn next(common: &Common, options: &Next) -> Result<(), Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(token), Some(server), Some(project)) =
        (variable("ANDON_JOB_TOKEN"), common.server.clone(), common.project.clone())
    else {
        let words = "tests are handed out to jobs while they run, and this is none\nhint: `andon tests split --index 0 --total 4` deals them out beforehand, anywhere";
        return Err(Failure { words: words.into(), status: status::USAGE });
    };
    let text = super::tests::listed()?;
    let mut names: Vec<&str> =
        text.lines().map(str::trim_end).filter(|name| !name.trim().is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    let client = Client::with(Login { server, token });
    let path = format!("/api/v1/{project}/tests/next");
    // The same question may reach the server twice; its answer is the same then.
    let ask = andon_kit::secret::fresh("ask_");
    let body = |tests: Option<&[&str]>| json!({ "name": options.name, "ask": ask, "shards": options.total, "names": Digest::of(names.join("\n").as_bytes()), "tests": tests });
    let mut given: Given = read(patiently(&client, &path, &body(None))?)?;
    if given.unknown {
        given = read(patiently(&client, &path, &body(Some(&names)))?)?;
    }
    let tests: Vec<&str> = given.tests.iter().map(String::as_str).collect();
    match common.json {
        true => print_json(&json!(tests)),
        // Where nothing is left nothing is printed, in every form: that is how a loop ends.
        false if tests.is_empty() => {}
        false => options.form.print(&tests),
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a server that is away says nothing that could be waited for")]
fn patiently(client: &Client, path: &str, body: &Value) -> Result<Value, Failure> {
    let begun = Instant::now();
    loop {
        match client.post(path, body) {
            Err(failure) if failure.status == status::UNREACHABLE && begun.elapsed() < AWAY => {
                std::thread::sleep(PAUSE);
            }
            answer => return answer,
        }
    }
}

//! `andon init`, `andon check`, `andon schema`: the file a team writes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use andon_pipeline::detect;
use clap::Args;
use serde_json::json;

use super::print_json;
use andon_line::view::count;

use crate::cli::Common;
use crate::client::{Client, Failure, status};
use crate::say::say;

/// Largest file of the repository that is looked into, in bytes.
const LOOK: u64 = 256 * 1024;

/// Options of `andon init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Write over an andon.yaml that is there.
    #[arg(long)]
    force: bool,
}

/// Options of `andon check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The file.
    #[arg(default_value = "andon.yaml")]
    file: std::path::PathBuf,
}

fn git(args: &[&str]) -> Result<String, Failure> {
    let out =
        Command::new("git").args(args).output().map_err(|error| format!("git cannot be run: {error}"))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => {
            Err(format!("git {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim()).into())
        }
    }
}

/// Writes a first file, creates the project and adds the remote.
pub fn init(common: &Common, options: Init) -> Result<(), Failure> {
    let root = git(&["rev-parse", "--show-toplevel"]).map_err(|failure| Failure {
        words: match failure.words.contains("not a git repository") {
            true => "this is not a git repository\nhint: git init, or go into one".into(),
            // What git refuses for another reason (an owner it does not trust) it says better, with its own advice.
            false => failure.words,
        },
        status: status::USAGE,
    })?;
    let root = Path::new(root.trim());
    let file = root.join("andon.yaml");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| error.to_string())?;
    let files: BTreeSet<String> = String::from_utf8_lossy(&listed.stdout)
        .split('\0')
        .filter(|f| !f.is_empty())
        .map(str::to_owned)
        .collect();
    let read = |name: &str| {
        let path = root.join(name);
        let small = path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= LOOK);
        small.then(|| std::fs::read_to_string(path).ok()).flatten()
    };
    let proposal = detect::propose(&files, &read);
    let mut questions = proposal.questions.clone();
    if file.exists() && !options.force {
        say!("▲ andon.yaml is there already and is left as it is (--force writes it anew)");
        questions.clear();
    } else {
        std::fs::write(&file, &proposal.yaml).map_err(|error| format!("{}: {error}", file.display()))?;
        say!("● wrote andon.yaml: this looks like {:?}", proposal.kind);
    }
    match connect(common, root) {
        Ok(lines) => lines.iter().for_each(|line| say!("{line}")),
        Err(failure) => say!("▲ no project yet: {}", failure.words),
    }
    for question in &questions {
        say!("▲ look at: {question}");
    }
    let trunk = "main";
    say!(
        "  next: git add andon.yaml && git commit -m 'Put this on the line' && git push andon HEAD:refs/for/{trunk}"
    );
    Ok(())
}

/// The project on the server and the remote `andon` here.
fn connect(common: &Common, root: &Path) -> Result<Vec<String>, Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    let server = client.login.server.clone();
    let folder = root.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain: String =
        folder.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let name = common.project.clone().unwrap_or_else(|| plain.trim_matches('-').to_owned());
    let known = client.get("/api/v1/projects")?;
    let there = known.as_array().into_iter().flatten().any(|project| project["name"] == name.as_str());
    let mut lines = Vec::new();
    if !there {
        client.post("/api/v1/projects", &json!({ "name": name }))?;
        lines.push(format!("● created the project {name} on {server}"));
    }
    let url = format!("{server}/{name}.git");
    match git(&["remote", "get-url", "andon"]) {
        Ok(have) if have.trim() == url => {}
        Ok(_) => drop(git(&["remote", "set-url", "andon", &url])?),
        Err(_) => drop(git(&["remote", "add", "andon", &url])?),
    }
    // git asks us for the token, so that it stands in no URL and no file of the repository.
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let helper = format!("!'{}' credential", exe.display().to_string().replace('\'', "'\\''"));
    git(&["config", &format!("credential.{server}.helper"), &helper])?;
    lines.push(format!("● git remote andon is {url}"));
    Ok(lines)
}

/// Says everything that is wrong with the file. Exit status 1 when something is.
pub fn check(common: &Common, options: Check) -> Result<(), Failure> {
    let text = std::fs::read_to_string(&options.file).map_err(|error| Failure {
        words: format!("{}: {error}\nhint: andon init writes a first one", options.file.display()),
        status: status::USAGE,
    })?;
    match andon_pipeline::read(&text) {
        Ok(definition) => {
            if common.json {
                print_json(&json!({ "ok": true, "problems": [] }));
            } else {
                let (jobs, services) = (definition.pipeline.jobs.len(), definition.services.len());
                let environments: Vec<String> =
                    definition.environments.keys().map(ToString::to_string).collect();
                let (jobs, services) = (count(jobs, "job"), count(services, "service"));
                say!("● {jobs}, {services}, environments: {}", environments.join(" → "));
            }
            Ok(())
        }
        Err(problems) => {
            if common.json {
                print_json(&json!({ "ok": false, "problems": problems }));
                return Err(Failure { words: String::new(), status: status::NO });
            }
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Err(words.join("\n■ ").into())
        }
    }
}

/// Prints the JSON Schema.
pub fn schema() {
    print_json(&andon_pipeline::schema());
}

/// git's credential helper: answers `get` for the server that is logged in to. Protocol: `git help credential`.
pub fn credential(common: &Common, action: &str) -> Result<(), Failure> {
    if action != "get" {
        return Ok(());
    }
    let asked = std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string())?;
    let field = |name: &str| {
        asked.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let server = format!("{}://{}", field("protocol"), field("host"));
    let client = Client::new(Some(server), common.token.clone())?;
    say!("username=andon\npassword={}", client.login.token);
    Ok(())
}

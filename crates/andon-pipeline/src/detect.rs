//! A first `andon.yaml` for a repository, from what lies in it. Reads no file: it is given names and a way to read them.
//!
//! What cannot be known is written as a comment that says what to fill in, and returned as an open question; nothing is made up.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use crate::compose;

/// What a repository seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Cargo.toml`.
    Rust,
    /// `pyproject.toml`, `setup.py` or requirements.
    Python,
    /// `package.json`.
    Node,
    /// `go.mod`.
    Go,
    /// None of them.
    Unknown,
}

/// A first file, and what its author has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What it was taken for.
    pub kind: Kind,
    /// The file.
    pub yaml: String,
    /// What could not be known.
    pub questions: Vec<String>,
}

/// The parts of a proposal that differ by kind.
#[derive(Default)]
struct Parts {
    env: Vec<(&'static str, String)>,
    unit: String,
    junit: Option<&'static str>,
    coverage: Option<&'static str>,
    package: String,
    command: Option<Vec<String>>,
    health: Option<String>,
    /// Variables of the service, and why they stand there.
    service_env: Option<(&'static str, &'static str, &'static str)>,
    /// A service that another file describes, in the words of this one.
    service: Option<String>,
    questions: Vec<String>,
}

/// Proposes a file. `files` are the repository's paths; `read` gives the text of one.
pub fn propose(files: &BTreeSet<String>, read: &dyn Fn(&str) -> Option<String>) -> Proposal {
    let has = |name: &str| files.contains(name);
    let python = ["pyproject.toml", "setup.py", "setup.cfg", "requirements.txt"].into_iter().any(has)
        || files.iter().any(|file| file.ends_with(".py"));
    let (kind, mut parts) = if has("Cargo.toml") {
        (Kind::Rust, rust(&read("Cargo.toml").unwrap_or_default(), files))
    } else if has("go.mod") {
        (Kind::Go, go(files))
    } else if has("package.json") {
        (Kind::Node, node(&read("package.json").unwrap_or_default(), files))
    } else if python {
        (Kind::Python, self::python(files, read))
    } else {
        let mut parts =
            Parts { unit: "./test.sh".into(), package: "./package.sh".into(), ..Parts::default() };
        parts.questions.push("how are tests run? (job `unit`)".into());
        parts.questions.push("what is deployed? (job `package`, its `artifact`)".into());
        (Kind::Unknown, parts)
    };
    if let Some(text) = compose::FILES.iter().filter(|file| has(file)).find_map(|file| read(file)) {
        match compose::read(&text) {
            Ok(composed) => {
                parts.package = composed.package;
                parts.service = Some(composed.service);
                // What is run is said there, and what was asked of it.
                parts.questions.retain(|question| !question.contains("service"));
                parts.questions.extend(composed.warnings);
            }
            Err(warnings) => parts.questions.extend(warnings),
        }
    }
    Proposal { kind, yaml: write(kind, &parts), questions: parts.questions }
}

fn rust(manifest: &str, files: &BTreeSet<String>) -> Parts {
    let name = field(manifest, "name");
    let binary = name.clone().filter(|_| files.contains("src/main.rs"));
    let mut parts = Parts {
        unit: "cargo test --locked".into(),
        package: match &binary {
            Some(name) => {
                format!("cargo build --release --locked\nmkdir dist\ncp target/release/{name} dist/")
            }
            None => {
                "cargo build --release --locked\nmkdir dist\n# copy the program that is to be run into dist/"
                    .into()
            }
        },
        command: binary.map(|name| vec![format!("./{name}")]),
        ..Parts::default()
    };
    if files.contains(".config/nextest.toml") {
        parts.unit = "cargo nextest run --locked --profile ci".into();
        parts.junit = Some("target/nextest/ci/junit.xml");
    }
    if files.contains("Cargo.lock") {
        parts.questions.push("does the program listen on $PORT of its environment? (service `web`)".into());
    } else {
        parts.unit = parts.unit.replace(" --locked", "");
        parts.package = parts.package.replace(" --locked", "");
    }
    parts
}

fn go(files: &BTreeSet<String>) -> Parts {
    let main = files.contains("main.go");
    Parts {
        unit: "go test ./...".into(),
        package: if main { "go build -o dist/app .".into() } else { "go build -o dist/app ./cmd/...".into() },
        command: Some(vec!["./app".into()]),
        questions: vec!["does the program listen on $PORT of its environment? (service `web`)".into()],
        ..Parts::default()
    }
}

fn node(manifest: &str, files: &BTreeSet<String>) -> Parts {
    let manifest: Value = serde_json::from_str(manifest).unwrap_or_default();
    let script = |name: &str| manifest["scripts"][name].as_str().map(str::to_owned);
    let install = if files.contains("package-lock.json") { "npm ci" } else { "npm install" };
    let build = if script("build").is_some() { "\nnpm run build" } else { "" };
    let mut parts = Parts {
        unit: format!("{install}\nnpm test"),
        package: format!(
            "{install}{build}\nmkdir ../dist\ncp -R . ../dist/\nmv ../dist dist\nrm -rf dist/.git"
        ),
        ..Parts::default()
    };
    if script("test").is_none_or(|test| test.contains("no test specified")) {
        parts.questions.push("package.json has no `test` script (job `unit`)".into());
    }
    match script("start") {
        // Started without npm, which would not pass the request to stop on.
        Some(start) if start.starts_with("node ") => {
            parts.command = Some(start.split_whitespace().map(str::to_owned).collect())
        }
        Some(_) => parts.command = Some(vec!["npm".into(), "start".into()]),
        None => parts.questions.push("how is the service started? (service `web`)".into()),
    }
    parts.questions.push("does the service listen on $PORT of its environment?".into());
    parts
}

fn python(files: &BTreeSet<String>, read: &dyn Fn(&str) -> Option<String>) -> Parts {
    let mut parts = Parts::default();
    let pyproject = read("pyproject.toml").unwrap_or_default();
    let installable =
        files.contains("setup.py") || pyproject.contains("[project]") || pyproject.contains("[tool.poetry]");
    let mut install = vec![
        "python3 -m venv \"$TMPDIR/venv\"".to_owned(),
        "export PATH=\"$TMPDIR/venv/bin:$PATH\"".to_owned(),
    ];
    let requirements: Vec<&str> = ["requirements.txt", "requirements-dev.txt", "requirements-test.txt"]
        .into_iter()
        .filter(|f| files.contains(*f))
        .collect();
    for file in &requirements {
        install.push(format!("pip install --quiet -r {file}"));
    }
    let extra = ["test", "tests", "dev"].into_iter().find(|extra| {
        let section = pyproject.split_once("optional-dependencies").map(|(_, rest)| rest).unwrap_or_default();
        section.lines().take(40).any(|line| {
            line.trim_start().starts_with(&format!("{extra} ="))
                || line.trim_start().starts_with(&format!("{extra}="))
        })
    });
    if installable {
        let what = extra.map_or_else(|| ".".to_owned(), |extra| format!("'.[{extra}]'"));
        install.push(format!("pip install --quiet {what}"));
    }
    install.push("pip install --quiet pytest pytest-cov".into());
    let package = top_package(files);
    let cover = package.as_deref().map_or_else(|| "--cov".to_owned(), |package| format!("--cov={package}"));
    let tests = files.iter().any(|file| {
        let name = file.rsplit('/').next().unwrap_or(file);
        name.starts_with("test_") || name.ends_with("_test.py")
    });
    if !tests {
        parts.questions.push("no tests were found (job `unit`)".into());
    }
    // Without a package of its own name the tests find the modules beside them.
    parts.unit = format!(
        "{}\npython -m pytest --junitxml=unit.xml {cover} --cov-report=lcov:cov.lcov",
        install.join("\n")
    );
    parts.junit = Some("unit.xml");
    parts.coverage = Some("cov.lcov");
    let server = server(files, read);
    parts.health = server.as_ref().and_then(|server| server.health.clone());
    let own = if installable { "." } else { requirements.first().map_or("", |_| "-r requirements.txt") };
    let mut copy = String::new();
    if !installable {
        copy = "\ncp -R $(git ls-files '*.py' | cut -d/ -f1 | sort -u) dist/".into();
    }
    match server {
        Some(Server { module, app, wsgi, .. }) => {
            let server = if wsgi { "gunicorn" } else { "uvicorn" };
            parts.package = format!(
                "python3 -m pip install --quiet --no-compile --target dist {own} {server}{copy}\n{COMPILE}"
            );
            parts.service_env = Some((
                "PYTHONDONTWRITEBYTECODE",
                "1",
                "A release's files stay as they were packed: what a service writes among them is drift.",
            ));
            let mut command: Vec<String> = vec!["python3".into(), "-m".into(), server.into()];
            if wsgi {
                command.extend(["--bind".into(), "$HOST:$PORT".into()]);
            } else {
                command.extend(["--host", "$HOST", "--port", "$PORT"].map(str::to_owned));
            }
            command.push(format!("{module}:{app}"));
            parts.command = Some(command);
        }
        None => {
            parts.package = match own {
                "" => format!("mkdir dist{copy}"),
                own => format!("python3 -m pip install --quiet --target dist {own}{copy}"),
            };
            parts.questions.push("how is the service started? (service `web`)".into());
        }
    }
    if parts.health.is_none() {
        parts.questions.push("which path says that it is healthy? (`health` of service `web`)".into());
    }
    parts
}

/// Compiled files that hold for any date of their source: dates are not packed, and Python would compile anew at each start.
const COMPILE: &str = "python3 -m compileall -q --invalidation-mode unchecked-hash dist || true";

/// A Python module that makes an application.
struct Server {
    module: String,
    app: String,
    wsgi: bool,
    health: Option<String>,
    routes: usize,
}

/// Paths that services use to say that they are healthy.
const HEALTH: [&str; 8] = ["/healthz", "/health", "/_health", "/livez", "/readyz", "/ready", "/ping", "/up"];

/// Of all modules that make one, that with the most routes: helpers and examples make applications too.
fn server(files: &BTreeSet<String>, read: &dyn Fn(&str) -> Option<String>) -> Option<Server> {
    let one = |file: &String| {
        let text = read(file)?;
        let line = text
            .lines()
            .find(|line| ["= Flask(", "= FastAPI(", "= Starlette("].iter().any(|make| line.contains(make)))?;
        let app = line.split('=').next()?.trim().split(':').next()?.trim().to_owned();
        let plain = !app.is_empty() && app.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let wsgi = line.contains("Flask(");
        let decorators: Vec<&str> =
            text.lines().map(str::trim_start).filter(|line| line.starts_with('@')).collect();
        let routes = decorators.iter().filter(|line| line.starts_with(&format!("@{app}."))).count();
        let routed = |path: &&&str| {
            decorators
                .iter()
                .any(|line| line.contains(&format!("\"{path}\"")) || line.contains(&format!("'{path}'")))
        };
        let health = HEALTH.iter().find(routed).map(|path| (*path).to_owned());
        plain.then(|| Server { module: module(file), app, wsgi, health, routes })
    };
    let candidates = files.iter().filter(|f| f.ends_with(".py") && !is_test(f)).filter_map(one);
    // The first of equals.
    candidates.reduce(|best, next| if next.routes > best.routes { next } else { best })
}

fn is_test(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.starts_with("test_")
        || file.starts_with("tests/")
        || file.starts_with("test/")
        || file.contains("/tests/")
}

/// The folder at the top (or below `src/`) that is a package.
fn top_package(files: &BTreeSet<String>) -> Option<String> {
    let package = |file: &String| {
        let rest = file.strip_prefix("src/").unwrap_or(file);
        let (folder, name) = rest.split_once('/')?;
        (name == "__init__.py" && !is_test(file)).then(|| folder.to_owned())
    };
    files.iter().find_map(package)
}

fn module(file: &str) -> String {
    let path = file.strip_prefix("src/").unwrap_or(file).trim_end_matches(".py");
    path.trim_end_matches("/__init__").replace('/', ".")
}

/// A plain `key = "value"` of a manifest's first section that has it.
fn field(manifest: &str, key: &str) -> Option<String> {
    manifest.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    })
}

fn block(script: &str) -> String {
    script.lines().map(|line| format!("        {line}\n")).collect()
}

fn write(kind: Kind, parts: &Parts) -> String {
    let mut out = String::new();
    let what = match kind {
        Kind::Rust => "a Rust project",
        Kind::Python => "a Python project",
        Kind::Node => "a Node project",
        Kind::Go => "a Go project",
        Kind::Unknown => "a repository of a kind that is not known: fill in the commands",
    };
    let _ = write!(
        out,
        "# What Andon does with this repository. It was taken for {what}.\n\
         # `andon check` says whether this file is right; `andon schema` prints everything that can stand in it.\n\
         version: 1\n\n\
         # Every change has to pass these jobs, on exactly the tree that would land.\n\
         pipeline:\n"
    );
    if !parts.env.is_empty() {
        out.push_str("  env:\n");
        for (key, value) in &parts.env {
            let _ = writeln!(out, "    {key}: {value:?}");
        }
    }
    let _ = write!(out, "  jobs:\n    unit:\n      run: |\n{}", block(&parts.unit));
    if parts.junit.is_some() || parts.coverage.is_some() {
        let junit = parts.junit.map(|path| format!("junit: {path}"));
        let coverage = parts.coverage.map(|path| format!("coverage: {path}"));
        let both: Vec<String> = junit.into_iter().chain(coverage).collect();
        let _ = writeln!(out, "      reports: {{ {} }}", both.join(", "));
    }
    let _ = write!(
        out,
        "    package:\n      # What is deployed: packed once, named by its digest, never built again.\n      run: |\n{}      artifact: dist/\n",
        block(&parts.package)
    );
    if parts.package.lines().any(|line| line.starts_with("docker ")) {
        out.push_str("      # It needs the container engine: the server has to be started with --docker-in-jobs.\n      docker: true\n");
    }
    if parts.coverage.is_some() {
        out.push_str("\n# Limits on coverage block a change and list the lines that lack tests.\nvalidation:\n  coverage: { diff: 80, ratchet: true }\n");
    }
    const RELEASES: &str = "\n# How users move to a new revision. Each step is watched; what hurts users is taken back without a person.\nreleases:\n  careful:\n    canary: [ { weight: 5, for: 1m }, { weight: 25, for: 2m }, { weight: 50, for: 2m } ]\n    analysis: { errors: { worse_by: 0.5% } }\n";
    if let Some(service) = &parts.service {
        let _ = write!(
            out,
            "\n# What runs: the image that job `package` saved, as the Compose file says.\nservices:\n{service}\n# Where it runs, in the order in which a green change passes.\nenvironments:\n  staging: {{ like: production, replicas: 1, release: all-at-once }}\n  production: {{ runtime: docker, release: careful }}\n{RELEASES}"
        );
        return out;
    }
    match &parts.command {
        Some(command) => {
            let words: Vec<String> = command.iter().map(|word| format!("{word:?}")).collect();
            let health = match &parts.health {
                Some(path) => format!("    health: {path}\n"),
                None => "    # health: /healthz        # a path that answers 2xx; without it an open port is enough\n".into(),
            };
            let env = parts.service_env.map(|(key, value, why)| format!("    # {why}\n    env: {{ {key}: {value:?} }}\n"));
            let _ = write!(
                out,
                "\n# What runs, from the unpacked artifact. $PORT is chosen by Andon; no shell is involved.\nservices:\n  web:\n    command: [{}]\n{}{health}    replicas: 2\n",
                words.join(", "),
                env.unwrap_or_default()
            );
            out.push_str(
                "\n# Where it runs, in the order in which a green change passes.\nenvironments:\n  staging: { like: production, replicas: 1, release: all-at-once }\n  production: { release: careful }\n",
            );
            out.push_str(RELEASES);
        }
        None => out.push_str(
            "\n# What runs, from the unpacked artifact. Fill in the command and take the marks away to deploy it.\n\
             # services:\n#   web:\n#     command: [\"./serve\", \"--port\", \"$PORT\"]\n#     health: /healthz\n#     replicas: 2\n\
             # environments:\n#   staging: { like: production, replicas: 1, release: all-at-once }\n#   production: { release: careful }\n\
             # releases:\n#   careful:\n#     canary: [ { weight: 5, for: 1m }, { weight: 25, for: 2m }, { weight: 50, for: 2m } ]\n#     analysis: { errors: { worse_by: 0.5% } }\n",
        ),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(files: &[(&str, &str)]) -> Proposal {
        let names = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let read =
            |wanted: &str| files.iter().find(|(name, _)| *name == wanted).map(|(_, text)| (*text).to_owned());
        propose(&names, &read)
    }

    #[test]
    fn of_many_applications_the_one_with_routes_is_served_and_its_health_is_asked_for() {
        let proposal = repository(&[
            ("requirements.txt", "flask"),
            ("shop/a_helper.py", "app = Flask(__name__)"),
            (
                "shop/web.py",
                "site = Flask(__name__)\n@site.route('/')\ndef a(): ...\n@site.route(\"/healthz\")\ndef b(): ...",
            ),
            ("test_x.py", ""),
        ]);
        assert!(proposal.yaml.contains("\"shop.web:site\""), "{}", proposal.yaml);
        assert!(proposal.yaml.contains("    health: /healthz\n"), "{}", proposal.yaml);
        assert!(
            !proposal.questions.iter().any(|question| question.contains("healthy")),
            "{:?}",
            proposal.questions
        );
    }

    #[test]
    fn whatever_is_proposed_is_a_file_that_andon_reads() {
        let repositories = [
            repository(&[
                ("Cargo.toml", "[package]\nname = \"shop\""),
                ("src/main.rs", ""),
                ("Cargo.lock", ""),
            ]),
            repository(&[("go.mod", "module x"), ("main.go", "")]),
            repository(&[("package.json", "{\"scripts\":{\"test\":\"jest\",\"start\":\"node server.js\"}}")]),
            repository(&[
                ("pyproject.toml", "[project]\nname='x'"),
                ("x/__init__.py", "app = Flask(__name__)"),
                ("test_x.py", ""),
            ]),
            repository(&[("README.md", "")]),
            repository(&[("package.json", "not json")]),
            repository(&[("compose.yaml", "services: { web: { build: ., ports: ['80:8000'] } }")]),
            repository(&[("app.py", ""), ("docker-compose.yml", "services: { db: { image: x } }")]),
        ];
        for proposal in repositories {
            if let Err(problems) = crate::read(&proposal.yaml) {
                panic!("{:?}: {problems:?}\n{}", proposal.kind, proposal.yaml);
            }
        }
    }

    #[test]
    fn a_flask_service_is_found_and_started_with_a_server_of_its_own() {
        let flask = "from flask import Flask\napp = Flask(__name__, template_folder=tmpl_dir)\n";
        let proposal = repository(&[
            (
                "pyproject.toml",
                "[project]\nname = \"httpbin\"\n[project.optional-dependencies]\ntest = [\"pytest\"]\n",
            ),
            ("httpbin/__init__.py", "from .core import *"),
            ("httpbin/core.py", flask),
            ("tests/test_httpbin.py", ""),
        ]);
        assert_eq!(proposal.kind, Kind::Python);
        assert!(
            proposal.yaml.contains(r#""gunicorn", "--bind", "$HOST:$PORT", "httpbin.core:app""#),
            "{}",
            proposal.yaml
        );
        assert!(proposal.yaml.contains("pip install --quiet '.[test]'"), "{}", proposal.yaml);
        assert!(proposal.yaml.contains("--cov=httpbin"), "{}", proposal.yaml);
    }

    #[test]
    fn what_is_not_known_is_asked_and_not_made_up() {
        let proposal = repository(&[("README.md", "")]);
        assert_eq!(proposal.kind, Kind::Unknown);
        assert_eq!(proposal.questions.len(), 2);
        assert!(proposal.yaml.contains("# services:"));
    }
}

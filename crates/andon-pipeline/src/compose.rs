//! The common part of a Compose file (compose-spec.io) as services of Andon, for the first `andon.yaml`. Reads no file and runs nothing.
//!
//! Read by hand and not by types of others: whatever is not taken over has to be named, and a reader into types drops what it does not
//! know. One service is built from this repository and becomes the artifact, an image; the others are images of somebody else, which a
//! line of one artifact does not release.

use std::fmt::Write;

use andon_model::{Size, Span};
use serde_json::{Map, Value};

/// Names under which the file lies, the one that Compose itself prefers first.
pub const FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The service, as `andon.yaml` has it below `services:`.
    pub service: String,
    /// The commands that build and save its image.
    pub package: String,
    /// What was not taken over, each with what to do.
    pub warnings: Vec<String>,
}

/// Keys that say how a container is run here anyway.
const AS_IT_IS: [&str; 8] =
    ["container_name", "init", "read_only", "cap_drop", "security_opt", "hostname", "stdin_open", "tty"];

/// Reads a Compose file. None, with the reason, where no service of it is built from this repository.
pub fn read(text: &str) -> Result<Composed, Vec<String>> {
    let file: Value = serde_saphyr::from_str(text).map_err(|error| {
        vec![format!("the Compose file cannot be read: {}", first_line(&error.to_string()))]
    })?;
    let mut warnings = Vec::new();
    for (key, value) in file.as_object().into_iter().flatten() {
        let known = matches!(key.as_str(), "services" | "version" | "name") || key.starts_with("x-");
        // An empty `volumes: { data: }` goes with the `volumes` of its service, which are named there.
        if !known && !value.is_null() && key != "volumes" {
            warnings.push(format!("`{key}` of the Compose file is not taken over"));
        }
    }
    let services = file["services"].as_object().cloned().unwrap_or_default();
    let built: Vec<&String> =
        services.iter().filter(|(_, service)| !service["build"].is_null()).map(|(name, _)| name).collect();
    for name in services.keys().filter(|name| !built.contains(name)) {
        let image = services[name]["image"].as_str().unwrap_or("an image");
        warnings.push(format!(
            "{name} ({image}) is not built here: run it beside, and give its address to your services in `env`"
        ));
    }
    let [name] = built[..] else {
        warnings.push(match built.len() {
            0 => "no service of the Compose file is built from this repository".to_owned(),
            count => format!(
                "{count} services are built here, and one artifact holds one image: give each a project"
            ),
        });
        return Err(warnings);
    };
    let Some(service) = services[name].as_object() else { return Err(warnings) };
    let mut reader = Reader { name, warnings, env: Vec::new(), lines: String::new() };
    let package = reader.package(&service["build"]);
    for (key, value) in service {
        reader.key(key, value);
    }
    if !reader.env.is_empty() {
        let pairs: Vec<String> = reader.env.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
        let _ = writeln!(reader.lines, "    env: {{ {} }}", pairs.join(", "));
    }
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let body = if reader.lines.is_empty() { "    replicas: 1\n".to_owned() } else { reader.lines };
    Ok(Composed {
        service: format!("  {}:\n{body}", plain.trim_matches('-')),
        package,
        warnings: reader.warnings,
    })
}

struct Reader<'a> {
    name: &'a str,
    warnings: Vec<String>,
    env: Vec<(String, String)>,
    lines: String,
}

impl Reader<'_> {
    fn warn(&mut self, words: impl std::fmt::Display) {
        self.warnings.push(format!("{}: {words}", self.name));
    }

    fn line(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.lines, "    {key}: {value}");
    }

    fn package(&mut self, build: &Value) -> String {
        let context = build.as_str().or(build["context"].as_str()).unwrap_or(".").to_owned();
        let dockerfile = build["dockerfile"].as_str().map(str::to_owned);
        for key in build.as_object().into_iter().flat_map(Map::keys) {
            if !matches!(key.as_str(), "context" | "dockerfile") {
                self.warn(format!(
                    "`build.{key}` is not taken over: add it to the `docker build` of job package"
                ));
            }
        }
        let file = dockerfile
            .map(|file| format!(" --file {}", quoted(&format!("{context}/{file}"))))
            .unwrap_or_default();
        format!(
            "docker build --tag andon-job-$${file} {}\nmkdir dist\ndocker save --output dist/image.tar andon-job-$$\ndocker rmi andon-job-$$",
            quoted(&context)
        )
    }

    fn key(&mut self, key: &str, value: &Value) {
        match key {
            "build" | "image" => {}
            "command" => match words(value) {
                Some(words) => {
                    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                    self.line("command", format!("[{}]", words.join(", ")));
                }
                None => self.warn("`command` needs a shell: write it as a list, or put it into the image"),
            },
            "environment" => self.environment(value),
            "ports" | "expose" => self.ports(key, value),
            "healthcheck" => self.health(value),
            "depends_on" => {
                self.warn("`depends_on`: services start at the same time; each has to wait for what it needs")
            }
            "deploy" => self.deploy(value),
            "scale" => self.number("replicas", key, value),
            "mem_limit" | "cpus" | "pids_limit" => {
                let limits = serde_json::json!({ key: value });
                self.limits(limits.as_object().unwrap_or(&Map::new()));
            }
            "stop_grace_period" => match value.as_str().and_then(|text| text.parse::<Span>().ok()) {
                Some(span) => self.line("stop_within", span.compact()),
                None => self.warn(format!("`stop_grace_period` {value} is not a time that is understood")),
            },
            "restart" => self.warn("`restart` is not needed: what ends is replaced, and it is seen"),
            known if AS_IT_IS.contains(&known) => self.warn(format!("`{known}` is decided by the server")),
            unknown => self.warn(format!("`{unknown}` is not taken over")),
        }
    }

    fn environment(&mut self, value: &Value) {
        let pairs: Vec<(String, Value)> = match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            Value::Array(list) => list
                .iter()
                .filter_map(Value::as_str)
                .map(|pair| match pair.split_once('=') {
                    Some((key, value)) => (key.to_owned(), value.into()),
                    None => (pair.to_owned(), Value::Null),
                })
                .collect(),
            _ => Vec::new(),
        };
        for (key, value) in pairs {
            match plain(&value) {
                Some(text) if text.contains('$') => {
                    self.warn(format!(
                        "{key} is filled from the shell that starts Compose: write its value into `env`"
                    ));
                }
                Some(text) => self.env.push((key, text)),
                None => self.warn(format!(
                    "{key} comes from the shell that starts Compose: write its value into `env`"
                )),
            }
        }
    }

    fn ports(&mut self, key: &str, value: &Value) {
        let target = |one: &Value| -> Option<u16> {
            let text = plain(one).or_else(|| plain(&one["target"]))?;
            text.split('/').next()?.rsplit(':').next()?.parse().ok()
        };
        let all: Vec<u16> = value.as_array().into_iter().flatten().filter_map(target).collect();
        match all[..] {
            [port] if !self.lines.contains("    port: ") => self.line("port", port),
            [] => self.warn(format!("`{key}` names no port that is understood")),
            _ => self.warn(format!("`{key}`: one port of a service is reached by users; write it as `port`")),
        }
    }

    fn health(&mut self, value: &Value) {
        let test = plain(&value["test"]).unwrap_or_else(|| {
            let words = value["test"].as_array().into_iter().flatten().filter_map(Value::as_str);
            words.collect::<Vec<_>>().join(" ")
        });
        let url = test
            .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\''))
            .find(|word| word.starts_with("http://"));
        let path = url.and_then(|url| url.splitn(4, '/').nth(3)).map(|path| format!("/{path}"));
        match path.or(url.map(|_| "/".to_owned())) {
            Some(path) => self.line("health", path),
            None => self.warn(
                "`healthcheck` asks no http:// address: an open port counts, unless you write `health`",
            ),
        }
        if let Some(start) = value["start_period"].as_str().and_then(|text| text.parse::<Span>().ok()) {
            self.line("start_within", start.compact());
        }
        for key in value.as_object().into_iter().flat_map(Map::keys) {
            if !matches!(key.as_str(), "test" | "start_period") {
                self.warn(format!("`healthcheck.{key}` is decided by the server"));
            }
        }
    }

    fn deploy(&mut self, value: &Value) {
        for (key, value) in value.as_object().into_iter().flatten() {
            match key.as_str() {
                "replicas" => self.number("replicas", "deploy.replicas", value),
                "resources" => {
                    for (key, value) in value.as_object().into_iter().flatten() {
                        match (key.as_str(), value.as_object()) {
                            ("limits", Some(limits)) => self.limits(limits),
                            _ => self.warn(format!("`deploy.resources.{key}` is not taken over")),
                        }
                    }
                }
                key => {
                    self.warn(format!("`deploy.{key}` is not taken over: `releases` say how users are moved"))
                }
            }
        }
    }

    fn limits(&mut self, limits: &Map<String, Value>) {
        let mut found = Vec::new();
        for (key, value) in limits {
            let text = plain(value).unwrap_or_default();
            match key.as_str() {
                "memory" | "mem_limit" => match text.to_uppercase().parse::<Size>() {
                    Ok(size) => found.push(format!("memory: {size}")),
                    Err(_) => self.warn(format!("`{key}` {text:?} is not a size that is understood")),
                },
                "cpus" if text.parse::<f64>().is_ok() => found.push(format!("cpu: {text}")),
                "pids" | "pids_limit" if text.parse::<u32>().is_ok() => {
                    found.push(format!("processes: {text}"))
                }
                _ => self.warn(format!("limit `{key}` is not taken over")),
            }
        }
        match self.lines.contains("    limits: ") {
            _ if found.is_empty() => {}
            true => self.warn("limits stand in two places: the second is not taken over"),
            false => self.line("limits", format!("{{ {} }}", found.join(", "))),
        }
    }

    fn number(&mut self, ours: &str, theirs: &str, value: &Value) {
        match value.as_u64() {
            Some(number) if !self.lines.contains(&format!("    {ours}: ")) => self.line(ours, number),
            _ => self.warn(format!("`{theirs}` {value} is not taken over")),
        }
    }
}

/// A value that is written as one word or number.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    }
}

/// A command as its words; none where only a shell could tell them.
fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::String(text)
            if !text.contains(['$', '`', '|', ';', '&', '<', '>', '\\', '*', '?', '~', '(', '#']) =>
        {
            let mut words = vec![String::new()];
            let mut quote = None;
            for c in text.trim().chars() {
                match quote {
                    Some(end) if c == end => quote = None,
                    Some(_) => words.last_mut()?.push(c),
                    None if c == '"' || c == '\'' => quote = Some(c),
                    None if c.is_whitespace() => words.push(String::new()),
                    None => words.last_mut()?.push(c),
                }
            }
            words.retain(|word| !word.is_empty());
            quote.is_none().then_some(words)
        }
        _ => None,
    }
}

/// For the script of a job, which `sh` reads: one word, whatever stands in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = "
services:
  web:
    build: { context: ., dockerfile: Dockerfile.web }
    command: gunicorn --bind '0.0.0.0:80' app
    environment: [MODE=live, SECRET]
    ports: ['8080:80']
    healthcheck: { test: [CMD, curl, -f, 'http://localhost:80/healthz'], interval: 5s, start_period: 20s }
    depends_on: [db]
    stop_grace_period: 30s
    deploy: { replicas: 3, resources: { limits: { cpus: '0.5', memory: 256M, pids: 50 } }, update_config: {} }
    volumes: ['./data:/data']
    restart: always
  db: { image: 'postgres:16', volumes: ['pg:/var/lib'] }
volumes: { pg: }
networks: { inner: {} }
";

    #[test]
    fn the_common_part_is_taken_over_and_the_rest_is_named() {
        let composed = read(SHOP).unwrap();
        for line in [
            "  web:\n",
            "    command: [\"gunicorn\", \"--bind\", \"0.0.0.0:80\", \"app\"]\n",
            "    port: 80\n",
            "    health: /healthz\n",
            "    start_within: 20s\n",
            "    stop_within: 30s\n",
            "    replicas: 3\n",
            "    env: { MODE: \"live\" }\n",
        ] {
            assert!(composed.service.contains(line), "{line} is not in\n{}", composed.service);
        }
        assert!(composed.service.contains("memory: 256MiB") && composed.service.contains("cpu: 0.5"));
        assert!(composed.package.contains("--file './Dockerfile.web' '.'"), "{}", composed.package);
        let all = composed.warnings.join("\n");
        for word in [
            "SECRET",
            "volumes",
            "db (postgres:16)",
            "depends_on",
            "interval",
            "update_config",
            "networks",
            "restart",
        ] {
            assert!(all.contains(word), "{word} is not named in\n{all}");
        }
    }

    #[test]
    fn every_key_of_a_service_is_taken_over_or_named() {
        let strange = "services: { web: { build: ., privileged: true, frobnicate: 3, user: root } }";
        let all = read(strange).unwrap().warnings.join("\n");
        for key in ["privileged", "frobnicate", "user"] {
            assert!(all.contains(key), "{key} was dropped silently");
        }
    }

    #[test]
    fn what_cannot_be_one_artifact_is_refused_in_words() {
        for (text, word) in [
            ("services: { db: { image: 'x' } }", "no service"),
            ("services: { a: { build: . }, b: { build: . } }", "2 services"),
            ("services: [", "cannot be read"),
            ("- 1", "no service"),
        ] {
            let said = read(text).unwrap_err().join("\n");
            assert!(said.contains(word), "{text}: {said}");
        }
    }

    #[test]
    fn no_name_in_the_file_becomes_a_command_of_the_job() {
        let hostile = "services: { web: { build: \"x'; touch /tmp/pwned; '\" } }";
        let package = read(hostile).unwrap().package;
        assert!(package.contains(r"'x'\''; touch /tmp/pwned; '\'''"), "{package}");
    }
}

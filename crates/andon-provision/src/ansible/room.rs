//! What Ansible gets beside its code: the inventory, variables with secrets in a file of their own, our callback plugin, and an environment
//! that holds nothing else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use andon_model::EnvironmentName;
use andon_model::event::{Connection, Hosts, Playbook};
use serde_json::{Value, json};

use super::AnsibleError;
use crate::mask::PASSED;
use crate::process::{self, Order, Running};
use crate::terraform::{Room, Tool};

/// Our callback plugin; what it prints is read by [`super::stream`].
const CALLBACK: &str = include_str!("callback.py");

/// What a playbook is played with.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Where; every play knows it as `andon_environment`.
    pub environment: &'a EnvironmentName,
    /// Hosts by group, with output values filled in.
    pub hosts: &'a Hosts,
    /// How they are reached.
    pub connection: Connection,
    /// Variables of every play.
    pub variables: &'a BTreeMap<String, String>,
    /// Variables that nobody may see.
    pub secrets: &'a BTreeMap<String, String>,
}

/// The values of these secrets, from the server's own environment.
pub fn secrets(names: &[String]) -> Result<BTreeMap<String, String>, AnsibleError> {
    let value = |name: &String| {
        let value = std::env::var(format!("{PASSED}{name}"));
        Ok((name.clone(), value.map_err(|_| AnsibleError::Secret(name.clone()))?))
    };
    names.iter().map(value).collect()
}

/// The playbook's file, if the commit has it, inside of what was checked out.
pub fn playbook(room: &Room, file: &str) -> Result<PathBuf, AnsibleError> {
    let path = room.work().join(file);
    let real = path.canonicalize().ok().filter(|path| path.is_file());
    let inside = real.zip(room.tree().canonicalize().ok()).is_some_and(|(path, tree)| path.starts_with(tree));
    if inside {
        return Ok(path);
    }
    let words = format!(
        "there is no playbook {file} in the folder {} of this commit\nhint: correct `infrastructure.ansible` in andon.yaml",
        room.folder.display()
    );
    Err(AnsibleError::Failed(words))
}

/// Writes everything that the tool reads beside its code. Variables are for this account alone, and go with [`clear`].
pub fn furnish(room: &Room, input: &Input<'_>) -> Result<(), AnsibleError> {
    let plugins = room.dir.join("plugins");
    std::fs::create_dir_all(&plugins)?;
    std::fs::create_dir_all(room.dir.join("temporary"))?;
    std::fs::write(plugins.join("andon.py"), CALLBACK)?;
    private(&inventory_file(room), &inventory(input.environment, input.hosts, input.connection))?;
    let all = input.variables.iter().chain(input.secrets);
    let all: BTreeMap<&String, Value> = all.map(|(name, value)| (name, unsafe_text(value))).collect();
    private(&variables_file(room), &json!(all))
}

/// Removes what holds secrets.
pub fn clear(room: &Room) {
    // It is gone where the room is, too.
    let _ = std::fs::remove_file(variables_file(room));
}

fn inventory_file(room: &Room) -> PathBuf {
    room.dir.join("inventory.json")
}

fn variables_file(room: &Room) -> PathBuf {
    room.dir.join("variables.json")
}

fn private(path: &Path, value: &Value) -> Result<(), AnsibleError> {
    let _ = std::fs::remove_file(path);
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path)?;
    Ok(file.write_all(value.to_string().as_bytes())?)
}

/// A text that Ansible takes as it is: braces in it are no template (`AnsibleJSONDecoder`).
fn unsafe_text(text: &str) -> Value {
    json!({ "__ansible_unsafe": text })
}

/// The inventory in the form of Ansible's own `yaml` plugin, of which JSON is a part: nothing has to be run to read it.
fn inventory(environment: &EnvironmentName, hosts: &Hosts, connection: Connection) -> Value {
    let connection = match connection {
        Connection::Ssh => "ssh",
        Connection::Local => "local",
    };
    let host = |variables: &BTreeMap<String, String>| {
        let all = variables.iter().map(|(name, value)| (name.clone(), unsafe_text(value)));
        Value::Object(all.collect())
    };
    let group = |members: &BTreeMap<String, BTreeMap<String, String>>| {
        let all = members.iter().map(|(name, variables)| (name.clone(), host(variables)));
        json!({ "hosts": Value::Object(all.collect()) })
    };
    let groups = hosts.iter().map(|(name, members)| (name.clone(), group(members)));
    json!({ "all": {
        "vars": { "ansible_connection": connection, "andon_environment": environment.as_str() },
        "children": Value::Object(groups.collect()),
    } })
}

/// Starts to play; `check`: nothing is changed, what would be is told.
pub fn start(
    room: &Room,
    tool: &Tool,
    asked: &Playbook,
    file: &str,
    check: bool,
    phase: &str,
) -> Result<Running, AnsibleError> {
    let mut args: Vec<OsString> = vec!["--inventory".into(), inventory_file(room).into()];
    let mut variables = OsString::from("@");
    variables.push(variables_file(room));
    args.extend(["--extra-vars".into(), variables, "--diff".into()]);
    if check {
        args.push("--check".into());
    }
    args.push(playbook(room, file)?.into());
    let order = Order {
        binary: tool.binary.clone(),
        args,
        dir: room.work(),
        env: env(room, asked),
        out: room.output(phase),
    };
    Ok(process::start(&order)?)
}

/// All of its environment.
fn env(room: &Room, asked: &Playbook) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = std::env::vars()
        .filter_map(|(name, value)| Some((name.strip_prefix(PASSED)?.to_owned(), value)))
        .filter(|(name, _)| !asked.secrets.contains(name))
        .collect();
    let at = |name: &str| room.dir.join(name).to_string_lossy().into_owned();
    let own = [
        ("PATH", std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into())),
        ("HOME", at("home")),
        ("LC_ALL", "C.UTF-8".into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ("ANSIBLE_CALLBACK_PLUGINS", at("plugins")),
        ("ANSIBLE_STDOUT_CALLBACK", "andon".into()),
        ("ANSIBLE_LOCAL_TEMP", at("temporary")),
        ("ANSIBLE_NOCOLOR", "1".into()),
        ("ANSIBLE_RETRY_FILES_ENABLED", "0".into()),
        ("ANSIBLE_DEPRECATION_WARNINGS", "0".into()),
        ("ANSIBLE_LOCALHOST_WARNING", "0".into()),
        // A shared connection outlives the play, and its socket needs a path shorter than ours may be. Nobody is there to answer.
        ("ANSIBLE_SSH_ARGS", "-o ControlMaster=no -o BatchMode=yes".into()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inventory_names_groups_hosts_and_their_variables_and_templates_nothing() {
        let web1 = BTreeMap::from([("page".to_owned(), "{{ lookup('pipe', 'id') }}".to_owned())]);
        let hosts = Hosts::from([("web".to_owned(), BTreeMap::from([("web1".to_owned(), web1)]))]);
        let made = inventory(&"staging".parse().unwrap(), &hosts, Connection::Ssh);
        assert_eq!(made["all"]["vars"]["andon_environment"], "staging");
        assert_eq!(made["all"]["vars"]["ansible_connection"], "ssh");
        let page = &made["all"]["children"]["web"]["hosts"]["web1"]["page"];
        assert_eq!(page["__ansible_unsafe"], "{{ lookup('pipe', 'id') }}");
    }

    #[test]
    fn what_holds_secrets_is_for_one_account_and_goes() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let room = Room::at(place.path().join("room"), "ansible");
        room.make().unwrap();
        let secrets = BTreeMap::from([("password".to_owned(), "hush".to_owned())]);
        let (hosts, none) = (Hosts::new(), BTreeMap::new());
        let environment = "staging".parse().unwrap();
        let connection = Connection::Local;
        let input = Input {
            environment: &environment,
            hosts: &hosts,
            connection,
            variables: &none,
            secrets: &secrets,
        };
        furnish(&room, &input).unwrap();
        let file = variables_file(&room);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(&file).unwrap().contains("hush"));
        clear(&room);
        assert!(!file.exists());
    }

    #[test]
    fn a_playbook_outside_of_the_commit_is_not_played() {
        let place = tempfile::tempdir().unwrap();
        let room = Room::at(place.path().join("room"), "ansible");
        std::fs::create_dir_all(room.work()).unwrap();
        std::fs::write(place.path().join("other.yml"), "[]").unwrap();
        std::os::unix::fs::symlink(place.path().join("other.yml"), room.work().join("site.yml")).unwrap();
        assert!(playbook(&room, "site.yml").unwrap_err().to_string().contains("hint:"));
        std::fs::write(room.work().join("good.yml"), "[]").unwrap();
        assert!(playbook(&room, "good.yml").is_ok());
    }
}

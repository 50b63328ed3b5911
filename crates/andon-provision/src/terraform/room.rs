//! The folder that a run works in: the code, the tool's own files, its output, its plan. Readable by the server's account alone; gone with
//! the run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::process::{self, Order};
use super::{Running, TerraformError, Tool};
use crate::mask::{PASSED, mask, with_passed};

/// Written beside the code: states are kept here, whatever the code says about its backend. An override file wins over a block of its own.
const BACKEND: &str = "terraform {\n  backend \"http\" {}\n}\n";
/// Its name; the tool reads `*_override.tf` last.
const BACKEND_FILE: &str = "andon_backend_override.tf";
/// How long it waits for the state's lock before it gives up.
const LOCK_WAIT: &str = "-lock-timeout=300s";

/// Where the state is kept.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its address.
    pub address: String,
    /// The token that opens it.
    pub token: String,
}

/// A run's folder.
#[derive(Debug, Clone)]
pub struct Room {
    /// The folder.
    pub dir: PathBuf,
    /// Where the code's folder is, below [`Room::tree`].
    pub folder: PathBuf,
}

impl Room {
    /// The room of a run, made or not.
    pub fn at(dir: PathBuf, folder: &str) -> Room {
        Room { dir, folder: PathBuf::from(folder) }
    }

    /// Where the repository's files are to be put.
    pub fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// Where the tool runs.
    pub fn work(&self) -> PathBuf {
        self.tree().join(&self.folder)
    }

    /// The tool's output in this phase: `init`, `plan`, `apply`.
    pub fn output(&self, phase: &str) -> PathBuf {
        self.dir.join(format!("{phase}.log"))
    }

    /// The plan in clear: only while it is made and while it is applied.
    pub fn plan(&self) -> PathBuf {
        self.dir.join("plan.bin")
    }

    /// The plan, sealed.
    pub fn sealed(&self) -> PathBuf {
        self.dir.join("plan.age")
    }

    /// A state that the tool could not store.
    pub fn errored(&self) -> PathBuf {
        self.work().join("errored.tfstate")
    }

    /// Makes it anew and empty.
    pub fn make(&self) -> io::Result<()> {
        self.remove()?;
        std::fs::create_dir_all(self.dir.join("home"))?;
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o700))
    }

    /// Removes it with everything.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Puts the backend beside the code that was checked out.
    pub fn furnish(&self) -> Result<(), TerraformError> {
        let work = self.work();
        let inside = work
            .canonicalize()
            .is_ok_and(|real| self.tree().canonicalize().is_ok_and(|tree| real.starts_with(tree)));
        if !work.is_dir() || !inside {
            let words = format!(
                "there is no folder {} in this commit\nhint: correct `infrastructure.terraform` in andon.yaml",
                self.folder.display()
            );
            return Err(TerraformError::Failed(words));
        }
        let _ = std::fs::remove_file(work.join(BACKEND_FILE));
        Ok(std::fs::write(work.join(BACKEND_FILE), BACKEND)?)
    }

    /// All of the tool's environment. Variables are given by environment: they appear in no command line.
    pub fn env(
        &self,
        backend: &Backend,
        variables: &BTreeMap<String, String>,
        plugins: &Path,
    ) -> BTreeMap<String, String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut env: BTreeMap<String, String> = std::env::vars()
            .filter_map(|(name, value)| Some((name.strip_prefix(PASSED)?.to_owned(), value)))
            .collect();
        for (name, value) in variables {
            env.insert(format!("TF_VAR_{name}"), value.clone());
        }
        let own = [
            ("PATH", std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into())),
            ("HOME", text(&self.dir.join("home"))),
            ("LC_ALL", "C.UTF-8".into()),
            ("CHECKPOINT_DISABLE", "1".into()),
            ("TF_IN_AUTOMATION", "1".into()),
            ("TF_INPUT", "0".into()),
            ("TF_PLUGIN_CACHE_DIR", text(plugins)),
            ("TF_HTTP_ADDRESS", backend.address.clone()),
            ("TF_HTTP_LOCK_ADDRESS", backend.address.clone()),
            ("TF_HTTP_UNLOCK_ADDRESS", backend.address.clone()),
            ("TF_HTTP_LOCK_METHOD", "LOCK".into()),
            ("TF_HTTP_UNLOCK_METHOD", "UNLOCK".into()),
            ("TF_HTTP_USERNAME", "andon".into()),
            ("TF_HTTP_PASSWORD", backend.token.clone()),
        ];
        env.extend(own.map(|(name, value)| (name.to_owned(), value)));
        env
    }

    /// Starts one phase of the tool.
    pub fn start(
        &self,
        tool: &Tool,
        env: &BTreeMap<String, String>,
        phase: &str,
        args: Vec<OsString>,
    ) -> Result<Running, TerraformError> {
        let order = Order {
            binary: tool.binary.clone(),
            args,
            dir: self.work(),
            env: env.clone(),
            out: self.output(phase),
        };
        Ok(process::start(&order)?)
    }

    /// Arguments of `init`.
    pub fn init_args(&self) -> Vec<OsString> {
        ["init", "-no-color", "-input=false", "-reconfigure"].map(OsString::from).to_vec()
    }

    /// Arguments of `plan`. One that only looks takes no lock.
    pub fn plan_args(&self, destroy: bool, look: bool) -> Vec<OsString> {
        let mut out = OsString::from("-out=");
        out.push(self.plan());
        let mut args: Vec<OsString> = ["plan", "-json", "-input=false"].map(OsString::from).to_vec();
        args.push(if look { "-lock=false" } else { LOCK_WAIT }.into());
        if destroy {
            args.push("-destroy".into());
        }
        args.push(out);
        args
    }

    /// Arguments of `apply` of exactly the saved plan.
    pub fn apply_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> =
            ["apply", "-json", "-input=false", LOCK_WAIT].map(OsString::from).to_vec();
        args.push(self.plan().into());
        args
    }

    /// Arguments of `import`: takes what exists into the state.
    pub fn import_args(&self, address: &str, id: &str) -> Vec<OsString> {
        // An id comes from outside: none of them is an option.
        ["import", "-no-color", "-input=false", LOCK_WAIT, "--", address, id].map(OsString::from).to_vec()
    }

    /// Arguments of `state rm`: what is gone already is taken out of the state.
    pub fn forget_args(&self, address: &str) -> Vec<OsString> {
        ["state", "rm", LOCK_WAIT, "--", address].map(OsString::from).to_vec()
    }

    /// Reads the saved plan through the tool.
    pub async fn show(
        &self,
        tool: &Tool,
        env: &BTreeMap<String, String>,
    ) -> Result<andon_environment::blueprint::Plan, TerraformError> {
        let mut command = tokio::process::Command::new(&tool.binary);
        command.args(["show", "-json", "-no-color"]).arg(self.plan()).current_dir(self.work());
        let out = command.env_clear().envs(env).kill_on_drop(true).output().await?;
        if !out.status.success() {
            let words = mask(&String::from_utf8_lossy(&out.stderr), &with_passed(&BTreeMap::new()));
            return Err(TerraformError::Failed(words.chars().take(2000).collect()));
        }
        // What the code does not call sensitive may be so all the same.
        let plan = mask(&String::from_utf8_lossy(&out.stdout), &with_passed(&BTreeMap::new()));
        super::plan::read(plan.as_bytes())
    }

    /// What the tool printed in a phase, as text and without the secrets that the server gave it; nothing where it did not begin.
    pub fn said(&self, phase: &str) -> String {
        let raw = std::fs::read(self.output(phase)).unwrap_or_default();
        mask(&String::from_utf8_lossy(&raw), &with_passed(&BTreeMap::new()))
    }
}

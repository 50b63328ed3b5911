//! What the host permits, and what these instances have on it beside their directories: groups, networks, names for each other.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::process::Command;

use andon_model::EnvironmentName;
use sha2::Digest as _;

use super::network::{Cable, Networks};
use super::{ProcessRuntime, lock, plan, read, shim};
use crate::sandbox::Means;
use crate::spec::{self, Spec};

impl ProcessRuntime {
    /// What the host permits: tried once, when it is asked for first.
    pub fn means(&self) -> &Means {
        self.means.get_or_init(|| {
            let empty = self.beside("rehearsal");
            if let Err(error) = fs::create_dir(&empty) {
                return Means::none(&format!("it could not be tried: {error}"));
            }
            let rehearse = || {
                let mut command = Command::new(&self.exe);
                command.arg("shim").arg(&empty).env_clear().env(shim::STAGE, shim::REHEARSE).current_dir("/");
                command
            };
            let mut means = Means::find(rehearse, &empty, &self.host_name());
            // The cable to the host is laid from outside, which takes root and not only a user namespace.
            means.network = match &means.namespaces {
                _ if self.bind.is_some() => {
                    Err("on a host that joined, instances listen on the host's own address".into())
                }
                Ok(false) => self.networks().tried(),
                Ok(true) => Err("it takes the rights of root".into()),
                Err(why) => Err(why.clone()),
            };
            self.drop_groups(&means);
            if means.network.is_ok() {
                self.drop_networks();
            }
            // Left for the next start of the server if it cannot be removed now.
            let _ = fs::remove_dir_all(&empty);
            means
        })
    }

    /// Ends what lies in groups of this name without a directory of an instance.
    fn drop_groups(&self, means: &Means) {
        let ids = self.ids().unwrap_or_default();
        for name in means.groups.names().into_iter().filter(|name| !ids.contains(name)) {
            let group = means.groups.of(&name);
            group.kill();
            if let Err(error) = group.remove() {
                tracing::warn!(group = name, %error, "a group that belongs to no instance stays");
            }
        }
    }

    pub(super) fn networks(&self) -> Networks {
        Networks::new(&self.host_name())
    }

    /// How network devices of these instances begin.
    pub fn network_name(&self) -> String {
        self.networks().prefix()
    }

    /// Removes the networks of environments that have no instance any more.
    fn drop_networks(&self) {
        let lives = self.specs().into_values().filter_map(|spec| spec.environment).collect();
        if let Err(error) = self.networks().sweep(&lives) {
            tracing::warn!(error, "a network that belongs to no environment stays");
        }
    }

    /// Of every instance that was started and not removed.
    pub(super) fn specs(&self) -> BTreeMap<String, Spec> {
        let ids = self.ids().unwrap_or_default().into_iter();
        let spec = |id: String| {
            let spec = read::<Spec>(&self.root.join(&id).join(spec::SPEC)).ok()??;
            Some((id, spec))
        };
        ids.filter_map(spec).collect()
    }

    /// Its place in its environment's network, which is made if it is missing.
    pub(super) fn cable(&self, spec: &Spec) -> Result<Option<Cable>, String> {
        let (Some(IpAddr::V4(address)), Some(environment)) = (spec.address, &spec.environment) else {
            return Ok(None);
        };
        if address.is_loopback() {
            return Ok(None);
        }
        self.means().network.clone().map_err(|why| format!("it cannot have the address {address}: {why}"))?;
        let _turn = lock(&self.wiring);
        self.networks().ensure(environment, address)?;
        Ok(Some(self.networks().cable(environment, &spec.instance, address)))
    }

    /// Tells the instances of an environment where its services are. Files are written in place: the instances see these very files.
    pub(super) fn tell_hosts(&self, environment: &EnvironmentName) {
        let mut specs = self.specs();
        specs.retain(|_, spec| spec.environment.as_ref() == Some(environment) && spec.address.is_some());
        for (id, spec) in &specs {
            let own = spec.labels.get("revision");
            let mut names: Vec<(bool, &String, IpAddr)> = specs
                .values()
                .filter_map(|other| {
                    let other_revision = other.labels.get("revision") != own;
                    Some((other_revision, other.labels.get("service")?, other.address?))
                })
                .collect();
            // Those of its own revision first: the first that answers is taken.
            names.sort();
            let own = spec.address.map(|address| format!("{address} {id}\n")).unwrap_or_default();
            let lines = names.iter().map(|(_, service, address)| format!("{address} {service}\n"));
            let text = format!("127.0.0.1 localhost\n::1 localhost\n{own}{}", lines.collect::<String>());
            let path = self.root.join(id).join(plan::HOSTS);
            if let Err(error) = fs::write(&path, text)
                // It is just being removed.
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(instance = id, %error, "it is not told where the services are");
            }
        }
    }

    /// What everything of these instances on the host is named after: one directory, one name.
    pub fn host_name(&self) -> String {
        let sum = sha2::Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        format!("andon-{}", hex::encode(&sum[..4]))
    }
}

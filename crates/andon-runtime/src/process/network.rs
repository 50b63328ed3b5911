//! A private network for each environment: a network namespace that holds a switch (a bridge), one cable (veth) from the host to it,
//! and one from each instance, which has a network namespace of its own with its own address. So every instance may listen on the
//! same port, as it does in production, and nothing leads out of the environment but to the host.
//!
//! The switch lies in a namespace of its own so that the host's packet filter, which often forwards nothing, has no say in it.
//! An instance's namespace has no name and goes with its last process; with it goes its cable. What stays has the server's name.
//! The programs of iproute2 do the work: speaking netlink ourselves would be a second implementation of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use andon_model::EnvironmentName;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Addresses of all environments of all servers of this host lie here: 10.192.0.0/12, seldom used by anybody else.
const ALL: u32 = 0x0AC0_0000;
const ALL_BITS: u32 = 12;
/// An environment has 64 of them: the host has the first, 61 are for instances.
const BITS: u32 = 26;
const SIZE: u32 = 1 << (32 - BITS);
/// What the switch is called, in its own namespace.
const SWITCH: &str = "switch";
/// What the host's cable is called at the switch.
const UPLINK: &str = "uplink";
/// What an instance's own end is called.
const END: &str = "eth0";

/// How an instance is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cable {
    /// The namespace of the switch.
    switch: String,
    /// The switch's end.
    device: String,
    /// The instance's address.
    address: Ipv4Addr,
}

/// Networks of one server, by their names on the host.
pub(super) struct Networks {
    /// The server's name.
    server: String,
}

impl Networks {
    pub fn new(server: &str) -> Networks {
        Networks { server: server.to_owned() }
    }

    /// How network devices of this server begin: fifteen letters have to hold a server and an instance.
    pub fn prefix(&self) -> String {
        format!("an{}", &hash(&self.server)[..6])
    }

    fn device(&self, kind: char, of: &str) -> String {
        format!("{}{kind}{}", self.prefix(), &hash(of)[..6])
    }

    fn switch(&self, environment: &EnvironmentName) -> String {
        format!("{}-{environment}", self.server)
    }

    /// Whether networks can be made here: one is made and removed.
    pub fn tried(&self) -> Result<(), String> {
        let name = format!("{}.try", self.server);
        // Left by a server that was killed here.
        let _ = ip(&["netns", "del", &name]);
        ip(&["netns", "add", &name])?;
        let made = each(&[
            format!("link add {} type veth peer name {UPLINK} netns {name}", self.device('t', "")),
            format!("-n {name} link add {SWITCH} type bridge"),
        ]);
        let unplugged = made.and_then(|()| ip(&["link", "del", &self.device('t', "")]));
        let removed = ip(&["netns", "del", &name]);
        unplugged.and(removed)
    }

    /// A free address in the environment's network, which is made if it is not there.
    pub fn place(
        &self,
        environment: &EnvironmentName,
        used: &BTreeSet<SocketAddr>,
    ) -> Result<Ipv4Addr, String> {
        let used: BTreeSet<IpAddr> = used.iter().map(SocketAddr::ip).collect();
        let base = match self.there(environment)? {
            Some(host) => host & !(SIZE - 1),
            None => self.choose(environment, &used)?,
        };
        let free =
            (base + 2..base + SIZE - 1).map(Ipv4Addr::from).find(|ip| !used.contains(&IpAddr::V4(*ip)));
        let free = free.ok_or_else(|| format!("every address of {environment} is in use"))?;
        self.ensure(environment, free)?;
        Ok(free)
    }

    /// The host's address in the environment's network, if that is there.
    fn there(&self, environment: &EnvironmentName) -> Result<Option<u32>, String> {
        let device = self.device('h', environment.as_str());
        Ok(addresses()?.into_iter().find(|(name, ..)| *name == device).map(|(_, ip, _)| u32::from(ip)))
    }

    fn choose(&self, environment: &EnvironmentName, used: &BTreeSet<IpAddr>) -> Result<u32, String> {
        let sum = sha2::Sha256::digest(self.switch(environment));
        let start = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
        let count = 1u32 << (BITS - ALL_BITS);
        let taken = addresses()?;
        let overlaps = |base: u32| {
            let of_host = taken.iter().any(|(_, ip, bits)| {
                let mask = u32::MAX.checked_shl(32 - *bits.min(&BITS)).unwrap_or(0);
                u32::from(*ip) & mask == base & mask
            });
            let planned = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if u32::from(*ip) & !(SIZE - 1) == base);
            of_host || used.iter().any(planned)
        };
        let all = (0..count).map(|n| ALL + (start.wrapping_add(n) % count) * SIZE);
        let mut free = all.filter(|base| !overlaps(*base));
        free.next().ok_or_else(|| "every private network of this host is in use".into())
    }

    /// Makes the network that this address lies in, where it is missing.
    pub fn ensure(&self, environment: &EnvironmentName, address: Ipv4Addr) -> Result<(), String> {
        let host = Ipv4Addr::from((u32::from(address) & !(SIZE - 1)) + 1);
        let (switch, device) = (self.switch(environment), self.device('h', environment.as_str()));
        if addresses()?.iter().any(|(name, ip, _)| *name == device && *ip == host) {
            return Ok(());
        }
        if !Path::new("/run/netns").join(&switch).exists() {
            ip(&["netns", "add", &switch])?;
        }
        // Each may be there already, left by a server that was killed here.
        let _ = ip(&["link", "add", &device, "type", "veth", "peer", "name", UPLINK, "netns", &switch]);
        let _ = ip(&["-n", &switch, "link", "add", SWITCH, "type", "bridge"]);
        let _ = ip(&["addr", "add", &format!("{host}/{BITS}"), "dev", &device]);
        each(&[
            format!("-n {switch} link set {UPLINK} master {SWITCH} up"),
            format!("-n {switch} link set {SWITCH} up"),
            format!("link set {device} up"),
        ])
    }

    /// How the instance is to be connected.
    pub fn cable(&self, environment: &EnvironmentName, id: &str, address: Ipv4Addr) -> Cable {
        Cable { switch: self.switch(environment), device: self.device('i', id), address }
    }

    /// Removes an environment's network with everything in it. One that is not there is as good.
    pub fn clear(&self, environment: &EnvironmentName) -> Result<(), String> {
        self.remove(&self.switch(environment))
    }

    fn remove(&self, switch: &str) -> Result<(), String> {
        if !Path::new("/run/netns").join(switch).exists() {
            return Ok(());
        }
        if let Some(environment) = switch.strip_prefix(&format!("{}-", self.server)) {
            // With one end of the cable goes the other. The namespace would take it as well, but some time later.
            let _ = ip(&["link", "del", &self.device('h', environment)]);
        }
        ip(&["netns", "del", switch])
    }

    /// Removes the networks of this server's environments that are not among these.
    pub fn sweep(&self, lives: &BTreeSet<EnvironmentName>) -> Result<(), String> {
        let lives: BTreeSet<String> = lives.iter().map(|environment| self.switch(environment)).collect();
        let there = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = there.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let ours = names.filter(|name| {
            name.strip_prefix(&self.server).is_some_and(|rest| rest.starts_with(['-', '.']))
                && !lives.contains(name)
        });
        ours.into_iter().try_for_each(|name| self.remove(&name))
    }
}

impl Cable {
    /// From outside: lays the cable from the switch to the instance. The caller is its shim: whatever that starts is counted inside,
    /// where the instance's first process has the number 1.
    pub fn lay(&self) -> Result<(), String> {
        let Cable { switch, device, .. } = self;
        // Left by an instance of this name whose last process is still ending.
        let _ = ip(&["-n", switch, "link", "del", device]);
        each(&[
            format!("-n {switch} link add {device} type veth peer name {END} netns 1"),
            format!("-n {switch} link set {device} master {SWITCH} up"),
        ])
    }

    /// From inside, once it is laid.
    pub fn plug_in(&self) -> Result<(), String> {
        each(&[
            "link set lo up".into(),
            format!("addr add {}/{BITS} dev {END}", self.address),
            format!("link set {END} up"),
        ])
    }
}

fn hash(text: &str) -> String {
    hex::encode(sha2::Sha256::digest(text))
}

/// Every address of the host: device, address, bits of its network.
fn addresses() -> Result<Vec<(String, Ipv4Addr, u32)>, String> {
    #[derive(Deserialize)]
    struct Device {
        #[serde(default)]
        ifname: String,
        #[serde(default)]
        addr_info: Vec<Address>,
    }
    #[derive(Deserialize)]
    struct Address {
        local: Option<Ipv4Addr>,
        prefixlen: u32,
    }
    let said = run(&["-4", "-j", "addr", "show"])?;
    let devices: Vec<Device> =
        serde_json::from_str(&said).map_err(|error| format!("cannot read what `ip addr` says: {error}"))?;
    let all = devices.into_iter().flat_map(|device| {
        let name = device.ifname;
        device.addr_info.into_iter().filter_map(move |a| Some((name.clone(), a.local?, a.prefixlen)))
    });
    Ok(all.collect())
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run(arguments).map(drop)
}

/// One after the other. All words are our own: names of hexadecimal digits, validated names of environments, addresses.
fn each(lines: &[String]) -> Result<(), String> {
    lines.iter().try_for_each(|line| ip(&line.split(' ').collect::<Vec<_>>()))
}

fn run(arguments: &[&str]) -> Result<String, String> {
    let failed = |why: String| format!("`ip {}`: {why}", arguments.join(" "));
    let said = Command::new("ip")
        .args(arguments)
        .env_clear()
        .env("PATH", super::shim::PATH)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    match said.status.success() {
        true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
        false => Err(failed(String::from_utf8_lossy(&said.stderr).trim().chars().take(200).collect())),
    }
}

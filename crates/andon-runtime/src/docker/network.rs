//! A network for each environment, and addresses in it. Which address an instance has is decided before it exists, and recorded.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use andon_model::EnvironmentName;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use sha2::Digest as _;

use super::engine::or_absent;
use super::{DockerRuntime, label, lock};
use crate::error::RuntimeError;

/// Where networks of ours lie: 10.213.0.0/16 and the next, 256 addresses each. Chosen because neither Docker nor common clouds hand it
/// out by default; what is in use on this host is left alone.
const FROM: u32 = u32::from_be_bytes([10, 213, 0, 0]);
const NETWORKS: u32 = 512;
const SIZE: u32 = 256;
/// The first address that an instance gets: the gateway has the one before.
const FIRST: u32 = 2;

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    from: u32,
    size: u64,
}

impl Block {
    fn of(cidr: &str) -> Option<Block> {
        let (ip, bits) = cidr.split_once('/')?;
        let (ip, bits) = (u32::from(ip.parse::<Ipv4Addr>().ok()?), bits.parse::<u32>().ok()?);
        let size = 1_u64 << 32_u32.checked_sub(bits)?;
        Some(Block { from: (u64::from(ip) / size * size) as u32, size })
    }

    fn overlaps(self, other: Block) -> bool {
        let end = |block: Block| u64::from(block.from) + block.size;
        u64::from(self.from) < end(other) && u64::from(other.from) < end(self)
    }

    fn around(ip: Ipv4Addr) -> Block {
        Block { from: u32::from(ip) / SIZE * SIZE, size: u64::from(SIZE) }
    }

    fn cidr(self) -> String {
        format!("{}/24", Ipv4Addr::from(self.from))
    }

    fn address(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.from + number)
    }
}

/// Blocks of the host's own routes: `/proc/net/route` holds destination and mask in hexadecimal, lowest byte first.
fn routed(table: &str) -> Vec<Block> {
    let block = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let number = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::swap_bytes);
        let from = number(fields.next()?)?;
        let mask = number(fields.nth(5)?)?;
        // The way out of the host is no network of its own.
        (mask != 0).then(|| Block { from, size: 1 << mask.trailing_zeros() })
    };
    table.lines().skip(1).filter_map(block).collect()
}

/// Free blocks, from a place that the environment's name chooses: two servers rarely try the same one.
fn candidates(name: &str, taken: &[Block]) -> impl Iterator<Item = Block> {
    let sum = sha2::Sha256::digest(name.as_bytes());
    let start = u32::from_be_bytes([0, 0, sum[0], sum[1]]) % NETWORKS;
    (0..NETWORKS)
        .map(move |offset| (start + offset) % NETWORKS)
        .map(|number| Block { from: FROM + number * SIZE, size: u64::from(SIZE) })
        .filter(|block| !taken.iter().any(|other| other.overlaps(*block)))
}

impl DockerRuntime {
    /// The name of an environment's network.
    pub(super) fn network(&self, environment: &EnvironmentName) -> String {
        format!("andon-{}-{}-{environment}", self.server, self.project)
    }

    /// An address that nobody has, in a network that is made if it is not there.
    pub(super) fn free_address(
        &self,
        environment: &EnvironmentName,
        taken: &BTreeSet<Ipv4Addr>,
    ) -> Result<Ipv4Addr, RuntimeError> {
        if self.about()?.rootless {
            return Err(RuntimeError::Engine {
                what: "give an address that can be reached",
                why: "it runs without root, its networks end inside of it".into(),
            });
        }
        let block = self.link(environment, None)?;
        let mut taken = taken.clone();
        taken.extend(self.addresses(environment)?);
        let last = SIZE - 1;
        let free = (FIRST..last).map(|number| block.address(number)).find(|ip| !taken.contains(ip));
        free.ok_or_else(|| RuntimeError::Engine {
            what: "give an address",
            why: format!("all {} of {environment}'s network are in use", last - FIRST),
        })
    }

    /// Makes the network unless it is there. `at` is an address that it has to hold.
    pub(super) fn link_for(
        &self,
        environment: &EnvironmentName,
        at: Option<IpAddr>,
    ) -> Result<String, RuntimeError> {
        let at = match at {
            Some(IpAddr::V4(ip)) => Some(Block::around(ip)),
            _ => None,
        };
        self.link(environment, at)?;
        Ok(self.network(environment))
    }

    fn link(&self, environment: &EnvironmentName, want: Option<Block>) -> Result<Block, RuntimeError> {
        let _turn = lock(&self.linking);
        let name = self.network(environment);
        if let Some(block) = self.block_of(&name)? {
            return Ok(block);
        }
        let taken = match want {
            Some(_) => Vec::new(),
            None => self.taken()?,
        };
        let mut refused = None;
        let choice: Vec<Block> = match want {
            Some(block) => vec![block],
            None => candidates(&name, &taken).take(16).collect(),
        };
        for block in choice {
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".into()),
                ipam: Some(Ipam {
                    config: Some(vec![IpamConfig { subnet: Some(block.cidr()), ..IpamConfig::default() }]),
                    ..Ipam::default()
                }),
                labels: Some(
                    [
                        (label::SERVER, self.server.as_str()),
                        (label::PROJECT, self.project.as_str()),
                        (label::ENVIRONMENT, environment.as_str()),
                    ]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                ),
                ..NetworkCreateRequest::default()
            };
            let made = self
                .engine
                .try_ask("make a network", |docker| async move { docker.create_network(request).await })?;
            match made {
                Ok(_) => return Ok(block),
                // Another server took the block at the same moment: the next one.
                Err(failure) if failure.why.contains("overlap") => refused = Some(failure),
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(refused.map_or_else(
            || RuntimeError::Engine {
                what: "make a network",
                why: "every block of 10.213.0.0/15 is in use on this host".into(),
            },
            RuntimeError::from,
        ))
    }

    fn block_of(&self, name: &str) -> Result<Option<Block>, RuntimeError> {
        let asked = name.to_owned();
        let found = self.engine.try_ask("look at a network", |docker| async move {
            docker.inspect_network(&asked, None).await
        })?;
        let Some(found) = or_absent(found)? else { return Ok(None) };
        let subnets = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        let block = subnets.iter().find_map(|config| Block::of(config.subnet.as_deref()?));
        block.map(Some).ok_or_else(|| RuntimeError::Engine {
            what: "use a network",
            why: format!("{name} has no IPv4 addresses: somebody changed it; remove it"),
        })
    }

    /// Blocks in use on this host.
    fn taken(&self) -> Result<Vec<Block>, RuntimeError> {
        let found =
            self.engine.ask("list networks", |docker| async move { docker.list_networks(None).await })?;
        let subnets = found.into_iter().filter_map(|network| network.ipam?.config).flatten();
        let mut taken: Vec<Block> = subnets.filter_map(|config| Block::of(&config.subnet?)).collect();
        taken.extend(routed(&std::fs::read_to_string("/proc/net/route").unwrap_or_default()));
        Ok(taken)
    }

    /// Removes the network. One that is not there is as good.
    pub(super) fn unlink(&self, environment: &EnvironmentName) -> Result<(), RuntimeError> {
        let _turn = lock(&self.linking);
        let name = self.network(environment);
        let removed = self
            .engine
            .try_ask("remove a network", |docker| async move { docker.remove_network(&name).await })?;
        or_absent(removed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_anything_on_the_host_uses_is_not_taken() {
        let name = "andon-1-shop-staging";
        let first = candidates(name, &[]).next().unwrap();
        let host = Block::of(&first.cidr()).unwrap();
        let second = candidates(name, &[host]).next().unwrap();
        assert_ne!(first, second);
        let half = [Block::of("10.213.0.0/16").unwrap()];
        assert!(candidates(name, &half).all(|block| block.cidr().starts_with("10.214.")));
        assert_eq!(candidates(name, &half).count(), 256);
        assert_eq!(candidates(name, &[Block::of("10.0.0.0/8").unwrap()]).count(), 0);
    }

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                     eth0 00000000 0102000A 0003 0 0 0 00000000 0 0 0\n\
                     br0 0005D50A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
                     broken\n";
        assert_eq!(routed(table), [Block::of("10.213.5.0/24").unwrap()]);
    }

    #[test]
    fn a_network_is_made_again_where_a_recorded_address_lies() {
        let block = Block::around(Ipv4Addr::new(10, 213, 7, 9));
        assert_eq!(
            (block.cidr().as_str(), block.address(2)),
            ("10.213.7.0/24", Ipv4Addr::new(10, 213, 7, 2))
        );
    }
}

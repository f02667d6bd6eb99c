//! Pairs of veth interfaces between namespaces.

use std::fmt;

use anyhow::{Context as _, Result};

use crate::{netns::Namespace, shell};

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One end of a pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace that it is in.
    pub netns: &'a Namespace,
    /// Its name there, 15 characters at most.
    pub device: &'a str,
    /// Its MAC address.
    pub mac: Mac,
}

/// Makes a pair of interfaces, both up, whose frames are whole: checksums finished, none above the MTU.
///
/// # Errors
/// Where `ip` or `ethtool` refuse.
pub fn connect(one: End<'_>, other: End<'_>) -> Result<()> {
    one.netns.ip(&format!(
        "link add {} address {} type veth peer name {} address {} netns {}",
        one.device,
        one.mac,
        other.device,
        other.mac,
        other.netns.name()
    ))?;
    for end in [one, other] {
        offloads_off(end.netns, end.device)?;
        end.netns.ip(&format!("link set {} up", end.device))?;
    }
    Ok(())
}

/// Makes the stack finish checksums and cut segments itself, and leave what it receives as it is.
///
/// Attaching XDP to a veth interface turns GRO on again: call this after it.
///
/// # Errors
/// Where `ethtool` refuses.
pub fn offloads_off(netns: &Namespace, device: &str) -> Result<()> {
    let settings = "tx off rx off sg off tso off gso off gro off";
    shell::run(netns.command("ethtool").args(["-K", device]).args(settings.split(' ')))
        .map(drop)
        .with_context(|| format!("offloads of {device} in namespace {}", netns.name()))
}

/// Adds an address, `10.0.0.1/24` or `2001:db8::1/64`, that may be used at once.
///
/// # Errors
/// Where `ip` refuses.
pub fn add_address(netns: &Namespace, device: &str, address: &str) -> Result<()> {
    let nodad = if address.contains(':') { " nodad" } else { "" };
    netns.ip(&format!("address add dev {device} {address}{nodad}")).map(drop)
}

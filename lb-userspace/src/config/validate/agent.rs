//! `[agent]`.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;

use super::address;
use crate::{
    config::{
        entry::{AgentEntry, InterfaceEntry},
        error::{Problem, Problems, Scope},
    },
    model::{AgentSettings, AttachMode, InterfaceSettings},
};

/// A Unix socket's path must fit into `sockaddr_un`, with the zero after it.
const SOCKET_PATH_BYTES: usize = 107;
/// An interface's name must fit into `IFNAMSIZ`, with the zero after it.
const INTERFACE_NAME_BYTES: usize = 15;
/// The data plane names a source address by one byte, and 0 is none.
const SOURCE_ADDRESSES: usize = 255;

/// The settings, the defaults filled in. Where there were problems, it is not to be used.
pub(super) fn validate(entry: &AgentEntry, problems: &mut Problems) -> AgentSettings {
    let scope = Scope::section("agent");
    let path = |field: &str, given: &Option<String>, default: &str| {
        absolute(field, given.as_deref().unwrap_or(default), &scope)
    };
    let socket = path("socket", &entry.socket, AgentSettings::DEFAULT_SOCKET).and_then(|socket| {
        let bytes = socket.as_os_str().len();
        let message = || {
            format!(
                "socket is {bytes} bytes long, and a Unix socket's path holds {SOCKET_PATH_BYTES}: use \
                a shorter one"
            )
        };
        if bytes > SOCKET_PATH_BYTES { Err(scope.problem("socket", message())) } else { Ok(socket) }
    });
    let state_dir = path("state_dir", &entry.state_dir, AgentSettings::DEFAULT_STATE_DIR);
    let pin_dir = path("pin_dir", &entry.pin_dir, AgentSettings::DEFAULT_PIN_DIR);
    AgentSettings {
        interfaces: interfaces(&entry.interfaces, &scope, problems),
        socket: problems.keep(socket).unwrap_or_default(),
        state_dir: problems.keep(state_dir).unwrap_or_default(),
        pin_dir: problems.keep(pin_dir).unwrap_or_default(),
        source_addresses: source_addresses(&entry.source_addresses, &scope, problems),
        ipip_sources: ipip_sources(&entry.ipip_sources, &scope, problems),
        debug_packets: entry.debug_packets.unwrap_or(false),
    }
}

fn absolute(field: &str, path: &str, scope: &Scope) -> Result<PathBuf, Problem> {
    if !path.starts_with('/') {
        let message = format!("{field} = {path:?} is not an absolute path: begin it with /");
        return Err(scope.problem(field, message));
    }
    if path.chars().any(char::is_control) {
        let message = format!("{field} = {path:?} has control characters in it: leave them out");
        return Err(scope.problem(field, message));
    }
    Ok(path.into())
}

fn interfaces(entries: &[InterfaceEntry], scope: &Scope, problems: &mut Problems) -> Vec<InterfaceSettings> {
    let mut interfaces: Vec<InterfaceSettings> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let (name, mode) = match entry {
            InterfaceEntry::Name(name) => (name, AttachMode::default()),
            InterfaceEntry::Table(table) => (&table.name, table.mode),
        };
        let refused = if interfaces.iter().any(|other| other.name == *name) {
            Some("is there twice: name every interface once".to_owned())
        } else {
            interface_name_fault(name)
        };
        match refused {
            Some(reason) => {
                let part = scope.part("interfaces", ["interfaces".into(), index.into()]);
                problems.push(part.problem("", format!("{name:?} {reason}")));
            }
            None => interfaces.push(InterfaceSettings { name: name.clone(), mode }),
        }
    }
    interfaces
}

/// Why the kernel would not take `name` for an interface (`dev_valid_name` in net/core/dev.c).
fn interface_name_fault(name: &str) -> Option<String> {
    if name.len() > INTERFACE_NAME_BYTES {
        return Some(format!(
            "is {} bytes long, and an interface's name holds {INTERFACE_NAME_BYTES}: give it as `ip link` \
             shows it",
            name.len()
        ));
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    let valid = !name.is_empty() && name != "." && name != ".." && !name.contains(odd);
    (!valid).then(|| "is not an interface's name: give it as `ip link` shows it".to_owned())
}

fn source_addresses(texts: &[String], scope: &Scope, problems: &mut Problems) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let part = scope.part("source_addresses", ["source_addresses".into(), index.into()]);
        let Some(address) = problems.keep(address::unicast(text, "", &part)) else { continue };
        if addresses.contains(&address) {
            problems.push(part.problem("", format!("{text:?} is there twice: name every address once")));
        } else {
            addresses.push(address);
        }
    }
    for (version, count) in [
        ("IPv4", addresses.iter().filter(|address| address.is_ipv4()).count()),
        ("IPv6", addresses.iter().filter(|address| address.is_ipv6()).count()),
    ] {
        if count > SOURCE_ADDRESSES {
            let message =
                format!("source_addresses has {count} {version} addresses: give at most {SOURCE_ADDRESSES}");
            problems.push(scope.problem("source_addresses", message));
        }
    }
    addresses
}

fn ipip_sources(texts: &[String], scope: &Scope, problems: &mut Problems) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let part = scope.part("ipip_sources", ["ipip_sources".into(), index.into()]);
        let network = source_network(text).and_then(|network| {
            let same = networks.iter().find(|other| other.addr().is_ipv4() == network.addr().is_ipv4());
            same.map_or(Ok(network), |other| {
                Err(format!("is a second one of its IP version beside \"{other}\": give one of each"))
            })
        });
        match network {
            Ok(network) => networks.push(network),
            Err(reason) => problems.push(part.problem("", format!("{text:?} {reason}"))),
        }
    }
    networks
}

/// A network that flows can be told apart by: its address is its first, and IPv6's last eight bytes alone may vary.
fn source_network(text: &str) -> Result<IpNet, String> {
    let network: IpNet = text
        .parse()
        .map_err(|_| "is not a network: write it like \"10.99.0.0/16\" or \"fd00:99::/64\"".to_owned())?;
    if network.trunc() != network {
        return Err(format!("is an address in a network: write \"{}\"", network.trunc()));
    }
    let least = if network.addr().is_ipv4() { 8 } else { 64 };
    if network.prefix_len() < least {
        return Err(format!("is too large: use a prefix of {least} bits or more"));
    }
    let is_special = match network.addr() {
        IpAddr::V4(v4) => v4.octets()[0] >= 240 || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    let address = network.addr();
    if is_special || address.is_multicast() || address.is_loopback() || address.is_unspecified() {
        return Err("holds no addresses that hosts send from: give one of your own".to_owned());
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::source_network;

    #[test]
    fn networks_that_packets_can_come_from_are_taken() {
        for text in ["10.99.0.0/16", "10.0.0.0/8", "192.0.2.1/32", "fd00:99::/64", "2001:db8::1/128"] {
            assert_eq!(source_network(text).map(|network| network.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn others_are_refused_with_the_way_out() {
        for (text, words) in [
            ("10.99.0.0", "is not a network: write it like"),
            ("10.99.0.1/16", "is an address in a network: write \"10.99.0.0/16\""),
            ("10.0.0.0/7", "is too large: use a prefix of 8 bits or more"),
            ("fd00::/48", "is too large: use a prefix of 64 bits or more"),
            ("127.0.0.0/8", "holds no addresses that hosts send from"),
            ("240.0.0.0/8", "holds no addresses that hosts send from"),
            ("fe80::/64", "holds no addresses that hosts send from"),
            ("::ffff:10.0.0.0/104", "holds no addresses that hosts send from"),
            ("ff02::/64", "holds no addresses that hosts send from"),
        ] {
            let error = source_network(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}

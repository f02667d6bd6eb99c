//! `[agent]`.

use std::{net::IpAddr, path::PathBuf};

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

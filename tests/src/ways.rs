//! Every mode on both IP versions: for what must hold whichever way packets go.

use std::net::SocketAddr;

use anyhow::Result;

use crate::{
    config::service,
    servers::Server,
    topology::{Host, Topology},
};

/// A service, and with it one way through Flowgate.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// The service's name.
    pub name: &'static str,
    /// `full-nat` or `dsr`, as the file spells it.
    pub mode: &'static str,
    /// Whether it is of IPv6.
    pub v6: bool,
}

/// All of them.
pub const WAYS: [Way; 4] = [
    Way { name: "nat4", mode: "full-nat", v6: false },
    Way { name: "nat6", mode: "full-nat", v6: true },
    Way { name: "dsr4", mode: "dsr", v6: false },
    Way { name: "dsr6", mode: "dsr", v6: true },
];

impl Way {
    /// What clients connect to.
    #[must_use]
    pub fn target(&self, net: &Topology) -> SocketAddr {
        let addresses = if self.mode == "dsr" { net.dsr_service } else { net.service };
        if self.v6 { addresses.v6(80) } else { addresses.v4(80) }
    }

    /// A backend, as the file and the command line name it: full-nat rewrites the port on the way, dsr cannot.
    #[must_use]
    pub fn backend(&self, host: &Host) -> SocketAddr {
        let port = if self.mode == "dsr" { 80 } else { 8080 };
        if self.v6 { host.addresses.v6(port) } else { host.addresses.v4(port) }
    }

    /// Its section of the file with every backend, and with `options`, a line each.
    #[must_use]
    pub fn section(&self, net: &Topology, health: &str, options: &str) -> String {
        let backends: Vec<_> = net.backends.iter().map(|host| self.backend(host)).collect();
        let text = service(self.name, self.target(net), "tcp", self.mode, health, &backends);
        text.replacen("[[service.backend]]", &format!("{options}\n[[service.backend]]"), 1)
    }
}

/// The sections of all of them.
#[must_use]
pub fn sections(net: &Topology, health: &str, options: &str) -> String {
    WAYS.iter().map(|way| way.section(net, health, options)).collect()
}

/// An HTTP server for each port of each backend, named as the backend.
///
/// # Errors
/// Where a port is taken.
pub fn serve_http(net: &Topology) -> Result<Vec<Server>> {
    let mut servers = net.serve_http(8080)?;
    servers.extend(net.serve_http(80)?);
    Ok(servers)
}

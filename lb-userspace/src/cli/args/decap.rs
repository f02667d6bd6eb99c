//! `flowgate decap`.

use std::{net::IpAddr, time::Duration};

use clap::Args;
use ipnet::IpNet;

use super::client::Output;
use crate::model::AttachMode;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  flowgate decap --interface eth0 --mode gue --from 10.2.0.1
  flowgate decap --interface eth0 --mode ipip --from 10.9.0.0/16 --from fd00::1
  flowgate decap --interface eth0 --mode gue --from 10.2.0.0/24 --every 10s

Runs on the machine of a backend, as root, until Ctrl-C or SIGTERM; no agent
is needed there. The machine has the service's address on its loopback, so
that it takes what comes out:

  ip address add 10.1.0.10/32 dev lo

Packets of other tunnels, and from elsewhere than --from, are the kernel's.";

const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(24 * 3600);

/// `flowgate decap`.
#[derive(Debug, Args)]
pub(crate) struct DecapArgs {
    /// The interface that the balancer's packets come in by
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) interface: String,
    /// The service's mode
    #[arg(long, value_enum)]
    pub(crate) mode: DecapMode,
    /// gue: the service's tunnel_port [default: 6080]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// An address or a network that balancers send from; may be given several times
    #[arg(long, value_name = "NETWORK", required = true, value_parser = network)]
    pub(crate) from: Vec<IpNet>,
    /// How the program is attached: in the driver, in the kernel's stack, or the former where that works
    #[arg(long, value_enum, value_name = "HOW", default_value_t = AttachMode::Auto)]
    pub(crate) attach: AttachMode,
    /// Print the counters this often, not only at the end
    #[arg(long, value_name = "DURATION", value_parser = every)]
    pub(crate) every: Option<Duration>,
    /// How the counters are printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// What is taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DecapMode {
    /// IP in IP
    Ipip,
    /// IP in UDP
    Gue,
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        "not an address or a network: write it like 10.2.0.1, 10.2.0.0/24 or 2001:db8::/64".to_owned()
    })?;
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(format!("an address in a network: write {} or {}", network.trunc(), network.addr()))
    }
}

fn every(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(every) if (EVERY_MIN..=EVERY_MAX).contains(&every) => Ok(every),
        Ok(_) => Err("out of range: use 1s to 24h".to_owned()),
        Err(error) => Err(format!("{error}: write it with its unit, for example 10s")),
    }
}

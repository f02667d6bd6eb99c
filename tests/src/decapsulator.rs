//! `flowgate decap` on a host.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;

use crate::{agent::binary, netns::Namespace, process::Process, wait::wait_until};

/// Starts one on `eth0` and waits until it is attached; `from` are addresses or networks. It prints its counters as JSON
/// when it ends.
///
/// # Errors
/// Where it does not start.
pub fn start(netns: &Namespace, mode: &str, from: &[&str]) -> Result<Process> {
    let mut command = netns.command(binary()?);
    command.args(["decap", "--interface", "eth0", "--mode", mode, "--output", "json"]);
    command.args(from.iter().flat_map(|network| ["--from", network]));
    let process = Process::spawn(command, "flowgate decap")?;
    wait_until("the decapsulator is attached", Duration::from_secs(10), || {
        process.log().contains("decapsulating")
    })?;
    Ok(process)
}

/// The same for packets from these addresses.
///
/// # Errors
/// Where it does not start.
pub fn start_for(netns: &Namespace, mode: &str, from: [IpAddr; 2]) -> Result<Process> {
    let [v4, v6] = from.map(|address| address.to_string());
    start(netns, mode, &[&v4, &v6])
}

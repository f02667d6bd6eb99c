//! What Flowgate's tests on a real kernel, and its demo, are made of.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`netns`], [`process`] | network namespaces, threads and programs in them |
//! | [`topology`] | client, balancer and backends wired together, one-armed or two-armed |
//! | [`ways`] | a service for every mode and IP version |
//! | [`servers`] | the backends' servers: HTTP, TCP echo, UDP echo |
//! | [`load`], [`long_lived`], [`http`] | clients that record what became of each request |
//! | [`agent`], [`decapsulator`] | Flowgate's agent and command line in a namespace; `flowgate decap` |
//! | [`dataplane`] | the real data plane, asked packet by packet, with a ledger of its counters |
//! | [`packets`], [`tunnel`], [`checksums`], [`wire`] | frames made and taken apart by hand, sent and captured |
//! | [`cpu`] | threads on a CPU of their own |
//! | [`xdp`] | small XDP programs assembled by hand |
//! | [`cleanup`], [`sweep`] | nothing is left behind: by drop, by Ctrl-C, and after a SIGKILL |
//!
//! Everything here needs root, and fails without it: a test that skips itself proves nothing.
//!
//! ```no_run
//! use harness::{agent::{Agent, Setup}, load::{Load, Plan}, servers::Server, topology::Topology};
//! use std::time::Duration;
//!
//! # fn main() -> anyhow::Result<()> {
//! let net = Topology::one_arm(2)?;
//! let _servers = net.serve_http(8080)?;
//! let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(r#"
//!     [[service]]
//!     name = "web"
//!     address = "10.10.0.100"
//!     port = 80
//!     protocol = "tcp"
//!     health.type = "none"
//!     backend = [{ address = "10.10.0.11", port = 8080 }, { address = "10.10.0.12", port = 8080 }]
//! "#))?;
//! let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
//! std::thread::sleep(Duration::from_secs(2));
//! let report = load.stop();
//! assert_eq!(report.failed, 0, "{report}\n{}", agent.log());
//! # Ok(())
//! # }
//! ```

pub mod agent;
pub mod checksums;
pub mod cleanup;
pub mod config;
pub mod cpu;
pub mod dataplane;
pub mod decapsulator;
pub mod extensions;
pub mod fuzz;
pub mod http;
pub mod link;
pub mod load;
pub mod long_lived;
pub mod netns;
pub mod packets;
pub mod process;
pub mod random;
pub mod scratch;
pub mod servers;
pub mod shell;
pub mod sweep;
pub mod topology;
pub mod tunnel;
pub mod wait;
pub mod ways;
pub mod wire;
pub mod xdp;

//! `flowgate decap`: by this process, for as long as it runs.

use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, interval_at},
};

use crate::{
    cli::{
        args::{DecapArgs, DecapMode},
        failure::Failure,
        render,
        terminal::Terminal,
    },
    datapath::{
        decap::{DecapOptions, Decapsulator},
        load::AttachTarget,
    },
    model::{AttachMode, Service},
    neigh::links,
};

/// What has come in so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DecapReport {
    /// The interface.
    pub(crate) interface: String,
    /// How the program is attached to it.
    pub(crate) attached: AttachMode,
    /// Frames, by what became of them, in the order of the table.
    pub(crate) frames: Vec<DecapCount>,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DecapCount {
    /// What became of them.
    pub(crate) outcome: &'static str,
    /// How many.
    pub(crate) frames: u64,
}

pub(super) async fn run(args: DecapArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let gue_port = match (args.mode, args.port) {
        (DecapMode::Ipip, Some(_)) => {
            return Err(Failure::Usage("--port is for --mode gue: ipip has no ports".to_owned()));
        }
        (DecapMode::Ipip, None) => None,
        (DecapMode::Gue, port) => Some(port.unwrap_or(Service::DEFAULT_TUNNEL_PORT)),
    };
    let (mut interrupted, mut terminated) = (
        signal(SignalKind::interrupt()).map_err(|error| failed(&error))?,
        signal(SignalKind::terminate()).map_err(|error| failed(&error))?,
    );
    // Followed before it is looked at, so that nothing is missed in between.
    let mut events = links::watch().map_err(|error| failed(&error))?;
    let target = target_of(&args).await?;
    let options = DecapOptions { gue_port, sources: args.from.clone() };
    let mut decapsulator = Decapsulator::load(&options).map_err(|error| failed(&error))?;
    let attached = decapsulator.attach(&target).map_err(|error| failed(&error))?;
    terminal.note(&said(&args, gue_port, attached))?;
    let report = || -> Result<DecapReport, Failure> {
        let counters = decapsulator.counters().map_err(|error| failed(&error))?;
        let count = |(outcome, frames): (lb_common::decap::DecapOutcome, u64)| DecapCount {
            outcome: outcome.label(),
            frames,
        };
        let frames = counters.into_iter().map(count).collect();
        Ok(DecapReport { interface: args.interface.clone(), attached, frames })
    };
    let forever = std::time::Duration::from_secs(u64::from(u32::MAX));
    let every = args.every.unwrap_or(forever);
    let mut ticks = interval_at(Instant::now() + every, every);
    loop {
        tokio::select! {
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
            _ = ticks.tick() => terminal.answer(args.output, &report()?, render::decap)?,
            event = events.recv() => {
                if event.is_some_and(|event| event.gone && event.index == target.index) {
                    terminal.answer(args.output, &report()?, render::decap)?;
                    let name = &args.interface;
                    return Err(Failure::Failed(format!("interface {name} is gone: start again when it is back")));
                }
            }
        }
    }
    terminal.answer(args.output, &report()?, render::decap)
}

async fn target_of(args: &DecapArgs) -> Result<AttachTarget, Failure> {
    let name = &args.interface;
    let link = links::by_name(name).await.map_err(|error| Failure::Failed(error.to_string()))?;
    let link = link.ok_or_else(|| {
        Failure::Failed(format!("there is no interface {name}: `ip link` shows those that there are"))
    })?;
    let mac = link.mac.ok_or_else(|| {
        Failure::Failed(format!("interface {name} is not an Ethernet interface: give one that is"))
    })?;
    Ok(AttachTarget { name: name.clone(), index: link.index, mac, mtu: link.mtu, mode: args.attach })
}

fn said(args: &DecapArgs, gue_port: Option<u16>, attached: AttachMode) -> String {
    let what = gue_port.map_or("ipip".to_owned(), |port| format!("gue at UDP port {port}"));
    let from: Vec<_> = args.from.iter().map(ToString::to_string).collect();
    format!(
        "decapsulating {what} on {} ({}), from {}; Ctrl-C ends it",
        args.interface,
        attached.as_str(),
        from.join(", ")
    )
}

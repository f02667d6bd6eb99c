//! The daemon's life, from its options to its end.

use std::{path::PathBuf, time::Instant};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};
use tracing::{info, warn};

use super::{
    command::Handle,
    controller::{Controller, End, Inbox},
    facts::Facts,
    interfaces::Interfaces,
    meter::Meter,
    placements::Placements,
    plan::plan,
    reload,
    state::{self, Restored, StateFile},
};
use crate::{
    api::{
        schema::{Finding, Severity},
        server::Server,
    },
    datapath::{
        apply::features_of,
        load::{Datapath, LoadOptions},
        pin::{self, Pins},
    },
    health::{Monitor, probe::Prober},
    model::{AgentSettings, AttachMode, Config, InterfaceSettings},
    neigh::{Resolver, links},
};

/// What `flowgate agent` was started with; what is absent comes from the file, or has its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Interfaces to attach to, in place of the file's.
    pub interfaces: Vec<String>,
    /// The socket of the API, in place of the file's.
    pub socket: Option<PathBuf>,
    /// Where services made on the command line are kept, in place of the file's.
    pub state_dir: Option<PathBuf>,
    /// Where maps, programs and links are pinned, in place of the file's.
    pub pin_dir: Option<PathBuf>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Whether every packet's fate is written to the log.
    pub debug_packets: bool,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub fn run(options: AgentOptions) -> anyhow::Result<()> {
    let (config, file_settings) = configure(&options)?;
    log_to_stderr(options.log_format, config.agent.debug_packets);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(options.config, config, file_settings))
}

/// The configuration with the options' settings in place of the file's, and the file's own.
fn configure(options: &AgentOptions) -> anyhow::Result<(Config, AgentSettings)> {
    let mut config = match &options.config {
        Some(path) => reload::read(path).map_err(anyhow::Error::msg)?,
        None => Config::default(),
    };
    let file_settings = config.agent.clone();
    let agent = &mut config.agent;
    if !options.interfaces.is_empty() {
        let settings = |name: &String| InterfaceSettings { name: name.clone(), mode: AttachMode::Auto };
        agent.interfaces = options.interfaces.iter().map(settings).collect();
    }
    agent.socket = options.socket.clone().unwrap_or_else(|| agent.socket.clone());
    agent.state_dir = options.state_dir.clone().unwrap_or_else(|| agent.state_dir.clone());
    agent.pin_dir = options.pin_dir.clone().unwrap_or_else(|| agent.pin_dir.clone());
    agent.debug_packets |= options.debug_packets;
    anyhow::ensure!(
        !agent.interfaces.is_empty(),
        "no interface to attach to: set interfaces = [\"eth0\"] in [agent], or give --interface eth0"
    );
    Ok((config, file_settings))
}

fn log_to_stderr(format: LogFormat, debug_packets: bool) {
    use std::io::IsTerminal as _;
    let default = if debug_packets { "info,flowgate_ebpf=debug" } else { "info" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLOWGATE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A logger that is there already is the test's that runs this.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

async fn serve(
    config_path: Option<PathBuf>,
    config: Config,
    file_settings: AgentSettings,
) -> anyhow::Result<()> {
    // First of all: the lock on the socket is what keeps a second agent from these maps.
    let server = Server::bind(&config.agent.socket).await?;
    let (reloads, stop) = signals()?;
    let (restored, mut warnings) = restore(&config)?;
    let links_found = Interfaces::find(&config.agent.interfaces).await?;

    let pins = Pins::new(&config.agent.pin_dir);
    let _lock = pins.lock()?;
    let (limits, debug_packets) = (config.limits, config.agent.debug_packets);
    let features = features_of(&plan(&restored.desired, &Facts::default(), &Placements::default()));
    let options = LoadOptions { pins, limits, debug_packets, features };
    let mut datapath = Datapath::open(options)?;
    info!(adopted = datapath.adopted, pin_dir = %config.agent.pin_dir.display(), "data plane ready");
    warnings.extend(datapath.differs_from(&config.limits).then(other_limits));
    let attached = Interfaces::attach_all(&mut datapath, &config.agent.interfaces, &links_found);
    if attached.is_err() && !datapath.adopted {
        // A start that has failed leaves nothing for the next one to adopt.
        pin::detach(&config.agent.pin_dir, false)?;
    }
    let interfaces = attached?;
    let facts = Facts::new(interfaces.slots(), &config.agent);

    let (monitor, health) = Monitor::spawn(Prober::default());
    let (resolver, next_hops) =
        Resolver::spawn().context("cannot follow the kernel's routes and neighbours")?;
    let links = links::watch().context("cannot follow the kernel's interfaces")?;
    let (handle, commands) = Handle::new();
    let controller = Controller {
        limits: config.limits,
        config_path,
        file_settings,
        desired: restored.desired,
        left_out: restored.left_out,
        warnings,
        datapath,
        interfaces,
        facts,
        placements: Placements::default(),
        explainer: None,
        meter: Meter::default(),
        started: Instant::now(),
        fits_since: Instant::now(),
        standings: std::collections::HashMap::new(),
        apply_problem: None,
        monitor,
        resolver,
        settled: false,
        settings: config.agent,
    };
    let inbox = Inbox { commands, health, next_hops, links, reloads, stop };

    let (stop_serving, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(handle, async move {
        let _ = stopped.await;
    }));
    let end = controller.run(inbox).await;
    // Whoever would hear it has ended already.
    let _ = stop_serving.send(());
    serving.await.context("the API has failed")?.context("the API has failed")?;
    match end {
        End::Stopped => info!("stopped"),
        End::Detached => info!("detached and stopped"),
    }
    Ok(())
}

fn other_limits() -> Finding {
    Finding {
        severity: Severity::Warning,
        subject: "limits".to_owned(),
        message: "the data plane that runs was made with others, and keeps them".to_owned(),
        hint: "`flowgate detach` and start the agent again: all flows are forgotten then".to_owned(),
    }
}

/// What the command line had made and overridden, put beside what the file declares.
fn restore(config: &Config) -> anyhow::Result<(Restored, Vec<Finding>)> {
    let warning = |message: String, hint: &str| {
        warn!(message, "state directory");
        Finding {
            severity: Severity::Warning,
            subject: format!("state directory {}", config.agent.state_dir.display()),
            message,
            hint: hint.to_owned(),
        }
    };
    let mut warnings = Vec::new();
    let file = match state::load(&config.agent.state_dir)? {
        Some(loaded) => {
            warnings.extend(
                loaded.warning.map(|text| warning(text, "look at what is missing, and add it again")),
            );
            loaded.state
        }
        None => StateFile::of(&crate::model::Desired::default(), &[]),
    };
    let restored = file.restore(config.services.clone(), &config.limits)?;
    for text in &restored.warnings {
        warnings.push(warning(text.clone(), "change the file, or remove the service and add it again"));
    }
    Ok((restored, warnings))
}

fn signals() -> anyhow::Result<(mpsc::Receiver<()>, mpsc::Receiver<&'static str>)> {
    let (reload, reloads) = mpsc::channel(1);
    let (stop, stops) = mpsc::channel(1);
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            let sent = tokio::select! {
                _ = hangup.recv() => reload.send(()).await.is_ok(),
                _ = terminate.recv() => stop.send("SIGTERM").await.is_ok(),
                _ = interrupt.recv() => stop.send("SIGINT").await.is_ok(),
            };
            if !sent {
                break;
            }
        }
    });
    Ok((reloads, stops))
}

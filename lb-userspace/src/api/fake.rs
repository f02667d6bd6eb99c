//! For tests: an agent that answers on a socket of its own from fixed data, and remembers what it was asked.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    client::Client,
    schema::flows::{FlowCount, FlowGroup, FlowList, FlowRow, Lookup, LookupService},
    schema::{
        AgentStatus, BackendRow, BackendShift, Changed, ConfigDiff, Finding, FlowTotals, InterfaceStatus,
        NextHopView, PacketTotals, Rates, ReasonRow, ServiceDetail, ServiceOptions, ServiceRow, ServiceShift,
        ServiceTotals, Severity, Stats, Status, TableRow,
    },
    server::Server,
};
use crate::{
    agent::command::{Answer, Command, CommandError, Handle},
    config::entry::{HealthEntry, HealthKind},
    model::{AdminState, AttachMode, FlowState, Health, Mode, Origin, Protocol, Scheduler, ServiceName},
};

/// The file that [`FakeAgent`] answers to `GET /v1/config`.
pub(crate) const CONFIG: &str = "[[service]]\nname = \"web\"\n";

/// An agent without a data plane. It knows the services `web` and `dns`; `conflict` contradicts, `broken` fails,
/// whatever else is not there.
pub(crate) struct FakeAgent {
    pub(crate) socket: PathBuf,
    pub(crate) client: Client,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
    _directory: TempDir,
}

impl FakeAgent {
    pub(crate) async fn start() -> Self {
        Self::with_backends(Vec::new()).await
    }

    /// One whose backend lists are `lists` in turn, the last one again and again.
    pub(crate) async fn with_backends(mut lists: Vec<Vec<BackendRow>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("run/flowgate.sock");
        let (handle, mut commands) = Handle::new();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                let rows = match lists.len() {
                    0 => backends(),
                    1 => lists[0].clone(),
                    _ if matches!(command, Command::BackendList(..)) => lists.remove(0),
                    _ => Vec::new(),
                };
                log.lock().unwrap().push(answer(command, rows));
            }
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::bind(&socket).await.unwrap();
        let serving = tokio::spawn(server.serve(handle, async {
            let _ = stopped.await;
        }));
        let client = Client::new(&socket);
        Self { socket, client, asked, stop: Some(stop), serving, _directory: directory }
    }

    /// What it was asked since the last time, in a word and its arguments.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Stops it as the agent would be, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.stop.take();
        (&mut self.serving).await.unwrap().unwrap();
    }
}

/// Answers, and says what was asked.
fn answer(command: Command, rows: Vec<BackendRow>) -> String {
    match command {
        Command::Status(to) => send(to, Ok(status()), "Status"),
        Command::Stats(to) => send(to, Ok(stats()), "Stats"),
        Command::ServiceList(to) => send(to, Ok(services()), "ServiceList"),
        Command::ServiceShow(name, to) => send(to, known(&name, detail()), format!("ServiceShow {name}")),
        Command::ServiceAdd(entry, to) => {
            let name: ServiceName = entry.name.parse().unwrap();
            let answer = match name.as_str() {
                "web" => Err(CommandError::Conflict("service web is there already".to_owned())),
                "bad" => Err(CommandError::Invalid("address: not an address".to_owned())),
                _ => Ok(changed(&format!("service {name} added"))),
            };
            send(to, answer, format!("ServiceAdd {entry:?}"))
        }
        Command::ServiceSet(name, change, to) => {
            send(to, known(&name, changed("service changed")), format!("ServiceSet {name} {change:?}"))
        }
        Command::ServiceRemove(name, to) => {
            send(to, known(&name, changed("service removed")), format!("ServiceRemove {name}"))
        }
        Command::BackendList(name, to) => {
            let answer = name.as_ref().map_or(Ok(rows.clone()), |name| known(name, rows));
            send(to, answer, format!("BackendList {name:?}"))
        }
        Command::BackendAdd(name, entry, to) => {
            send(to, known(&name, changed("backend added")), format!("BackendAdd {name} {entry:?}"))
        }
        Command::BackendSet(name, backend, change, to) => send(
            to,
            known(&name, changed("backend changed")),
            format!("BackendSet {name} {backend} {change:?}"),
        ),
        Command::BackendsSet(name, change, to) => {
            send(to, known(&name, changed("backends changed")), format!("BackendsSet {name} {change:?}"))
        }
        Command::BackendReset(name, backend, to) => {
            send(to, known(&name, Changed::default()), format!("BackendReset {name} {backend}"))
        }
        Command::BackendRemove(name, backend, to) => {
            send(to, known(&name, changed("backend removed")), format!("BackendRemove {name} {backend}"))
        }
        Command::ConfigReload(to) => send(to, Ok(changed("service web changed")), "ConfigReload"),
        Command::ConfigDiff(text, to) => send(to, Ok(config_diff()), format!("ConfigDiff {text:?}")),
        Command::ConfigShow(to) => send(to, Ok(CONFIG.to_owned()), "ConfigShow"),
        Command::FlowList(query, to) => send(to, Ok(flow_list()), format!("FlowList {query:?}")),
        Command::FlowCount(query, to) => send(to, Ok(flow_count()), format!("FlowCount {query:?}")),
        Command::Lookup(query, to) => send(to, Ok(lookup()), format!("Lookup {query:?}")),
        Command::Detach(to) => send(to, Ok(changed("detached from eth0")), "Detach"),
    }
}

fn send<T>(to: oneshot::Sender<Answer<T>>, answer: Answer<T>, asked: impl Into<String>) -> String {
    let _ = to.send(answer);
    asked.into()
}

fn known<T>(name: &ServiceName, answer: T) -> Answer<T> {
    match name.as_str() {
        "web" | "dns" => Ok(answer),
        "conflict" => Err(CommandError::Conflict("service conflict belongs to lb.toml:3".to_owned())),
        "broken" => Err(CommandError::Failed("the disk is full".to_owned())),
        _ => Err(CommandError::NotFound(format!("there is no service {name}"))),
    }
}

/// A change in one line.
pub(crate) fn changed(line: &str) -> Changed {
    Changed { changes: vec![line.to_owned()] }
}

pub(crate) fn status() -> Status {
    Status {
        agent: AgentStatus {
            version: "0.1.0".to_owned(),
            abi: 1,
            pid: 812,
            uptime_seconds: 11_530,
            adopted: true,
            config: Some("/etc/flowgate/flowgate.toml".to_owned()),
            pin_dir: "/sys/fs/bpf/flowgate".to_owned(),
        },
        interfaces: vec![
            InterfaceStatus {
                name: "eth0".to_owned(),
                index: Some(2),
                attached: Some(AttachMode::Native),
                packets: PacketTotals { forwarded: 1_234_567, passed: 12, answered: 3, dropped: 0 },
            },
            InterfaceStatus {
                name: "eth1".to_owned(),
                index: None,
                attached: None,
                packets: PacketTotals::default(),
            },
        ],
        services: services(),
        findings: vec![Finding {
            severity: Severity::Error,
            subject: "backend web 10.2.0.12:8080".to_owned(),
            message: "down for 3m 12s: connection refused".to_owned(),
            hint: "start the server, or take it out with `flowgate backend disable web 10.2.0.12:8080`"
                .to_owned(),
        }],
    }
}

pub(crate) fn services() -> Vec<ServiceRow> {
    let web = ServiceRow {
        name: "web".parse().unwrap(),
        address: "10.1.0.10".parse().unwrap(),
        port: 80,
        protocol: Protocol::Tcp,
        mode: Mode::FullNat,
        scheduler: Scheduler::Maglev,
        origin: Origin::File { path: "/etc/flowgate/flowgate.toml".into(), line: 12 },
        backends_up: 1,
        backends: 3,
        flows: 1_024,
        totals: FlowTotals {
            packets_in: 1_000_000,
            bytes_in: 64_000_000,
            packets_out: 900_000,
            bytes_out: 1_350_000_000,
            flows: 50_000,
        },
        rates: Rates { packets_per_second: 12_345, bits_per_second: 98_765_432, flows_per_second: 120 },
    };
    let dns = ServiceRow {
        name: "dns".parse().unwrap(),
        address: "2001:db8::53".parse().unwrap(),
        port: 53,
        protocol: Protocol::Udp,
        mode: Mode::Dsr,
        origin: Origin::Cli,
        backends_up: 0,
        backends: 0,
        flows: 0,
        totals: FlowTotals::default(),
        rates: Rates::default(),
        ..web.clone()
    };
    vec![dns, web]
}

pub(crate) fn detail() -> ServiceDetail {
    ServiceDetail {
        row: services().remove(1),
        options: ServiceOptions {
            idle_timeout: Some("5m".to_owned()),
            half_open_timeout: Some("1m".to_owned()),
            closing_timeout: Some("1m".to_owned()),
            ..ServiceOptions::default()
        },
        priorities: vec![0],
        panic: false,
        health_check: HealthEntry {
            kind: HealthKind::Http,
            path: Some("/healthz".to_owned()),
            host: None,
            expect_status: Some("200-399".to_owned()),
            interval: Some("2s".to_owned()),
            timeout: Some("1s".to_owned()),
            rise: Some(2),
            fall: Some(3),
            port: None,
        },
        ring_slots: 1_021,
        backend: backends(),
    }
}

/// Backends of `web`: one up, one down, one draining.
pub(crate) fn backends() -> Vec<BackendRow> {
    let up = BackendRow {
        priority: 0,
        max_flows: None,
        slow_start: 1.0,
        service: "web".parse().unwrap(),
        address: "10.2.0.11".parse().unwrap(),
        port: 8080,
        weight: 10,
        health: Health::Up,
        health_reason: String::new(),
        admin_state: AdminState::Enabled,
        overridden: false,
        active: true,
        share: 1.0,
        next_hop: Some(NextHopView {
            interface: "eth0".to_owned(),
            address: "10.2.0.11".parse().unwrap(),
            mac: "02:00:00:00:00:11".to_owned(),
        }),
        flows: 1_000,
        totals: FlowTotals { packets_in: 900_000, bytes_in: 60_000_000, ..FlowTotals::default() },
        health_since_seconds: 11_000,
    };
    let down = BackendRow {
        address: "10.2.0.12".parse().unwrap(),
        health: Health::Down,
        health_reason: "connection refused".to_owned(),
        active: false,
        share: 0.0,
        next_hop: None,
        flows: 0,
        health_since_seconds: 192,
        ..up.clone()
    };
    let draining = BackendRow {
        address: "10.2.0.13".parse().unwrap(),
        weight: 100,
        admin_state: AdminState::Draining,
        overridden: true,
        active: false,
        share: 0.0,
        flows: 24,
        ..up.clone()
    };
    vec![up, down, draining]
}

/// The address of the backend that is draining.
pub(crate) fn draining() -> SocketAddr {
    "10.2.0.13:8080".parse().unwrap()
}

pub(crate) fn stats() -> Stats {
    let reason = |reason: &str, verdict: &str, packets| ReasonRow {
        interface: "eth0".to_owned(),
        reason: reason.to_owned(),
        verdict: verdict.to_owned(),
        packets,
    };
    Stats {
        reasons: vec![
            reason("forwarded", "forward", 1_234_567),
            reason("not_a_service", "pass", 12),
            reason("no_backend", "drop", 0),
        ],
        tables: vec![
            TableRow { table: "steered".to_owned(), slots: 2_097_152, used: 0 },
            TableRow { table: "translated".to_owned(), slots: 2_097_152, used: 524_288 },
        ],
        services: services()
            .into_iter()
            .map(|row| ServiceTotals { service: row.name, totals: row.totals })
            .collect(),
    }
}

pub(crate) fn config_diff() -> ConfigDiff {
    let backend = |text: &str, share_before, share_after, flows, flows_moved| BackendShift {
        backend: text.parse().unwrap(),
        share_before,
        share_after,
        flows,
        flows_moved,
    };
    ConfigDiff {
        changes: vec!["backend web 10.2.0.12:8080 removed".to_owned()],
        services: vec![ServiceShift {
            service: "web".parse().unwrap(),
            backends: vec![
                backend("10.2.0.11:8080", Some(0.5), Some(1.0), 1000, 0),
                backend("10.2.0.12:8080", Some(0.5), None, 24, 24),
            ],
            flows_moved: 24,
        }],
        flows_moved: 24,
    }
}

pub(crate) fn flow_list() -> FlowList {
    let row = FlowRow {
        service: "web".parse().unwrap(),
        backend: "10.2.0.11:8080".parse().unwrap(),
        client: Some("198.51.100.7:40000".parse().unwrap()),
        source: Some("10.2.0.1:1024".parse().unwrap()),
        state: FlowState::Established,
        idle_seconds: 3,
        forgotten_in_seconds: 297,
    };
    let steered = FlowRow { client: None, source: None, state: FlowState::HalfOpen, ..row.clone() };
    FlowList { flows: vec![row, steered], more: 7, not_compared: 2 }
}

pub(crate) fn flow_count() -> FlowCount {
    let group = |name: &str, flows| FlowGroup { name: name.to_owned(), flows };
    FlowCount {
        flows: 40,
        tables: stats().tables,
        groups: vec![group("198.51.100.0/24", 30), group("203.0.113.0/24", 6)],
        rest: 4,
    }
}

pub(crate) fn lookup() -> Lookup {
    Lookup {
        reason: "forwarded".to_owned(),
        verdict: "forward".to_owned(),
        service: Some(LookupService {
            name: "web".parse().unwrap(),
            mode: Mode::FullNat,
            scheduler: Scheduler::Maglev,
        }),
        flow: None,
        ring_slot: Some((17, 4099)),
        backend: Some("10.2.0.11:8080".parse().unwrap()),
        source: None,
        next_hop: None,
        why: vec!["maglev picks slot 17 of 4099, which is 10.2.0.11:8080's".to_owned()],
    }
}

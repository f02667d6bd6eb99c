//! The stage: machines, servers, Flowgate and its clients.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use harness::{
    agent::{Agent, Setup},
    load::{Load, Plan, Record, Summary},
    long_lived::LongLived,
    servers::Server,
    topology::{Host, Topology},
};

use super::{
    bounds::{DELAYED, FALL, IDLE_TIMEOUT, PROBE_INTERVAL, RISE},
    figures::seconds,
    screen::{Row, Screen},
};

pub(super) const BACKENDS: usize = 4;

/// Where the backends' web servers listen for translated connections.
pub(super) const WEB_PORT: u16 = 8080;
/// Where they listen for connections that arrive as the client sent them.
pub(super) const DIRECT_PORT: u16 = 80;
/// Where their datagram servers listen.
pub(super) const ECHO_PORT: u16 = 5300;

/// One service of the demo.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    protocol: &'static str,
    mode: &'static str,
    backend_port: u16,
}

/// Everything, in the order in which it has to go.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) agent: Agent,
    /// By backend.
    pub(super) servers: Vec<Vec<Server>>,
    pub(super) services: Vec<Service>,
    pub(super) net: Topology,
}

impl Stage {
    /// Sets everything up and waits until Flowgate has found every backend healthy.
    pub(super) fn build(screen: &mut Screen) -> Result<Self> {
        let net = Topology::one_arm(BACKENDS)?;
        let services = services(&net);
        let servers = net.backends.iter().map(start_servers).collect::<Result<_>>()?;
        introduce(&net, &services, screen);
        let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&file(&net, &services)))?;
        let took = agent.wait_until_all_up(Duration::from_secs(15))?;
        screen.event(&format!(
            "Flowgate has attached to the balancer's eth0; after {} every backend was found healthy.",
            seconds(took)
        ));
        Ok(Self { agent, servers, services, net })
    }

    /// The first service, which the parts about single connections are played on.
    pub(super) fn web(&self) -> &Service {
        &self.services[0]
    }

    /// A backend's address within a service.
    pub(super) fn backend_address(&self, service: &Service, backend: usize) -> SocketAddr {
        backend_address(&self.net.backends[backend], service)
    }

    /// Clients of every service, each request on a connection or socket of its own.
    pub(super) fn start_load(&self) -> AllLoad {
        let start = |service: &Service| {
            let plan = if service.protocol == "udp" {
                Plan::udp(service.address)
            } else {
                Plan::http(service.address).timeout(Duration::from_secs(3))
            };
            let plan = plan.workers(2).pause(Duration::from_millis(8));
            (service.name, Load::start(&self.net.client.netns, plan))
        };
        AllLoad { loads: self.services.iter().map(start).collect() }
    }

    /// Connections to the web service that stay open, each asking five times a second.
    pub(super) fn open_long_lived(&self, count: usize) -> Result<LongLived> {
        LongLived::open(&self.net.client.netns, self.web().address, count, Duration::from_millis(200))
    }

    /// Shows the load, a line or a block a second, until `time` is over.
    pub(super) fn watch(&self, load: &AllLoad, screen: &mut Screen, time: Duration) {
        self.watch_with(load, screen, time, |_| Some(String::new()));
    }

    /// [`Stage::watch`], with a remark each second; without one it ends.
    pub(super) fn watch_with(
        &self,
        load: &AllLoad,
        screen: &mut Screen,
        time: Duration,
        mut remark: impl FnMut(&mut Screen) -> Option<String>,
    ) {
        const STEP: Duration = Duration::from_secs(1);
        let backends: Vec<&str> = self.net.backends.iter().map(|host| host.name.as_str()).collect();
        let end = Instant::now() + time;
        let mut from = Instant::now();
        while from < end {
            let to = from + STEP;
            std::thread::sleep(to.saturating_duration_since(Instant::now()));
            let Some(remark) = remark(screen) else { return };
            screen.show(&backends, &load.rows(&backends, from, to), &remark);
            from = to;
        }
    }
}

/// The load on every service.
#[derive(Debug)]
pub(super) struct AllLoad {
    loads: Vec<(&'static str, Load)>,
}

impl AllLoad {
    /// The load on one service.
    pub(super) fn of(&self, service: &str) -> Option<&Load> {
        self.loads.iter().find(|(name, _)| *name == service).map(|(_, load)| load)
    }

    /// Requests of all services that ended since.
    pub(super) fn since(&self, from: Instant) -> Summary {
        sum(self.loads.iter().map(|(_, load)| load.since(from)))
    }

    /// Requests that were begun since and failed or were delayed.
    pub(super) fn disturbed(&self, from: Instant) -> usize {
        self.loads.iter().map(|(_, load)| load.disturbed(from, DELAYED)).sum()
    }

    /// Requests that were delayed and answered in the end, with their services.
    pub(super) fn delayed(&self) -> Vec<(&'static str, Record)> {
        let of = |(name, load): &(&'static str, Load)| {
            let late = |record: &Record| record.outcome.is_ok() && record.is_disturbed(DELAYED);
            let name = *name;
            load.records().into_iter().filter(late).map(move |record| (name, record)).collect::<Vec<_>>()
        };
        self.loads.iter().flat_map(of).collect()
    }

    /// From `from` to the beginning of the last request that failed or was delayed.
    pub(super) fn last_disturbed(&self, from: Instant) -> Option<Duration> {
        let last = self.loads.iter().filter_map(|(_, load)| load.last_disturbed(from, DELAYED));
        last.map(|record| record.begun - from).max()
    }

    /// From `from` until every service has had an answer from `backend`.
    pub(super) fn first_answers_of(&self, backend: &str, from: Instant) -> Option<Duration> {
        let firsts = self.loads.iter().map(|(_, load)| load.first_answer_of(backend, from));
        let times: Option<Vec<Duration>> =
            firsts.map(|record| record.map(|record| record.ended - from)).collect();
        times?.into_iter().max()
    }

    /// Ends it all, and sums up.
    pub(super) fn stop(self) -> Summary {
        sum(self.loads.into_iter().map(|(_, load)| load.stop()))
    }

    fn rows(&self, backends: &[&str], from: Instant, to: Instant) -> Vec<Row> {
        let row = |(name, load): &(&'static str, Load)| {
            let second = load.between(from, to);
            Row {
                service: (*name).to_owned(),
                answered: backends.iter().map(|backend| second.answered_by(backend)).collect(),
                failed: second.failed,
            }
        };
        self.loads.iter().map(row).collect()
    }
}

fn sum(summaries: impl Iterator<Item = Summary>) -> Summary {
    let mut all = Summary::default();
    summaries.for_each(|summary| all.add(&summary));
    all
}

fn services(net: &Topology) -> Vec<Service> {
    let service =
        |name, address, protocol, mode, backend_port| Service { name, address, protocol, mode, backend_port };
    let (translated, direct) = (&net.service, &net.dsr_service);
    vec![
        service("web-v4", translated.v4(80), "tcp", "full-nat", WEB_PORT),
        service("web-v6", translated.v6(80), "tcp", "full-nat", WEB_PORT),
        service("echo-v4", translated.v4(53), "udp", "full-nat", ECHO_PORT),
        service("echo-v6", translated.v6(53), "udp", "full-nat", ECHO_PORT),
        service("direct", direct.v4(DIRECT_PORT), "tcp", "dsr", DIRECT_PORT),
    ]
}

fn start_servers(backend: &Host) -> Result<Vec<Server>> {
    let everywhere = |port| SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
    let (netns, name) = (&backend.netns, backend.name.as_str());
    Ok(vec![
        Server::http(netns, name, everywhere(WEB_PORT))?,
        Server::http(netns, name, everywhere(DIRECT_PORT))?,
        Server::udp_echo(netns, name, backend.addresses.v4(ECHO_PORT))?,
        Server::udp_echo(netns, name, backend.addresses.v6(ECHO_PORT))?,
    ])
}

fn backend_address(backend: &Host, service: &Service) -> SocketAddr {
    let addresses = backend.addresses;
    if service.address.is_ipv4() {
        addresses.v4(service.backend_port)
    } else {
        addresses.v6(service.backend_port)
    }
}

/// The services, as the agent's file has them. Datagram services are probed by asking the web server next
/// to them.
fn file(net: &Topology, services: &[Service]) -> String {
    let mut text = String::new();
    let milliseconds = PROBE_INTERVAL.as_millis();
    for service in services {
        let port = if service.mode == "dsr" { DIRECT_PORT } else { WEB_PORT };
        let _ = write!(
            text,
            r#"
[[service]]
name = "{}"
address = "{}"
port = {}
protocol = "{}"
mode = "{}"
idle_timeout = "{IDLE_TIMEOUT}"
  [service.health]
  type = "http"
  path = "/healthz"
  port = {port}
  interval = "{milliseconds}ms"
  timeout = "{milliseconds}ms"
  rise = {RISE}
  fall = {FALL}
"#,
            service.name,
            service.address.ip(),
            service.address.port(),
            service.protocol,
            service.mode,
        );
        for backend in &net.backends {
            let address = backend_address(backend, service);
            let _ = write!(
                text,
                "  [[service.backend]]\n  address = \"{}\"\n  port = {}\n",
                address.ip(),
                address.port()
            );
        }
    }
    text
}

fn introduce(net: &Topology, services: &[Service], screen: &mut Screen) {
    screen.gap();
    let mut picture = String::from("A network of namespaces on this machine, all on one switch:\n\n");
    let _ = writeln!(picture, "  client    {}", net.client.addresses.v4);
    let _ = writeln!(
        picture,
        "  balancer  {}    where Flowgate runs, with one interface",
        net.balancer.addresses.v4
    );
    for backend in &net.backends {
        let _ = writeln!(picture, "  {}        {}   a server", backend.name, backend.addresses.v4);
    }
    let _ = writeln!(picture, "\nFive services, each with the four backends behind it:\n");
    for service in services {
        let how = match service.mode {
            "dsr" => "replies go straight from the backend to the client",
            _ => "addresses and ports are translated both ways",
        };
        let _ = writeln!(
            picture,
            "  {:<8}  {} {:<21}  {:<8}  {how}",
            service.name,
            service.protocol,
            service.address.to_string(),
            service.mode
        );
    }
    let _ = writeln!(
        picture,
        "\nBackends are asked for /healthz every {} ms; {FALL} failures take one out, {RISE} successes let it back in.",
        PROBE_INTERVAL.as_millis()
    );
    screen.say(&picture);
    screen.gap();
}

//! The real data plane in the real kernel, asked packet by packet (`BPF_PROG_TEST_RUN`): no wire, no clock.
//!
//! ```no_run
//! use harness::dataplane::{Action, DataPlane, Kind};
//! use lb_common::{Mode, Reason};
//!
//! let kind = Kind { mode: Mode::Dsr, v6: false, udp: false };
//! let mut plane = DataPlane::new();
//! plane.apply(&[kind.service(vec![kind.backend(11)])]);
//! let syn = kind.request(kind.client(1));
//! let sent = kind.sent_to(&syn, &kind.backend(11));
//! plane.case("a SYN").send(&syn.frame()).expect(Action::Tx, &sent.frame()).moves([(Reason::Forwarded, 1)]);
//! ```

mod ledger;
mod scene;
mod stream;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    TestRun as _, TestRunOptions,
    programs::{ProgramInfo, Xdp},
};
use aya_obj::programs::XdpAttachType;
use flowgate::{
    datapath::{
        DatapathError,
        apply::{LiveBackend, WantedService, features_of},
        explain::Explainer,
        flows::{FlowCounts, now_tick},
        load::{AttachTarget, Datapath, LoadOptions},
        pin::{self, Pins},
    },
    model::{AttachMode, Limits},
};

use lb_common::{Explanation, Features};
pub use ledger::{Case, Ledger, Sent};
pub use scene::{BALANCER_MACS, CLIENT_MAC, Kind, backend_mac, behind};
pub use stream::Stream;

use crate::{
    cleanup::Cleanup,
    netns::Namespace,
    sweep::{self, BPFFS},
};

/// What the data plane does with a frame: XDP's actions, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The program has failed.
    Aborted,
    /// Gone.
    Drop,
    /// Up to the kernel.
    Pass,
    /// Out of the interface that it came in by.
    Tx,
    /// Out of another.
    Redirect,
}

impl Action {
    /// The action of that number.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn of(number: u32) -> Self {
        match number {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            other => panic!("{other} is no XDP action"),
        }
    }

    /// Whether the frame is sent on.
    #[must_use]
    pub fn is_sent(self) -> bool {
        matches!(self, Self::Tx | Self::Redirect)
    }
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// What is done with it.
    pub action: Action,
    /// Its bytes afterwards.
    pub frame: Vec<u8>,
}

/// What a data plane is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sizes of the tables.
    pub limits: Limits,
    /// Whether every packet's fate is logged.
    pub debug_packets: bool,
    /// What the program can do from the start; what services ask for comes with them.
    pub features: Features,
    /// `net.ipv4.ip_local_port_range`: full-nat's ports are the larger part of what is outside it.
    pub local_ports: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        let limits = Limits { flows: 4096, services: 64, backends: 256, ring_slots: 1 << 17, fragments: 256 };
        Self { limits, debug_packets: false, features: Features::NONE, local_ports: "32768 60999" }
    }
}

impl Options {
    /// The same, with tables for so many flows.
    #[must_use]
    pub fn flows(mut self, flows: u32) -> Self {
        self.limits.flows = flows;
        self
    }
}

/// How much time passes between two changes, as the data plane's keeper is told: so much that what was given back
/// may be used again.
const BETWEEN_CHANGES: Duration = Duration::from_secs(2);

/// A data plane on two interfaces, slots 0 and 1, in a namespace of its own. Both are down, so that no packets but
/// the test's own meet it.
pub struct DataPlane {
    datapath: Datapath,
    programs: Vec<Xdp>,
    services: Vec<WantedService>,
    now: Instant,
    /// Loaded with the first question.
    explainer: Mutex<Option<Explainer>>,
    netns: Namespace,
    pins: Pins,
    _pins: Cleanup,
}

impl DataPlane {
    /// One with small tables.
    ///
    /// # Panics
    /// Where the kernel refuses, above all without root: such a test has failed.
    #[must_use]
    pub fn new() -> Self {
        Self::with(&Options::default())
    }

    /// One made with `options`.
    ///
    /// # Panics
    /// As [`DataPlane::new`].
    #[must_use]
    pub fn with(options: &Options) -> Self {
        Self::open(options).unwrap_or_else(|error| panic!("a data plane under test: {error:#}"))
    }

    fn open(options: &Options) -> Result<Self> {
        let netns = Namespace::new("plane")?;
        netns.sysctl("net.ipv4.ip_local_port_range", options.local_ports)?;
        let targets =
            (0..BALANCER_MACS.len()).map(|slot| make_interface(&netns, slot)).collect::<Result<Vec<_>>>()?;
        // A namespace's name is nobody else's, so the pins' is not either.
        let pin_dir = Path::new(BPFFS).join(netns.name());
        debug_assert!(netns.name().starts_with(&sweep::own_prefix()));
        let pins = Pins::new(&pin_dir);
        let cleanup = Cleanup::new(move || drop(pin::detach(&pin_dir, true)));
        let Options { limits, debug_packets, features, .. } = *options;
        let load = LoadOptions { pins: pins.clone(), limits, debug_packets, features };
        // Ports, interfaces and the device map are those of the namespace that the calling thread is in.
        let datapath = netns.run_in(|| -> Result<Datapath> {
            let mut datapath = Datapath::open(load)?;
            for (slot, target) in targets.iter().enumerate() {
                let attached = datapath.attach(target)?;
                anyhow::ensure!(
                    attached.slot as usize == slot,
                    "{} is in slot {}",
                    target.name,
                    attached.slot
                );
            }
            Ok(datapath)
        })?;
        let programs = open_programs(&pins)?;
        let now = Instant::now();
        let explainer = Mutex::new(None);
        let services = Vec::new();
        Ok(Self { datapath, programs, pins, services, now, explainer, netns, _pins: cleanup })
    }

    /// Makes the data plane serve `services` and nothing else, by the agent's own code.
    ///
    /// # Panics
    /// Where that fails.
    pub fn apply(&mut self, services: &[WantedService]) {
        self.try_apply(services).expect("the services fit");
    }

    /// The same, where it may fail.
    ///
    /// # Errors
    /// What the data plane's keeper says.
    pub fn try_apply(&mut self, services: &[WantedService]) -> Result<(), DatapathError> {
        self.now += BETWEEN_CHANGES;
        self.fit(features_of(services))?;
        self.datapath.maps.reconcile(services, self.now)?;
        self.services = services.to_vec();
        Ok(())
    }

    /// Has the program do what it does, and `features` as well.
    fn fit(&mut self, features: Features) -> Result<(), DatapathError> {
        let features = features.and(self.datapath.features());
        if features != self.datapath.features() {
            let datapath = &mut self.datapath;
            self.netns.run_in(|| datapath.fit(features))?;
            self.programs = open_programs(&self.pins).expect("the programs are pinned");
        }
        Ok(())
    }

    /// What becomes of a frame that comes in by the interface in `slot`.
    ///
    /// # Panics
    /// For frames shorter than an Ethernet header or longer than a page allows: the kernel does not run those.
    #[must_use]
    pub fn run(&self, slot: u32, frame: &[u8]) -> Fate {
        let mut out = vec![0; frame.len() + 256];
        let run =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = self.programs[slot as usize].test_run(run).expect("the kernel runs the program");
        out.truncate(result.data_size_out as usize);
        Fate { action: Action::of(result.return_value), frame: out }
    }

    /// Many packets to an IPv4 service, by the interface in slot 0.
    ///
    /// # Panics
    /// Where the process has no descriptors left.
    #[must_use]
    pub fn stream(&self, service: SocketAddr) -> Stream {
        Stream::new(&self.programs[0], service).expect("the program is loaded")
    }

    /// What the program says that it would do with a frame.
    ///
    /// # Panics
    /// As [`DataPlane::run`], and where the question has moved a counter.
    #[must_use]
    pub fn explain(&self, frame: &[u8]) -> Explanation {
        let before = self.counters();
        let mut explainer = self.explainer.lock().unwrap_or_else(PoisonError::into_inner);
        let explainer =
            explainer.get_or_insert_with(|| self.datapath.explainer().expect("the program loads once more"));
        let explanation = explainer.ask(frame).expect("the kernel runs the program");
        assert_eq!(self.counters(), before, "a question changes nothing");
        explanation
    }

    /// Counts the flows of backends, as the agent does now and then.
    pub fn refresh_loads(&mut self) {
        self.datapath.maps.refresh_loads();
    }

    /// A packet whose fate is known, in words.
    pub fn case<'a>(&'a self, name: impl std::fmt::Display) -> Case<'a> {
        Case::new(self, name.to_string())
    }

    /// Every counter at this moment.
    ///
    /// # Panics
    /// Where they cannot be read.
    #[must_use]
    pub fn counters(&self) -> Ledger {
        let slots = 0..self.programs.len() as u32;
        let packets = slots.flat_map(|slot| {
            let counters = self.datapath.maps.packets(slot).expect("counters can be read");
            counters.into_iter().map(move |(reason, count)| ((slot, reason), count))
        });
        let backends = self
            .services
            .iter()
            .flat_map(|service| service.backends.iter().map(move |backend| (service, backend.address)));
        Ledger::new(
            packets,
            backends.map(|(service, address)| {
                (
                    address,
                    self.datapath.maps.backend_counters(&service.key, address).expect("counters can be read"),
                )
            }),
        )
    }

    /// The backend of the `service`-th service as the data plane has it.
    ///
    /// # Panics
    /// Where it has none.
    #[must_use]
    pub fn live(&self, service: usize, backend: SocketAddr) -> LiveBackend {
        self.datapath.maps.backend(&self.services[service].key, backend).expect("a live backend")
    }

    /// The flows that are remembered, as the agent counts them.
    #[must_use]
    pub fn flows(&self) -> FlowCounts {
        self.datapath.maps.flow_tables().count(&self.datapath.maps.timeouts_by_backend(), now_tick())
    }

    /// Frees the flows that are over, as the agent does, `later` ticks from now.
    pub fn sweep(&self, later: u16) {
        const PARTS: usize = 3;
        let timeouts = self.datapath.maps.timeouts_by_backend();
        for part in 0..PARTS {
            let now = now_tick().wrapping_add(later);
            self.datapath.maps.flow_tables().sweep(part, PARTS, now, &timeouts);
        }
    }

    /// What the kernel knows of the program in `slot`.
    ///
    /// # Panics
    /// Where the kernel does not tell.
    #[must_use]
    pub fn program_info(&self, slot: u32) -> ProgramInfo {
        self.programs[slot as usize].info().expect("the kernel tells of its programs")
    }

    /// The namespace that its interfaces `eth0` (slot 0) and `eth1` (slot 1) are in.
    #[must_use]
    pub fn netns(&self) -> &Namespace {
        &self.netns
    }
}

impl Default for DataPlane {
    fn default() -> Self {
        Self::new()
    }
}

/// The program of each interface.
fn open_programs(pins: &Pins) -> Result<Vec<Xdp>> {
    (0..BALANCER_MACS.len() as u32)
        .map(|slot| Xdp::from_pin(pins.program(slot), XdpAttachType::Interface))
        .collect::<Result<_, _>>()
        .context("the pinned programs")
}

fn make_interface(netns: &Namespace, slot: usize) -> Result<AttachTarget> {
    let name = format!("eth{slot}");
    let mac = BALANCER_MACS[slot];
    netns.ip(&format!("link add {name} address {mac} type veth peer name peer{slot}"))?;
    let index = netns.interface_index(&name)?;
    Ok(AttachTarget { name, index, mac: mac.0, mtu: 1500, mode: AttachMode::Generic })
}

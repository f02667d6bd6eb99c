//! Two command lines at once that change whatever may be changed, under traffic: at every quiet moment the maps are what
//! was asked for, and what is disabled gets nothing.
//!
//! `FLOWGATE_HAMMER_SECONDS` makes it longer, `FLOWGATE_HAMMER_SEED` repeats a run's choices.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use flowgate::datapath::{pin::Pins, view};
use harness::{
    agent::{Agent, Setup},
    load::{Load, Plan},
    long_lived::LongLived,
    random::Random,
    servers::Server,
    topology::Topology,
    wait::wait_for,
};
use lb_common::{Backend, ServiceKey, service::PROTOCOL_TCP};

/// The services that all share: name, mode, port of the backends. The first on IPv4, the second on IPv6.
const SHARED: [(&str, &str, u16); 2] = [("one", "full-nat", 8080), ("two", "dsr", 80)];
/// The backend that nobody touches is the first; each command line has the two of its row.
const HANDS: [[usize; 2]; 2] = [[1, 2], [3, 4]];
/// What was under way when a command was answered has arrived, and been accepted on a machine that is busy.
const SETTLED: Duration = Duration::from_millis(100);
/// From one quiet moment to the next.
const BETWEEN_QUIET: Duration = Duration::from_millis(250);
/// A next hop that was not known yet is found within this.
const AGREED_WITHIN: Duration = Duration::from_secs(3);

/// What was asked for and acknowledged.
#[derive(Default)]
struct Asked {
    backends: BTreeMap<(String, SocketAddr), Wanted>,
    services: BTreeMap<String, SocketAddr>,
}

#[derive(Clone, Debug)]
struct Wanted {
    weight: u16,
    state: &'static str,
    /// While it is disabled: packets sent to it, and connections that its server has accepted, when it began.
    sent: Option<(u64, u64)>,
}

impl Wanted {
    fn new(weight: u16) -> Self {
        Self { weight, state: "enabled", sent: None }
    }

    fn ring_weight(&self) -> u16 {
        if self.state == "enabled" { self.weight } else { 0 }
    }
}

struct Stage {
    net: Topology,
    agent: Agent,
    /// By service, then by backend.
    servers: Vec<Vec<Server>>,
    asked: Mutex<Asked>,
    /// A command line reads, the observer writes: while it has this nobody changes anything.
    quiet: RwLock<()>,
    ending: AtomicBool,
    commands: AtomicU64,
}

impl Stage {
    fn set() -> Result<Self> {
        let net = Topology::one_arm(5)?;
        let servers = SHARED.iter().map(|(_, _, port)| net.serve_http(*port)).collect::<Result<_>>()?;
        let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]))?;
        let stage = Self {
            net,
            agent,
            servers,
            asked: Mutex::default(),
            quiet: RwLock::default(),
            ending: AtomicBool::new(false),
            commands: AtomicU64::new(0),
        };
        for (service, (name, mode, _)) in SHARED.iter().enumerate() {
            stage.add_service(name, stage.address(service), mode)?;
            for host in 0..stage.net.backends.len() {
                stage.add_backend(service, host, 10)?;
            }
        }
        stage.agent.wait_until_all_up(Duration::from_secs(10))?;
        Ok(stage)
    }

    fn address(&self, service: usize) -> SocketAddr {
        if service == 0 { self.net.service.v4(80) } else { self.net.dsr_service.v6(80) }
    }

    fn backend(&self, service: usize, host: usize) -> SocketAddr {
        let (addresses, port) = (self.net.backends[host].addresses, SHARED[service].2);
        if service == 0 { addresses.v4(port) } else { addresses.v6(port) }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flowgate(&self, args: &[&str]) -> Result<()> {
        self.commands.fetch_add(1, Ordering::Relaxed);
        self.agent.cli_ok(args).map(drop)
    }

    fn add_service(&self, name: &str, address: SocketAddr, mode: &str) -> Result<()> {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let place = ["service", "add", name, "--address", &ip, "--port", &port, "--protocol", "tcp"];
        self.flowgate(&[&place[..], &["--mode", mode, "--health-type", "none"]].concat())?;
        self.asked().services.insert(name.to_owned(), address);
        Ok(())
    }

    fn add_backend(&self, service: usize, host: usize, weight: u16) -> Result<()> {
        let (name, address) = (SHARED[service].0, self.backend(service, host));
        self.flowgate(&["backend", "add", name, &address.to_string(), "--weight", &weight.to_string()])?;
        self.asked().backends.insert((name.to_owned(), address), Wanted::new(weight));
        Ok(())
    }

    /// What a backend has been sent so far, by the data plane's counter and by its server's.
    fn sent(&self, service: usize, host: usize) -> Result<(u64, u64)> {
        let row = self.agent.backend(SHARED[service].0, self.backend(service, host))?;
        let packets = row["totals"]["packets_in"].as_u64().context("packets_in is a number")?;
        Ok((packets, self.servers[service][host].connections()))
    }

    /// A backend that is disabled has been sent nothing since.
    fn check_silence(&self, service: usize, host: usize) -> Result<()> {
        let name = (SHARED[service].0.to_owned(), self.backend(service, host));
        let Some(before) = self.asked().backends.get(&name).and_then(|wanted| wanted.sent) else {
            return Ok(());
        };
        let now = self.sent(service, host)?;
        ensure!(now == before, "{name:?} is disabled: packets and connections {before:?} -> {now:?}");
        Ok(())
    }
}

/// Changes one thing of a shared service, or a service of its own.
fn change(stage: &Stage, hand: usize, random: &mut Random) -> Result<()> {
    if random.below(8) == 0 {
        return change_own_service(stage, hand, random);
    }
    let (service, host) = (random.below(SHARED.len()), *random.pick(&HANDS[hand]));
    let (name, address) = (SHARED[service].0, stage.backend(service, host));
    let known = (name.to_owned(), address);
    let weight = *random.pick(&[0, 1, 5, 10, 50, 400, 1000]);
    let text = address.to_string();
    if !stage.asked().backends.contains_key(&known) {
        return stage.add_backend(service, host, weight);
    }
    stage.check_silence(service, host)?;
    let verb = *random.pick(&["set", "set both", "scheduler", "drain", "enable", "disable", "remove"]);
    match verb {
        "set both" => return set_both(stage, hand, service, random),
        "scheduler" => {
            let scheduler = *random.pick(&["maglev", "source-hash", "least-conn"]);
            return stage.flowgate(&["service", "set", name, "--scheduler", scheduler]);
        }
        "set" => {
            stage.flowgate(&["backend", "set", name, &text, "--weight", &weight.to_string()])?;
            stage.asked().backends.entry(known).and_modify(|wanted| wanted.weight = weight);
            return Ok(());
        }
        "remove" => {
            stage.flowgate(&["backend", verb, name, &text])?;
            stage.asked().backends.remove(&known);
            return Ok(());
        }
        _ => stage.flowgate(&["backend", verb, name, &text])?,
    }
    let state = match verb {
        "drain" => "draining",
        "enable" => "enabled",
        _ => "disabled",
    };
    let sent = if state == "disabled" {
        thread::sleep(SETTLED);
        Some(stage.sent(service, host)?)
    } else {
        None
    };
    stage.asked().backends.entry(known).and_modify(|wanted| (wanted.state, wanted.sent) = (state, sent));
    Ok(())
}

/// Weights of both backends of a hand in one change, as far as they are there.
fn set_both(stage: &Stage, hand: usize, service: usize, random: &mut Random) -> Result<()> {
    let name = SHARED[service].0;
    let weights: Vec<_> = HANDS[hand]
        .into_iter()
        .map(|host| ((name.to_owned(), stage.backend(service, host)), *random.pick(&[1, 20, 300])))
        .filter(|(known, _)| stage.asked().backends.contains_key(known))
        .collect();
    let texts: Vec<_> = weights.iter().map(|((_, address), weight)| format!("{address}={weight}")).collect();
    let places = texts.iter().map(String::as_str);
    stage.flowgate(&["backend", "set", name].into_iter().chain(places).collect::<Vec<_>>())?;
    for (known, weight) in weights {
        stage.asked().backends.entry(known).and_modify(|wanted| wanted.weight = weight);
    }
    Ok(())
}

fn change_own_service(stage: &Stage, hand: usize, random: &mut Random) -> Result<()> {
    let number = random.below(3);
    let name = format!("own-{hand}-{number}");
    let known = stage.asked().services.contains_key(&name);
    if known {
        stage.flowgate(&["service", "remove", &name])?;
        let mut asked = stage.asked();
        asked.services.remove(&name);
        asked.backends.retain(|(service, _), _| *service != name);
        return Ok(());
    }
    let address = stage.net.service.v4((1000 + 10 * hand + number) as u16);
    stage.add_service(&name, address, "full-nat")?;
    for host in 0..random.below(4) {
        let backend = stage.backend(0, host);
        stage.flowgate(&["backend", "add", &name, &backend.to_string()])?;
        stage.asked().backends.insert((name.clone(), backend), Wanted::new(10));
    }
    Ok(())
}

/// What the agent says, and what the maps have, are what was asked for.
fn check_agreement(stage: &Stage) -> Result<()> {
    let asked = stage.asked();
    let rows = stage.agent.cli_json(&["backend", "list"])?;
    let mut told = BTreeSet::new();
    for row in rows.as_array().context("backend list is no array")? {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let port = u16::try_from(row["port"].as_u64().unwrap_or(0))?;
        let name = (text("service"), SocketAddr::new(text("address").parse()?, port));
        let wanted = asked.backends.get(&name).with_context(|| format!("nobody asked for {name:?}"))?;
        let agrees = row["weight"] == wanted.weight && row["admin_state"] == wanted.state;
        ensure!(agrees, "{name:?} is {row} where {wanted:?} was asked for");
        told.insert(name);
    }
    ensure!(told.len() == asked.backends.len(), "{told:?} of {:?}", asked.backends);

    let seen = view::services(&Pins::new(stage.agent.pin_dir()))?;
    ensure!(
        seen.len() == asked.services.len(),
        "{} services in the maps of {:?}",
        seen.len(),
        asked.services
    );
    for (name, address) in &asked.services {
        let key = ServiceKey::new(address.ip().into(), address.port().to_be_bytes(), PROTOCOL_TCP);
        let service = seen.iter().find(|service| service.key == key);
        let service = service.with_context(|| format!("{name} is not in the maps"))?;
        check_service(name, service, &asked).with_context(|| format!("{name} in the maps: {service:?}"))?;
    }
    Ok(())
}

fn check_service(name: &str, seen: &view::SeenService, asked: &Asked) -> Result<()> {
    let of_service = asked.backends.iter().filter(|((service, _), _)| service == name);
    let wanted: BTreeMap<_, _> = of_service.map(|((_, address), wanted)| (*address, wanted)).collect();
    ensure!(seen.stray_slots == 0, "slots that are nobody's");
    ensure!(seen.backends.keys().eq(wanted.keys()), "{wanted:?} were asked for");
    let slots: u32 = seen.backends.values().map(|backend| backend.ring_slots).sum();
    let weights: u32 = wanted.values().map(|wanted| u32::from(wanted.ring_weight())).sum();
    ensure!((slots == 0) == (weights == 0), "{slots} slots for weights of {weights}");
    for (address, wanted) in wanted {
        let backend = seen.backends[&address];
        let usable = backend.entry.flags & Backend::USABLE != 0;
        ensure!(usable == (wanted.state != "disabled"), "{address} where {wanted:?} was asked for");
        let fair = f64::from(slots) * f64::from(wanted.ring_weight()) / f64::from(weights.max(1));
        let error = (f64::from(backend.ring_slots) - fair).abs();
        ensure!(error <= 2.0, "{address} has {} slots, {fair} for {wanted:?}", backend.ring_slots);
    }
    Ok(())
}

/// Stops both command lines now and then, and looks.
fn observe(stage: &Stage, time: Duration) -> Result<u32> {
    let begun = Instant::now();
    let mut moments = 0;
    while begun.elapsed() < time && !stage.ending.load(Ordering::SeqCst) {
        thread::sleep(BETWEEN_QUIET);
        let _quiet = stage.quiet.write().unwrap_or_else(PoisonError::into_inner);
        wait_for("the maps are what was asked for", AGREED_WITHIN, || check_agreement(stage))?;
        for service in 0..SHARED.len() {
            for host in 0..stage.net.backends.len() {
                stage.check_silence(service, host)?;
            }
        }
        moments += 1;
    }
    Ok(moments)
}

fn hammer(stage: &Stage, hand: usize, seed: u64) -> Result<()> {
    let mut random = Random::new(seed.wrapping_add(hand as u64));
    while !stage.ending.load(Ordering::SeqCst) {
        let _busy = stage.quiet.read().unwrap_or_else(PoisonError::into_inner);
        let done = change(stage, hand, &mut random);
        if done.is_err() {
            stage.ending.store(true, Ordering::SeqCst);
        }
        done?;
    }
    Ok(())
}

fn number_of(variable: &str) -> Result<Option<u64>> {
    env::var(variable).ok().map(|text| text.parse().with_context(|| format!("{variable}={text}"))).transpose()
}

#[test]
fn two_hands_change_at_once_and_the_maps_are_what_they_asked_for() -> Result<()> {
    let time = Duration::from_secs(number_of("FLOWGATE_HAMMER_SECONDS")?.unwrap_or(15));
    let nanos = SystemTime::UNIX_EPOCH.elapsed()?.subsec_nanos();
    let seed = number_of("FLOWGATE_HAMMER_SEED")?.unwrap_or_else(|| nanos.into());
    println!("FLOWGATE_HAMMER_SEED={seed}");
    let stage = Stage::set()?;
    let client = &stage.net.client.netns;
    let open = [0, 1].map(|service| LongLived::open(client, stage.address(service), 40, BETWEEN_QUIET));
    let loads = [0, 1].map(|service| Load::start(client, Plan::http(stage.address(service)).workers(2)));
    let (moments, hands) = thread::scope(|scope| {
        let stage = &stage;
        let hands = [0, 1].map(|hand| scope.spawn(move || hammer(stage, hand, seed)));
        let moments = observe(stage, time);
        stage.ending.store(true, Ordering::SeqCst);
        (moments, hands.map(|hand| hand.join().expect("a hand does not panic")))
    });
    let with_seed = || format!("FLOWGATE_HAMMER_SEED={seed}; the agent's log:\n{}", stage.agent.log());
    let moments = moments.with_context(with_seed)?;
    for hand in hands {
        hand.with_context(with_seed)?;
    }
    let commands = stage.commands.load(Ordering::Relaxed);
    ensure!(u64::from(moments) >= time.as_secs() && commands >= 5 * time.as_secs(), "{commands}, {moments}");
    for open in open {
        let of_steady: Vec<_> = open?.states().into_iter().filter(|state| state.backend == "b1").collect();
        ensure!(!of_steady.is_empty(), "connections to the backend that nobody touches");
        let broken = of_steady.iter().find(|state| state.broken.is_some() || state.moved);
        ensure!(broken.is_none(), "{broken:?}: {}", with_seed());
    }
    for load in loads {
        let summary = load.stop();
        ensure!(summary.answered() > 10 * time.as_secs(), "{summary}");
    }
    println!("{commands} commands, {moments} quiet moments");
    Ok(())
}

//! How long it takes to count flows, to build a ring, and from a command to the first packet that obeys.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use flowgate::{datapath::pin::Pins, ring};
use harness::{
    agent::{Agent, Setup},
    config::{NO_HEALTH, service},
    dataplane::Stream,
    topology::Topology,
};
use lb_common::Mode;
use serde_json::{Value, json};

use super::{
    Scale, pressure, progress,
    stage::{self, Stage},
};

/// Packets go on for so long after the command's answer.
const AFTER: Duration = Duration::from_millis(5);

/// What the agent does twice a second for bounds and `least-conn`: the tables are read where they are.
pub(super) fn measure_count(scale: &Scale) -> Result<Value> {
    let (steered, translated, limit) = scale.counted;
    let mut rows = Vec::new();
    let mut slots = 0;
    for (mode, name, flows) in [(Mode::Dsr, "dsr", steered), (Mode::FullNat, "full-nat", translated)] {
        let mut stage = Stage::new(mode, limit);
        slots = stage.slots;
        let backends = stage::backends(mode, &[10; pressure::BACKENDS]);
        stage.plane.apply(&[stage::service(mode, backends)]);
        let begun = stage.begin(0..flows, false);
        ensure!(!begun.contains(&0), "{name}: a flow is refused");
        let times = (0..scale.repetitions).map(|_| {
            let begun = Instant::now();
            let counted = stage.plane.flows();
            let took = begun.elapsed();
            let counted = counted.steered + counted.translated;
            // Of steered flows a few are taken for another with the same tag, or push another out.
            let least = u64::from(flows - flows / 100);
            ensure!(counted >= least && counted <= u64::from(flows), "{name}: {counted} of {flows}");
            Ok(took)
        });
        let times = times.collect::<Result<Vec<_>>>()?;
        rows.push(json!({ "mode": name, "flows": flows, "time_us": spread(times) }));
        progress(format_args!("count: {name}, {flows} flows"));
    }
    Ok(json!({ "slots": slots, "repetitions": scale.repetitions, "rows": rows }))
}

pub(super) fn measure_build(scale: &Scale) -> Result<Value> {
    let mut rows = Vec::new();
    for count in [10, 100, 1_000, 10_000] {
        let members = stage::members(&stage::backends(Mode::Dsr, &vec![10; count]));
        let slots = ring::size(std::iter::repeat_n(10, count));
        let times = (0..scale.repetitions).map(|_| {
            let begun = Instant::now();
            let ring = ring::build(&members, slots);
            let took = begun.elapsed();
            ensure!(ring.len() == slots as usize, "{} of {slots} slots", ring.len());
            Ok(took)
        });
        let times = times.collect::<Result<Vec<_>>>()?;
        rows.push(json!({ "backends": count, "slots": slots, "time_us": spread(times) }));
        progress(format_args!("ring: {count} backends"));
    }
    Ok(json!({ "repetitions": scale.repetitions, "rows": rows }))
}

/// Median, fastest and slowest, in microseconds.
fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let micros = |at: usize| times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6);
    json!({ "median": micros(times.len() / 2), "least": micros(0), "most": micros(times.len().saturating_sub(1)) })
}

/// New flows one after the other, and when the last that went to the first backend was sent.
struct Watch {
    ending: AtomicBool,
    last: Mutex<Option<Instant>>,
}

/// `backend set --weight 0` on the real agent, while its own program is given one new flow after the other: the time from
/// the command's start to the last flow that went to that backend, and to the command's end.
pub(super) fn measure_change(scale: &Scale) -> Result<Value> {
    let net = Topology::one_arm(2)?;
    let address = net.dsr_service.v4(80);
    let backends: Vec<SocketAddr> = net.backends.iter().map(|host| host.addresses.v4(80)).collect();
    let file = service("web", address, "tcp", "dsr", NO_HEALTH, &backends);
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&file))?;
    agent.wait_until_all_up(Duration::from_secs(10))?;
    let program = Xdp::from_pin(Pins::new(agent.pin_dir()).program(0), XdpAttachType::Interface)
        .context("the agent's pinned program")?;
    let [.., high, low] = net.backends[0].mac.0;
    let first_mac = u16::from_be_bytes([high, low]);
    let weight = |backend: &SocketAddr, weight: &str| {
        agent.cli_ok(&["backend", "set", "web", &backend.to_string(), "--weight", weight]).map(drop)
    };
    weight(&backends[1], "1")?;
    let (mut obeyed, mut answered) = (Vec::new(), Vec::new());
    let mut next_client = 0;
    for _ in 0..scale.repetitions {
        weight(&backends[0], "1000")?;
        let watch = Arc::new(Watch { ending: AtomicBool::new(false), last: Mutex::new(None) });
        let mut stream = Stream::new(&program, address)?;
        let packets = {
            let watch = Arc::clone(&watch);
            thread::spawn(move || watch_flows(&watch, &mut stream, first_mac, next_client))
        };
        thread::sleep(AFTER);
        let begun = Instant::now();
        let done = weight(&backends[0], "0");
        answered.push(begun.elapsed());
        thread::sleep(AFTER);
        watch.ending.store(true, Ordering::SeqCst);
        next_client = packets.join().expect("the watch does not panic")?;
        done?;
        let last = watch.last.lock().unwrap_or_else(PoisonError::into_inner).context("no flow went to it")?;
        ensure!(last > begun, "no flow went to it after the command had begun");
        obeyed.push(last - begun);
    }
    progress("change: done");
    Ok(json!({
        "repetitions": scale.repetitions, "flows": next_client,
        "obeyed_us": spread(obeyed), "answered_us": spread(answered),
    }))
}

/// Gives the number of the next client.
fn watch_flows(watch: &Watch, stream: &mut Stream, mac: u16, mut client: u32) -> Result<u32> {
    while !watch.ending.load(Ordering::SeqCst) {
        // Before it: a thread that had to wait after it would say that the backend was obeyed later than it was.
        let sent = Instant::now();
        let (action, to) = stream.begin(client);
        ensure!(
            action.is_sent(),
            "client {} of {:?}: {action:?}",
            client,
            IpAddr::V4(*Stream::client(client).ip())
        );
        client += 1;
        if to == mac {
            *watch.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
        }
    }
    Ok(client)
}

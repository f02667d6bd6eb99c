//! `flowgate lookup`: the program itself is asked what it would do with a packet, and its answer is put into words.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use lb_common::{Explanation, Life, Reason};

use super::{
    command::{Answer, CommandError},
    controller::Controller,
    flows::{seconds, state_of},
    plan::key_of,
    views::format_mac,
};
use crate::{
    api::schema::{
        NextHopView,
        flows::{FlowFate, Lookup, LookupFlow, LookupQuery, LookupService},
    },
    datapath::flows::now_tick,
    model::{DesiredService, Mode, Protocol},
};

impl Controller {
    pub(super) fn lookup(&mut self, query: &LookupQuery) -> Answer<Lookup> {
        let frame = frame_of(query)?;
        let explainer = match self.explainer.take() {
            Some(explainer) => Ok(explainer),
            None => tokio::task::block_in_place(|| self.datapath.explainer()),
        };
        let mut explainer = explainer.map_err(|error| CommandError::Failed(error.to_string()))?;
        let answer = explainer.ask(&frame).map_err(|error| CommandError::Failed(error.to_string()));
        self.explainer = Some(explainer);
        Ok(self.in_words(query, &answer?))
    }

    fn in_words(&self, query: &LookupQuery, said: &Explanation) -> Lookup {
        let maps = &self.datapath.maps;
        let reason = Reason::from_index(said.reason);
        let entry = maps
            .service_at(said.service)
            .filter(|_| said.service > 0)
            .and_then(|key| self.desired.services.values().find(|entry| key_of(&entry.service) == key));
        let backend = maps.backends_by_index().get(said.backend as usize).copied().flatten();
        let is_answer = said.flow == Explanation::IS_ANSWER;
        let source = maps.sources_by_index().into_iter().find(|(index, _)| u32::from(*index) == said.source);
        let translates = entry.is_some_and(|entry| entry.service.mode == Mode::FullNat) && !is_answer;
        let lookup = Lookup {
            reason: reason.label().to_owned(),
            verdict: reason.verdict().as_str().to_owned(),
            service: entry.map(|entry| LookupService {
                name: entry.service.name.clone(),
                mode: entry.service.mode,
                scheduler: entry.service.scheduler,
            }),
            flow: flow_of(said),
            ring_slot: entry
                .filter(|_| said.ring_slot > 0)
                .map(|entry| (said.ring_slot - 1, maps.ring_slots(&key_of(&entry.service)))),
            backend: backend.map(|(_, address)| address),
            source: source
                .filter(|_| translates && backend.is_some())
                .map(|(_, address)| SocketAddr::new(address, said.nat_port as u16)),
            next_hop: self.next_hop_view(entry, backend.map(|(_, address)| address), said),
            why: Vec::new(),
        };
        Lookup { why: explain(query, &lookup, reason), ..lookup }
    }

    fn next_hop_view(
        &self,
        entry: Option<&DesiredService>,
        backend: Option<SocketAddr>,
        said: &Explanation,
    ) -> Option<NextHopView> {
        let hop = self.datapath.maps.next_hop_at(said.next_hop)?;
        let way = self.facts.standing(&self.desired, entry?, backend?).next_hop.map(|(way, _)| way);
        let interface = self.interfaces.iter().find(|interface| {
            interface.attached.as_ref().is_some_and(|attached| attached.slot == u32::from(hop.interface_slot))
        });
        Some(NextHopView {
            interface: interface.map_or_else(|| "?".to_owned(), |interface| interface.settings.name.clone()),
            address: way.map_or_else(
                || backend.map_or(IpAddr::from([0; 4]), |backend| backend.ip()),
                |way| way.gateway,
            ),
            mac: format_mac(hop.destination_mac),
        })
    }
}

fn flow_of(said: &Explanation) -> Option<LookupFlow> {
    let life = Life::of(u64::from(said.life));
    let fate = match said.flow {
        Explanation::GOES_ON => FlowFate::GoesOn,
        Explanation::IS_OVER => FlowFate::IsOver,
        Explanation::LEAVES => FlowFate::Leaves,
        Explanation::IS_ANSWER => FlowFate::IsAnswered,
        _ => return None,
    };
    Some(LookupFlow { fate, state: state_of(life.state())?, idle_seconds: seconds(life.age(now_tick())) })
}

/// The packet that is asked about, as it would come in.
fn frame_of(query: &LookupQuery) -> Answer<Vec<u8>> {
    // Anybody's MAC addresses: the program does not look at them.
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match (query.from.ip(), query.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        (from, to) => {
            return Err(CommandError::Invalid(format!(
                "no packet goes from {from} to {to}: give two IPv4 or two IPv6 addresses"
            )));
        }
    };
    let (from, to) = (query.from.port(), query.to.port());
    let mut frame = Vec::new();
    let written = match query.protocol.unwrap_or(Protocol::Tcp) {
        Protocol::Udp => ip.udp(from, to).write(&mut frame, &[]),
        Protocol::Tcp if query.opens => ip.tcp(from, to, 1, u16::MAX).syn().write(&mut frame, &[]),
        Protocol::Tcp => ip.tcp(from, to, 1, u16::MAX).ack(1).write(&mut frame, &[]),
    };
    written.map_err(|error| CommandError::Failed(format!("cannot make the packet: {error}")))?;
    Ok(frame)
}

/// Step by step, why it is so.
fn explain(query: &LookupQuery, lookup: &Lookup, reason: Reason) -> Vec<String> {
    let mut why = Vec::new();
    let protocol = query.protocol.unwrap_or(Protocol::Tcp);
    let Some(service) = &lookup.service else {
        why.push(format!("no service has {}/{protocol}, and the packet answers no flow", query.to));
        why.push("the packet is handed to the kernel untouched".to_owned());
        return why;
    };
    let name = &service.name;
    match lookup.flow {
        Some(LookupFlow { fate: FlowFate::IsAnswered, .. }) => {
            why.push(format!("it answers a flow of service {name}"));
        }
        _ => why.push(format!("{}/{protocol} is service {name}", query.to)),
    }
    why.push(match lookup.flow {
        None => "no flow of this client is remembered".to_owned(),
        Some(flow) => {
            let fate = match flow.fate {
                FlowFate::GoesOn => "the packet goes on with it",
                FlowFate::IsOver => "it is over",
                FlowFate::Leaves => "its backend is gone, disabled or down",
                FlowFate::IsAnswered => "the packet goes back to its client",
            };
            let (state, idle_seconds) = (flow.state, flow.idle_seconds);
            format!("a flow is remembered ({state}, last used {idle_seconds} s ago): {fate}")
        }
    });
    if let (Some((slot, slots)), Some(backend)) = (lookup.ring_slot, lookup.backend) {
        why.push(format!("{} picks slot {slot} of {slots}, which is {backend}'s", service.scheduler));
    }
    if let Some(source) = lookup.source {
        why.push(match source.port() {
            0 => format!("the backend would see it from {}, at a port that is yet to be picked", source.ip()),
            _ => format!("the backend sees it from {source}"),
        });
    }
    why.push(format!("so it is {}", outcome(reason)));
    why
}

fn outcome(reason: Reason) -> String {
    match reason {
        Reason::Forwarded => "sent to the backend".to_owned(),
        Reason::Replied => "sent to the client".to_owned(),
        Reason::BackendReset => "answered by a RST, since its backend is down".to_owned(),
        Reason::RejectedNoBackend => "refused by an answer: no backend gets new flows".to_owned(),
        Reason::RejectedFull => {
            "refused by an answer: every backend has all the flows that it may have".to_owned()
        }
        Reason::TimeExceeded => "answered by \"time exceeded\": it may live no longer".to_owned(),
        Reason::PacketTooBig => {
            "answered by how large it may be: it does not fit through the tunnel".to_owned()
        }
        Reason::NoBackend => "dropped: no backend gets new flows".to_owned(),
        Reason::BackendsFull => "dropped: every backend has all the flows that it may have".to_owned(),
        Reason::NoNextHop => "dropped: the way to the backend is not known".to_owned(),
        other => format!("{} ({})", other.verdict().as_str(), other.label()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(from: &str, to: &str) -> LookupQuery {
        let address = |text: &str| text.parse().expect("an address and a port");
        LookupQuery { from: address(from), to: address(to), protocol: None, opens: false }
    }

    #[test]
    fn frames_are_whole_packets() {
        let v4 = frame_of(&query("198.51.100.7:40000", "10.1.0.10:80")).expect("a frame");
        assert_eq!(v4.len(), 14 + 20 + 20);
        let udp =
            LookupQuery { protocol: Some(Protocol::Udp), ..query("[2001:db8::1]:4", "[2001:db8::2]:5") };
        assert_eq!(frame_of(&udp).expect("a frame").len(), 14 + 40 + 8);
        let error = frame_of(&query("198.51.100.7:40000", "[2001:db8::2]:80")).expect_err("mixed versions");
        assert!(error.to_string().contains("two IPv4 or two IPv6"), "{error}");
    }

    #[test]
    fn what_is_not_ours_is_said_to_pass() {
        let lookup = Lookup {
            reason: "not_service".to_owned(),
            verdict: "pass".to_owned(),
            service: None,
            flow: None,
            ring_slot: None,
            backend: None,
            source: None,
            next_hop: None,
            why: Vec::new(),
        };
        let why = explain(&query("198.51.100.7:40000", "10.1.0.10:80"), &lookup, Reason::NotService);
        assert_eq!(why[0], "no service has 10.1.0.10:80/tcp, and the packet answers no flow");
    }
}

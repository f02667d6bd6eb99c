//! The decapsulator: what it takes off, and what it leaves alone.

use std::net::IpAddr;

use aya::{TestRun as _, TestRunOptions};
use flowgate::datapath::decap::{DecapOptions, Decapsulator};
use harness::{
    checksums,
    dataplane::{Action, Kind},
    link::Mac,
    packets::Packet,
    tunnel::Tunnel,
};
use lb_common::{Mode, decap::DecapOutcome, tunnel::GUE_PORT};

const MACS: (Mac, Mac) = (Mac([2, 0, 0, 0, 0, 7]), Mac([2, 0, 0, 0, 0, 8]));

/// One that takes packets from 10.2.0.0/24 and 2001:db8:2::/64.
fn decapsulator(gue: bool) -> Decapsulator {
    let sources = ["10.2.0.0/24", "2001:db8:2::/64"].map(|text| text.parse().expect("a network")).to_vec();
    Decapsulator::load(&DecapOptions { gue_port: gue.then_some(GUE_PORT), sources }).expect("needs root")
}

fn run(decapsulator: &mut Decapsulator, frame: &[u8]) -> (Action, Vec<u8>) {
    let mut out = vec![0; frame.len() + 256];
    let run = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    let result = decapsulator.program().expect("a program").test_run(run).expect("the kernel runs it");
    out.truncate(result.data_size_out as usize);
    (Action::of(result.return_value), out)
}

/// Lets a frame in, and says what was counted.
fn outcome(decapsulator: &mut Decapsulator, frame: &[u8]) -> (Action, Vec<u8>, DecapOutcome) {
    let before = decapsulator.counters().expect("counters");
    let (action, out) = run(decapsulator, frame);
    let after = decapsulator.counters().expect("counters");
    let moved: Vec<_> = after.iter().zip(&before).filter(|(after, before)| after.1 != before.1).collect();
    assert_eq!(moved.len(), 1, "one outcome for one frame: {moved:?}");
    assert_eq!(moved[0].0.1, moved[0].1.1 + 1);
    (action, out, moved[0].0.0)
}

fn passes(decapsulator: &mut Decapsulator, frame: &[u8], expected: DecapOutcome) {
    let found = outcome(decapsulator, frame);
    assert_eq!(found, (Action::Pass, frame.to_vec(), expected), "{frame:02x?}");
}

#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    gue: bool,
    outer_v6: bool,
}

fn cases() -> impl Iterator<Item = Case> {
    let kinds = Kind::of_mode(Mode::Gue).into_iter();
    kinds.flat_map(|kind| {
        [(false, false), (false, true), (true, false), (true, true)].map(|(gue, outer_v6)| Case {
            kind,
            gue,
            outer_v6,
        })
    })
}

impl Case {
    fn tunnel(self) -> Tunnel {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (source, destination) = if self.outer_v6 {
            (address("2001:db8:2::1"), address("2001:db8:2::11"))
        } else {
            (address("10.2.0.1"), address("10.2.0.11"))
        };
        let gue_port = self.gue.then_some(GUE_PORT);
        Tunnel { source, destination, gue_port, dont_fragment: true }
    }

    fn around(self, packet: &Packet) -> Vec<u8> {
        // What would be the flow's own.
        let seen = [0xff; 128];
        self.tunnel().around(MACS, &packet.frame(), &seen)
    }

    fn packet(self) -> Packet {
        self.kind.request(self.kind.client(1)).macs(MACS.0, MACS.1)
    }

    fn outer_bytes(self) -> usize {
        self.tunnel().overhead()
    }
}

#[test]
fn what_went_in_comes_out() {
    for case in cases() {
        let mut decapsulator = decapsulator(case.gue);
        let client = case.kind.client(1);
        for packet in
            [case.packet(), case.kind.more(client).macs(MACS.0, MACS.1), case.packet().payload(&[9; 1200])]
        {
            let found = outcome(&mut decapsulator, &case.around(&packet));
            assert_eq!(found, (Action::Pass, packet.frame(), DecapOutcome::Decapsulated), "{case:?}");
        }
    }
}

/// RFC 6040, 4.2: all combinations of what the packet and its outer header say of congestion.
#[test]
fn congestion_is_carried_over() {
    for case in cases() {
        let mut decapsulator = decapsulator(case.gue);
        for (inner, outer) in (0..4_u8).flat_map(|inner| (0..4).map(move |outer| (inner, outer))) {
            let class = |ecn: u8| 0b1011_1000 | ecn;
            let mut frame = case.around(&case.packet().traffic_class(class(inner)));
            set_class(&mut frame, case.outer_v6, outer);
            let found = outcome(&mut decapsulator, &frame);
            let expected = match (inner, outer) {
                (0, 3) => None,
                (1 | 2, 3) => Some(3),
                (2, 1) => Some(1),
                _ => Some(inner),
            };
            match expected {
                Some(ecn) => {
                    let packet = case.packet().traffic_class(class(ecn));
                    assert_eq!(found, (Action::Pass, packet.frame(), DecapOutcome::Decapsulated), "{case:?}");
                    checksums::verify_checksums(&found.1);
                }
                None => assert_eq!((found.0, found.2), (Action::Drop, DecapOutcome::Congested), "{case:?}"),
            }
        }
    }
}

/// Gives an outer header another traffic class. The program does not look at an outer checksum.
fn set_class(frame: &mut [u8], is_v6: bool, class: u8) {
    if is_v6 {
        frame[14] = 0x60 | class >> 4;
        frame[15] = class << 4 | frame[15] & 0xf;
    } else {
        frame[15] = class;
    }
}

#[test]
fn other_senders_are_the_kernels() {
    for case in cases() {
        let mut decapsulator = decapsulator(case.gue);
        let mut tunnel = case.tunnel();
        tunnel.source = if case.outer_v6 { "2001:db8:3::1" } else { "10.3.0.1" }.parse().expect("an address");
        let frame = tunnel.around(MACS, &case.packet().frame(), &[0xff; 128]);
        passes(&mut decapsulator, &frame, DecapOutcome::SourceNotAllowed);
    }
}

/// Packets without a tunnel, with the other one, to another port, and what is no IP.
#[test]
fn other_packets_are_the_kernels() {
    for case in cases() {
        let mut decapsulator = decapsulator(case.gue);
        passes(&mut decapsulator, &case.packet().frame(), DecapOutcome::NotTunnel);
        let other = Case { gue: !case.gue, ..case };
        passes(&mut decapsulator, &other.around(&case.packet()), DecapOutcome::NotTunnel);
        let mut arp = case.packet().frame();
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        passes(&mut decapsulator, &arp, DecapOutcome::NotTunnel);
        if case.gue {
            let tunnel = Tunnel { gue_port: Some(GUE_PORT + 1), ..case.tunnel() };
            let frame = tunnel.around(MACS, &case.packet().frame(), &[0xff; 128]);
            passes(&mut decapsulator, &frame, DecapOutcome::NotTunnel);
        }
    }
}

#[test]
fn outer_fragments_and_options_are_the_kernels() {
    for case in cases().filter(|case| !case.outer_v6) {
        let mut decapsulator = decapsulator(case.gue);
        let whole = case.around(&case.packet());
        for (high, low) in [(0x20, 0x00), (0x00, 0x01), (0x20, 0x01)] {
            let mut frame = whole.clone();
            frame[20..22].copy_from_slice(&[high, low]);
            passes(&mut decapsulator, &frame, DecapOutcome::NotWhole);
        }
        let mut frame = whole;
        frame[14] = 0x46;
        passes(&mut decapsulator, &frame, DecapOutcome::NotWhole);
    }
}

/// From a sender that is allowed, cut anywhere: never handed on as if it were whole.
#[test]
fn what_is_cut_short_is_not_handed_on() {
    for case in cases() {
        let mut decapsulator = decapsulator(case.gue);
        let frame = case.around(&case.packet().payload(b"payload"));
        let outer = 14 + case.outer_bytes();
        for bytes in 14..frame.len() {
            let cut = &frame[..bytes];
            let (action, out, found) = outcome(&mut decapsulator, cut);
            if bytes < outer {
                let is_other = matches!(found, DecapOutcome::NotTunnel | DecapOutcome::Malformed);
                assert!(is_other, "{case:?}: {bytes} bytes: {found:?}");
            } else {
                assert_eq!(
                    (action, found),
                    (Action::Drop, DecapOutcome::Malformed),
                    "{case:?}: {bytes} bytes"
                );
            }
            assert!(action == Action::Drop || out == cut, "{case:?}: {bytes} bytes");
        }
    }
}

/// An outer length that leaves less than the packet, a packet that says it is longer than what is there, and none at all.
#[test]
fn lengths_that_contradict_each_other_are_dropped() {
    for case in cases() {
        let mut decapsulator = decapsulator(case.gue);
        let whole = case.around(&case.packet().payload(b"payload"));
        let outer = 14 + case.outer_bytes();
        let length_at = if case.outer_v6 { 18 } else { 16 };
        let less = |frame: &mut Vec<u8>, at: usize, by: i32| {
            let value = i32::from(u16::from_be_bytes([frame[at], frame[at + 1]])) + by;
            frame[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
        };
        let inner_length_at = outer + if case.kind.v6 { 4 } else { 2 };
        let mut places = vec![(length_at, -1), (inner_length_at, 1), (inner_length_at, 1000)];
        if case.gue {
            places.push((outer - 4, -1));
            places.push((outer - 4, 1));
        }
        for (at, by) in places {
            let mut frame = whole.clone();
            less(&mut frame, at, by);
            let (action, _, found) = outcome(&mut decapsulator, &frame);
            assert_eq!((action, found), (Action::Drop, DecapOutcome::Malformed), "{case:?}: {at} {by}");
        }
        for version in [0x00, 0x50, 0xf0] {
            let mut frame = whole.clone();
            frame[outer] = version | frame[outer] & 0xf;
            let (action, _, found) = outcome(&mut decapsulator, &frame);
            assert_eq!((action, found), (Action::Drop, DecapOutcome::Malformed), "{case:?}: {version:02x}");
        }
    }
}

/// All of one IP version is nothing of the other, and IPv4 addresses in IPv6 form are nobody's.
#[test]
fn a_network_is_of_one_ip_version() {
    for (network, v6) in [("::/0", true), ("0.0.0.0/0", false)] {
        let sources = vec![network.parse().expect("a network")];
        let mut decapsulator =
            Decapsulator::load(&DecapOptions { gue_port: None, sources }).expect("needs root");
        for case in cases().filter(|case| !case.gue) {
            let frame = case.around(&case.packet());
            let expected =
                if case.outer_v6 == v6 { DecapOutcome::Decapsulated } else { DecapOutcome::SourceNotAllowed };
            assert_eq!(outcome(&mut decapsulator, &frame).2, expected, "{network}, {case:?}");
        }
    }
    let mut decapsulator = decapsulator(false);
    for case in cases().filter(|case| !case.gue && case.outer_v6) {
        let tunnel = Tunnel { source: "::ffff:10.2.0.1".parse().expect("an address"), ..case.tunnel() };
        let frame = tunnel.around(MACS, &case.packet().frame(), &[0xff; 128]);
        passes(&mut decapsulator, &frame, DecapOutcome::SourceNotAllowed);
    }
}

#[test]
fn a_single_sender_is_a_network_too() {
    let sources = ["10.2.0.1/32", "2001:db8:2::1/128"].map(|text| text.parse().expect("a network")).to_vec();
    let mut decapsulator =
        Decapsulator::load(&DecapOptions { gue_port: Some(GUE_PORT), sources }).expect("needs root");
    for case in cases().filter(|case| case.gue) {
        assert_eq!(outcome(&mut decapsulator, &case.around(&case.packet())).2, DecapOutcome::Decapsulated);
        let mut tunnel = case.tunnel();
        tunnel.source = if case.outer_v6 { "2001:db8:2::2" } else { "10.2.0.2" }.parse().expect("an address");
        let frame = tunnel.around(MACS, &case.packet().frame(), &[0xff; 128]);
        passes(&mut decapsulator, &frame, DecapOutcome::SourceNotAllowed);
    }
}

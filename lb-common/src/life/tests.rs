extern crate std;
use super::*;
use crate::service::PROTOCOL_UDP;
use proptest::prelude::*;

/// Every state has the time-out class `class`.
fn all(class: u16) -> Classes {
    Classes(class * 0x1111)
}

#[test]
fn the_way_of_a_connection() {
    use FlowState::{Closing, Datagrams, Established, HalfClosed, HalfOpen};
    for on_fin in [HalfClosed, Closing] {
        let after = |state: FlowState, flags| state.next(PROTOCOL_TCP, flags, on_fin);
        assert_eq!(FlowState::first(PROTOCOL_TCP, TCP_SYN, on_fin), HalfOpen);
        assert_eq!(FlowState::first(PROTOCOL_TCP, TCP_ACK, on_fin), HalfOpen);
        assert_eq!(FlowState::first(PROTOCOL_TCP, TCP_RST, on_fin), Closing);
        assert_eq!(after(HalfOpen, TCP_SYN), HalfOpen);
        assert_eq!(after(HalfOpen, TCP_ACK), Established);
        assert_eq!(after(Established, TCP_ACK), Established);
        assert_eq!(after(Established, TCP_ACK | TCP_FIN), on_fin);
        assert_eq!(after(on_fin, TCP_ACK), on_fin);
        assert_eq!(after(on_fin, TCP_ACK | TCP_FIN), on_fin);
        assert_eq!(after(Closing, TCP_ACK | TCP_FIN), Closing);
        for state in [HalfOpen, Established, HalfClosed, Closing] {
            assert_eq!(after(state, TCP_RST), Closing);
        }
        assert_eq!(FlowState::first(PROTOCOL_UDP, TCP_SYN, on_fin), Datagrams);
        assert_eq!(Datagrams.next(PROTOCOL_UDP, TCP_FIN, on_fin), Datagrams);
    }
}

#[test]
fn a_connection_is_over_when_both_halves_have_ended() {
    use FlowState::{Closing, Datagrams, Established, HalfClosed, HalfOpen};
    for (half, other, becomes) in [
        (HalfOpen, HalfOpen, HalfOpen),
        (HalfOpen, Established, Established),
        (HalfOpen, HalfClosed, Established),
        (Established, HalfOpen, Established),
        (Established, HalfClosed, Established),
        (HalfClosed, Established, HalfClosed),
        (HalfClosed, HalfClosed, Closing),
        (Closing, Established, Closing),
        (Established, Closing, Closing),
        (Datagrams, Datagrams, Datagrams),
    ] {
        assert_eq!(half.beside(other), becomes, "{half:?} beside {other:?}");
    }
}

#[test]
fn where_one_word_sees_both_sides_a_connection_is_over_when_both_have_ended() {
    use FlowState::{Closing, Established, HalfClosed, HalfOpen, PeerClosed};
    let (fin, ack, rst) = (TCP_FIN | TCP_ACK, TCP_ACK, TCP_RST);
    let after = |state, by_client, flags| {
        let life = Life::new(state, all(5), 0);
        let after = if by_client {
            life.asked(PROTOCOL_TCP, flags, 7, all(5))
        } else {
            life.answered(PROTOCOL_TCP, flags, 7, all(5))
        };
        assert_eq!(after.tick(), 7);
        after.state()
    };
    let (client, server) = (true, false);
    for (state, by, flags, becomes) in [
        (HalfOpen, server, TCP_SYN | TCP_ACK, HalfOpen),
        (HalfOpen, server, ack, HalfOpen),
        (HalfOpen, server, rst, Closing),
        (HalfOpen, client, ack, Established),
        (Established, client, fin, HalfClosed),
        (HalfClosed, client, fin, HalfClosed),
        (HalfClosed, server, ack, HalfClosed),
        (HalfClosed, server, fin, Closing),
        (Established, server, fin, PeerClosed),
        (PeerClosed, server, fin, PeerClosed),
        (PeerClosed, client, ack, PeerClosed),
        (PeerClosed, client, fin, Closing),
        (PeerClosed, client, rst, Closing),
        (Closing, client, fin, Closing),
        (Closing, server, fin, Closing),
    ] {
        assert_eq!(after(state, by, flags), becomes, "{state:?}, client: {by}, flags {flags:#x}");
    }
    let datagram = Life::new(FlowState::Datagrams, all(5), 0);
    assert_eq!(datagram.answered(PROTOCOL_UDP, 0, 1, all(5)).state(), FlowState::Datagrams);
}

#[test]
fn each_state_has_a_time_out_of_its_own() {
    let timeouts = Timeouts::new(280, 64, 32, 5);
    for (state, ticks, class) in [
        (FlowState::Established, 280, 9),
        (FlowState::Datagrams, 280, 9),
        (FlowState::HalfOpen, 64, 6),
        (FlowState::Closing, 32, 5),
        (FlowState::HalfClosed, 5, 3),
        (FlowState::PeerClosed, 5, 3),
    ] {
        let life = Life::new(state, timeouts.classes(), 0);
        assert_eq!((timeouts.of(state), life.class()), (ticks, class), "{state:?}");
        assert!(!life.expired_for(ticks, timeouts) && life.expired_for(ticks + 1, timeouts), "{state:?}");
        assert!(!life.expired(1 << class) && life.expired((1 << class) + 1), "{state:?}");
    }
}

#[test]
fn half_open_flows_go_before_established_ones_however_old_those_are() {
    let established = Life::new(FlowState::Established, all(15), 0);
    let half_open = Life::new(FlowState::HalfOpen, all(15), 10_000);
    assert!(half_open.worth(10_000) < established.worth(10_000));
}

#[test]
fn a_clock_read_a_moment_earlier_is_no_age() {
    let life = Life::new(FlowState::Established, all(0), 7);
    assert_eq!(life.age(6), 0);
    assert!(!life.expired(6));
    let wrapped = Life::new(FlowState::Established, all(0), 0);
    assert_eq!(wrapped.age(0xffff), 0);
}

#[test]
fn half_open_flows_yield_and_others_only_where_nobody_waits() {
    let yields = |state, age| Life::new(state, all(10), 1000).yields(1000 + age);
    assert_eq!(yields(FlowState::HalfOpen, 0), 1);
    for state in [FlowState::Datagrams, FlowState::Closing] {
        assert_eq!(yields(state, YIELDING_TICKS - 1), 0, "{state:?}");
        assert_eq!(yields(state, YIELDING_TICKS), u32::from(YIELDING_TICKS) + 1, "the oldest goes first");
    }
    let keep = [FlowState::PeerClosed, FlowState::HalfClosed, FlowState::Established, FlowState::Claimed];
    for state in keep.into_iter().chain([FlowState::Empty]) {
        assert_eq!(yields(state, 500), 0, "{state:?}");
    }
}

#[test]
fn milliseconds_round_up_to_ticks() {
    assert_eq!(ticks_of_ms(0), 1);
    assert_eq!(ticks_of_ms(1_000), 1);
    assert_eq!(ticks_of_ms(1_074), 2);
    assert_eq!(ticks_of_ms(300_000), 280);
    assert_eq!(ticks_of_ms(u64::MAX), MAX_IDLE_TICKS);
}

proptest! {
    #[test]
    fn a_life_leaves_the_rest_of_its_word_alone(word: u64, tick: u16, class in 0u8..16, state in 0usize..8) {
        const STATES: [FlowState; 8] = [
            FlowState::Empty, FlowState::HalfOpen, FlowState::Closing, FlowState::PeerClosed, FlowState::Datagrams,
            FlowState::HalfClosed, FlowState::Established, FlowState::Claimed,
        ];
        let state = STATES[state];
        let life = Life::new(state, all(u16::from(class)), tick);
        let put = life.put(word);
        prop_assert_eq!(put >> Life::BITS, word >> Life::BITS);
        prop_assert_eq!(Life::of(put), life);
        prop_assert_eq!((life.tick(), life.class(), life.state()), (tick, class, state));
    }

    #[test]
    fn a_class_never_ends_a_flow_before_its_time(idle in 1u16..=MAX_IDLE_TICKS, start: u16, age in 0u16..0x9000) {
        let timeouts = Timeouts::new(idle, 1, 1, 1);
        let life = Life::new(FlowState::Established, timeouts.classes(), start);
        let now = start.wrapping_add(age);
        prop_assert!(!life.expired(now) || life.expired_for(now, timeouts));
        prop_assert_eq!(life.expired_for(now, timeouts), age > idle);
    }
}

//! What became of a packet, in one word.

/// What the data plane does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sent on.
    Forward,
    /// Handed to the kernel, untouched.
    Pass,
    /// Answered by Flowgate itself: out where it came in.
    Answer,
    /// Dropped.
    Drop,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Pass => "pass",
            Self::Answer => "answer",
            Self::Drop => "drop",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $verdict:ident $label:literal,)+) => {
        /// Why a packet was sent on, passed or dropped: counter index, metric label and row of `stats` at once.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What is done with the packet.
            #[inline(always)]
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self {
                    $(Self::$name => Verdict::$verdict,)+
                }
            }

            /// The reason whose number is `index`; [`Reason::BadState`] where there is none.
            #[inline(always)]
            #[must_use]
            pub const fn from_index(index: u32) -> Self {
                $(if index == Self::$name as u32 {
                    return Self::$name;
                })+
                Self::BadState
            }

            /// Its name in metrics and tables.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

reasons! {
    /// From a client, sent to a backend.
    Forwarded = Forward "forwarded",
    /// From a backend, sent to the client (full-nat, nat).
    Replied = Forward "replied",
    /// An ICMP error about a packet that went through here, sent to whoever that packet was from.
    IcmpError = Forward "icmp_error",

    /// Neither IPv4 nor IPv6: ARP and the like.
    NotIp = Pass "not_ip",
    /// An 802.1Q or 802.1ad tag.
    VlanTagged = Pass "vlan_tagged",
    /// Headers that contradict themselves or the frame's length.
    Malformed = Pass "malformed",
    /// A part of a packet that is not the first, whose first one was not ours or is not remembered (`fragments`).
    Fragment = Pass "fragment",
    /// Neither TCP nor UDP: ICMP that is not about a flow of ours, IPv6 extension headers that are the kernel's and the like.
    NotTransport = Pass "not_transport",
    /// No service has this address, port and protocol, and no flow of ours is answered by it.
    NotService = Pass "not_service",

    /// A connection to a backend that is down, answered by a RST (`on_down = "reset"`).
    BackendReset = Answer "backend_reset",
    /// A new flow while the service has no backend that may get it, answered by a refusal (`refuse = "reject"`).
    RejectedNoBackend = Answer "rejected_no_backend",
    /// A new flow while every backend has as many flows as it may, answered by a refusal.
    RejectedFull = Answer "rejected_full",
    /// From a client, but TTL or hop limit is at its end: answered by "time exceeded", as a router would (all modes but dsr).
    TimeExceeded = Answer "time_exceeded",
    /// From a client, but with its outer header too large for the way to its backend: answered by "fragmentation needed"
    /// or "packet too big", which say how large it may be (ipip, gue).
    PacketTooBig = Answer "packet_too_big",
    /// A ping to a service's address, answered (`answer_ping`).
    PingAnswered = Answer "ping_answered",

    /// The same from a backend, or of an ICMP error; or from a client that is not answered: ICMP errors are used up for the moment, the packet
    /// has IP options, or its sender is no single host.
    TtlExpired = Drop "ttl_expired",
    /// Too large for the way to its backend, and not answered, as above.
    ExceedsMtu = Drop "exceeds_mtu",
    /// The driver leaves no room in front of a frame for an outer header (ipip, gue).
    NoHeadroom = Drop "no_headroom",
    /// A part of a packet whose first part went to a backend that has gone since, or is disabled.
    FragmentLost = Drop "fragment_lost",
    /// The service has no backend that may get it.
    NoBackend = Drop "no_backend",
    /// Every backend that was tried has as many flows as it may.
    BackendsFull = Drop "backends_full",
    /// A connection to a backend that is down, whose packet cannot be answered by a RST (`on_down = "reset"`): it is
    /// a RST itself, or there was no room for the answer.
    BackendDown = Drop "backend_down",
    /// The backend's next hop is not known.
    NoNextHop = Drop "no_next_hop",
    /// full-nat, ipip, gue: no source address towards the backend is known.
    NoSourceAddress = Drop "no_source_address",
    /// full-nat: none of the ports that were tried towards the backend is free.
    PortsExhausted = Drop "ports_exhausted",
    /// Another CPU has begun a flow in the same place at this moment; the client's next packet finds another.
    TableContended = Drop "table_contended",
    /// full-nat: too many neighbours have sent packets for their MAC addresses to be remembered.
    NoReturnPath = Drop "no_return_path",
    /// The egress interface is gone or takes no frames.
    NoEgress = Drop "no_egress",
    /// An index in a map names nothing: a fault of the agent.
    BadState = Drop "bad_state",
}

/// How many reasons there are.
pub const REASONS: u32 = Reason::ALL.len() as u32;

/// The index in `PACKETS` of an interface's counter.
#[inline(always)]
#[must_use]
pub const fn counter_index(interface_slot: u32, reason: Reason) -> u32 {
    interface_slot * REASONS + reason as u32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_counter_and_a_label_of_its_own() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(Reason::from_index(index as u32), *reason);
            assert_eq!(counter_index(2, *reason), 2 * REASONS + index as u32);
        }
    }

    #[test]
    fn labels_are_metric_label_values() {
        for reason in Reason::ALL {
            assert!(reason.label().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
    }
}

//! Which service a packet is for.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use lb_common::{Addr, Mode, Service, ServiceKey, Timeouts, TunnelOptions, life::Classes};

use crate::{atomic, globals};

/// `BPF_F_MMAPABLE`: the agent writes these maps through its own memory.
pub const IN_MEMORY: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// The agent sets the size of both at load.
#[btf_map]
static SERVICE_KEYS: HashMap<ServiceKey, u32, 1> = HashMap::new();
#[btf_map]
static SERVICES: Array<Service, 1, IN_MEMORY> = Array::new();

/// A service, by reference into the map.
#[derive(Clone, Copy)]
pub struct ServiceRef {
    /// Its index.
    pub index: u16,
    service: &'static Service,
}

impl ServiceRef {
    /// The service at `index`, if the index is in the map.
    #[inline(always)]
    pub fn at(index: u16) -> Option<Self> {
        SERVICES.get(u32::from(index)).map(|service| Self { index, service })
    }

    /// The ring's place at this moment; read once a packet.
    #[inline(always)]
    pub fn ring(&self) -> u64 {
        // SAFETY: an aligned word of a map's value, which the agent replaces by one store.
        unsafe { atomic::read(&raw const self.service.ring) }
    }

    #[inline(always)]
    pub fn addr(&self) -> &'static Addr {
        &self.service.addr
    }

    #[inline(always)]
    pub fn port(&self) -> [u8; 2] {
        self.service.port
    }

    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.service.protocol
    }

    #[inline(always)]
    pub fn mode(&self) -> u8 {
        self.service.mode
    }

    /// Whether its packets are encapsulated.
    #[inline(always)]
    pub fn is_tunnel(&self) -> bool {
        self.service.mode == Mode::Ipip as u8 || self.service.mode == Mode::Gue as u8
    }

    /// What its tunnel is like.
    #[inline(always)]
    pub fn tunnel(&self) -> TunnelOptions {
        // SAFETY: an aligned word of a map's value, which the agent replaces by one store.
        TunnelOptions(unsafe { atomic::read(&raw const self.service.tunnel) })
    }

    #[inline(always)]
    pub fn scheduler(&self) -> u8 {
        self.service.scheduler
    }

    /// Whether new flows that no backend can take are answered by a refusal.
    #[inline(always)]
    pub fn rejects(&self) -> bool {
        self.service.flags & Service::REJECTS != 0
    }

    /// Whether new flows are counted in `LOADS`.
    #[inline(always)]
    pub fn counts_flows(&self) -> bool {
        self.service.flags & Service::COUNTS_FLOWS != 0
    }

    /// Whether a server of it is another service's as well (`nat`).
    #[inline(always)]
    pub fn shares_servers(&self) -> bool {
        globals::shares_servers() && self.service.flags & Service::SHARES_SERVERS != 0
    }

    /// Whether parts of its packets go by their addresses alone.
    #[inline(always)]
    pub fn steers_parts_by_address(&self) -> bool {
        globals::has_fragments_by_address() && self.service.flags & Service::FRAGMENTS_BY_ADDRESS != 0
    }

    #[inline(always)]
    pub fn timeouts(&self) -> Timeouts {
        // SAFETY: an aligned word of a map's value, which the agent replaces by one store.
        Timeouts(unsafe { atomic::read(&raw const self.service.timeouts) })
    }

    #[inline(always)]
    pub fn classes(&self) -> Classes {
        Classes(self.service.classes)
    }

    /// What of a client's address counts for the scheduler.
    #[inline(always)]
    pub fn client_words(&self, client: &Addr) -> [u64; 2] {
        let [high, low] = client.words();
        let [high_mask, low_mask] = self.service.client_mask;
        [high & high_mask, low & low_mask]
    }
}

/// The service that a packet is for.
#[inline(always)]
pub fn lookup(key: &ServiceKey) -> Option<ServiceRef> {
    // SAFETY: the value is copied out at once; a slot that is reused meanwhile holds another service's index,
    // never anything else.
    let index = unsafe { SERVICE_KEYS.get(key).copied() }?;
    ServiceRef::at(index as u16)
}

//! Which service a packet is for.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use lb_common::{Addr, Service, ServiceKey};

use crate::atomic;

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

    #[inline(always)]
    pub fn idle_ticks(&self) -> u16 {
        self.service.idle_ticks
    }

    #[inline(always)]
    pub fn idle_class(&self) -> u8 {
        self.service.idle_class
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

//! Backends, and the addresses that they are spoken to from.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::{Addr, Backend, Reason, SourceRange, abi::MAX_SOURCES};

use crate::{
    atomic,
    service::{IN_MEMORY, ServiceRef},
};

/// The agent sets the size at load.
#[btf_map]
static BACKENDS: Array<Backend, 1, IN_MEMORY> = Array::new();
#[btf_map]
static SOURCES: Array<Addr, { MAX_SOURCES as usize }, IN_MEMORY> = Array::new();

/// A backend, by reference into the map.
#[derive(Clone, Copy)]
pub struct BackendRef {
    /// Its index.
    pub index: u16,
    backend: &'static Backend,
}

impl BackendRef {
    /// The backend at `index`, if the index is in the map.
    #[inline(always)]
    pub fn at(index: u16) -> Option<Self> {
        BACKENDS.get(u32::from(index)).map(|backend| Self { index, backend })
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        // SAFETY: an aligned word of a map's value, which the agent replaces by one store.
        unsafe { atomic::read(&raw const self.backend.flags) }
    }

    /// Whether a new flow of `service` may begin here.
    #[inline(always)]
    pub fn takes_new_flow_of(&self, service: &ServiceRef) -> bool {
        self.backend.service == service.index && self.flags() & Backend::USABLE != 0
    }

    /// Whether a flow of `service` that was steered here stays. One that has not got anywhere yet leaves a
    /// backend that is down; every flow leaves one that is gone or disabled. [`Reason::BackendDown`] where a
    /// connection neither stays nor leaves, but ends.
    #[inline(always)]
    pub fn keeps_flow_of(&self, service: &ServiceRef, has_begun: bool) -> Result<bool, Reason> {
        let flags = self.flags();
        if self.backend.service != service.index || flags & Backend::USABLE == 0 {
            return Ok(false);
        }
        if flags & Backend::DOWN == 0 {
            return Ok(true);
        }
        if flags & Backend::RESETS != 0 && has_begun {
            return Err(Reason::BackendDown);
        }
        Ok(has_begun)
    }

    /// Flows above which it gets no new ones; 0: no bound.
    #[inline(always)]
    pub fn max_flows(&self) -> u32 {
        self.backend.max_flows
    }

    /// Its weight for comparing loads.
    #[inline(always)]
    pub fn load_weight(&self) -> u32 {
        self.backend.load_weight
    }

    /// Index of its next hop; 0 where that is not known.
    #[inline(always)]
    pub fn next_hop(&self) -> u32 {
        // SAFETY: an aligned word of a map's value, which the agent replaces by one store.
        unsafe { atomic::read(&raw const self.backend.next_hop) }
    }

    #[inline(always)]
    pub fn addr(&self) -> &'static Addr {
        &self.backend.addr
    }

    #[inline(always)]
    pub fn port(&self) -> [u8; 2] {
        self.backend.port
    }

    /// Whether both are one server, whatever services they belong to.
    #[inline(always)]
    pub fn is_server(&self, other: &Self) -> bool {
        self.backend.addr == other.backend.addr && self.backend.port == other.backend.port
    }

    #[inline(always)]
    pub fn service(&self) -> u16 {
        self.backend.service
    }

    /// The addresses that it may be spoken to from.
    #[inline(always)]
    pub fn sources(&self) -> SourceRange {
        // SAFETY: an aligned word of a map's value, which the agent replaces by one store.
        SourceRange::unpack(unsafe { atomic::read((&raw const self.backend.sources).cast::<u32>()) })
    }

    /// Which of its source addresses a flow gets.
    #[inline(always)]
    pub fn source_for(&self, key: u64) -> Result<u8, Reason> {
        let sources = self.sources();
        if sources.count == 0 {
            return Err(Reason::NoSourceAddress);
        }
        let offset = (((key >> 48) * u64::from(sources.count)) >> 16) as u8;
        Ok(sources.first.wrapping_add(offset))
    }
}

/// The source address at `index`.
#[inline(always)]
pub fn source(index: u8) -> Option<&'static Addr> {
    SOURCES.get(u32::from(index))
}

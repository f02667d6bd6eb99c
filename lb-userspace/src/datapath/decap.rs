//! The decapsulator: a program of its own, for the machines that backends are on.

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        MapData, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
    programs::Xdp,
};
use ipnet::IpNet;
use lb_common::{
    Addr, Interface,
    abi::programs,
    decap::{
        DECAP_GUE, DECAP_IPIP, DECAP_SOURCES_MAX, DECAP_VERSION_BITS, DecapOutcome, globals, maps, source_key,
    },
};

use super::{
    DatapathError,
    load::{AttachTarget, attach_new},
    object,
};
use crate::model::AttachMode;

/// What is taken off, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecapOptions {
    /// The UDP port of `gue`; none: `ipip`.
    pub gue_port: Option<u16>,
    /// Where packets must be from.
    pub sources: Vec<IpNet>,
}

/// A decapsulator in the kernel. It goes with this value, however the process ends.
pub struct Decapsulator {
    instance: Ebpf,
    counters: PerCpuArray<MapData, u64>,
}

impl Decapsulator {
    /// Loads it; it is attached to nothing yet.
    ///
    /// # Errors
    /// The kernel refuses, or there are too many sources.
    pub fn load(options: &DecapOptions) -> Result<Self, DatapathError> {
        if options.sources.len() > DECAP_SOURCES_MAX as usize {
            return Err(DatapathError::Refused(format!(
                "more than {DECAP_SOURCES_MAX} networks to take packets from: give larger ones"
            )));
        }
        let mode = if options.gue_port.is_some() { DECAP_GUE } else { DECAP_IPIP };
        let port = options.gue_port.unwrap_or(0);
        let mut instance = EbpfLoader::new()
            .override_global(globals::DECAP_MODE, &mode, true)
            .override_global(globals::DECAP_PORT, &port, true)
            .load(object())
            .map_err(|error| {
                DatapathError::kernel(
                    "cannot load the decapsulator (needs root, or CAP_BPF and CAP_NET_ADMIN)",
                    &error,
                )
            })?;
        let mut sources: LpmTrie<MapData, [u8; 20], u32> = typed(&mut instance, maps::DECAP_SOURCES)?;
        for network in &options.sources {
            sources
                .insert(&key_of(network), 0, 0)
                .map_err(|error| DatapathError::kernel(format!("cannot let {network} in"), &error))?;
        }
        let counters = typed(&mut instance, maps::DECAP_COUNTERS)?;
        let mut decapsulator = Self { instance, counters };
        decapsulator
            .program()?
            .load()
            .map_err(|error| DatapathError::kernel("the kernel refused the decapsulator", &error))?;
        Ok(decapsulator)
    }

    /// Attaches it to an interface, and says how.
    ///
    /// # Errors
    /// The interface refuses, or another program is attached to it.
    pub fn attach(&mut self, target: &AttachTarget) -> Result<AttachMode, DatapathError> {
        let (_, attached) = attach_new(self.program()?, target)?;
        Ok(if attached == Interface::NATIVE { AttachMode::Native } else { AttachMode::Generic })
    }

    /// The program.
    ///
    /// # Errors
    /// The object does not have it.
    pub fn program(&mut self) -> Result<&mut Xdp, DatapathError> {
        self.instance
            .program_mut(programs::DECAP)
            .ok_or_else(|| DatapathError::Refused(format!("no program {} in the object", programs::DECAP)))?
            .try_into()
            .map_err(|error| DatapathError::kernel("the program is not an XDP program", &error))
    }

    /// Frames so far, by what became of them.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn counters(&self) -> Result<Vec<(DecapOutcome, u64)>, DatapathError> {
        let count = |outcome: DecapOutcome| {
            let by_cpu = self
                .counters
                .get(&(outcome as u32), 0)
                .map_err(|error| DatapathError::kernel("cannot read the counters", &error))?;
            Ok((outcome, by_cpu.iter().sum()))
        };
        DecapOutcome::ALL.iter().copied().map(count).collect()
    }
}

fn typed<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    instance: &mut Ebpf,
    name: &str,
) -> Result<T, DatapathError> {
    let map = instance
        .take_map(name)
        .ok_or_else(|| DatapathError::Refused(format!("no map {name} in the object")))?;
    T::try_from(map).map_err(|error| DatapathError::kernel(format!("{name} is of another type"), &error))
}

/// A network among addresses of both versions.
fn key_of(network: &IpNet) -> Key<[u8; 20]> {
    let is_v4 = network.addr().is_ipv4();
    let in_front = DECAP_VERSION_BITS + if is_v4 { 96 } else { 0 };
    let address = Addr::from(network.network());
    Key::new(in_front + u32::from(network.prefix_len()), source_key(&address, is_v4))
}

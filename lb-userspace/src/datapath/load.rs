//! Bringing the data plane into the kernel, or adopting the one that runs there.

use std::{collections::BTreeMap, fs, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpLinkId},
    },
};
use lb_common::{
    Features, Interface,
    abi::{self, Identity, MAX_INTERFACES, globals, programs},
};

use super::{
    DatapathError,
    apply::Reconciler,
    object,
    pin::Pins,
    tables::{Sizes, Tables},
};
use crate::model::{AttachMode, Limits};

/// What a data plane is brought up with.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where it is, or will be, pinned.
    pub pins: Pins,
    /// Sizes of the tables, where it does not run yet.
    pub limits: Limits,
    /// Whether every packet's fate is logged.
    pub debug_packets: bool,
    /// What packets may ask for, besides what the services that run already do, until [`Datapath::fit`] says otherwise.
    pub features: Features,
}

/// A data plane that is in the kernel.
pub struct Datapath {
    pub(super) options: LoadOptions,
    /// What the program is attached to, by slot.
    targets: BTreeMap<u32, AttachTarget>,
    /// The maps.
    pub maps: Reconciler,
    /// Whether it ran already when this agent came.
    pub adopted: bool,
}

/// An interface that the program is to be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachTarget {
    /// Its name, for messages.
    pub name: String,
    /// Its index in the kernel.
    pub index: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// How to attach.
    pub mode: AttachMode,
}

/// What an instance of the program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be attached.
    Balance,
    /// To be asked.
    Explain,
}

/// An interface that the program is attached to.
pub struct Attached {
    /// Its slot.
    pub slot: u32,
    /// `native` or `generic`.
    pub mode: AttachMode,
    /// The log of this instance of the program, where it writes one.
    pub log: Option<super::log::PacketLog>,
}

impl Datapath {
    /// Opens the data plane under `options.pins`, or makes it where there is none.
    ///
    /// # Errors
    /// bpffs, rights, memory, pins of another make: each with the way out.
    pub fn open(mut options: LoadOptions) -> Result<Self, DatapathError> {
        options.pins.prepare()?;
        let adopted = is_complete(&options.pins)?;
        if !adopted {
            make_maps(&options)?;
        }
        let maps = Reconciler::new(Tables::open(&options.pins)?)?;
        options.features = options.features.and(maps.features());
        Ok(Self { options, targets: BTreeMap::new(), maps, adopted })
    }

    /// Whether the tables that run are of other sizes than `limits` ask for.
    #[must_use]
    pub fn differs_from(&self, limits: &Limits) -> bool {
        let wanted = Sizes::of_limits(limits).entries();
        wanted != Sizes { identity: self.maps.tables.identity() }.entries()
    }

    /// Attaches the program to an interface, or replaces the program that an earlier agent attached to it; no
    /// packet meets an interface without one in between.
    ///
    /// # Errors
    /// The interface refuses, or another program is attached to it.
    pub fn attach(&mut self, target: &AttachTarget) -> Result<Attached, DatapathError> {
        let slot = self.slot_for(target.index)?;
        let mut instance = self.load_instance(slot, Purpose::Balance)?;
        let log =
            self.options.debug_packets.then(|| super::log::PacketLog::new(&mut instance)).transpose()?;
        let program: &mut Xdp = instance
            .program_mut(programs::BALANCE)
            .ok_or_else(|| DatapathError::Refused(format!("no program {} in the object", programs::BALANCE)))?
            .try_into()
            .map_err(|error| DatapathError::kernel("the program is not an XDP program", &error))?;
        program.load().map_err(|error| DatapathError::kernel("the kernel refused the program", &error))?;

        let known = self.maps.tables.interfaces.get(slot as usize);
        let link_pin = self.options.pins.link(slot);
        let (link_id, attached) = match replace(program, &link_pin, &known, target)? {
            Some(link_id) => (link_id, known.attached),
            None => attach_new(program, target)?,
        };
        // Registered before the link can be adopted: whoever finds the pin finds the rest.
        self.register(slot, target, attached)?;
        self.maps.tables.set_egress(slot, target.index)?;
        keep(program, link_id, &link_pin)?;
        let program_pin = self.options.pins.program(slot);
        let _ = fs::remove_file(&program_pin);
        program.pin(&program_pin).map_err(|error| {
            DatapathError::kernel(format!("cannot pin {}", program_pin.display()), &error)
        })?;
        self.targets.insert(slot, target.clone());
        let mode = if attached == Interface::NATIVE { AttachMode::Native } else { AttachMode::Generic };
        Ok(Attached { slot, mode, log })
    }

    /// What the program that is attached can do.
    #[must_use]
    pub fn features(&self) -> Features {
        self.options.features
    }

    /// Replaces the program on every interface by one that can do `features` and no more; nothing where it is so
    /// already.
    ///
    /// # Errors
    /// An interface refuses. Those before it have the new program, which still does what the services that run need.
    pub fn fit(&mut self, features: Features) -> Result<Vec<Attached>, DatapathError> {
        if self.options.features == features {
            return Ok(Vec::new());
        }
        let before = std::mem::replace(&mut self.options.features, features);
        let targets: Vec<_> = self.targets.values().cloned().collect();
        let attached: Result<Vec<_>, _> = targets.iter().map(|target| self.attach(target)).collect();
        if attached.is_err() {
            self.options.features = before;
        }
        attached
    }

    /// Takes the program off the interface in `slot`.
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn release(&mut self, slot: u32) -> Result<(), DatapathError> {
        for path in [self.options.pins.link(slot), self.options.pins.program(slot)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DatapathError::kernel(format!("cannot remove {}", path.display()), &error));
                }
                _ => {}
            }
        }
        self.maps.tables.interfaces.set(slot as usize, Interface::default());
        self.targets.remove(&slot);
        Ok(())
    }

    /// Slot and interface index of every interface that a program is registered for.
    #[must_use]
    pub fn registered(&self) -> Vec<(u32, u32)> {
        let index = |slot: u32| self.maps.tables.interfaces.get(slot as usize).index;
        (0..MAX_INTERFACES).map(|slot| (slot, index(slot))).filter(|(_, index)| *index != 0).collect()
    }

    fn slot_for(&self, interface_index: u32) -> Result<u32, DatapathError> {
        let index = |slot: &u32| self.maps.tables.interfaces.get(*slot as usize).index;
        (0..MAX_INTERFACES)
            .find(|slot| index(slot) == interface_index)
            .or_else(|| (0..MAX_INTERFACES).find(|slot| index(slot) == 0))
            .ok_or_else(|| {
                DatapathError::Refused(format!("more than {MAX_INTERFACES} interfaces: name fewer"))
            })
    }

    /// Takes note of an interface's other MAC address or MTU.
    pub fn update(&mut self, slot: u32, mac: [u8; 6], mtu: u32) {
        let known = self.maps.tables.interfaces.get(slot as usize);
        if (known.mac, known.mtu) != (mac, mtu) {
            self.maps.tables.interfaces.set(slot as usize, Interface { mac, mtu, ..known });
        }
        if let Some(target) = self.targets.get_mut(&slot) {
            (target.mac, target.mtu) = (mac, mtu);
        }
    }

    fn register(&self, slot: u32, target: &AttachTarget, attached: u8) -> Result<(), DatapathError> {
        let interface =
            Interface { mac: target.mac, attached, padding: [0], index: target.index, mtu: target.mtu };
        self.maps.tables.interfaces.set(slot as usize, interface);
        Ok(())
    }

    /// An instance of the object on the pinned maps, its globals set for the interface in `slot`.
    pub(super) fn load_instance(&self, slot: u32, purpose: Purpose) -> Result<Ebpf, DatapathError> {
        let identity = self.maps.tables.identity();
        load(&self.options, &identity, slot, purpose)
    }
}

/// Loads the object; maps that are pinned are used, others are made and pinned.
fn load(
    options: &LoadOptions,
    identity: &Identity,
    slot: u32,
    purpose: Purpose,
) -> Result<Ebpf, DatapathError> {
    let explains = u8::from(purpose == Purpose::Explain);
    let debug_packets = u8::from(options.debug_packets && purpose == Purpose::Balance);
    // It is loaded once for whatever may be asked later; what no service has no packet meets.
    let features = if purpose == Purpose::Explain { Features::ALL } else { options.features };
    let (flow_mask, nat_mask) = (identity.flow_buckets - 1, identity.nat_buckets - 1);
    let reply_mask = identity.nat_replies - 1;
    let sizes = Sizes { identity: *identity }.entries();
    let mut loader = EbpfLoader::new();
    loader
        .override_global(globals::FLOW_MASK, &flow_mask, true)
        .override_global(globals::NAT_MASK, &nat_mask, true)
        .override_global(globals::REPLY_MASK, &reply_mask, true)
        .override_global(globals::FRAGMENT_SLOTS, &identity.fragments, true)
        .override_global(globals::HASH_KEY_0, &identity.hash_key[0], true)
        .override_global(globals::HASH_KEY_1, &identity.hash_key[1], true)
        .override_global(globals::NAT_PORT_FIRST, &identity.nat_port_first, true)
        .override_global(globals::NAT_PORT_COUNT, &identity.nat_port_count, true)
        .override_global(globals::INTERFACE_SLOT, &slot, true)
        .override_global(globals::FEATURES, &features.0, true)
        .override_global(globals::EXPLAINS, &explains, true)
        .override_global(globals::DEBUG_PACKETS, &debug_packets, true);
    for (name, entries, _) in sizes {
        loader.map_max_entries(name, entries).map_pin_path(name, options.pins.map(name));
    }
    loader.load(object()).map_err(|error| {
        DatapathError::kernel(
            "cannot load the data plane (needs root, or CAP_BPF and CAP_NET_ADMIN, and memory for the tables; \
             smaller `limits` need less)",
            &error,
        )
    })
}

/// Makes and pins the maps of a new data plane; its identity is published last, so that one that was not finished
/// is not taken for one that was.
fn make_maps(options: &LoadOptions) -> Result<(), DatapathError> {
    let Sizes { mut identity } = Sizes::of_limits(&options.limits);
    let (first, count) = nat_ports();
    identity.nat_port_first = first;
    identity.nat_port_count = count;
    identity.hash_key = random_key()?;
    // Slot 0 here: this instance makes the maps and is never attached.
    drop(load(options, &identity, 0, Purpose::Balance)?);
    let memory = Tables::map_identity(&options.pins)?;
    memory.set(0, identity);
    memory
        .half(0, std::mem::offset_of!(Identity, abi))
        .store(abi::VERSION, std::sync::atomic::Ordering::Release);
    Ok(())
}

/// Whether a finished data plane is pinned; one that was left half-made is removed.
fn is_complete(pins: &Pins) -> Result<bool, DatapathError> {
    if !pins.map(abi::maps::IDENTITY).exists() {
        clear(pins)?;
        return Ok(false);
    }
    if Tables::map_identity(pins)?.get(0).abi == abi::VERSION {
        return Ok(true);
    }
    tracing::warn!(path = %pins.root().display(), "the data plane pinned here was never finished: it is made anew");
    clear(pins)?;
    Ok(false)
}

fn clear(pins: &Pins) -> Result<(), DatapathError> {
    for directory in ["links", "programs", "maps"] {
        let path = pins.root().join(directory);
        fs::remove_dir_all(&path)
            .map_err(|error| DatapathError::kernel(format!("cannot remove {}", path.display()), &error))?;
    }
    pins.prepare()
}

/// Puts `program` in place of the one on the pinned link, if that link still holds this interface.
fn replace(
    program: &mut Xdp,
    link_pin: &Path,
    known: &Interface,
    target: &AttachTarget,
) -> Result<Option<XdpLinkId>, DatapathError> {
    let wanted = match target.mode {
        AttachMode::Auto => known.attached,
        AttachMode::Native => Interface::NATIVE,
        AttachMode::Generic => Interface::GENERIC,
    };
    if !link_pin.exists() {
        return Ok(None);
    }
    let pinned = PinnedLink::from_pin(link_pin).map_err(|error| {
        DatapathError::kernel(format!("cannot open the link {}", link_pin.display()), &error)
    });
    if let Ok(pinned) = pinned
        && known.index == target.index
        && known.attached == wanted
    {
        let link = XdpLink::try_from(FdLink::from(pinned))
            .map_err(|error| DatapathError::kernel("the pinned link is not of an XDP program", &error))?;
        match program.attach_to_link(link) {
            Ok(link_id) => return Ok(Some(link_id)),
            Err(error) => {
                tracing::warn!(interface = target.name, %error, "the link of an earlier agent is dead: attaching anew");
            }
        }
    }
    fs::remove_file(link_pin)
        .map_err(|error| DatapathError::kernel(format!("cannot remove {}", link_pin.display()), &error))?;
    Ok(None)
}

/// Attaches a program where none is, as `target` asks.
pub(super) fn attach_new(program: &mut Xdp, target: &AttachTarget) -> Result<(XdpLinkId, u8), DatapathError> {
    let mut attach = |mode| program.attach_to_if_index(target.index, mode);
    match target.mode {
        AttachMode::Native => attach(XdpMode::Driver)
            .map(|link| (link, Interface::NATIVE))
            .map_err(|error| attach_error(target, &error)),
        AttachMode::Generic => attach(XdpMode::Skb)
            .map(|link| (link, Interface::GENERIC))
            .map_err(|error| attach_error(target, &error)),
        AttachMode::Auto => match attach(XdpMode::Driver) {
            Ok(link) => Ok((link, Interface::NATIVE)),
            Err(native) if is_busy(&native) => Err(attach_error(target, &native)),
            Err(native) => match attach(XdpMode::Skb) {
                Ok(link) => {
                    tracing::warn!(interface = target.name, error = %native, "no native XDP: attached in generic mode, which is slower");
                    Ok((link, Interface::GENERIC))
                }
                Err(error) => Err(attach_error(target, &error)),
            },
        },
    }
}

/// Pins a link, so that it outlives the agent.
fn keep(program: &mut Xdp, link_id: XdpLinkId, link_pin: &Path) -> Result<(), DatapathError> {
    let link = program
        .take_link(link_id)
        .map_err(|error| DatapathError::kernel("cannot take hold of the link", &error))?;
    let link = FdLink::try_from(link)
        .map_err(|error| DatapathError::kernel("this kernel has no XDP links (5.9 has)", &error))?;
    if link_pin.exists() {
        // An adopted link: the pin holds it already, and letting go of this descriptor changes nothing.
        return Ok(());
    }
    link.pin(link_pin)
        .map(drop)
        .map_err(|error| DatapathError::kernel(format!("cannot pin {}", link_pin.display()), &error))
}

fn is_busy(error: &aya::programs::ProgramError) -> bool {
    has_errno(error, &[libc::EBUSY, libc::EEXIST])
}

fn has_errno(error: &(dyn std::error::Error + 'static), errnos: &[i32]) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some_and(|errno| errnos.contains(&errno))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn attach_error(target: &AttachTarget, error: &aya::programs::ProgramError) -> DatapathError {
    let name = &target.name;
    if is_busy(error) {
        return DatapathError::Refused(format!(
            "interface {name} has another XDP program: see it with `ip link show dev {name}`, take it away with \
             `ip link set dev {name} xdp off`; where that is refused, a BPF link holds it: `bpftool link show` \
             lists the links by program, `bpftool link detach id LINK` takes it away (another Flowgate's: \
             `flowgate detach --all --pin-dir DIR`)"
        ));
    }
    let hint = if target.mode == AttachMode::Native {
        format!(
            "; use interfaces = [{{ name = \"{name}\", mode = \"generic\" }}] where the driver has no XDP"
        )
    } else {
        String::new()
    };
    DatapathError::kernel(format!("interface {name} refused the program{hint}"), error)
}

/// The ports that full-nat allocates: the larger part of those that the host's own connections never use.
fn nat_ports() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    ports_outside(&text)
}

/// The larger of the two ranges outside the local ports, well-known ports left out.
fn ports_outside(local_port_range: &str) -> (u16, u16) {
    const FIRST: u16 = 1024;
    let mut numbers = local_port_range.split_whitespace().filter_map(|number| number.parse::<u16>().ok());
    let (low, high) = (numbers.next().unwrap_or(32_768), numbers.next().unwrap_or(60_999));
    let below = low.saturating_sub(FIRST);
    let above = u16::MAX - high;
    match (below.max(above), below >= above) {
        // The host takes every port: ours meet its own only where a backend's address and port do, too.
        (0..=1023, _) => (FIRST, u16::MAX - FIRST),
        (count, true) => (FIRST, count),
        (count, false) => (high + 1, count),
    }
}

fn random_key() -> Result<[u64; 2], DatapathError> {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| DatapathError::kernel("cannot read /dev/urandom", &error))?;
    let [a, b] = [0, 8].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    });
    Ok([a, b])
}

#[cfg(test)]
mod tests {
    use super::ports_outside;

    #[test]
    fn ports_are_taken_from_outside_the_local_range() {
        assert_eq!(ports_outside("32768\t60999\n"), (1024, 31_744));
        assert_eq!(ports_outside("1024 20000"), (20_001, 45_535));
        assert_eq!(ports_outside("1024 65535"), (1024, 64_511));
        assert_eq!(ports_outside(""), (1024, 31_744));
    }
}

//! What is in a pinned data plane, read beside the agent that owns it: nothing is written.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use lb_common::{ServiceKey, ring::LINE_SLOTS};

use super::{
    DatapathError,
    live::{Live, LiveBackend},
    pin::Pins,
    tables::Tables,
};

/// One service as packets meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenService {
    /// What names it in packets.
    pub key: ServiceKey,
    /// Its backends.
    pub backends: BTreeMap<SocketAddr, SeenBackend>,
    /// Slots of its ring that name what is no backend of its own: none, unless it was read during a change.
    pub stray_slots: u32,
}

/// One backend as packets meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenBackend {
    /// Its entry.
    pub entry: LiveBackend,
    /// Slots of the ring that name it.
    pub ring_slots: u32,
}

/// Reads every service of the data plane under `pins`. What changes meanwhile may be seen half.
///
/// # Errors
/// There is none, or it is of another make.
pub fn services(pins: &Pins) -> Result<Vec<SeenService>, DatapathError> {
    let tables = Tables::open(pins)?;
    let live = Live::read(&tables)?;
    let seen = live.services.into_iter().map(|(key, service)| {
        let by_index: HashMap<_, _> =
            service.backends.iter().map(|(address, backend)| (backend.index, *address)).collect();
        let unseen = |entry| SeenBackend { entry, ring_slots: 0 };
        let mut backends: BTreeMap<_, _> =
            service.backends.into_iter().map(|(address, entry)| (address, unseen(entry))).collect();
        let mut stray_slots = 0;
        for slot in 0..service.ring.slots {
            let (line, place) = service.ring.place(slot);
            let index = tables.rings.get(line as usize).0[(place % LINE_SLOTS) as usize];
            let backend = by_index.get(&u32::from(index)).and_then(|address| backends.get_mut(address));
            match backend {
                Some(backend) => backend.ring_slots += 1,
                None => stray_slots += 1,
            }
        }
        SeenService { key, backends, stray_slots }
    });
    Ok(seen.collect())
}

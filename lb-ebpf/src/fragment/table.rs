//! The table of first parts on the map's memory; its rules are in `lb_common::fragment`.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::fragment::{FragmentEntry, FragmentFate, places, vacancy};

use crate::{
    arrival::Arrival, atomic, backend::BackendRef, clock, found::Found, globals, service::IN_MEMORY,
    steer::words_of,
};

/// The agent sets the size at load.
#[btf_map]
static FRAGMENTS: Array<FragmentEntry, 1, IN_MEMORY> = Array::new();
/// How many packets in parts have been translated.
#[btf_map]
static IDENTIFICATIONS: Array<u64, 1, IN_MEMORY> = Array::new();

/// The identification of a packet that is translated: the one that its first part has been given before, if it comes again;
/// else the next, so that as many as there are pass before one is used again.
#[inline(always)]
pub fn identification(key: u64) -> u32 {
    match known_identification(key) {
        UNKNOWN => match IDENTIFICATIONS.get_ptr_mut(0) {
            // SAFETY: a word of a map.
            Some(word) => unsafe { atomic::fetch_add(word, 1) as u32 },
            None => 0,
        },
        known => known as u32,
    }
}

const UNKNOWN: i64 = -1;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn known_identification(key: u64) -> i64 {
    match get(key, clock::now()) {
        Some(entry) => (entry.hop_and_identification >> 32) as i64,
        None => UNKNOWN,
    }
}

/// Forgets a first part.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forget_fragment(key: u64) -> i32 {
    let (first, second) = places(key, globals::fragment_mask());
    for place in [first, second] {
        if let Some(entry) = FRAGMENTS.get_ptr_mut(place) {
            // SAFETY: a word of the map's value; it is this packet's only while it has its key.
            unsafe { atomic::exchange(&raw mut (*entry).key, key, FragmentEntry::EMPTY) };
        }
    }
    0
}

/// Remembers a first part, by what it leaves as. Where another CPU is filling the place at this moment it is not remembered.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put_fragment(arrival: *const Arrival, key: u64, found: i64, identification: u32) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some((arrival, found)) = (unsafe { arrival.as_ref() }).zip(Found::of(found)) else { return 0 };
    let now = clock::now();
    if let Some((entry, seen)) = place_for(key, now)
        && let Some(backend) = BackendRef::at(found.backend())
    {
        let fate = FragmentFate::new(now, backend.service(), backend.index, flags_of(found));
        let hop_and_identification = u64::from(found.client_hop()) | u64::from(identification) << 32;
        publish(entry, (seen, key), [fate.0, hop_and_identification], arrival);
    }
    0
}

#[inline(always)]
fn flags_of(found: Found) -> u16 {
    let mut flags = 0;
    if found.is_answer() {
        flags |= FragmentFate::ANSWER;
    }
    if found.is_translated() {
        flags |= FragmentFate::TRANSLATED;
    }
    if found.is_tunnel() {
        flags |= FragmentFate::TUNNEL;
    }
    flags
}

/// Claims a place, writes it down, and then the key: nobody sees the one without the other.
#[inline(always)]
fn publish(
    entry: *mut FragmentEntry,
    (seen, key): (u64, u64),
    [fate, hop_and_identification]: [u64; 2],
    arrival: &Arrival,
) {
    // SAFETY: words of the map's value, which are this CPU's while the key says that it is claimed.
    unsafe {
        if !atomic::exchange(&raw mut (*entry).key, seen, FragmentEntry::CLAIMED) {
            return;
        }
        atomic::write(&raw mut (*entry).fate, fate);
        atomic::write(&raw mut (*entry).hop_and_identification, hop_and_identification);
        atomic::write(&raw mut (*entry).hash, arrival.hash);
        atomic::write(&raw mut (*entry).source, words_of(&arrival.packet.source));
        atomic::write(&raw mut (*entry).destination, words_of(&arrival.packet.destination.addr));
        atomic::exchange(&raw mut (*entry).key, FragmentEntry::CLAIMED, key);
    }
}

/// The place that is worth least, and the key in it; none where both are being filled.
#[inline(always)]
fn place_for(key: u64, now: u16) -> Option<(*mut FragmentEntry, u64)> {
    let (first, second) = places(key, globals::fragment_mask());
    let (first, second) = (FRAGMENTS.get_ptr_mut(first)?, FRAGMENTS.get_ptr_mut(second)?);
    let (first_key, first_worth) = worth(first, key, now);
    let (second_key, second_worth) = worth(second, key, now);
    let (entry, seen, worth) = if second_worth > first_worth {
        (second, second_key, second_worth)
    } else {
        (first, first_key, first_worth)
    };
    if worth == 0 { None } else { Some((entry, seen)) }
}

#[inline(always)]
fn worth(entry: *mut FragmentEntry, wanted: u64, now: u16) -> (u64, u32) {
    // SAFETY: words of the map's value.
    let (key, fate) =
        unsafe { (atomic::read(&raw const (*entry).key), atomic::read(&raw const (*entry).fate)) };
    (key, vacancy(key, FragmentFate(fate), wanted, now))
}

/// What is remembered under a key.
#[inline(always)]
pub fn get(key: u64, now: u16) -> Option<FragmentEntry> {
    let (first, second) = places(key, globals::fragment_mask());
    let (first, second) = (FRAGMENTS.get_ptr_mut(first)?, FRAGMENTS.get_ptr_mut(second)?);
    // SAFETY: words of the maps' values.
    let entry = if unsafe { atomic::read(&raw const (*first).key) } == key { first } else { second };
    // SAFETY: as above; the copy counts only if the key is the same before and after it.
    let copy = unsafe {
        if atomic::read(&raw const (*entry).key) != key {
            return None;
        }
        let copy = FragmentEntry {
            key,
            fate: atomic::read(&raw const (*entry).fate),
            hop_and_identification: atomic::read(&raw const (*entry).hop_and_identification),
            hash: atomic::read(&raw const (*entry).hash),
            source: atomic::read(&raw const (*entry).source),
            destination: atomic::read(&raw const (*entry).destination),
        };
        if atomic::read(&raw const (*entry).key) != key {
            return None;
        }
        copy
    };
    if FragmentFate(copy.fate).is_over(now) { None } else { Some(copy) }
}

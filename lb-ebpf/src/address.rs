//! What is done with packets to an address that have no port.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use lb_common::{Addr, AddressUse};

/// The agent sets the size at load.
#[btf_map]
static ADDRESSES: HashMap<Addr, u32, 1> = HashMap::new();

/// What an address is used for besides its services' ports.
#[inline(always)]
pub fn of(address: &Addr) -> Option<AddressUse> {
    // SAFETY: the value is copied out at once.
    unsafe { ADDRESSES.get(address).copied() }.map(AddressUse)
}

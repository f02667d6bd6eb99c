//! Least connections: of two backends from the ring the one with fewer flows for its weight (Mitzenmacher, 2001: two
//! choices do nearly all that asking everybody would).

use lb_common::{Reason, hash::ring_hash_again, ring::RingRef};

use super::{Chosen, ring};
use crate::service::ServiceRef;

/// The better of the two candidates of an attempt; the one that takes a flow, where the other does not.
#[inline(always)]
pub fn better(service: &ServiceRef, ring: RingRef, hash: u32, attempt: u32) -> Result<Chosen, Reason> {
    let one = ring::at(service, ring, ring.slot(ring_hash_again(hash, 2 * attempt)));
    let two = ring::at(service, ring, ring.slot(ring_hash_again(hash, 2 * attempt + 1)));
    match (one, two) {
        (Ok(one), Ok(two)) => Ok(if is_busier(&one, &two) { two } else { one }),
        (Ok(one), Err(_)) => Ok(one),
        (Err(_), two) => two,
    }
}

/// Whether one has more flows for its weight than the other.
#[inline(always)]
fn is_busier(one: &Chosen, two: &Chosen) -> bool {
    let (weight_one, weight_two) = (one.backend.load_weight(), two.backend.load_weight());
    one.flows.wrapping_mul(u64::from(weight_two)) > two.flows.wrapping_mul(u64::from(weight_one))
}

//! A service's ring: built aside, put in place by one store.

use std::{mem::offset_of, net::SocketAddr, time::Instant};

use lb_common::{
    Service,
    ring::{LINE_SLOTS, RingLine, RingRef},
};

use super::{Reconciler, WantedService};
use crate::datapath::{
    DatapathError,
    live::{LiveService, Recipe},
};

impl Reconciler {
    /// Builds the ring aside and puts it in place by one store.
    pub(super) fn put_ring(
        &mut self,
        service: &mut LiveService,
        wanted: &WantedService,
        now: Instant,
    ) -> Result<(), DatapathError> {
        let recipe = Recipe::of(wanted);
        if service.recipe.as_ref() == Some(&recipe) {
            return Ok(());
        }
        let ring = self.write_ring(service, &recipe, now)?;
        self.tables.services.publish(service.index as usize, offset_of!(Service, ring), ring.pack());
        let old = std::mem::replace(&mut service.ring, ring);
        self.live.ring_space.give_back(old.first_line, RingRef::lines(old.slots), now);
        service.recipe = Some(recipe);
        Ok(())
    }

    fn write_ring(
        &mut self,
        service: &LiveService,
        recipe: &Recipe,
        now: Instant,
    ) -> Result<RingRef, DatapathError> {
        let index =
            |address: &SocketAddr| service.backends.get(address).map_or(0, |backend| backend.index as u16);
        let ring = recipe.build(index);
        if ring.is_empty() {
            return Ok(RingRef::default());
        }
        let slots = ring.len() as u32;
        let first_line = self.live.ring_space.take(RingRef::lines(slots), now).ok_or_else(|| {
            DatapathError::Refused(format!(
                "no room for a ring of {slots} slots: raise limits.ring_slots, then `flowgate detach` and start the agent again"
            ))
        })?;
        for (line, chunk) in ring.chunks(LINE_SLOTS as usize).enumerate() {
            let mut filled = [0; LINE_SLOTS as usize];
            filled[..chunk.len()].copy_from_slice(chunk);
            self.tables.rings.set(first_line as usize + line, RingLine(filled));
        }
        Ok(RingRef { first_line, slots })
    }
}

//! How many flows each backend has, for services whose data plane counts them.

use std::{collections::HashMap, mem::offset_of, net::SocketAddr, sync::atomic::Ordering};

use lb_common::{Load, ServiceKey};

use super::{apply::Reconciler, flows::now_tick};

impl Reconciler {
    /// Whether a service needs its flows counted: by its scheduler, or because a backend has a bound.
    #[must_use]
    pub fn wants_loads(&self) -> bool {
        self.live.services.values().any(|service| service.counts_flows)
    }

    /// Counts the flows of all backends, if a service needs it, and tells the data plane what was counted.
    pub fn refresh_loads(&mut self) {
        self.flow_counts.clear();
        if !self.wants_loads() {
            return;
        }
        let placed = |index: u32| {
            self.tables.loads.word(index as usize, offset_of!(Load, placed)).load(Ordering::Acquire)
        };
        // Before the count, so that a flow that is placed meanwhile counts at least once.
        let mut backends: HashMap<_, _> = HashMap::new();
        for (key, service) in self.live.services.iter().filter(|(_, service)| service.counts_flows) {
            for (address, backend) in &service.backends {
                backends.insert((*key, *address), (backend.index, placed(backend.index)));
            }
        }
        let counts = self.tables.flows.count(&self.timeouts_by_backend(), now_tick());
        for (name, (index, placed)) in backends {
            let flows = counts.by_backend.get(index as usize).copied().unwrap_or(0);
            let base = flows.wrapping_sub(placed);
            self.tables.loads.publish(index as usize, offset_of!(Load, base), base);
            self.flow_counts.insert(name, flows);
        }
    }

    /// The flows of a backend at the last [`Reconciler::refresh_loads`], if its service needed them counted.
    #[must_use]
    pub fn live_flows(&self, key: &ServiceKey, backend: SocketAddr) -> Option<u64> {
        self.flow_counts.get(&(*key, backend)).copied()
    }
}

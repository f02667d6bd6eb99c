//! What addresses are used for besides ports: pings that are answered, parts of packets. Services share addresses.

use std::collections::HashMap;

use lb_common::{Addr, AddressUse};

use super::{Reconciler, WantedService};
use crate::datapath::DatapathError;

impl Reconciler {
    /// Makes the addresses used for what the services ask for.
    pub(super) fn put_addresses(&mut self, wanted: &[WantedService]) -> Result<(), DatapathError> {
        let used = self.uses_of(wanted);
        let gone: Vec<_> =
            self.live.addresses.keys().filter(|address| !used.contains_key(address)).copied().collect();
        for address in gone {
            self.tables.set_address(address, None)?;
            self.live.addresses.remove(&address);
        }
        for (address, used) in used {
            if self.live.addresses.get(&address) != Some(&used) {
                self.tables.set_address(address, Some(used))?;
                self.live.addresses.insert(address, used);
            }
        }
        Ok(())
    }

    fn uses_of(&self, wanted: &[WantedService]) -> HashMap<Addr, AddressUse> {
        let mut uses: HashMap<Addr, (bool, u16)> = HashMap::new();
        for service in wanted.iter().filter(|service| service.answer_ping || service.fragments_by_address) {
            let (pings, fragments_to) = uses.entry(service.key.addr).or_default();
            *pings |= service.answer_ping;
            if service.fragments_by_address {
                *fragments_to = self.live.services.get(&service.key).map_or(0, |live| live.index as u16);
            }
        }
        let used =
            uses.into_iter().map(|(address, (pings, service))| (address, AddressUse::new(pings, service)));
        used.filter(|(_, used)| *used != AddressUse::default()).collect()
    }
}

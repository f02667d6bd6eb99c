//! Whose pings are answered: addresses, which services share.

use std::collections::HashSet;

use super::{Reconciler, WantedService};
use crate::datapath::DatapathError;

impl Reconciler {
    /// Makes the addresses whose pings are answered those of the services that ask for it.
    pub(super) fn put_ping_addresses(&mut self, wanted: &[WantedService]) -> Result<(), DatapathError> {
        let asked: HashSet<_> =
            wanted.iter().filter(|service| service.answer_ping).map(|service| service.key.addr).collect();
        let gone: Vec<_> = self.live.ping_addresses.difference(&asked).copied().collect();
        for address in gone {
            self.tables.answer_pings(address, false)?;
            self.live.ping_addresses.remove(&address);
        }
        for address in asked {
            if !self.live.ping_addresses.contains(&address) {
                self.tables.answer_pings(address, true)?;
                self.live.ping_addresses.insert(address);
            }
        }
        Ok(())
    }
}

//! The interfaces that the data plane is attached to, as they come, go and change.

use std::collections::HashMap;

use tokio::task::JoinSet;
use tracing::{info, warn};

use lb_common::Features;

use crate::{
    api::schema::{InterfaceStatus, PacketTotals},
    datapath::{
        DatapathError,
        apply::Reconciler,
        load::{AttachTarget, Attached, Datapath},
        stats::packet_totals,
    },
    model::{AttachMode, InterfaceSettings},
    neigh::links::{self, Link},
};

/// Every interface that the configuration names.
pub(super) struct Interfaces {
    list: Vec<Interface>,
    /// What writes the data plane's debug lines into the log.
    logs: JoinSet<()>,
}

/// One of them.
pub(super) struct Interface {
    pub(super) settings: InterfaceSettings,
    /// Where it is attached.
    pub(super) attached: Option<Attachment>,
    /// Why it is not.
    pub(super) problem: Option<String>,
}

/// How an interface is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) index: u32,
    pub(super) slot: u32,
    pub(super) mode: AttachMode,
    /// Whether packets can pass.
    pub(super) running: bool,
}

impl Interfaces {
    /// Looks for every one of them, before anything is made or changed.
    ///
    /// # Errors
    /// One is not there.
    pub(super) async fn find(settings: &[InterfaceSettings]) -> Result<Vec<Link>, DatapathError> {
        let links = links::all().await.map_err(|error| {
            DatapathError::Refused(format!("cannot list interfaces: {error}: run as root"))
        })?;
        let find = |wanted: &InterfaceSettings| {
            let found = links.iter().find(|link| link.name == wanted.name).cloned();
            found.ok_or_else(|| DatapathError::Refused(absent(&wanted.name, &links)))
        };
        settings.iter().map(find).collect()
    }

    /// Attaches to every one of them, `links` being what [`Interfaces::find`] found; those of an earlier agent that
    /// are not named any more are released.
    ///
    /// # Errors
    /// One refuses.
    pub(super) fn attach_all(
        datapath: &mut Datapath,
        settings: &[InterfaceSettings],
        links: &[Link],
    ) -> Result<Self, DatapathError> {
        let mut interfaces = Self { list: Vec::new(), logs: JoinSet::new() };
        for (slot, index) in datapath.registered() {
            let still_named = links.iter().any(|link| link.index == index);
            if !still_named {
                info!(slot, index, "released an interface of an earlier agent");
                datapath.release(slot)?;
            }
        }
        for (wanted, link) in settings.iter().zip(links) {
            let attached = Some(interfaces.attach(datapath, wanted, link)?);
            interfaces.list.push(Interface { settings: wanted.clone(), attached, problem: None });
        }
        Ok(interfaces)
    }

    fn attach(
        &mut self,
        datapath: &mut Datapath,
        settings: &InterfaceSettings,
        link: &Link,
    ) -> Result<Attachment, DatapathError> {
        let Some(mac) = link.mac else {
            return Err(DatapathError::Refused(format!(
                "interface {} has no Ethernet address: Flowgate balances Ethernet frames; name an Ethernet interface",
                link.name
            )));
        };
        let target = AttachTarget {
            name: link.name.clone(),
            index: link.index,
            mac,
            mtu: link.mtu,
            mode: settings.mode,
        };
        let attached = datapath.attach(&target)?;
        let (slot, mode) = (attached.slot, attached.mode);
        self.follow(attached);
        info!(interface = link.name, slot, ?mode, "attached");
        Ok(Attachment { index: link.index, slot, mode, running: link.running() })
    }

    /// Writes the debug lines of an instance of the program into the log, where it has any.
    fn follow(&mut self, attached: Attached) {
        let Some(log) = attached.log else { return };
        self.logs.spawn(async move {
            if let Err(error) = log.run().await {
                warn!(%error, "the data plane's debug lines have ended");
            }
        });
    }

    /// Has the program on every interface do `features` and no more.
    ///
    /// # Errors
    /// An interface refuses.
    pub(super) fn fit(&mut self, datapath: &mut Datapath, features: Features) -> Result<(), DatapathError> {
        if datapath.features() == features {
            return Ok(());
        }
        let attached = datapath.fit(features)?;
        // Those of the programs before have nothing to say any more.
        self.logs.abort_all();
        for instance in attached {
            self.follow(instance);
        }
        Ok(())
    }

    /// Brings what is known in line with the interfaces as they are; whether anything has changed.
    pub(super) async fn review(&mut self, datapath: &mut Datapath) -> bool {
        let Ok(links) = links::all().await else { return false };
        let mut changed = false;
        for at in 0..self.list.len() {
            let name = self.list[at].settings.name.clone();
            let link = links.iter().find(|link| link.name == name);
            changed |= match (self.list[at].attached, link) {
                (Some(known), Some(link)) if known.index == link.index => {
                    if let Some(mac) = link.mac {
                        datapath.update(known.slot, mac, link.mtu);
                    }
                    let now = Attachment { running: link.running(), ..known };
                    self.list[at].attached = Some(now);
                    now != known
                }
                (Some(known), _) => {
                    warn!(interface = name, "the interface is gone");
                    if let Err(error) = datapath.release(known.slot) {
                        warn!(interface = name, %error, "cannot release the interface");
                    }
                    self.list[at].attached = None;
                    self.list[at].problem = Some(format!("interface {name} is gone"));
                    self.come_back(datapath, at, link);
                    true
                }
                (None, link) => self.come_back(datapath, at, link),
            };
        }
        changed
    }

    /// Attaches to an interface that is there again.
    fn come_back(&mut self, datapath: &mut Datapath, at: usize, link: Option<&Link>) -> bool {
        let Some(link) = link else { return false };
        let settings = self.list[at].settings.clone();
        match self.attach(datapath, &settings, link) {
            Ok(attachment) => {
                self.list[at].attached = Some(attachment);
                self.list[at].problem = None;
                true
            }
            Err(error) => {
                let problem = error.to_string();
                let changed = self.list[at].problem.as_ref() != Some(&problem);
                if changed {
                    warn!(interface = settings.name, error = problem, "cannot attach again");
                }
                self.list[at].problem = Some(problem);
                changed
            }
        }
    }

    /// Slots by interface index.
    pub(super) fn slots(&self) -> HashMap<u32, u32> {
        self.list
            .iter()
            .filter_map(|interface| interface.attached)
            .map(|known| (known.index, known.slot))
            .collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Interface> {
        self.list.iter()
    }

    /// Each as `status` shows it.
    pub(super) fn status(&self, maps: &Reconciler) -> Vec<InterfaceStatus> {
        let row = |interface: &Interface| InterfaceStatus {
            name: interface.settings.name.clone(),
            index: interface.attached.map(|known| known.index),
            attached: interface.attached.map(|known| known.mode),
            packets: interface
                .attached
                .and_then(|known| maps.packets(known.slot).ok())
                .map_or_else(PacketTotals::default, |packets| packet_totals(&packets)),
        };
        self.list.iter().map(row).collect()
    }
}

fn absent(name: &str, links: &[Link]) -> String {
    let there: Vec<_> = links.iter().map(|link| link.name.as_str()).filter(|name| *name != "lo").collect();
    let there = if there.is_empty() { "none but lo".to_owned() } else { there.join(", ") };
    format!("there is no interface {name:?} (there are: {there}): correct agent.interfaces or --interface")
}

//! What the controller is asked to do, and how the API asks it.

use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

use crate::{
    api::schema::{
        BackendChange, BackendRow, BackendsChange, Changed, ConfigDiff, ConfigText, ServiceChange,
        ServiceDetail, ServiceRow, Stats, Status,
        flows::{FlowCount, FlowCountQuery, FlowList, FlowQuery, Lookup, LookupQuery},
    },
    config::entry::{BackendEntry, ServiceEntry},
    model::ServiceName,
};

/// Why a command was not done. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It names something that is not there.
    #[error("{0}")]
    NotFound(String),
    /// It is not valid, with the field, the reason and the way out.
    #[error("{0}")]
    Invalid(String),
    /// It contradicts what is there: a name twice, a service that belongs to the file.
    #[error("{0}")]
    Conflict(String),
    /// It could not be carried out.
    #[error("{0}")]
    Failed(String),
}

/// The answer to a command.
pub type Answer<T> = Result<T, CommandError>;

/// A command and where its answer goes.
#[derive(Debug)]
pub enum Command {
    /// Everything at a glance.
    Status(oneshot::Sender<Answer<Status>>),
    /// The counters.
    Stats(oneshot::Sender<Answer<Stats>>),
    /// All services.
    ServiceList(oneshot::Sender<Answer<Vec<ServiceRow>>>),
    /// One service.
    ServiceShow(ServiceName, oneshot::Sender<Answer<ServiceDetail>>),
    /// A new service.
    ServiceAdd(Box<ServiceEntry>, oneshot::Sender<Answer<Changed>>),
    /// A change of a service.
    ServiceSet(ServiceName, Box<ServiceChange>, oneshot::Sender<Answer<Changed>>),
    /// A service and its backends go.
    ServiceRemove(ServiceName, oneshot::Sender<Answer<Changed>>),
    /// The backends of one service, or of all.
    BackendList(Option<ServiceName>, oneshot::Sender<Answer<Vec<BackendRow>>>),
    /// A new backend.
    BackendAdd(ServiceName, BackendEntry, oneshot::Sender<Answer<Changed>>),
    /// Weight or admin state.
    BackendSet(ServiceName, SocketAddr, BackendChange, oneshot::Sender<Answer<Changed>>),
    /// Several backends of a service at once: all, or none.
    BackendsSet(ServiceName, BackendsChange, oneshot::Sender<Answer<Changed>>),
    /// Overrides end.
    BackendReset(ServiceName, SocketAddr, oneshot::Sender<Answer<Changed>>),
    /// A backend goes.
    BackendRemove(ServiceName, SocketAddr, oneshot::Sender<Answer<Changed>>),
    /// The file is read again.
    ConfigReload(oneshot::Sender<Answer<Changed>>),
    /// What a file would change.
    ConfigDiff(ConfigText, oneshot::Sender<Answer<ConfigDiff>>),
    /// The state in force, as a file.
    ConfigShow(oneshot::Sender<Answer<String>>),
    /// Flows, one by one.
    FlowList(FlowQuery, oneshot::Sender<Answer<FlowList>>),
    /// Flows, counted.
    FlowCount(FlowCountQuery, oneshot::Sender<Answer<FlowCount>>),
    /// What would become of a packet.
    Lookup(LookupQuery, oneshot::Sender<Answer<Lookup>>),
    /// The data plane is taken away, and the agent ends.
    Detach(oneshot::Sender<Answer<Changed>>),
}

/// How others reach the controller.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

impl Handle {
    /// A handle, and the end that the controller reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(64);
        (Self { commands }, receiver)
    }

    /// Sends the command that `command` makes of an answer's channel, and waits for the answer.
    ///
    /// # Errors
    /// Whatever the controller answers, or [`CommandError::Failed`] where it is going down.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Answer<T>>) -> Command) -> Answer<T> {
        let (answer, answered) = oneshot::channel();
        let gone = || CommandError::Failed("the agent is shutting down: start it again".to_owned());
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

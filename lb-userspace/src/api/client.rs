//! The command line's end of the socket: one connection for each request.

use std::{
    fmt::{self, Display},
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time};

use super::schema::flows::{FlowCount, FlowCountQuery, FlowList, FlowQuery, Lookup, LookupQuery};
use super::schema::{
    BackendChange, BackendRow, BackendsChange, Changed, ConfigDiff, ConfigText, Refusal, ServiceChange,
    ServiceDetail, ServiceRow, Stats, Status,
};
use crate::{
    config::entry::{BackendEntry, ServiceEntry},
    model::ServiceName,
};

/// From the first attempt to connect to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// More than the agent's largest answer; what sends more is not an agent.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Speaks to the agent on one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent could be reached, or it went away.
    #[error("{}", unreachable_text(.socket, .cause))]
    Unreachable {
        /// The socket that was tried.
        socket: PathBuf,
        /// What happened.
        cause: Cause,
    },
    /// The agent refused, with its reason.
    #[error("{0}")]
    Refused(String),
    /// The answer is none of this API's.
    #[error("what answers on {} speaks another language than this command: is it the agent of another version? ({detail})", .socket.display())]
    Foreign {
        /// The socket that was tried.
        socket: PathBuf,
        /// What was wrong with the answer.
        detail: String,
    },
}

/// Why the agent could not be reached.
#[derive(Debug)]
pub enum Cause {
    /// There is no socket.
    Absent,
    /// The user may not open it; its group, where that can be told, may.
    Denied {
        /// The socket's group.
        group: Option<String>,
    },
    /// Nobody listens on it.
    NobodyListens,
    /// The connection ended before the answer was complete.
    Closed,
    /// No answer in time.
    TimedOut(Duration),
    /// Anything else.
    Other(io::Error),
}

impl Client {
    /// A client of the agent on `socket`; nothing is connected yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: TIMEOUT }
    }

    /// With another patience than 30 seconds.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The socket it connects to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// One method for each route. Each fails with a [`ClientError`] where the agent cannot be reached or refuses.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// Everything at a glance.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// The counters.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.get("/v1/stats").await
    }

    /// All services.
    pub async fn service_list(&self) -> Result<Vec<ServiceRow>, ClientError> {
        self.get("/v1/services").await
    }

    /// One service.
    pub async fn service_show(&self, name: &ServiceName) -> Result<ServiceDetail, ClientError> {
        self.get(&service_path(name)).await
    }

    /// A new service.
    pub async fn service_add(&self, entry: &ServiceEntry) -> Result<Changed, ClientError> {
        self.send(Method::POST, "/v1/services", entry).await
    }

    /// A change of a service.
    pub async fn service_set(
        &self,
        name: &ServiceName,
        change: &ServiceChange,
    ) -> Result<Changed, ClientError> {
        self.send(Method::PATCH, &service_path(name), change).await
    }

    /// A service and its backends go.
    pub async fn service_remove(&self, name: &ServiceName) -> Result<Changed, ClientError> {
        self.ask(Method::DELETE, &service_path(name)).await
    }

    /// The backends of one service, or of all.
    pub async fn backend_list(&self, service: Option<&ServiceName>) -> Result<Vec<BackendRow>, ClientError> {
        // A service's name needs no escaping.
        let query = service.map(|name| format!("?service={name}")).unwrap_or_default();
        self.get(&format!("/v1/backends{query}")).await
    }

    /// A new backend.
    pub async fn backend_add(
        &self,
        service: &ServiceName,
        entry: &BackendEntry,
    ) -> Result<Changed, ClientError> {
        self.send(Method::POST, &format!("{}/backends", service_path(service)), entry).await
    }

    /// Weight or admin state.
    pub async fn backend_set(
        &self,
        service: &ServiceName,
        backend: SocketAddr,
        change: &BackendChange,
    ) -> Result<Changed, ClientError> {
        self.send(Method::PATCH, &backend_path(service, backend), change).await
    }

    /// Several backends of a service at once: all, or none.
    pub async fn backends_set(
        &self,
        service: &ServiceName,
        change: &BackendsChange,
    ) -> Result<Changed, ClientError> {
        self.send(Method::PATCH, &format!("{}/backends", service_path(service)), change).await
    }

    /// Overrides end.
    pub async fn backend_reset(
        &self,
        service: &ServiceName,
        backend: SocketAddr,
    ) -> Result<Changed, ClientError> {
        self.ask(Method::POST, &format!("{}/reset", backend_path(service, backend))).await
    }

    /// A backend goes.
    pub async fn backend_remove(
        &self,
        service: &ServiceName,
        backend: SocketAddr,
    ) -> Result<Changed, ClientError> {
        self.ask(Method::DELETE, &backend_path(service, backend)).await
    }

    /// What a file would change.
    pub async fn config_diff(&self, text: &ConfigText) -> Result<ConfigDiff, ClientError> {
        self.send(Method::POST, "/v1/config/diff", text).await
    }

    /// The file is read again.
    pub async fn config_reload(&self) -> Result<Changed, ClientError> {
        self.ask(Method::POST, "/v1/config/reload").await
    }

    /// The state in force, as a file.
    pub async fn config_show(&self) -> Result<String, ClientError> {
        let body = self.request(Method::GET, "/v1/config", Vec::new()).await?;
        String::from_utf8(body.into()).map_err(|error| self.foreign(&error))
    }

    /// Flows, one by one.
    pub async fn flow_list(&self, query: &FlowQuery) -> Result<FlowList, ClientError> {
        self.send(Method::POST, "/v1/flows/list", query).await
    }

    /// Flows, counted.
    pub async fn flow_count(&self, query: &FlowCountQuery) -> Result<FlowCount, ClientError> {
        self.send(Method::POST, "/v1/flows/count", query).await
    }

    /// What would become of a packet.
    pub async fn lookup(&self, query: &LookupQuery) -> Result<Lookup, ClientError> {
        self.send(Method::POST, "/v1/lookup", query).await
    }

    /// The data plane is taken away, and the agent ends.
    pub async fn detach(&self) -> Result<Changed, ClientError> {
        self.ask(Method::POST, "/v1/detach").await
    }
}

impl Client {
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        let body = self.request(method, path, Vec::new()).await?;
        serde_json::from_slice(&body).map_err(|error| self.foreign(&error))
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.foreign(&error))?;
        let body = self.request(method, path, body).await?;
        serde_json::from_slice(&body).map_err(|error| self.foreign(&error))
    }

    /// The body of a successful answer.
    async fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ClientError> {
        let answered = time::timeout(self.timeout, self.exchange(method, path, body)).await;
        let (status, body) = answered.unwrap_or_else(|_| Err(self.lost(Cause::TimedOut(self.timeout))))?;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => Err(ClientError::Refused(refusal.error)),
            Err(_) => Err(self.foreign(&format!("HTTP status {status}"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_connected(error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Ends with the sender; what goes wrong in it comes out of the answer, too.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.foreign(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => self.broken(&error),
            Err(error) => self.foreign(&error),
        })?;
        Ok((status, body.to_bytes()))
    }

    fn not_connected(&self, error: io::Error) -> ClientError {
        self.lost(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Cause::Absent,
            io::ErrorKind::PermissionDenied => Cause::Denied { group: group_of(&self.socket) },
            io::ErrorKind::ConnectionRefused => Cause::NobodyListens,
            _ => Cause::Other(error),
        })
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() { self.foreign(error) } else { self.lost(Cause::Closed) }
    }

    fn lost(&self, cause: Cause) -> ClientError {
        ClientError::Unreachable { socket: self.socket.clone(), cause }
    }

    fn foreign(&self, detail: &impl Display) -> ClientError {
        ClientError::Foreign { socket: self.socket.clone(), detail: detail.to_string() }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no such socket"),
            Self::Denied { .. } => f.write_str("permission denied"),
            Self::NobodyListens => f.write_str("nobody listens there any more"),
            Self::Closed => f.write_str("it closed the connection before it had answered"),
            Self::TimedOut(patience) => {
                write!(f, "no answer within {}", humantime::format_duration(*patience))
            }
            Self::Other(error) => error.fmt(f),
        }
    }
}

fn unreachable_text(socket: &Path, cause: &Cause) -> String {
    let socket = socket.display();
    match cause {
        Cause::Absent | Cause::NobodyListens => format!(
            "no agent answers on {socket} ({cause}): start it with `flowgate agent --config FILE`, or say with --socket where it is"
        ),
        Cause::Denied { group: Some(group) } => format!(
            "{socket} may not be opened ({cause}): run this as root, or join the socket's group, {group}"
        ),
        Cause::Denied { group: None } => {
            format!("{socket} may not be opened ({cause}): run this as root, or join the socket's group")
        }
        Cause::Closed | Cause::TimedOut(_) => format!(
            "the agent on {socket} was lost: {cause}; `flowgate status` and its log say how it is, and whether a change was made"
        ),
        Cause::Other(_) => format!("no agent answers on {socket} ({cause})"),
    }
}

fn group_of(socket: &Path) -> Option<String> {
    let gid = fs::metadata(socket).ok()?.gid();
    nix::unistd::Group::from_gid(gid.into()).ok()?.map(|group| group.name)
}

fn service_path(name: &ServiceName) -> String {
    format!("/v1/services/{name}")
}

fn backend_path(service: &ServiceName, backend: SocketAddr) -> String {
    let backend = backend.to_string().replace('[', "%5B").replace(']', "%5D");
    format!("{}/backends/{backend}", service_path(service))
}

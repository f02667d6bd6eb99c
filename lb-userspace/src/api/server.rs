//! The agent's end of the socket.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    future::Future,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tokio::{
    net::{UnixListener, UnixSocket, UnixStream},
    sync::oneshot,
    time,
};

use super::routes::router;
use crate::agent::command::Handle;

/// Owner and group may connect, nobody else.
const SOCKET_MODE: u32 = 0o660;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// How long a socket that is there may take to answer before it counts as somebody's.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long requests in flight may take to end once the agent stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A socket that is this agent's alone, not yet served.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
    /// Held as long as the server lives: while one agent replaces a stale socket, no other one may.
    _lock: Flock<File>,
}

/// Why a socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another agent holds it.
    #[error(
        "another agent is running on {socket}{}: stop it, or give this one another --socket",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        socket = .socket.display(),
    )]
    Taken {
        /// The socket.
        socket: PathBuf,
        /// The other agent, where that can be told.
        pid: Option<i32>,
    },
    /// Something else has its name.
    #[error("{} is there and is not a socket: remove it, or name another --socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot {action} {path}: {cause}{}", hint(.cause), path = .path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl Server {
    /// Makes the socket, and its directory where that is missing. A socket on which nobody listens any more
    /// is replaced.
    ///
    /// # Errors
    /// Where another agent holds the socket, something else has its name, or the system refuses.
    pub async fn bind(socket: &Path) -> Result<Self, BindError> {
        if let Some(directory) = socket.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.map_err(|cause| system("make the directory", directory, cause))?;
        }
        let lock = lock(socket).await?;
        make_room(socket, &lock).await?;

        let unbound = UnixSocket::new_stream().map_err(|cause| system("make a socket for", socket, cause))?;
        unbound.bind(socket).map_err(|cause| system("bind", socket, cause))?;
        // Between bind and listen nobody can connect: the mode is in place before it matters.
        fs::set_permissions(socket, Permissions::from_mode(SOCKET_MODE))
            .map_err(|cause| system("set the mode of", socket, cause))?;
        let listener = unbound.listen(BACKLOG).map_err(|cause| system("listen on", socket, cause))?;
        Ok(Self { listener, socket: socket.to_owned(), _lock: lock })
    }

    /// Answers requests until `stop` is done; then lets those in flight end, and removes the socket.
    ///
    /// # Errors
    /// Where the socket cannot be served.
    pub async fn serve(
        self,
        handle: Handle,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let (stopping, stopped) = oneshot::channel();
        let stop = async move {
            stop.await;
            // Whoever would hear it is gone only where the server is, too.
            let _ = stopping.send(());
        };
        let serving = axum::serve(self.listener, router(handle)).with_graceful_shutdown(stop);
        let patience = async {
            if stopped.await.is_ok() {
                time::sleep(STOP_TIMEOUT).await;
            }
        };
        let served = tokio::select! {
            served = async { serving.await } => served,
            () = patience => Ok(()),
        };
        // Ours to remove: the lock is still held.
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => served.and(Err(error)),
            _ => served,
        }
    }
}

/// Takes `SOCKET.lock`, and leaves this process's id in it for whoever finds it taken.
async fn lock(socket: &Path) -> Result<Flock<File>, BindError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|cause| system("open", &path, cause))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let written = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
            written.map_err(|cause| system("write", &path, cause))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            // Only a help for the reader: without it the message does without.
            let _ = file.read_to_string(&mut text);
            Err(BindError::Taken { socket: socket.to_owned(), pid: text.trim().parse().ok() })
        }
        Err((_, errno)) => Err(system("lock", &path, errno.into())),
    }
}

/// Removes a socket on which nobody listens; refuses where somebody does. Only for who holds the lock.
async fn make_room(socket: &Path, _lock: &Flock<File>) -> Result<(), BindError> {
    match fs::symlink_metadata(socket) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(BindError::NotASocket(socket.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(system("look at", socket, cause)),
    }
    let taken = |pid| Err(BindError::Taken { socket: socket.to_owned(), pid });
    match time::timeout(ANSWER_TIMEOUT, UnixStream::connect(socket)).await {
        // The peer's id is 0 where it lives in another pid namespace.
        Ok(Ok(peer)) => taken(peer.peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid != 0)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(socket).map_err(|cause| system("remove the stale socket", socket, cause))
        }
        // Somebody listens, but its backlog is full.
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => taken(None),
        Ok(Err(cause)) => Err(system("connect to", socket, cause)),
        Err(_) => taken(None),
    }
}

fn system(action: &'static str, path: &Path, cause: io::Error) -> BindError {
    BindError::System { action, path: path.to_owned(), cause }
}

fn hint(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => ": run the agent as root, or name another --socket",
        io::ErrorKind::InvalidInput => ": name a shorter --socket",
        _ => "",
    }
}

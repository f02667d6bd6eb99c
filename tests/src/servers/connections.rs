//! The connections of a server, so that it can reset them.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

use crate::wait::wait_until;

/// Those that are open.
#[derive(Debug, Default)]
pub(super) struct Connections {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// None once it is being reset.
    open: HashMap<u64, Option<TcpStream>>,
}

/// Takes its connection off the list on drop.
pub(super) struct Registered {
    connections: Arc<Connections>,
    id: u64,
}

impl Connections {
    pub(super) fn register(self: &Arc<Self>, stream: &TcpStream) -> io::Result<Registered> {
        let copy = stream.try_clone()?;
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        state.open.insert(id, Some(copy));
        drop(state);
        Ok(Registered { connections: Arc::clone(self), id })
    }

    /// Resets every connection, and waits until the threads that serve them are gone.
    pub(super) fn reset_all(&self) {
        for slot in self.state().open.values_mut() {
            let Some(stream) = slot.take() else { continue };
            reset_on_close(&stream);
            // Closing the reading side sends nothing, but wakes the thread that reads, which then closes.
            let _ = stream.shutdown(Shutdown::Read);
        }
        let _ = wait_until("connections are closed", Duration::from_secs(6), || self.state().open.is_empty());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the last close of a socket send a reset.
pub(super) fn reset_on_close(stream: &TcpStream) {
    let _ = setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.state().open.remove(&self.id);
    }
}

//! What has to be undone: when its owner is dropped (a panic's unwinding included), or on Ctrl-C.
//!
//! Whoever makes something that outlives the process (a namespace, a child, a pin) registers how to take
//! it away *before* making it, and keeps the [`Cleanup`].

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;

use crate::sweep;

type Undo = Box<dyn FnOnce() + Send>;

static PENDING: Mutex<BTreeMap<u64, Undo>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);
static ENDING: AtomicBool = AtomicBool::new(false);

/// Runs what it was given when it is dropped, or before that on Ctrl-C; once in all.
#[derive(Debug)]
#[must_use = "dropped at once, it undoes at once"]
pub struct Cleanup {
    id: u64,
}

impl Cleanup {
    /// Registers `undo`. It must cope with there being nothing to undo (yet).
    pub fn new(undo: impl FnOnce() + Send + 'static) -> Self {
        wait_for_the_end_if_ending();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        pending().insert(id, Box::new(undo));
        Self { id }
    }

    /// Nothing need be undone any more, or it shall stay.
    pub fn forget(self) {
        drop(pending().remove(&self.id));
        std::mem::forget(self);
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // Taken out before it runs: what it drops may register or drop others.
        let undo = pending().remove(&self.id);
        if let Some(undo) = undo {
            undo();
        }
    }
}

/// Undoes everything that is registered, the latest first.
pub fn run_all() {
    loop {
        let latest = pending().pop_last();
        let Some((_, undo)) = latest else { return };
        undo();
    }
}

/// From now on Ctrl-C (and SIGTERM, SIGHUP) undoes everything, and ends the process with exit code 130.
///
/// # Errors
/// Where a handler is installed already.
pub fn on_interrupt() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        ENDING.store(true, Ordering::SeqCst);
        run_all();
        // Another thread may have been in the middle of making something.
        sweep::sweep_own();
        std::process::exit(130);
    })
    .context("handler for Ctrl-C")
}

/// Whether Ctrl-C has been seen: whatever fails now fails because things are being taken away.
#[must_use]
pub fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// Never returns once Ctrl-C has been seen: the handler ends the process when it is through.
pub fn wait_for_the_end_if_ending() {
    while is_ending() {
        thread::sleep(Duration::from_secs(1));
    }
}

fn pending() -> MutexGuard<'static, BTreeMap<u64, Undo>> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

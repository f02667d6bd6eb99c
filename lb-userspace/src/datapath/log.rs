//! The data plane's debug lines (aya-log), in the agent's log.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

use super::DatapathError;

/// The debug lines of one instance of the program.
pub struct PacketLog {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl PacketLog {
    pub(super) fn new(instance: &mut Ebpf) -> Result<Self, DatapathError> {
        EbpfLogger::init(instance)
            .map(|logger| Self { logger })
            .map_err(|error| DatapathError::kernel("cannot read the data plane's debug lines", &error))
    }

    /// Writes lines into the log as they come, until it is dropped.
    ///
    /// # Errors
    /// The ring buffer cannot be waited for.
    pub async fn run(self) -> std::io::Result<()> {
        // SAFETY: the logger owns its descriptor, which stays open and the same until the logger is dropped.
        let mut logger = unsafe { AsyncFd::register_with_interest(self.logger, Interest::READABLE) }?;
        loop {
            let mut ready = logger.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

//! The data plane's debug lines (aya-log), in the agent's log.

use aya::Ebpf;
use aya_log::EbpfLogger;
use lb_common::Reason;
use log::{Log, Metadata, Record};
use tokio::io::{Interest, unix::AsyncFd};

use super::DatapathError;

/// The debug lines of one instance of the program.
pub struct PacketLog {
    logger: EbpfLogger<ReasonNames>,
}

impl PacketLog {
    pub(super) fn new(instance: &mut Ebpf) -> Result<Self, DatapathError> {
        EbpfLogger::init_with_logger(instance, ReasonNames)
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

/// Puts a reason's name in place of its number, which is all that the data plane can write: a line ends with it.
struct ReasonNames;

impl Log for ReasonNames {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        log::logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let line = named(&record.args().to_string());
        let args = format_args!("{line}");
        let named = Record::builder().metadata(record.metadata().clone()).args(args).build();
        log::logger().log(&named);
    }

    fn flush(&self) {
        log::logger().flush();
    }
}

fn named(line: &str) -> String {
    match line.rsplit_once(' ').map(|(rest, number)| (rest, number.parse())) {
        Some((rest, Ok(index))) => format!("{rest} {}", Reason::from_index(index).label()),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use lb_common::Reason;

    #[test]
    fn a_line_ends_with_the_name_of_its_reason() {
        let line = format!("interface slot 0: 90 bytes, reason {}", Reason::NoBackend as u32);
        assert_eq!(super::named(&line), "interface slot 0: 90 bytes, reason no_backend");
        assert_eq!(super::named("something else"), "something else");
    }
}

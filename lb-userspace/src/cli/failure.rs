//! Why a command was not done, and the exit code that says so.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::api::client::ClientError;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The agent refused, or could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// Anything else, with the way out.
    #[error("{0}")]
    Failed(String),
    /// Standard output could not be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

impl Failure {
    /// Whether the reader of the output has gone away: nobody is left to be told.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(ClientError::Unreachable { .. }) => 3,
            Self::Usage(_) => 2,
            Self::Output(_) if self.is_broken_pipe() => 0,
            Self::Client(ClientError::Refused(_) | ClientError::Foreign { .. })
            | Self::Failed(_)
            | Self::Output(_) => 1,
        }
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.is_broken_pipe() {
            // Where standard error is closed, the exit code has to do.
            let _ = writeln!(io::stderr(), "error: {self}");
        }
        self.exit_code().into()
    }
}

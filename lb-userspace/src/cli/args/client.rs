//! What every command takes that talks to the agent.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::api::{DEFAULT_SOCKET, client::Client};

// No doc comment: clap would make it the command's own.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClientArgs {
    /// How to print the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// The agent's socket
    #[arg(long, value_name = "PATH", env = "FLOWGATE_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
}

impl ClientArgs {
    /// A client of the agent on this socket.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

/// How to print the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For scripts: exactly what the API answers
    Json,
}

//! `flowgate detach`: by the agent where one runs, else by this process.

use std::path::{Path, PathBuf};

use crate::{
    api::{
        client::{Cause, Client, ClientError},
        schema::Changed,
    },
    cli::{args::DetachArgs, failure::Failure, render, terminal::Terminal},
    model::AgentSettings,
};

pub(super) async fn run(args: DetachArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let client = args.client.client();
    let pin_dir = match &args.pin_dir {
        Some(pin_dir) => pin_dir.clone(),
        None => pin_dir_of(&client).await,
    };
    let changed = match client.detach().await {
        // The agent takes its own away, and knows nothing of other versions.
        Ok(mut changed) if args.all => {
            changed.changes.extend(remove_pins(&pin_dir, true)?);
            changed
        }
        Ok(changed) => changed,
        Err(ClientError::Unreachable { cause: Cause::Absent | Cause::NobodyListens, .. }) => {
            Changed { changes: remove_pins(&pin_dir, args.all)? }
        }
        Err(error) => return Err(error.into()),
    };
    terminal.answer(args.client.output, &changed, render::changed)
}

/// Where the agent pins, or would. An agent too ill to say so can still be asked to detach.
async fn pin_dir_of(client: &Client) -> PathBuf {
    client
        .status()
        .await
        .map_or_else(|_| AgentSettings::DEFAULT_PIN_DIR.into(), |status| status.agent.pin_dir.into())
}

/// Takes away programs and pins without an agent; one line for each thing that was there.
fn remove_pins(pin_dir: &Path, all: bool) -> Result<Vec<String>, Failure> {
    crate::datapath::pin::detach_unattended(pin_dir, all).map_err(|error| Failure::Failed(error.to_string()))
}

//! `flowgate backend`.

use crate::{
    api::schema::{BackendChange, BackendsChange, NamedBackendChange},
    cli::{
        args::{BackendArgs, BackendCommand, BackendSetArgs, ReweightedBackend},
        commands::drain,
        failure::Failure,
        render,
        terminal::Terminal,
    },
    model::AdminState,
};

pub(super) async fn run(command: BackendCommand, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let (client, changed) = match command {
        BackendCommand::List(args) => {
            let rows = args.client.client().backend_list(args.service.as_ref()).await?;
            return terminal.answer(args.client.output, rows.as_slice(), render::backends);
        }
        BackendCommand::Show(args) => return show(args, terminal).await,
        BackendCommand::Drain(args) => return drain::run(args, terminal).await,
        BackendCommand::Add(args) => {
            let entry = args.backend.entry(args.weight, args.priority, args.max_flows);
            let changed = args.client.client().backend_add(&args.service, &entry).await?;
            (args.client, changed)
        }
        BackendCommand::Set(args) => {
            let change = changes(&args)?;
            let changed = args.client.client().backends_set(&args.service, &change).await?;
            (args.client, changed)
        }
        BackendCommand::Enable(args) => {
            let change = BackendChange { admin_state: Some(AdminState::Enabled), ..BackendChange::default() };
            let changed = args.client.client().backend_set(&args.service, args.backend, &change).await?;
            (args.client, changed)
        }
        BackendCommand::Disable(args) => {
            let change =
                BackendChange { admin_state: Some(AdminState::Disabled), ..BackendChange::default() };
            let changed = args.client.client().backend_set(&args.service, args.backend, &change).await?;
            (args.client, changed)
        }
        BackendCommand::Reset(args) => {
            let changed = args.client.client().backend_reset(&args.service, args.backend).await?;
            (args.client, changed)
        }
        BackendCommand::Remove(args) => {
            let changed = args.client.client().backend_remove(&args.service, args.backend).await?;
            (args.client, changed)
        }
    };
    terminal.answer(client.output, &changed, render::changed)
}

/// What `backend set` asks for; every backend must have something to change.
fn changes(args: &BackendSetArgs) -> Result<BackendsChange, Failure> {
    let change_of = |named: &ReweightedBackend| {
        let change = BackendChange {
            weight: named.weight.or(args.weight),
            admin_state: None,
            priority: args.priority,
            max_flows: args.max_flows,
        };
        if change == BackendChange::default() {
            let backend = named.backend;
            return Err(Failure::Usage(format!(
                "nothing to set on {backend}: write {backend}=WEIGHT, or add --weight, --priority or --max-flows"
            )));
        }
        Ok(NamedBackendChange { backend: named.backend, change })
    };
    let backends = args.backends.iter().map(change_of).collect::<Result<_, _>>()?;
    Ok(BackendsChange { backends })
}

async fn show(args: BackendArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let BackendArgs { service, backend, client } = args;
    let rows = client.client().backend_list(Some(&service)).await?;
    let row = rows.iter().find(|row| row.socket_address() == backend).ok_or_else(|| {
        Failure::Failed(format!(
            "service {service} has no backend {backend}: `flowgate backend list {service}` shows those it has"
        ))
    })?;
    terminal.answer(client.output, row, render::backend)
}

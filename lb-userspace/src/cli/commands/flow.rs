//! `flowgate flow` and `flowgate lookup`.

use crate::{
    api::schema::flows::{FlowCountQuery, FlowQuery, LookupQuery},
    cli::{
        args::{FlowCommand, LookupArgs},
        failure::Failure,
        render,
        terminal::Terminal,
    },
};

pub(super) async fn run(command: FlowCommand, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    match command {
        FlowCommand::List(args) => {
            let query = FlowQuery {
                service: args.service,
                backend: args.backend,
                from_address: args.from.map(|from| from.address),
                from_port: args.from.and_then(|from| from.port),
                state: args.state,
                limit: Some(args.limit),
            };
            let list = args.client.client().flow_list(&query).await?;
            terminal.answer(args.client.output, &list, render::flows)
        }
        FlowCommand::Count(args) => {
            let query = FlowCountQuery { service: args.service, backend: args.backend, by: args.by };
            let count = args.client.client().flow_count(&query).await?;
            terminal.answer(args.client.output, &count, render::flow_count)
        }
    }
}

pub(super) async fn lookup(args: LookupArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let query =
        LookupQuery { from: args.from, to: args.to, protocol: Some(args.protocol), opens: args.opens };
    let answer = args.client.client().lookup(&query).await?;
    terminal.answer(args.client.output, &answer, render::lookup)
}

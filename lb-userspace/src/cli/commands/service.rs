//! `flowgate service`.

use crate::{
    api::schema::ServiceChange,
    cli::{
        args::{HealthArgs, ServiceAddArgs, ServiceCommand, ServiceSetArgs},
        failure::Failure,
        render,
        terminal::Terminal,
    },
    config::entry::{HealthEntry, HealthKind, ServiceEntry},
};

pub(super) async fn run(command: ServiceCommand, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    match command {
        ServiceCommand::Add(args) => add(*args, terminal).await,
        ServiceCommand::List(args) => {
            let services = args.client.client().service_list().await?;
            terminal.answer(args.client.output, services.as_slice(), render::services)
        }
        ServiceCommand::Show(args) => {
            let service = args.client.client().service_show(&args.name).await?;
            terminal.answer(args.client.output, &service, render::service)
        }
        ServiceCommand::Set(args) => set(*args, terminal).await,
        ServiceCommand::Remove(args) => {
            let changed = args.client.client().service_remove(&args.name).await?;
            terminal.answer(args.client.output, &changed, render::changed)
        }
    }
}

async fn add(args: ServiceAddArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let health = args.health;
    let health = match health.health_type {
        Some(kind) => Some(changed_check(None, kind, health)),
        None if health == HealthArgs::default() => None,
        None => return Err(Failure::Usage("what is probed? Add --health-type tcp or http".to_owned())),
    };
    let entry = ServiceEntry {
        name: args.name.into(),
        address: args.address.to_string(),
        port: args.port,
        protocol: args.protocol,
        mode: args.options.mode,
        scheduler: args.options.scheduler,
        affinity_prefix: args.options.affinity_prefix,
        idle_timeout: args.options.idle_timeout,
        half_open_timeout: args.options.half_open_timeout,
        closing_timeout: args.options.closing_timeout,
        on_down: args.options.on_down,
        refuse: args.options.refuse,
        answer_ping: args.options.answer_ping,
        fragments: args.options.fragments,
        slow_start: args.options.slow_start,
        panic_threshold: args.options.panic_threshold,
        panic_action: args.options.panic_action,
        failover_below: args.options.failover_below,
        tunnel_port: args.options.tunnel_port,
        tunnel_dont_fragment: args.options.tunnel_dont_fragment,
        health,
        backends: args
            .backends
            .iter()
            .map(|backend| backend.backend.entry(backend.weight, None, None))
            .collect(),
    };
    let changed = args.client.client().service_add(&entry).await?;
    terminal.answer(args.client.output, &changed, render::changed)
}

async fn set(args: ServiceSetArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let client = args.client.client();
    let options = args.options;
    let mut change = ServiceChange {
        mode: options.mode,
        scheduler: options.scheduler,
        affinity_prefix: options.affinity_prefix,
        idle_timeout: options.idle_timeout,
        half_open_timeout: options.half_open_timeout,
        closing_timeout: options.closing_timeout,
        on_down: options.on_down,
        refuse: options.refuse,
        answer_ping: options.answer_ping,
        fragments: options.fragments,
        slow_start: options.slow_start,
        panic_threshold: options.panic_threshold,
        panic_action: options.panic_action,
        failover_below: options.failover_below,
        tunnel_port: options.tunnel_port,
        tunnel_dont_fragment: options.tunnel_dont_fragment,
        health: None,
    };
    if args.health != HealthArgs::default() {
        // The API takes a health check as a whole: what is not named here stays as it is.
        let current = client.service_show(&args.name).await?.health_check;
        let kind = args.health.health_type.unwrap_or(current.kind);
        change.health = Some(changed_check(Some(current), kind, args.health));
    }
    if change == ServiceChange::default() {
        let error = "nothing to set: name at least one option; `flowgate service set --help` lists them";
        return Err(Failure::Usage(error.to_owned()));
    }
    let changed = client.service_set(&args.name, &change).await?;
    terminal.answer(args.client.output, &changed, render::changed)
}

/// The check that `args` make of the `current` one, where there is one.
fn changed_check(current: Option<HealthEntry>, kind: HealthKind, args: HealthArgs) -> HealthEntry {
    // Where nothing is probed nothing is worth keeping; what only http has goes with http.
    let probed = current.filter(|check| check.kind != HealthKind::None && kind != HealthKind::None);
    let http = probed.clone().filter(|_| kind == HealthKind::Http);
    HealthEntry {
        kind,
        path: args.health_path.or_else(|| http.as_ref()?.path.clone()),
        host: args.health_host.or_else(|| http.as_ref()?.host.clone()),
        expect_status: args.health_expect_status.or_else(|| http.as_ref()?.expect_status.clone()),
        interval: args.health_interval.or_else(|| probed.as_ref()?.interval.clone()),
        timeout: args.health_timeout.or_else(|| probed.as_ref()?.timeout.clone()),
        rise: args.health_rise.or_else(|| probed.as_ref()?.rise),
        fall: args.health_fall.or_else(|| probed.as_ref()?.fall),
        port: args.health_port.or_else(|| probed.as_ref()?.port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake;

    fn current() -> HealthEntry {
        HealthEntry { port: Some(8081), ..fake::detail().health_check }
    }

    #[test]
    fn what_is_not_named_stays() {
        let args = HealthArgs { health_interval: Some("500ms".to_owned()), ..HealthArgs::default() };
        let wanted = HealthEntry { interval: Some("500ms".to_owned()), ..current() };
        assert_eq!(changed_check(Some(current()), HealthKind::Http, args), wanted);
    }

    #[test]
    fn another_type_leaves_behind_what_only_http_has() {
        let args = HealthArgs { health_fall: Some(5), ..HealthArgs::default() };
        let wanted = HealthEntry {
            kind: HealthKind::Tcp,
            path: None,
            host: None,
            expect_status: None,
            fall: Some(5),
            ..current()
        };
        assert_eq!(changed_check(Some(current()), HealthKind::Tcp, args), wanted);
    }

    #[test]
    fn no_check_has_nothing_else_to_say() {
        let bare = |kind| HealthEntry {
            kind,
            path: None,
            host: None,
            expect_status: None,
            interval: None,
            timeout: None,
            rise: None,
            fall: None,
            port: None,
        };
        let none = changed_check(Some(current()), HealthKind::None, HealthArgs::default());
        assert_eq!(none, bare(HealthKind::None));
        let none = HealthEntry { kind: HealthKind::None, ..current() };
        let tcp = changed_check(Some(none), HealthKind::Tcp, HealthArgs::default());
        assert_eq!(tcp, bare(HealthKind::Tcp));
    }
}

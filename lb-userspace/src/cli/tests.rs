//! Whole commands, from the words typed to the text shown, against an agent on a socket.

use clap::Parser as _;

use super::{
    args::Cli,
    commands,
    failure::Failure,
    render::{self, Paint},
    terminal::Terminal,
};
use crate::api::schema::{BackendChange, BackendsChange, NamedBackendChange, ServiceChange};
use crate::{
    api::fake::{self, FakeAgent},
    config::entry::{BackendEntry, HealthEntry, HealthKind, ServiceEntry},
    model::{Mode, Protocol},
};
use crate::{api::schema::flows::FlowQuery, model::FlowState};

/// Runs `line`; what it printed.
async fn run(line: &str) -> Result<String, Failure> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal =
        Terminal { out: &mut out, err: &mut err, paint: Paint::new(false), err_is_terminal: false };
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
    commands::run(cli.command, &mut terminal).await?;
    Ok(String::from_utf8(out).unwrap())
}

/// Runs `line` with the agent's socket; what it printed, or its failure and exit code.
async fn with(agent: &FakeAgent, line: &str) -> Result<String, (u8, String)> {
    let done = run(&format!("flowgate {line} --socket {}", agent.socket.display())).await;
    done.map_err(|failure| (failure.exit_code(), failure.to_string()))
}

#[tokio::test]
async fn every_command_asks_for_one_thing_and_shows_the_answer() {
    let agent = FakeAgent::start().await;
    let plain = Paint::new(false);
    let mode = ServiceChange { mode: Some(Mode::Dsr), ..Default::default() };
    let set_mode = format!("ServiceSet web {mode:?}");
    let weighted = |backend: &str, weight| NamedBackendChange {
        backend: backend.parse().unwrap(),
        change: BackendChange { weight: Some(weight), ..Default::default() },
    };
    let backends = vec![weighted("10.2.0.11:80", 0), weighted("[2001:db8::1]:80", 7)];
    let set_backends = format!("BackendsSet web {:?}", BackendsChange { backends });
    let flow_query = FlowQuery {
        service: Some("web".parse().unwrap()),
        from_address: Some("198.51.100.7".parse().unwrap()),
        state: Some(FlowState::HalfOpen),
        limit: Some(5),
        ..Default::default()
    };
    let asked_flows = format!("FlowList {flow_query:?}");
    let cases = [
        ("status", "Status", render::status(&fake::status(), plain)),
        ("stats", "Stats", render::stats(&fake::stats(), false, plain)),
        ("stats --all", "Stats", render::stats(&fake::stats(), true, plain)),
        ("service list", "ServiceList", render::services(&fake::services(), plain)),
        ("service show web", "ServiceShow web", render::service(&fake::detail(), plain)),
        ("service set web --mode dsr", &set_mode, "service changed\n".to_owned()),
        ("service remove web", "ServiceRemove web", "service removed\n".to_owned()),
        ("backend list", "BackendList None", render::backends(&fake::backends(), plain)),
        (
            "backend list web",
            "BackendList Some(ServiceName(\"web\"))",
            render::backends(&fake::backends(), plain),
        ),
        (
            "backend show web 10.2.0.12:8080",
            "BackendList Some(ServiceName(\"web\"))",
            render::backend(&fake::backends()[1], plain),
        ),
        (
            "backend add web 2001:db8::1 --weight 5",
            "BackendAdd web BackendEntry { address: \"2001:db8::1\", port: None, weight: Some(5), priority: None, max_flows: None }",
            "backend added\n".to_owned(),
        ),
        (
            "backend set web 10.2.0.11:80 [2001:db8::1]:80=7 --weight 0",
            &set_backends,
            "backends changed\n".to_owned(),
        ),
        (
            "backend drain web 10.2.0.11:80",
            "BackendSet web 10.2.0.11:80 BackendChange { weight: None, admin_state: Some(Draining), priority: None, max_flows: None }",
            "backend changed\n".to_owned(),
        ),
        (
            "backend enable web 10.2.0.11:80",
            "BackendSet web 10.2.0.11:80 BackendChange { weight: None, admin_state: Some(Enabled), priority: None, max_flows: None }",
            "backend changed\n".to_owned(),
        ),
        (
            "backend disable web [2001:db8::1]:80",
            "BackendSet web [2001:db8::1]:80 BackendChange { weight: None, admin_state: Some(Disabled), priority: None, max_flows: None }",
            "backend changed\n".to_owned(),
        ),
        (
            "backend reset web 10.2.0.11:80",
            "BackendReset web 10.2.0.11:80",
            "nothing to change: it is so already\n".to_owned(),
        ),
        ("backend remove web 10.2.0.11:80", "BackendRemove web 10.2.0.11:80", "backend removed\n".to_owned()),
        (
            "flow list --service web --from 198.51.100.7 --state half-open --limit 5",
            &asked_flows,
            render::flows(&fake::flow_list(), plain),
        ),
        (
            "flow count --by client",
            "FlowCount FlowCountQuery { service: None, backend: None, by: Some(Client) }",
            render::flow_count(&fake::flow_count(), plain),
        ),
        (
            "lookup --from 198.51.100.7:40000 --to 10.1.0.10:80",
            "Lookup LookupQuery { from: 198.51.100.7:40000, to: 10.1.0.10:80, protocol: Some(Tcp), opens: false }",
            render::lookup(&fake::lookup(), plain),
        ),
        ("config show", "ConfigShow", fake::CONFIG.to_owned()),
        ("config reload", "ConfigReload", "service web changed\n".to_owned()),
    ];
    for (line, asked, shown) in cases {
        assert_eq!(with(&agent, line).await.as_deref(), Ok(shown.as_str()), "{line}");
        assert_eq!(agent.asked(), [asked], "{line}");
    }
    assert_eq!(with(&agent, "detach").await.unwrap(), "detached from eth0\n");
    assert_eq!(agent.asked(), ["Status", "Detach"]);
}

#[tokio::test]
async fn json_is_what_the_api_answers() {
    let agent = FakeAgent::start().await;
    async fn json<T: serde::de::DeserializeOwned>(agent: &FakeAgent, line: &str) -> T {
        let text = with(agent, &format!("{line} --output json")).await.unwrap();
        assert!(text.ends_with('\n'), "{line}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    }
    assert_eq!(json::<crate::api::schema::Status>(&agent, "status").await, fake::status());
    assert_eq!(json::<crate::api::schema::Stats>(&agent, "stats").await, fake::stats());
    assert_eq!(json::<Vec<crate::api::schema::ServiceRow>>(&agent, "service list").await, fake::services());
    assert_eq!(json::<crate::api::schema::ServiceDetail>(&agent, "service show web").await, fake::detail());
    assert_eq!(json::<Vec<crate::api::schema::BackendRow>>(&agent, "backend list").await, fake::backends());
    let row = json::<crate::api::schema::BackendRow>(&agent, "backend show web 10.2.0.12:8080").await;
    assert_eq!(row, fake::backends()[1]);
    let changed = json::<crate::api::schema::Changed>(&agent, "service remove web").await;
    assert_eq!(changed, fake::changed("service removed"));
    let config = json::<serde_json::Value>(&agent, "config show").await;
    assert_eq!(config, serde_json::json!({"service": [{"name": "web"}]}));
    let rows = json::<serde_json::Value>(&agent, "backend list").await;
    for field in ["service", "address", "port", "weight", "health", "admin_state", "flows"] {
        assert!(rows[0].get(field).is_some(), "scripts depend on {field}");
    }
}

#[tokio::test]
async fn a_service_is_added_with_everything_that_was_said() {
    let agent = FakeAgent::start().await;
    let line = "service add api --address 2001:db8::10 --port 443 --protocol tcp --mode dsr --idle-timeout 1m \
                --health-type http --health-path /up --health-rise 1 --health-port 8081 \
                --backend [2001:db8::1]:443@20 --backend 2001:db8::2";
    assert_eq!(with(&agent, line).await.unwrap(), "service api added\n");
    let entry = ServiceEntry {
        name: "api".to_owned(),
        address: "2001:db8::10".to_owned(),
        port: 443,
        protocol: Protocol::Tcp,
        mode: Some(Mode::Dsr),
        scheduler: None,
        idle_timeout: Some("1m".to_owned()),
        health: Some(HealthEntry {
            kind: HealthKind::Http,
            path: Some("/up".to_owned()),
            host: None,
            expect_status: None,
            interval: None,
            timeout: None,
            rise: Some(1),
            fall: None,
            port: Some(8081),
        }),
        backends: vec![
            BackendEntry {
                address: "2001:db8::1".to_owned(),
                port: Some(443),
                weight: Some(20),
                ..BackendEntry::default()
            },
            BackendEntry { address: "2001:db8::2".to_owned(), ..BackendEntry::default() },
        ],
        ..crate::config::testing::entry("api", "2001:db8::10", &[])
    };
    assert_eq!(agent.asked(), [format!("ServiceAdd {entry:?}")]);
}

#[tokio::test]
async fn each_backend_that_is_named_must_have_something_to_change() {
    let agent = FakeAgent::start().await;
    let (code, error) = with(&agent, "backend set web 10.2.0.11:80=5 10.2.0.12:80").await.unwrap_err();
    assert_eq!(code, 2);
    assert!(error.contains("nothing to set on 10.2.0.12:80: write 10.2.0.12:80=WEIGHT"), "{error}");
    assert!(agent.asked().is_empty());
}

#[tokio::test]
async fn a_part_of_a_health_check_is_changed_within_the_whole() {
    let agent = FakeAgent::start().await;
    with(&agent, "service set web --health-interval 500ms").await.unwrap();
    let health = HealthEntry { interval: Some("500ms".to_owned()), ..fake::detail().health_check };
    let change = ServiceChange { health: Some(health), ..Default::default() };
    assert_eq!(agent.asked(), ["ServiceShow web".to_owned(), format!("ServiceSet web {change:?}")]);
}

#[tokio::test]
async fn a_drain_can_be_waited_for() {
    let mut drained = fake::backends();
    drained[2].flows = 0;
    let agent = FakeAgent::with_backends(vec![drained]).await;
    with(&agent, "backend drain web 10.2.0.13:8080 --wait --timeout 1m").await.unwrap();
    let agent = FakeAgent::start().await;
    let (code, error) =
        with(&agent, "backend drain web 10.2.0.13:8080 --wait --timeout 0s").await.unwrap_err();
    assert_eq!(code, 1);
    assert!(error.contains("24 flows left"), "{error}");
}

#[tokio::test]
async fn exit_codes_tell_refused_from_misused_from_unreachable() {
    let mut agent = FakeAgent::start().await;
    let refused = with(&agent, "service show no").await.unwrap_err();
    assert_eq!(refused, (1, "there is no service no".to_owned()));
    let absent = with(&agent, "backend show web 10.2.0.99:80").await.unwrap_err();
    let error = "service web has no backend 10.2.0.99:80: `flowgate backend list web` shows those it has";
    assert_eq!(absent, (1, error.to_owned()));
    let misused = with(&agent, "service set web").await.unwrap_err();
    assert_eq!(misused.0, 2, "{}", misused.1);
    let add = "service add api --address 10.1.0.1 --port 1 --protocol udp --health-fall 2";
    assert_eq!(with(&agent, add).await.unwrap_err().0, 2);
    agent.stop().await;
    let unreachable = with(&agent, "status").await.unwrap_err();
    assert_eq!(unreachable.0, 3, "{}", unreachable.1);
}

#[tokio::test]
async fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&format!("flowgate completions {shell}")).await.unwrap();
        assert!(script.contains("drain"), "{shell}");
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_away_is_no_error() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut err = Vec::new();
    let mut terminal =
        Terminal { out: &mut Closed, err: &mut err, paint: Paint::new(false), err_is_terminal: false };
    let failure = terminal.text("x").unwrap_err();
    assert!(failure.is_broken_pipe());
    assert_eq!(failure.exit_code(), 0);
}

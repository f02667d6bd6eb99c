//! The server and the client against each other, over a real socket.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::{
    MAX_BODY_BYTES,
    client::{Cause, Client, ClientError},
    fake::{self, FakeAgent},
    schema::{BackendChange, Changed, Refusal, ServiceChange},
    server::{BindError, Server},
};
use crate::{
    agent::command::Handle,
    config::entry::{BackendEntry, ServiceEntry},
    model::{AdminState, ServiceName},
};

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn entry(name: &str) -> ServiceEntry {
    crate::config::testing::entry(name, "10.1.0.10", &[])
}

/// Status code and body of the answer to a request written by hand.
async fn raw(agent: &FakeAgent, request: &str, body: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(&agent.socket).await.unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer, and close, before it has read a body that is too large.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn refusal(agent: &FakeAgent, request: &str, body: &str) -> (u16, String) {
    let (status, body) = raw(agent, request, body.as_bytes()).await;
    (status, serde_json::from_str::<Refusal>(&body).unwrap_or_else(|error| panic!("{error}: {body}")).error)
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Refused(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

fn cause<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (Cause, String) {
    match answer {
        Err(error) => {
            let text = error.to_string();
            match error {
                ClientError::Unreachable { cause, .. } => (cause, text),
                other => panic!("not unreachable: {other:?}"),
            }
        }
        Ok(answer) => panic!("answered: {answer:?}"),
    }
}

#[tokio::test]
async fn every_route_carries_its_command_and_its_answer() {
    let agent = FakeAgent::start().await;
    let client = &agent.client;
    let web = name("web");
    let v4 = "10.2.0.11:8080".parse().unwrap();
    let v6 = "[2001:db8::1]:80".parse().unwrap();
    let changed = |line: &str| fake::changed(line);

    assert_eq!(client.status().await.unwrap(), fake::status());
    assert_eq!(client.stats().await.unwrap(), fake::stats());
    assert_eq!(client.service_list().await.unwrap(), fake::services());
    assert_eq!(client.service_show(&web).await.unwrap(), fake::detail());
    assert_eq!(client.backend_list(None).await.unwrap(), fake::backends());
    assert_eq!(client.backend_list(Some(&web)).await.unwrap(), fake::backends());
    assert_eq!(
        agent.asked(),
        [
            "Status",
            "Stats",
            "ServiceList",
            "ServiceShow web",
            "BackendList None",
            "BackendList Some(ServiceName(\"web\"))"
        ]
    );

    let added = entry("api");
    assert_eq!(client.service_add(&added).await.unwrap(), changed("service api added"));
    let change = ServiceChange { idle_timeout: Some("1m".to_owned()), ..ServiceChange::default() };
    assert_eq!(client.service_set(&web, &change).await.unwrap(), changed("service changed"));
    assert_eq!(client.service_remove(&web).await.unwrap(), changed("service removed"));
    assert_eq!(
        agent.asked(),
        [
            format!("ServiceAdd {added:?}"),
            format!("ServiceSet web {change:?}"),
            "ServiceRemove web".to_owned()
        ]
    );

    let added = BackendEntry {
        address: "10.2.0.14".to_owned(),
        port: None,
        weight: Some(7),
        ..BackendEntry::default()
    };
    assert_eq!(client.backend_add(&web, &added).await.unwrap(), changed("backend added"));
    let change =
        BackendChange { weight: None, admin_state: Some(AdminState::Draining), ..BackendChange::default() };
    assert_eq!(client.backend_set(&web, v4, &change).await.unwrap(), changed("backend changed"));
    assert_eq!(client.backend_reset(&web, v6).await.unwrap(), Changed::default());
    assert_eq!(client.backend_remove(&web, v6).await.unwrap(), changed("backend removed"));
    assert_eq!(
        agent.asked(),
        [
            format!("BackendAdd web {added:?}"),
            format!("BackendSet web 10.2.0.11:8080 {change:?}"),
            "BackendReset web [2001:db8::1]:80".to_owned(),
            "BackendRemove web [2001:db8::1]:80".to_owned()
        ]
    );

    assert_eq!(client.config_show().await.unwrap(), fake::CONFIG);
    assert_eq!(client.config_reload().await.unwrap(), changed("service web changed"));
    assert_eq!(client.detach().await.unwrap(), changed("detached from eth0"));
    assert_eq!(agent.asked(), ["ConfigShow", "ConfigReload", "Detach"]);
}

#[tokio::test]
async fn each_kind_of_error_has_its_status_and_keeps_its_words() {
    let agent = FakeAgent::start().await;
    let show = |name: &str| format!("GET /v1/services/{name}");
    assert_eq!(refusal(&agent, &show("no"), "").await, (404, "there is no service no".to_owned()));
    assert_eq!(
        refusal(&agent, &show("conflict"), "").await,
        (409, "service conflict belongs to lb.toml:3".to_owned())
    );
    assert_eq!(refusal(&agent, &show("broken"), "").await, (500, "the disk is full".to_owned()));
    let body = serde_json::to_string(&entry("bad")).unwrap();
    assert_eq!(
        refusal(&agent, "POST /v1/services", &body).await,
        (422, "address: not an address".to_owned())
    );
    assert_eq!(refused(agent.client.service_show(&name("no")).await), "there is no service no");
}

#[tokio::test]
async fn what_is_no_request_of_this_api_is_refused_in_json() {
    let agent = FakeAgent::start().await;
    let cases = [
        ("GET /v1/statuss", "", 404, "there is no GET /v1/statuss"),
        ("GET /", "", 404, "there is no GET /"),
        ("DELETE /v1/status", "", 405, "/v1/status does not take DELETE"),
        ("GET /v1/services/a%20b", "", 422, "service name \"a b\" is not valid"),
        ("GET /v1/services/%ff", "", 400, "Invalid URL"),
        ("GET /v1/backends?service=-", "", 422, "service name \"-\" is not valid"),
        ("GET /v1/backends?sevice=web", "", 422, "unknown field `sevice`"),
        ("DELETE /v1/services/web/backends/10.2.0.11", "", 422, "name it by ADDRESS:PORT"),
        ("POST /v1/services", "", 400, "the body is not JSON: EOF"),
        (
            "POST /v1/services",
            "{\"name\": }",
            400,
            "the body is not JSON: name: expected value at line 1 column 10",
        ),
        ("POST /v1/services", "{} {}", 422, "missing field `name`"),
        (
            "POST /v1/services/web/backends",
            "{\"address\": \"10.2.0.11\", \"wieght\": 1}",
            422,
            "wieght: unknown field `wieght`, expected one of `address`, `port`, `weight`, `priority`, `max_flows` at line 1 column 33: did you mean `weight`?",
        ),
        (
            "POST /v1/services/web/backends",
            "{\"address\": \"10.2.0.11\", \"port\": \"80\"}",
            422,
            "port: invalid type: string \"80\", expected u16",
        ),
        (
            "PATCH /v1/services/web",
            "{\"health\": {\"type\": \"htp\"}}",
            422,
            "health.type: unknown variant `htp`, expected one of `none`, `tcp`, `http` at line 1 column 25: did you mean `http`?",
        ),
    ];
    for (request, body, status, words) in cases {
        let (got, error) = refusal(&agent, request, body).await;
        assert_eq!(got, status, "{request} {body}: {error}");
        assert!(error.contains(words), "{request} {body}: {error}");
    }
    assert!(agent.asked().is_empty(), "nothing of it may reach the controller");
}

#[tokio::test]
async fn a_body_is_taken_up_to_the_limit() {
    let agent = FakeAgent::start().await;
    let mut body = b"{\"address\": \"10.2.0.11\"}".to_vec();
    body.resize(MAX_BODY_BYTES, b' ');
    let (status, answer) = raw(&agent, "POST /v1/services/web/backends", &body).await;
    assert_eq!(status, 200, "{answer}");
    body.push(b' ');
    let (status, answer) = raw(&agent, "POST /v1/services/web/backends", &body).await;
    assert_eq!(status, 413);
    assert_eq!(
        serde_json::from_str::<Refusal>(&answer).unwrap().error,
        "the body is larger than 1048576 bytes"
    );
}

#[tokio::test]
async fn the_configuration_is_toml() {
    let agent = FakeAgent::start().await;
    assert_eq!(raw(&agent, "GET /v1/config", b"").await, (200, fake::CONFIG.to_owned()));
}

#[tokio::test]
async fn only_owner_and_group_may_connect() {
    let agent = FakeAgent::start().await;
    assert_eq!(fs::metadata(&agent.socket).unwrap().permissions().mode() & 0o777, 0o660);
}

#[tokio::test]
async fn a_second_agent_is_refused_and_told_of_the_first() {
    let mut agent = FakeAgent::start().await;
    let error = Server::bind(&agent.socket).await.unwrap_err().to_string();
    let pid = std::process::id();
    assert_eq!(
        error,
        format!(
            "another agent is running on {} (pid {pid}): stop it, or give this one another --socket",
            agent.socket.display()
        )
    );
    agent.client.status().await.expect("the first one goes on");
    agent.stop().await;
    assert!(!agent.socket.exists(), "a stopped agent leaves no socket");
    Server::bind(&agent.socket).await.expect("its place is free again");
}

#[tokio::test]
async fn a_socket_that_answers_is_left_alone_even_without_a_lock() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let _other = UnixListener::bind(&socket).unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let error = Server::bind(&socket).await.unwrap_err();
    assert!(matches!(error, BindError::Taken { pid: Some(taker), .. } if taker == pid), "{error}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let (cause, text) = cause(Client::new(&socket).status().await);
    assert!(matches!(cause, Cause::NobodyListens), "{text}");
    let server = Server::bind(&socket).await.unwrap();
    UnixStream::connect(&socket).await.expect("the new one listens");
    drop(server);
}

#[tokio::test]
async fn what_is_no_socket_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("precious");
    fs::write(&file, "data").unwrap();
    assert!(matches!(Server::bind(&file).await, Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&file).unwrap(), "data");
    let long = directory.path().join("x".repeat(120));
    let error = Server::bind(&long).await.unwrap_err().to_string();
    assert!(error.ends_with("name a shorter --socket"), "{error}");
}

#[tokio::test]
async fn each_way_to_miss_the_agent_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let client = Client::new(&socket).with_timeout(Duration::from_millis(100));

    let (absent, text) = cause(client.status().await);
    assert!(matches!(absent, Cause::Absent));
    assert_eq!(
        text,
        format!(
            "no agent answers on {} (there is no such socket): start it with `flowgate agent --config FILE`, or say with --socket where it is",
            socket.display()
        )
    );

    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let (silent, text) = cause(client.status().await);
    assert!(matches!(silent, Cause::TimedOut(_)), "{text}");
    assert!(text.contains("no answer within 100ms"), "{text}");

    let answers: [&[u8]; 3] =
        [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"];
    let task = tokio::spawn(async move {
        // Accepted by the first attempt above, which gave up.
        drop(listener.accept().await.unwrap());
        for answer in answers {
            let (mut peer, _) = listener.accept().await.unwrap();
            let _ = peer.read(&mut [0; 1024]).await.unwrap();
            peer.write_all(answer).await.unwrap();
        }
    });
    let (closed, text) = cause(client.status().await);
    assert!(matches!(closed, Cause::Closed), "{text}");
    for _ in 0..2 {
        let error = client.status().await.unwrap_err();
        assert!(matches!(error, ClientError::Foreign { .. }), "{error}");
    }
    task.await.unwrap();
}

#[tokio::test]
async fn an_agent_that_shuts_down_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let (handle, commands) = Handle::new();
    drop(commands);
    let server = Server::bind(&socket).await.unwrap();
    tokio::spawn(server.serve(handle, std::future::pending()));
    let error = refused(Client::new(&socket).status().await);
    assert_eq!(error, "the agent is shutting down: start it again");
}

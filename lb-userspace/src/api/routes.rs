//! Routes: HTTP to commands, answers to HTTP.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{Method, StatusCode, Uri, header},
    response::IntoResponse,
    routing::{get, patch, post},
};

use super::{
    MAX_BODY_BYTES,
    extract::{BackendPath, Body, ServicePath, ServiceQuery},
    refused::Refused,
    schema::flows::{FlowCount, FlowCountQuery, FlowList, FlowQuery, Lookup, LookupQuery},
    schema::{
        BackendChange, BackendRow, BackendsChange, Changed, ConfigDiff, ConfigText, ServiceChange,
        ServiceDetail, ServiceRow, Stats, Status,
    },
};
use crate::{
    agent::command::{Command, Handle},
    config::entry::{BackendEntry, ServiceEntry},
};

type Answer<T> = Result<Json<T>, Refused>;

/// Every route of the API, answered by the controller behind `handle`.
pub(super) fn router(handle: Handle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/stats", get(stats))
        .route("/v1/services", get(service_list).post(service_add))
        .route("/v1/services/{name}", get(service_show).patch(service_set).delete(service_remove))
        .route("/v1/services/{name}/backends", post(backend_add).patch(backends_set))
        .route("/v1/services/{name}/backends/{backend}", patch(backend_set).delete(backend_remove))
        .route("/v1/services/{name}/backends/{backend}/reset", post(backend_reset))
        .route("/v1/backends", get(backend_list))
        .route("/v1/config", get(config_show))
        .route("/v1/config/diff", post(config_diff))
        .route("/v1/config/reload", post(config_reload))
        .route("/v1/flows/list", post(flow_list))
        .route("/v1/flows/count", post(flow_count))
        .route("/v1/lookup", post(lookup))
        .route("/v1/detach", post(detach))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(handle)
}

async fn status(State(agent): State<Handle>) -> Answer<Status> {
    Ok(Json(agent.ask(Command::Status).await?))
}

async fn stats(State(agent): State<Handle>) -> Answer<Stats> {
    Ok(Json(agent.ask(Command::Stats).await?))
}

async fn service_list(State(agent): State<Handle>) -> Answer<Vec<ServiceRow>> {
    Ok(Json(agent.ask(Command::ServiceList).await?))
}

async fn service_show(State(agent): State<Handle>, ServicePath(name): ServicePath) -> Answer<ServiceDetail> {
    Ok(Json(agent.ask(|answer| Command::ServiceShow(name, answer)).await?))
}

async fn service_add(State(agent): State<Handle>, Body(entry): Body<ServiceEntry>) -> Answer<Changed> {
    Ok(Json(agent.ask(|answer| Command::ServiceAdd(Box::new(entry), answer)).await?))
}

async fn service_set(
    State(agent): State<Handle>,
    ServicePath(name): ServicePath,
    Body(change): Body<ServiceChange>,
) -> Answer<Changed> {
    Ok(Json(agent.ask(|answer| Command::ServiceSet(name, Box::new(change), answer)).await?))
}

async fn service_remove(State(agent): State<Handle>, ServicePath(name): ServicePath) -> Answer<Changed> {
    Ok(Json(agent.ask(|answer| Command::ServiceRemove(name, answer)).await?))
}

async fn backend_list(
    State(agent): State<Handle>,
    ServiceQuery(service): ServiceQuery,
) -> Answer<Vec<BackendRow>> {
    Ok(Json(agent.ask(|answer| Command::BackendList(service, answer)).await?))
}

async fn backend_add(
    State(agent): State<Handle>,
    ServicePath(service): ServicePath,
    Body(entry): Body<BackendEntry>,
) -> Answer<Changed> {
    Ok(Json(agent.ask(|answer| Command::BackendAdd(service, entry, answer)).await?))
}

async fn backend_set(
    State(agent): State<Handle>,
    BackendPath(service, backend): BackendPath,
    Body(change): Body<BackendChange>,
) -> Answer<Changed> {
    Ok(Json(agent.ask(|answer| Command::BackendSet(service, backend, change, answer)).await?))
}

async fn backends_set(
    State(agent): State<Handle>,
    ServicePath(service): ServicePath,
    Body(change): Body<BackendsChange>,
) -> Answer<Changed> {
    Ok(Json(agent.ask(|answer| Command::BackendsSet(service, change, answer)).await?))
}

async fn backend_reset(
    State(agent): State<Handle>,
    BackendPath(service, backend): BackendPath,
) -> Answer<Changed> {
    Ok(Json(agent.ask(|answer| Command::BackendReset(service, backend, answer)).await?))
}

async fn backend_remove(
    State(agent): State<Handle>,
    BackendPath(service, backend): BackendPath,
) -> Answer<Changed> {
    Ok(Json(agent.ask(|answer| Command::BackendRemove(service, backend, answer)).await?))
}

async fn config_show(State(agent): State<Handle>) -> Result<impl IntoResponse, Refused> {
    let text = agent.ask(Command::ConfigShow).await?;
    Ok(([(header::CONTENT_TYPE, "text/toml; charset=utf-8")], text))
}

async fn config_diff(State(agent): State<Handle>, Body(text): Body<ConfigText>) -> Answer<ConfigDiff> {
    Ok(Json(agent.ask(|answer| Command::ConfigDiff(text, answer)).await?))
}

async fn config_reload(State(agent): State<Handle>) -> Answer<Changed> {
    Ok(Json(agent.ask(Command::ConfigReload).await?))
}

async fn flow_list(State(agent): State<Handle>, Body(query): Body<FlowQuery>) -> Answer<FlowList> {
    Ok(Json(agent.ask(|answer| Command::FlowList(query, answer)).await?))
}

async fn flow_count(State(agent): State<Handle>, Body(query): Body<FlowCountQuery>) -> Answer<FlowCount> {
    Ok(Json(agent.ask(|answer| Command::FlowCount(query, answer)).await?))
}

async fn lookup(State(agent): State<Handle>, Body(query): Body<LookupQuery>) -> Answer<Lookup> {
    Ok(Json(agent.ask(|answer| Command::Lookup(query, answer)).await?))
}

async fn detach(State(agent): State<Handle>) -> Answer<Changed> {
    Ok(Json(agent.ask(Command::Detach).await?))
}

async fn unknown_route(method: Method, uri: Uri) -> Refused {
    let error = format!(
        "there is no {method} {}: the API has /v1/status, /v1/stats, /v1/services, /v1/backends, /v1/flows, /v1/lookup, /v1/config and /v1/detach",
        uri.path()
    );
    Refused::new(StatusCode::NOT_FOUND, error)
}

async fn wrong_method(method: Method, uri: Uri) -> Refused {
    let error = format!("{} does not take {method}: the Allow header says what it takes", uri.path());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, error)
}

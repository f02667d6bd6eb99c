//! What handlers take out of requests; whatever does not parse is a [`Refused`] that names it.

use std::{error::Error, net::SocketAddr};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{MAX_BODY_BYTES, refused::Refused};
use crate::model::ServiceName;

/// The body as JSON, whatever its content type says.
pub(super) struct Body<T>(pub(super) T);

/// `{name}` of the path.
pub(super) struct ServicePath(pub(super) ServiceName);

/// `{name}` and `{backend}` of the path.
pub(super) struct BackendPath(pub(super) ServiceName, pub(super) SocketAddr);

/// `?service=` of the query.
pub(super) struct ServiceQuery(pub(super) Option<ServiceName>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let status = rejection.status();
            if status == StatusCode::PAYLOAD_TOO_LARGE {
                return Refused::new(status, format!("the body is larger than {MAX_BODY_BYTES} bytes"));
            }
            Refused::new(status, rejection.body_text())
        })?;
        Json::from_bytes(&bytes).map(|Json(value)| Self(value)).map_err(|rejection| explain(&rejection))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ServicePath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Path(name) = segments::<String, S>(parts, state).await?;
        service(name).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BackendPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Path((name, backend)) = segments::<(String, String), S>(parts, state).await?;
        let address = backend.parse::<SocketAddr>().map_err(|_| {
            Refused::invalid(&format!(
                "{backend:?} does not name a backend: name it by ADDRESS:PORT, for example 10.2.0.11:8080 or [2001:db8::1]:80"
            ))
        })?;
        // Without an IPv6 scope, which is no part of a backend's identity.
        Ok(Self(service(name)?, SocketAddr::new(address.ip(), address.port())))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ServiceQuery {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            service: Option<String>,
        }
        let Query(fields) = Query::<Fields>::from_request_parts(parts, state).await.map_err(|rejection| {
            Refused::invalid(&format!("the query is not valid: {}", cause(&rejection)))
        })?;
        fields.service.map(service).transpose().map(Self)
    }
}

async fn segments<T: DeserializeOwned + Send, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<Path<T>, Refused> {
    Path::from_request_parts(parts, state)
        .await
        .map_err(|rejection| Refused::new(rejection.status(), rejection.body_text()))
}

fn service(name: String) -> Result<ServiceName, Refused> {
    ServiceName::try_from(name).map_err(|error| Refused::invalid(&error))
}

fn explain(rejection: &JsonRejection) -> Refused {
    let cause = cause(rejection);
    match rejection {
        JsonRejection::JsonDataError(_) => {
            let nearest =
                nearest_known(&cause).map(|word| format!(": did you mean `{word}`?")).unwrap_or_default();
            Refused::invalid(&format!("the body is not valid: {cause}{nearest}"))
        }
        other => Refused::new(other.status(), format!("the body is not JSON: {cause}")),
    }
}

/// The innermost message: the outer ones only say that a body or a query could not be read.
fn cause(error: &dyn Error) -> String {
    // axum wraps the error that knows the field's path into one that prints the same.
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Of the names that serde says it expected, the one most like the one it got.
fn nearest_known(message: &str) -> Option<&str> {
    let (_, after) =
        message.split_once("unknown field ").or_else(|| message.split_once("unknown variant "))?;
    let mut quoted = after.split('`').skip(1).step_by(2);
    let got = quoted.next()?;
    quoted
        .map(|known| (strsim::damerau_levenshtein(got, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().max(got.len()) / 2)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::nearest_known;

    #[test]
    fn the_nearest_known_name_is_offered_where_it_is_near() {
        let fields = "expected one of `address`, `port`, `weight` at line 1 column 9";
        assert_eq!(nearest_known(&format!("unknown field `wieght`, {fields}")), Some("weight"));
        assert_eq!(nearest_known(&format!("unknown field `colour`, {fields}")), None);
        assert_eq!(
            nearest_known("unknown variant `htp`, expected one of `none`, `tcp`, `http`"),
            Some("http")
        );
        assert_eq!(nearest_known("missing field `port` at line 1 column 2"), None);
    }
}

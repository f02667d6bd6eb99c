//! Every answer that is not a success: a status and a [`Refusal`].

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::schema::Refusal;
use crate::agent::command::CommandError;

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    error: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    /// The request is understood, but what it says is not valid.
    pub(super) fn invalid(error: &impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl From<CommandError> for Refused {
    fn from(error: CommandError) -> Self {
        let status = match error {
            CommandError::NotFound(_) => StatusCode::NOT_FOUND,
            CommandError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CommandError::Conflict(_) => StatusCode::CONFLICT,
            CommandError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(Refusal { error: self.error })).into_response()
    }
}

//! The API: HTTP and JSON over a Unix socket. `schema` is what both ends speak.

pub mod schema;

//! The configuration file and the JSON of the API: text to valid model and back.
//!
//! `entry` has the shape of both, `parse` turns a file's text into entries, `validate` turns entries into the
//! model (the only place that does), `render` goes the other way. `edit` changes the desired state, and
//! `diff` says in words what has changed.

pub mod diff;
mod document;
pub mod edit;
pub mod entry;
pub mod error;
mod nearest;
pub mod parse;
pub mod render;
#[cfg(test)]
pub(crate) mod testing;
mod together;
pub mod validate;

pub use nearest::nearest;

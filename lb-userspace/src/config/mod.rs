//! The configuration file and the JSON of the API: text to valid model and back.
//!
//! `entry` has the shape of both, `parse` turns a file's text into entries, `validate` turns entries into the
//! model (the only place that does), `render` goes the other way.

mod document;
pub mod entry;
pub mod error;
mod nearest;
pub mod parse;

pub use nearest::nearest;

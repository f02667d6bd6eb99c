//! The answer to a change.

use super::{paint::Paint, plain};
use crate::api::schema::Changed;

/// One line for each change.
pub(crate) fn changed(changed: &Changed, _: Paint) -> String {
    if changed.changes.is_empty() {
        return "nothing to change: it is so already\n".to_owned();
    }
    changed.changes.iter().map(|line| plain(line) + "\n").collect()
}

//! Names of services.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a service: 1 to 63 of `A-Z a-z 0-9 . _ -`, the first a letter or a digit.
///
/// The set is what a file name, a metric label and an URL segment all take unescaped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

/// Why a text is not a service's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "service name {0:?} is not valid: use 1 to 63 letters, digits, `.`, `_` or `-`, beginning with a letter or a digit"
)]
pub struct InvalidServiceName(String);

impl ServiceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = InvalidServiceName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let valid = (1..=63).contains(&name.len())
            && name.as_bytes()[0].is_ascii_alphanumeric()
            && name.bytes().all(plain);
        if valid { Ok(Self(name)) } else { Err(InvalidServiceName(name)) }
    }
}

impl std::str::FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        name.to_owned().try_into()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::ServiceName;

    #[test]
    fn names_that_are_plain_are_taken() {
        for name in ["web", "a", "7", "db.primary-1_x", &"x".repeat(63)] {
            assert!(name.parse::<ServiceName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_would_need_escaping_are_refused() {
        for name in ["", "-web", ".", "a b", "a/b", "naïve", &"x".repeat(64)] {
            assert!(name.parse::<ServiceName>().is_err(), "{name}");
        }
    }
}

//! `[[service]]` sections of a configuration file.

use std::{fmt::Write as _, net::SocketAddr};

/// Probes that find a dead backend within 800 ms: 3 × 200 ms + 200 ms.
pub const HTTP_HEALTH: &str =
    r#"{ type = "http", path = "/healthz", interval = "200ms", timeout = "200ms", rise = 2, fall = 3 }"#;

/// No probes: up at once.
pub const NO_HEALTH: &str = r#"{ type = "none" }"#;

/// One service; `mode` and `health` as the file spells them.
#[must_use]
pub fn service(
    name: &str,
    address: SocketAddr,
    protocol: &str,
    mode: &str,
    health: &str,
    backends: &[SocketAddr],
) -> String {
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\naddress = \"{}\"\nport = {}\nprotocol = \"{protocol}\"\n\
         mode = \"{mode}\"\nidle_timeout = \"10s\"\nhealth = {health}\n",
        address.ip(),
        address.port()
    );
    for backend in backends {
        let _ =
            writeln!(text, "[[service.backend]]\naddress = \"{}\"\nport = {}", backend.ip(), backend.port());
    }
    text
}

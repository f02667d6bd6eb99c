//! `[service.health]`.

use std::time::Duration;

use super::duration;
use crate::{
    config::{
        entry::{HealthEntry, HealthKind},
        error::{Problem, Problems, Scope},
    },
    model::{HealthCheck, HttpCheck, Probe, Protocol},
};

const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const RUN_MAX: u32 = 100;
const HTTP_PATH_BYTES: usize = 1024;
const HTTP_HOST_BYTES: usize = 260;
const STATUS_MIN: u16 = 100;
const STATUS_MAX: u16 = 599;
const DEFAULT_STATUS: (u16, u16) = (200, 399);

/// How a service is probed that says nothing of it.
fn default_check(protocol: Protocol) -> HealthCheck {
    HealthCheck {
        probe: match protocol {
            Protocol::Tcp => Probe::Tcp,
            Protocol::Udp => Probe::None,
        },
        interval: HealthCheck::DEFAULT_INTERVAL,
        timeout: HealthCheck::DEFAULT_TIMEOUT,
        rise: HealthCheck::DEFAULT_RISE,
        fall: HealthCheck::DEFAULT_FALL,
        port: None,
    }
}

/// The health check; `scope` is the service's `health`.
pub(super) fn validate(
    entry: Option<&HealthEntry>,
    protocol: Protocol,
    scope: &Scope,
    problems: &mut Problems,
) -> Option<HealthCheck> {
    let default = default_check(protocol);
    let Some(entry) = entry else { return Some(default) };
    refuse_what_has_no_effect(entry, scope, problems);
    if entry.kind == HealthKind::None {
        return Some(HealthCheck { probe: Probe::None, ..default });
    }
    let interval = entry.interval.as_deref().map_or(Ok(default.interval), |text| {
        duration::parse(text, "interval", &(INTERVAL_MIN..=INTERVAL_MAX), scope)
    });
    let interval = problems.keep(interval);
    let timeout = problems.keep(timeout(entry, interval, scope));
    let rise = problems.keep(run(entry.rise, default.rise, "rise", scope));
    let fall = problems.keep(run(entry.fall, default.fall, "fall", scope));
    let port = problems.keep(port(entry, protocol, scope));
    let probe = match entry.kind {
        HealthKind::None => Some(Probe::None),
        HealthKind::Tcp => Some(Probe::Tcp),
        HealthKind::Http => http(entry, scope, problems).map(Probe::Http),
    };
    Some(HealthCheck {
        probe: probe?,
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
        port: port?,
    })
}

/// A field that would be read and ignored is refused.
fn refuse_what_has_no_effect(entry: &HealthEntry, scope: &Scope, problems: &mut Problems) {
    let of_http = [
        ("path", entry.path.is_some()),
        ("host", entry.host.is_some()),
        ("expect_status", entry.expect_status.is_some()),
    ];
    let of_probes = [
        ("interval", entry.interval.is_some()),
        ("timeout", entry.timeout.is_some()),
        ("rise", entry.rise.is_some()),
        ("fall", entry.fall.is_some()),
        ("port", entry.port.is_some()),
    ];
    let mut refuse = |fields: &[(&str, bool)], reason: &dyn Fn(&str) -> String| {
        for (field, _) in fields.iter().filter(|(_, given)| *given) {
            problems.push(scope.problem(field, reason(field)));
        }
    };
    match entry.kind {
        HealthKind::Http => {}
        HealthKind::Tcp => refuse(&of_http, &|field| {
            format!("{field} has no effect with type = \"tcp\": remove it, or use type = \"http\"")
        }),
        HealthKind::None => {
            refuse(&of_http, &|field| {
                format!("{field} has no effect with type = \"none\": remove it, or use type = \"http\"")
            });
            refuse(&of_probes, &|field| {
                format!(
                    "{field} has no effect with type = \"none\", which never probes: remove it, or use \
                     another type"
                )
            });
        }
    }
}

fn timeout(entry: &HealthEntry, interval: Option<Duration>, scope: &Scope) -> Result<Duration, Problem> {
    let longest = interval.unwrap_or(INTERVAL_MAX);
    let Some(text) = &entry.timeout else { return Ok(HealthCheck::DEFAULT_TIMEOUT.min(longest)) };
    let timeout = duration::parse(text, "timeout", &(TIMEOUT_MIN..=INTERVAL_MAX), scope)?;
    if timeout <= longest {
        return Ok(timeout);
    }
    let interval = duration::format_duration(longest);
    let message =
        format!("timeout = {text:?} is longer than the interval of {interval}: shorten it, or set interval");
    Err(scope.problem("timeout", message))
}

fn run(given: Option<u32>, default: u32, field: &str, scope: &Scope) -> Result<u32, Problem> {
    let count = given.unwrap_or(default);
    let message = || format!("{field} = {count} is out of range: use 1 to {RUN_MAX}");
    if (1..=RUN_MAX).contains(&count) { Ok(count) } else { Err(scope.problem(field, message())) }
}

fn port(entry: &HealthEntry, protocol: Protocol, scope: &Scope) -> Result<Option<u16>, Problem> {
    match (entry.port, protocol) {
        (Some(0), _) => {
            Err(scope.problem("port", "port = 0 is not a port: leave it out to probe the backend's own port"))
        }
        (None, Protocol::Udp) => Err(scope.problem(
            "port",
            "a probe over TCP of the service's UDP port would prove nothing: give the TCP port to probe, for \
             example port = 8080, or use type = \"none\"",
        )),
        (port, _) => Ok(port),
    }
}

fn http(entry: &HealthEntry, scope: &Scope, problems: &mut Problems) -> Option<HttpCheck> {
    let path = problems.keep(http_path(entry.path.as_deref().unwrap_or("/"), scope));
    let host = problems.keep(entry.host.as_deref().map(|host| http_host(host, scope)).transpose());
    let expect_status = problems
        .keep(entry.expect_status.as_deref().map_or(Ok(DEFAULT_STATUS), |text| http_status(text, scope)));
    Some(HttpCheck { path: path?, host: host?, expect_status: expect_status? })
}

/// Path and query as RFC 3986 has them, so that what is sent is what was written.
fn http_path(path: &str, scope: &Scope) -> Result<String, Problem> {
    let refused = |reason: &str| Err(scope.problem("path", format!("path = {path:?} {reason}")));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(&byte);
    if !path.starts_with('/') {
        return refused("does not begin with /: write the path and query alone, for example \"/healthz\"");
    }
    if path.len() > HTTP_PATH_BYTES {
        return refused(&format!("is too long: use at most {HTTP_PATH_BYTES} bytes"));
    }
    match path.chars().find(|c| !c.is_ascii() || !plain(*c as u8)) {
        Some(odd) => refused(&format!("has {odd:?} in it: percent-encode it, as in \"%20\" for a space")),
        None => Ok(path.to_owned()),
    }
}

fn http_host(host: &str, scope: &Scope) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if (1..=HTTP_HOST_BYTES).contains(&host.len()) && host.chars().all(plain) {
        return Ok(host.to_owned());
    }
    let message =
        format!("host = {host:?} is not a host: write a name or an address, for example \"www.example.com\"");
    Err(scope.problem("host", message))
}

fn http_status(text: &str, scope: &Scope) -> Result<(u16, u16), Problem> {
    let number = |text: &str| {
        let plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (number(low), number(high)) {
        (Some(low), Some(high)) if STATUS_MIN <= low && low <= high && high <= STATUS_MAX => Ok((low, high)),
        _ => Err(scope.problem(
            "expect_status",
            format!(
                "expect_status = {text:?} is not a status: write one such as \"200\" or a range such as \
                 \"200-399\", within {STATUS_MIN} to {STATUS_MAX}"
            ),
        )),
    }
}

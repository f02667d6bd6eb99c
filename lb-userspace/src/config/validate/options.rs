//! What a service may ask for beyond its address: how backends are chosen, and for how long flows are remembered.

use std::{net::IpAddr, time::Duration};

use super::duration;
use crate::{
    config::{
        entry::ServiceEntry,
        error::{Problem, Problems, Scope},
    },
    model::{OnDown, Protocol, Scheduler, Service},
};

const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The data plane counts ages in 16 bits of about a second each.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 3600);
const SLOW_START_MAX: Duration = Duration::from_secs(3600);

/// Options that are valid, defaults filled in.
pub(super) struct Options {
    pub(super) scheduler: Scheduler,
    pub(super) idle_timeout: Duration,
    pub(super) half_open_timeout: Duration,
    pub(super) closing_timeout: Duration,
    pub(super) on_down: OnDown,
    pub(super) slow_start: Duration,
    pub(super) panic_threshold: u8,
    pub(super) failover_below: u8,
}

/// Validates the options of a service at `ip`, as far as that is known.
pub(super) fn validate(
    entry: &ServiceEntry,
    ip: Option<IpAddr>,
    scope: &Scope,
    problems: &mut Problems,
) -> Option<Options> {
    let scheduler = entry.scheduler.unwrap_or(Scheduler::Maglev);
    let affinity = problems.keep(affinity_prefix(entry.affinity_prefix, scheduler, ip, scope));
    let timeout = |text: &Option<String>, field, default| {
        let range = TIMEOUT_MIN..=TIMEOUT_MAX;
        text.as_deref().map_or(Ok(default), |text| duration::parse(text, field, &range, scope))
    };
    let of_tcp = |text: &Option<String>, field, default| {
        if text.is_some() && entry.protocol == Protocol::Udp {
            let message =
                format!("{field} is for protocol = \"tcp\", and UDP has no connections: use idle_timeout");
            return Err(scope.problem(field, message));
        }
        timeout(text, field, default)
    };
    let idle = problems.keep(timeout(&entry.idle_timeout, "idle_timeout", Service::DEFAULT_IDLE_TIMEOUT));
    let half_open = problems.keep(of_tcp(
        &entry.half_open_timeout,
        "half_open_timeout",
        Service::DEFAULT_HALF_OPEN_TIMEOUT,
    ));
    let closing =
        problems.keep(of_tcp(&entry.closing_timeout, "closing_timeout", Service::DEFAULT_CLOSING_TIMEOUT));
    let on_down = problems.keep(on_down(entry, scope));
    let slow_start = entry.slow_start.as_deref().map_or(Ok(Duration::ZERO), |text| {
        duration::parse(text, "slow_start", &(Duration::ZERO..=SLOW_START_MAX), scope)
    });
    let slow_start = problems.keep(slow_start);
    let panic_threshold = problems.keep(percent(entry.panic_threshold, 0, "panic_threshold", scope));
    let failover = (entry.failover_below, Service::DEFAULT_FAILOVER_BELOW);
    let failover_below = problems.keep(percent(failover.0, failover.1, "failover_below", scope));
    affinity?;
    Some(Options {
        scheduler,
        idle_timeout: idle?,
        half_open_timeout: half_open?,
        closing_timeout: closing?,
        on_down: on_down?,
        slow_start: slow_start?,
        panic_threshold: panic_threshold?,
        failover_below: failover_below?,
    })
}

fn affinity_prefix(
    bits: Option<u8>,
    scheduler: Scheduler,
    ip: Option<IpAddr>,
    scope: &Scope,
) -> Result<(), Problem> {
    let Some(bits) = bits else { return Ok(()) };
    if scheduler != Scheduler::SourceHash {
        let message = format!(
            "affinity_prefix is for scheduler = \"source-hash\", and this is \"{scheduler}\": use that scheduler, or \
             leave it out"
        );
        return Err(scope.problem("affinity_prefix", message));
    }
    let Some(ip) = ip else { return Ok(()) };
    let (max, version) = if ip.is_ipv4() { (32, "IPv4") } else { (128, "IPv6") };
    if (1..=max).contains(&bits) {
        return Ok(());
    }
    let message = format!("affinity_prefix = {bits} is no prefix of {version} addresses: use 1 to {max}");
    Err(scope.problem("affinity_prefix", message))
}

fn on_down(entry: &ServiceEntry, scope: &Scope) -> Result<OnDown, Problem> {
    match entry.on_down.unwrap_or(OnDown::Keep) {
        OnDown::Reset if entry.protocol == Protocol::Udp => Err(scope.problem(
            "on_down",
            "on_down = \"reset\" answers by a RST, which UDP does not have: use \"keep\", with which datagrams move at once",
        )),
        on_down => Ok(on_down),
    }
}

fn percent(percent: Option<u8>, default: u8, field: &str, scope: &Scope) -> Result<u8, Problem> {
    match percent.unwrap_or(default) {
        percent if percent <= 100 => Ok(percent),
        percent => Err(scope
            .problem(field, format!("{field} = {percent} is out of range: it is a percentage, 0 to 100"))),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        config::{entry::ServiceEntry, testing, validate::validate_service},
        model::{OnDown, Protocol, Scheduler, Service},
    };

    fn refused(change: impl FnOnce(&mut ServiceEntry)) -> String {
        let mut entry = testing::entry("web", "10.1.0.10", &["10.2.0.11"]);
        change(&mut entry);
        validate_service(&entry).expect_err("not valid").to_string()
    }

    fn accepted(change: impl FnOnce(&mut ServiceEntry)) -> Service {
        let mut entry = testing::entry("web", "10.1.0.10", &["10.2.0.11"]);
        change(&mut entry);
        validate_service(&entry).expect("valid")
    }

    #[test]
    fn defaults_are_quiet() {
        let service = accepted(|_| {});
        assert_eq!(service.scheduler, Scheduler::Maglev);
        assert_eq!((service.on_down, service.panic_threshold, service.failover_below), (OnDown::Keep, 0, 50));
        assert!(service.slow_start.is_zero());
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_way_out() {
        type Case = (fn(&mut ServiceEntry), &'static str);
        let cases: [Case; 8] = [
            (
                |entry| entry.affinity_prefix = Some(24),
                "this is \"maglev\": use that scheduler, or leave it out",
            ),
            (
                |entry| {
                    entry.scheduler = Some(Scheduler::SourceHash);
                    entry.affinity_prefix = Some(33);
                },
                "affinity_prefix = 33 is no prefix of IPv4 addresses: use 1 to 32",
            ),
            (
                |entry| {
                    entry.protocol = Protocol::Udp;
                    entry.half_open_timeout = Some("1m".to_owned());
                },
                "UDP has no connections: use idle_timeout",
            ),
            (
                |entry| {
                    entry.protocol = Protocol::Udp;
                    entry.on_down = Some(OnDown::Reset);
                },
                "which UDP does not have: use \"keep\"",
            ),
            (
                |entry| entry.slow_start = Some("2h".to_owned()),
                "slow_start = \"2h\": out of range: use 0s to 1h",
            ),
            (|entry| entry.panic_threshold = Some(101), "panic_threshold = 101 is out of range"),
            (|entry| entry.failover_below = Some(200), "failover_below = 200 is out of range"),
            (|entry| entry.closing_timeout = Some("0s".to_owned()), "closing_timeout = \"0s\": out of range"),
        ];
        for (change, words) in cases {
            let error = refused(change);
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn priorities_end_at_fifteen() {
        let error = refused(|entry| entry.backends[0].priority = Some(16));
        assert!(
            error.contains("priority = 16 is out of range: use 0, which is used first, to 15"),
            "{error}"
        );
    }
}

//! What people see, for fixed answers.

use super::*;
use crate::api::{
    fake,
    schema::{Changed, Status},
};

/// `text` without its first line break, which lets the golden texts begin on a line of their own.
fn golden(text: &str) -> &str {
    text.strip_prefix('\n').unwrap()
}

fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(line.len() <= 80, "{} columns: {line}", line.len());
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn the_status_screen() {
    let text = status(&fake::status(), Paint::new(false));
    assert_eq!(
        text,
        golden(
            "
agent 0.1.0, pid 812, up for 3h 12m, took over a running data plane
configuration file: /etc/flowgate/flowgate.toml

INTERFACE  XDP                FORWARDED  PASSED  ANSWERED  DROPPED
eth0       native                 1.23M      12         3        0
eth1       no such interface          0       0         0        0

SERVICE  ADDRESS                MODE       UP  FLOWS  PACKETS/S  BITS/S
dns      [2001:db8::53]:53/udp  dsr       0/0      0          0       0
web      10.1.0.10:80/tcp       full-nat  1/3  1.02k      12.3k   98.8M

Needs attention
  error    backend web 10.2.0.12:8080: down for 3m 12s: connection refused
           start the server, or take it out with `flowgate backend disable web 10.2.0.12:8080`
"
        )
    );
}

#[test]
fn a_status_without_findings_or_services() {
    let Status { agent, .. } = fake::status();
    let agent = crate::api::schema::AgentStatus { adopted: false, config: None, ..agent };
    let status = Status { agent, interfaces: Vec::new(), services: Vec::new(), findings: Vec::new() };
    assert_eq!(
        super::status(&status, Paint::new(false)),
        golden(
            "
agent 0.1.0, pid 812, up for 3h 12m
configuration file: none

No interfaces: name them in the configuration file, or with --interface.

No services: make one with `flowgate service add`.

Nothing needs attention.
"
        )
    );
}

#[test]
fn the_lists_of_services_and_backends() {
    let text = services(&fake::services(), Paint::new(false));
    assert_fits(&text);
    assert_eq!(
        text,
        golden(
            "
SERVICE  ADDRESS                MODE      SCHEDULER  FROM   UP  FLOWS  PACKETS/S
dns      [2001:db8::53]:53/udp  dsr       maglev     cli   0/0      0          0
web      10.1.0.10:80/tcp       full-nat  maglev     file  1/3   1024      12.3k
"
        )
    );
    let text = backends(&fake::backends(), Paint::new(false));
    assert_fits(&text);
    assert_eq!(
        text,
        golden(
            "
SERVICE  BACKEND         WEIGHT  HEALTH  ADMIN STATE   SHARE  FLOWS
web      10.2.0.11:8080      10  up      enabled      100.0%   1000
web      10.2.0.12:8080      10  down    enabled        0.0%      0
web      10.2.0.13:8080     100  up      draining*      0.0%     24

* weight or admin state overridden until `flowgate backend reset`
web 10.2.0.12:8080 is down for 3m 12s: connection refused
"
        )
    );
    assert_eq!(services(&[], Paint::new(false)), "No services: make one with `flowgate service add`.\n");
    let none = "No backends: add one with `flowgate backend add SERVICE ADDRESS:PORT`.\n";
    assert_eq!(backends(&[], Paint::new(false)), none);
}

#[test]
fn one_service() {
    assert_eq!(
        service(&fake::detail(), Paint::new(false)),
        golden(
            "
service web
  address       10.1.0.10:80/tcp
  mode          full-nat
  scheduler     maglev
  flows kept    5m idle, 1m half-open, 1m closing; also where a backend is down
  new flows     to priority 0; dropped where nobody can take them
  health check  http /healthz, status 200-399, every 2s, timeout 1s, rise 2, fall 3
  declared      /etc/flowgate/flowgate.toml:12
  backends      1/3 up
  ring          1021 slots
  flows         1024 now, 50000 since it was made
  from clients  1000000 packets, 64.0 MB
  to clients    900000 packets, 1.35 GB
  rate          12.3k packets/s, 98.8 Mbit/s, 120 new flows/s

BACKEND         WEIGHT  HEALTH  ADMIN STATE   SHARE  FLOWS
10.2.0.11:8080      10  up      enabled      100.0%   1000
10.2.0.12:8080      10  down    enabled        0.0%      0
10.2.0.13:8080     100  up      draining*      0.0%     24

* weight or admin state overridden until `flowgate backend reset`
web 10.2.0.12:8080 is down for 3m 12s: connection refused
"
        )
    );
}

#[test]
fn one_backend() {
    assert_eq!(
        backend(&fake::backends()[1], Paint::new(false)),
        golden(
            "
backend web 10.2.0.12:8080
  health        down for 3m 12s: connection refused
  admin state   enabled
  weight        10
  priority      0
  bound         none
  overridden    no
  new flows     none
  next hop      not known
  flows         0 now, 0 since it was made
  from clients  900000 packets, 60.0 MB
  to clients    0 packets, 0 B
"
        )
    );
    assert_eq!(
        backend(&fake::backends()[2], Paint::new(false)),
        golden(
            "
backend web 10.2.0.13:8080
  health        up for 3h 3m
  admin state   draining
  weight        100
  priority      0
  bound         none
  overridden    yes, until `flowgate backend reset`
  new flows     none
  next hop      10.2.0.11 (02:00:00:00:00:11) by eth0
  flows         24 now, 0 since it was made
  from clients  900000 packets, 60.0 MB
  to clients    0 packets, 0 B
"
        )
    );
}

#[test]
fn the_counters() {
    let text = stats(&fake::stats(), false, Paint::new(false));
    assert_fits(&text);
    assert_eq!(
        text,
        golden(
            "
INTERFACE  REASON         VERDICT  PACKETS
eth0       forwarded      forward  1234567
eth0       not_a_service  pass          12

TABLE         SLOTS    USED   FULL
steered     2097152       0   0.0%
translated  2097152  524288  25.0%

SERVICE  FLOWS  PACKETS IN  BYTES IN  PACKETS OUT   BYTES OUT
dns          0           0         0            0           0
web      50000     1000000  64000000       900000  1350000000
"
        )
    );
    let all = stats(&fake::stats(), true, Paint::new(false));
    assert!(all.contains("no_backend") && !text.contains("no_backend"));
}

#[test]
fn changes_are_a_line_each() {
    let two = Changed { changes: vec!["service web added".to_owned(), "backend added".to_owned()] };
    assert_eq!(changed(&two, Paint::new(false)), "service web added\nbackend added\n");
    assert_eq!(changed(&Changed::default(), Paint::new(false)), "nothing to change: it is so already\n");
}

#[test]
fn colours_are_whole_lines_and_change_no_column() {
    let coloured = backends(&fake::backends(), Paint::new(true));
    assert!(coloured.starts_with("\x1b[1mSERVICE"));
    assert!(coloured.contains("\x1b[31mweb      10.2.0.12:8080"));
    let mut stripped = coloured;
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[33m"] {
        stripped = stripped.replace(code, "");
    }
    assert_eq!(stripped, backends(&fake::backends(), Paint::new(false)));
}

#[test]
fn what_a_backend_answers_cannot_move_the_cursor() {
    let mut rows = fake::backends();
    rows[1].health_reason = "status \x1b[2J\n500".to_owned();
    let text = backends(&rows, Paint::new(false));
    assert!(text.ends_with("status \\u{1b}[2J\\n500\n"), "{text}");
}

#[test]
fn flows_and_what_is_left_out() {
    let expected = "\
SERVICE  CLIENT              BACKEND         SEEN AS        STATE        IDLE  FORGOTTEN IN
web      198.51.100.7:40000  10.2.0.11:8080  10.2.0.1:1024  established    3s        4m 57s
web      -                   10.2.0.11:8080  -              half-open      3s        4m 57s

7 more: narrow it down, or raise --limit

2 steered flows (dsr) could not be compared: their clients' addresses are not kept
";
    assert_eq!(flows(&fake::flow_list(), Paint::new(false)), expected);
}

#[test]
fn flows_in_groups() {
    let text = flow_count(&fake::flow_count(), Paint::new(false));
    let expected = "\
40 flows

OF               FLOWS  SHARE
198.51.100.0/24     30  75.0%
203.0.113.0/24       6  15.0%
others               4  10.0%
";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn what_a_file_would_change() {
    let expected = "\
backend web 10.2.0.12:8080 removed

SERVICE  BACKEND         SHARE NOW  SHARE THEN  FLOWS  WOULD MOVE
web      10.2.0.11:8080      50.0%      100.0%   1000           0
web      10.2.0.12:8080      50.0%           -     24          24

24 present flows would lose their backend: drain it first with `flowgate backend drain --wait`
";
    assert_eq!(config_diff(&fake::config_diff(), Paint::new(false)), expected);
    assert_eq!(config_diff(&Default::default(), Paint::new(false)), "Nothing would change.\n");
}

#[test]
fn what_would_become_of_a_packet() {
    let expected = "\
the packet
  fate     forward (forwarded)
  service  web (full-nat, maglev)
  backend  10.2.0.11:8080

why
  maglev picks slot 17 of 4099, which is 10.2.0.11:8080's
";
    assert_eq!(lookup(&fake::lookup(), Paint::new(false)), expected);
}

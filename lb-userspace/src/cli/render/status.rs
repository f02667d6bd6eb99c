//! `flowgate status`: one screen.

use super::{
    paint::{Paint, Tone},
    plain,
    service::{place, tone, up_of_all},
    table::Table,
    units::{si, span},
};
use crate::{
    api::schema::{AgentStatus, Finding, InterfaceStatus, ServiceRow, Severity, Status},
    model::AttachMode,
};

/// The agent, its interfaces and services, and what needs attention.
pub(crate) fn status(status: &Status, paint: Paint) -> String {
    [
        agent(&status.agent),
        interfaces(&status.interfaces, paint),
        services(&status.services, paint),
        findings(&status.findings, paint),
    ]
    .join("\n")
}

fn agent(agent: &AgentStatus) -> String {
    let AgentStatus { version, pid, .. } = agent;
    let adopted = if agent.adopted { ", took over a running data plane" } else { "" };
    let config = agent.config.as_deref().unwrap_or("none");
    format!(
        "agent {}, pid {pid}, up for {}{adopted}\nconfiguration file: {}\n",
        plain(version),
        span(agent.uptime_seconds),
        plain(config)
    )
}

fn interfaces(interfaces: &[InterfaceStatus], paint: Paint) -> String {
    if interfaces.is_empty() {
        return "No interfaces: name them in the configuration file, or with --interface.\n".to_owned();
    }
    let mut table = Table::new(["INTERFACE", "XDP", ">FORWARDED", ">PASSED", ">ANSWERED", ">DROPPED"]);
    for interface in interfaces {
        let (tone, xdp) = match (interface.attached, interface.index) {
            (Some(AttachMode::Native), _) => (Tone::Plain, "native"),
            (Some(AttachMode::Generic), _) => (Tone::Plain, "generic"),
            (Some(AttachMode::Auto), _) => (Tone::Plain, "attached"),
            (None, Some(_)) => (Tone::Bad, "not attached"),
            (None, None) => (Tone::Bad, "no such interface"),
        };
        let packets = interface.packets;
        let [forwarded, passed, answered, dropped] =
            [packets.forwarded, packets.passed, packets.answered, packets.dropped].map(si);
        table.row(tone, [interface.name.clone(), xdp.to_owned(), forwarded, passed, answered, dropped]);
    }
    table.render(paint)
}

fn services(services: &[ServiceRow], paint: Paint) -> String {
    if services.is_empty() {
        return "No services: make one with `flowgate service add`.\n".to_owned();
    }
    let mut table = Table::new(["SERVICE", "ADDRESS", "MODE", ">UP", ">FLOWS", ">PACKETS/S", ">BITS/S"]);
    for row in services {
        table.row(
            tone(row),
            [
                row.name.to_string(),
                place(row),
                row.mode.to_string(),
                up_of_all(row),
                si(row.flows),
                si(row.rates.packets_per_second),
                si(row.rates.bits_per_second),
            ],
        );
    }
    table.render(paint)
}

fn findings(findings: &[Finding], paint: Paint) -> String {
    if findings.is_empty() {
        return "Nothing needs attention.\n".to_owned();
    }
    let mut text = paint.paint(Tone::Title, "Needs attention") + "\n";
    for finding in findings {
        let (tone, word) = match finding.severity {
            Severity::Error => (Tone::Bad, "error  "),
            Severity::Warning => (Tone::Warning, "warning"),
        };
        let word = paint.paint(tone, word);
        text += &format!("  {word}  {}: {}\n", plain(&finding.subject), plain(&finding.message));
        if !finding.hint.is_empty() {
            text += &format!("           {}\n", plain(&finding.hint));
        }
    }
    text
}

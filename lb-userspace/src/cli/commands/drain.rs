//! `flowgate backend drain`, and the wait for the last flow.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::time;

use crate::{
    api::{client::Client, schema::BackendChange},
    cli::{args::DrainArgs, failure::Failure, render, terminal::Terminal},
    model::{AdminState, ServiceName},
};

/// How often the agent is asked for the flows that are left.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Between two lines of progress where they cannot be written over.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

pub(super) async fn run(args: DrainArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let client = args.client.client();
    let change = BackendChange { admin_state: Some(AdminState::Draining), ..BackendChange::default() };
    let changed = client.backend_set(&args.service, args.backend, &change).await?;
    terminal.answer(args.client.output, &changed, render::changed)?;
    if !args.wait {
        return Ok(());
    }
    let wait = Wait { client: &client, service: &args.service, backend: args.backend, timeout: args.timeout };
    wait.for_last_flow(POLL_INTERVAL, terminal).await
}

struct Wait<'a> {
    client: &'a Client,
    service: &'a ServiceName,
    backend: SocketAddr,
    timeout: Duration,
}

impl Wait<'_> {
    async fn for_last_flow(
        &self,
        poll_interval: Duration,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let mut progress = Progress::default();
        loop {
            let flows = self.flows().await.inspect_err(|_| progress.end(terminal))?;
            let left = self.timeout.saturating_sub(started.elapsed());
            if flows == 0 || left.is_zero() {
                progress.end(terminal);
                return if flows == 0 { self.drained(terminal) } else { Err(self.overdue(flows)) };
            }
            progress.show(flows, terminal);
            time::sleep(poll_interval.min(left)).await;
        }
    }

    /// The flows that the backend still has, as long as it is being drained.
    async fn flows(&self) -> Result<u64, Failure> {
        let Self { service, backend, .. } = self;
        let rows = self.client.backend_list(Some(service)).await?;
        let row = rows.iter().find(|row| row.socket_address() == *backend);
        let gone =
            || Failure::Failed(format!("backend {service} {backend} was removed before it was drained"));
        let row = row.ok_or_else(gone)?;
        match row.admin_state {
            AdminState::Draining | AdminState::Disabled => Ok(row.flows),
            AdminState::Enabled => Err(Failure::Failed(format!(
                "backend {service} {backend} is enabled again: somebody else has ended the drain"
            ))),
        }
    }

    fn drained(&self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let Self { service, backend, .. } = self;
        // Only a courtesy: the exit code says it, too.
        let _ = writeln!(terminal.err, "backend {service} {backend} has no flows left");
        Ok(())
    }

    fn overdue(&self, flows: u64) -> Failure {
        let Self { service, backend, .. } = self;
        let flows = flows_left(flows);
        let timeout = humantime::format_duration(self.timeout);
        Failure::Failed(format!(
            "backend {service} {backend} has {flows} left after {timeout}; the drain stays in force: wait again, or cut them with `flowgate backend disable {service} {backend}`"
        ))
    }
}

/// The number of flows that are left, on standard error: written over on a terminal, else now and then a line.
#[derive(Default)]
struct Progress {
    shown: Option<(u64, Instant)>,
}

impl Progress {
    fn show(&mut self, flows: u64, terminal: &mut Terminal<'_>) {
        let text = flows_left(flows);
        // Whoever does not read it waits for the exit code.
        if terminal.err_is_terminal {
            let _ = write!(terminal.err, "\r\x1b[K{text} left");
            let _ = terminal.err.flush();
        } else if self.shown.is_none_or(|(last, at)| last != flows && at.elapsed() >= LINE_INTERVAL) {
            let _ = writeln!(terminal.err, "{text} left");
        } else {
            return;
        }
        self.shown = Some((flows, Instant::now()));
    }

    fn end(&self, terminal: &mut Terminal<'_>) {
        if terminal.err_is_terminal && self.shown.is_some() {
            let _ = write!(terminal.err, "\r\x1b[K");
        }
    }
}

fn flows_left(flows: u64) -> String {
    if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{
            fake::{self, FakeAgent},
            schema::BackendRow,
        },
        cli::render::Paint,
    };

    /// Waits for a backend whose flows are `flows` in turn; what was written to standard error.
    async fn wait(
        lists: Vec<Vec<BackendRow>>,
        timeout: Duration,
        tty: bool,
    ) -> (Result<(), Failure>, String) {
        let agent = FakeAgent::with_backends(lists).await;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal =
            Terminal { out: &mut out, err: &mut err, paint: Paint::new(false), err_is_terminal: tty };
        let service = "web".parse().unwrap();
        let wait = Wait { client: &agent.client, service: &service, backend: fake::draining(), timeout };
        let done = wait.for_last_flow(Duration::from_millis(1), &mut terminal).await;
        (done, String::from_utf8(err).unwrap())
    }

    fn left(flows: u64) -> Vec<BackendRow> {
        let mut rows = fake::backends();
        rows[2].flows = flows;
        rows
    }

    #[tokio::test]
    async fn the_wait_ends_with_the_last_flow() {
        let (done, err) = wait(vec![left(2), left(1), left(0)], Duration::from_secs(60), false).await;
        done.unwrap();
        assert_eq!(err, "2 flows left\nbackend web 10.2.0.13:8080 has no flows left\n");
        let (done, err) = wait(vec![left(2), left(1), left(0)], Duration::from_secs(60), true).await;
        done.unwrap();
        let shown =
            "\r\x1b[K2 flows left\r\x1b[K1 flow left\r\x1b[Kbackend web 10.2.0.13:8080 has no flows left\n";
        assert_eq!(err, shown);
    }

    #[tokio::test]
    async fn the_deadline_says_what_remains() {
        let (done, _) = wait(vec![left(2)], Duration::from_millis(5), false).await;
        let failure = done.unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        assert_eq!(
            failure.to_string(),
            "backend web 10.2.0.13:8080 has 2 flows left after 5ms; the drain stays in force: wait again, or cut them with `flowgate backend disable web 10.2.0.13:8080`"
        );
    }

    #[tokio::test]
    async fn a_drain_that_somebody_ends_is_not_waited_for() {
        let mut enabled = left(2);
        enabled[2].admin_state = AdminState::Enabled;
        for (list, words) in [(enabled, "is enabled again"), (Vec::new(), "was removed")] {
            let (done, _) = wait(vec![left(2), list], Duration::from_secs(60), false).await;
            let error = done.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

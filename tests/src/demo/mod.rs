//! The demo: a stage, five parts played on it, and a table of what was measured.

mod bounds;
mod figures;
mod keep;
mod parts;
mod screen;
mod stage;

use std::time::Duration;

use anyhow::Result;
use harness::{agent, cleanup};

pub(crate) use keep::{clean, serve};

use figures::Figures;
use parts::Show;
use screen::Screen;
use stage::Stage;

/// Plays it. False where a figure is out of its bounds.
pub(crate) fn run(part: Duration, keep: bool) -> Result<bool> {
    agent::binary()?;
    cleanup::on_interrupt()?;
    let mut screen = Screen::new();
    screen.title("Flowgate: a layer-4 load balancer in XDP, shown at work");
    let stage = Stage::build(&mut screen)?;
    let load = stage.start_load();
    let mut show = Show { load, stage, screen, figures: Figures::default(), part };
    show.steady()?;
    show.kill_backend()?;
    show.bring_backend_back()?;
    show.drain()?;
    show.kill_agent()?;

    let Show { load, stage, mut screen, figures, .. } = show;
    screen.heading("What was measured");
    let delayed = load.delayed();
    let sum = load.stop();
    screen.say(&format!("{} requests in all, {} of them failed.", sum.requests, sum.failed));
    for (error, count) in &sum.errors {
        screen.say(&format!("  {count} times: {error}"));
    }
    for (service, record) in delayed {
        let took = figures::seconds(record.latency());
        screen.say(&format!("  once: an answer of {service} after {took}"));
    }
    screen.gap();
    let all_pass = figures.show(&screen);
    if keep {
        keep::leave_running(stage, &mut screen)?;
    }
    Ok(all_pass)
}

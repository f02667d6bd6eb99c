//! Frames made up and damaged, thrown at the real program in the real kernel, and judged by a model of what must become of
//! them. proptest makes them, and makes those that fail as small as they can be.

mod datagram;
mod model;
mod oracle;
mod shape;
mod world;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use shape::any_shape;
use world::World;

/// Frames between two looks at the clock.
const BATCH: u32 = 20_000;

/// What a run has come to.
#[derive(Debug, Default)]
pub struct Report {
    /// Frames.
    pub frames: u64,
    /// How often what came out.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// The outcomes in one line.
    #[must_use]
    pub fn outcomes_in_words(&self) -> String {
        self.outcomes.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// Throws frames for so long, the first of them by `seed`; `progress` hears of every batch.
///
/// # Errors
/// The smallest frame that became something else than it must, and what.
pub fn run(duration: Duration, seed: u64, progress: impl Fn(&Report)) -> Result<Report> {
    let begin = Instant::now();
    let mut report = Report::default();
    let mut batch_seed = seed;
    while begin.elapsed() < duration {
        // A new data plane now and then, so that tables are empty, too.
        batch(batch_seed, &mut report)?;
        batch_seed = batch_seed.wrapping_add(1);
        report.took = begin.elapsed();
        progress(&report);
    }
    Ok(report)
}

fn batch(seed: u64, report: &mut Report) -> Result<()> {
    let (world, plane) = World::new();
    let world = RefCell::new(world);
    let outcomes = RefCell::new(BTreeMap::new());
    let config = Config {
        cases: BATCH,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let failed = TestRunner::new(config).run(&any_shape(), |shape| {
        let frame = shape.frame(&world.borrow());
        let fate = plane.run(0, &frame);
        match oracle::judge(&mut world.borrow_mut(), &frame, &fate) {
            Ok(kind) => {
                *outcomes.borrow_mut().entry(kind).or_insert(0) += 1;
                Ok(())
            }
            Err(error) => Err(TestCaseError::fail(format!("{error}\n{frame:02x?}"))),
        }
    });
    for (kind, count) in outcomes.into_inner() {
        *report.outcomes.entry(kind).or_insert(0) += count;
        report.frames += count;
    }
    match failed {
        Ok(()) => Ok(()),
        Err(TestError::Fail(why, shape)) => bail!("seed {seed}: {why}\n{shape:?}"),
        Err(TestError::Abort(why)) => bail!("seed {seed}: given up: {why}"),
    }
}

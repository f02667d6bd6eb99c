//! How hard the kernel's verifier has to work. It gives up at a million instructions; other kernels need more than
//! this one for the same program, so ours keep their distance.

use aya::{EbpfLoader, programs::Xdp};
use harness::dataplane::{DataPlane, Options};
use lb_common::{Features, Mode, abi::programs};

/// So many instructions, all paths together, may be walked.
const WALKED_MAX: u32 = 300_000;

/// A program that can do all there is.
fn everything() -> Options {
    Options { features: Features::ALL, ..Options::default() }
}

fn walked(options: &Options) -> u32 {
    let plane = DataPlane::with(options);
    let counts = [0, 1].map(|slot| {
        plane.program_info(slot).verified_instruction_count().expect("the kernel counts since 5.16")
    });
    counts.into_iter().max().unwrap_or_default()
}

#[test]
fn the_balancer_keeps_its_distance_from_the_limit() {
    let count = walked(&everything());
    println!("balance: {count} instructions walked");
    assert!(count < WALKED_MAX, "{count}");
}

/// What a configuration uses of it.
#[test]
fn one_mode_is_less_than_all() {
    let all = walked(&everything());
    for mode in [Mode::FullNat, Mode::Nat, Mode::Dsr, Mode::Ipip, Mode::Gue] {
        let count = walked(&Options { features: Features::mode(mode), ..Options::default() });
        println!("balance, {mode:?} alone: {count} instructions walked");
        assert!(count < all, "{mode:?}: {count}, all: {all}");
    }
}

/// Whatever else is in the object; its maps are of no size here, so the balancer would be another program.
#[test]
fn the_other_programs_are_small() {
    let mut object = EbpfLoader::new().load(flowgate::datapath::object()).expect("needs root");
    for (name, program) in object.programs_mut().filter(|(name, _)| *name != programs::BALANCE) {
        let program: &mut Xdp = program.try_into().expect("all are XDP programs");
        program.load().expect("the verifier accepts it");
        let count = program.info().expect("it is loaded").verified_instruction_count();
        println!("{name}: {count:?} instructions walked");
        assert!(count.is_some_and(|count| count < 5_000), "{name}: {count:?}");
    }
}

#[test]
fn large_tables_are_no_harder() {
    let mut options = everything().flows(1 << 20);
    options.limits.backends = u16::MAX.into();
    let count = walked(&options);
    println!("balance, large tables: {count} instructions walked");
    assert!(count < WALKED_MAX, "{count}");
}

#[test]
fn logging_keeps_its_distance_too() {
    let count = walked(&Options { debug_packets: true, ..everything() });
    println!("balance, packets logged: {count} instructions walked");
    assert!(count < WALKED_MAX, "{count}");
}

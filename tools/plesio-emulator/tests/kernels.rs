//! Every kernel of `kernels/source` in the emulator, against the scalar reference: in all orders of threads, in warps of 32
//! and of 64, with memory that is poisoned before and guarded behind.

use std::path::{Path, PathBuf};

use plesio_conformance::{Effort, conform, lora, optimiser, product};
use plesio_emulator::{Emulated, Engine, Order, Setup, Toolchain};
use plesio_launch::{Accelerator, EngineSettings};

/// The emulator; nothing, said aloud, where no C++ compiler is.
fn emulator(engine: Engine) -> Option<PathBuf> {
    match Toolchain::find() {
        Ok(toolchain) => {
            Some(toolchain.emulator(engine, Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("it compiles"))
        }
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// A device on which nothing is kept from call to call, so that every buffer ends at its guard.
fn device(program: &Path, setup: Setup) -> Accelerator<Emulated> {
    let settings = EngineSettings { keep: false, ..EngineSettings::default() };
    let emulated = Emulated::start(program, setup).expect("the emulator starts");
    Accelerator::open(emulated, b"", settings).expect("it has its kernels")
}

fn run(setup: Setup, effort: Effort) {
    let Some(program) = emulator(Engine::Fibers) else { return };
    let device = device(&program, setup);
    conform(device, effort);
    assert_eq!(device.take_news(), Vec::<String>::new(), "the device did it, not the CPU for it");
}

#[test]
fn kernels_have_the_references_bits_in_forward_order() {
    run(Setup::default(), Effort::Whole);
}

#[test]
fn kernels_have_the_references_bits_in_reverse_order_and_warps_of_64() {
    run(Setup { order: Order::Reverse, warp_threads: 64, align_bytes: 4 }, Effort::Short);
}

#[test]
fn kernels_have_the_references_bits_in_random_order() {
    for (seed, warp_threads) in [(1, 32), (2, 64)] {
        run(Setup { order: Order::Random { seed }, warp_threads, align_bytes: 8 }, Effort::Short);
    }
}

#[test]
fn threads_of_low_rank_layers_meet_at_their_barriers_alone() {
    let Some(program) = emulator(Engine::Threads) else { return };
    let device = device(&program, Setup::default());
    lora::glance(device);
    optimiser::glance(device);
    product::glance(device);
}

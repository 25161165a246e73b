//! The emulator's own test: kernels with one fault each, all of which it has to find.
#![expect(unsafe_code, reason = "a runtime is driven by addresses")]

use std::ffi::CStr;
use std::path::Path;

use plesio_emulator::{Emulated, Engine, Order, Setup, Toolchain};
use plesio_launch::{DeviceAddress, Runtime, RuntimeError};

/// The emulator; nothing, said aloud, where no C++ compiler is.
fn program(engine: Engine) -> Option<std::path::PathBuf> {
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

/// One launch of a planted kernel over 512 floats that read as 0, 1, 2, ...; what came out, or what was found.
fn planted(program: &Path, name: &CStr, setup: Setup) -> Result<Vec<f32>, RuntimeError> {
    const LEN: usize = 512;
    let device = Emulated::start(program, setup).expect("the emulator starts");
    let stream = device.stream()?;
    let input: Vec<u8> = (0..LEN).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let (from, to) = (device.allocate(input.len())?, device.allocate(input.len())?);
    let DeviceAddress(from_at) = from;
    let params = [from_at, to.0, LEN as u64].map(u64::to_le_bytes).concat();
    let function = device.function(&(), name)?;
    let mut output = vec![0; input.len()];
    // SAFETY: the vector and the allocation have this length.
    unsafe { device.copy_in(from, input.as_ptr(), input.len(), &stream) }?;
    // SAFETY: these are the struct's bytes; the kernel is to go beyond its memory, which is the emulator's.
    unsafe { device.launch(function, 2, 256, &params, &stream) }?;
    // SAFETY: the vector and the allocation have this length.
    unsafe { device.copy_out(output.as_mut_ptr(), to, output.len(), &stream) }?;
    Ok(output
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect())
}

#[test]
fn the_emulator_finds_every_planted_fault() {
    let Some(program) = program(Engine::Fibers) else { return };
    let setup = Setup { align_bytes: 4, ..Setup::default() };
    let orders = [Order::Forward, Order::Reverse, Order::Random { seed: 3 }];
    for (name, message) in [
        (c"plesio_planted_off_by_one", "touched byte 2048 of an allocation of 2048"),
        (c"plesio_planted_divergent_barrier", "divergent barrier"),
        (c"plesio_planted_divergent_shuffle", "divergent shuffle"),
        (c"plesio_planted_shared_overrun", "beyond the end of its shared memory"),
    ] {
        for order in orders {
            let found = planted(&program, name, Setup { order, ..setup }).expect_err("it has a fault");
            assert!(found.name.contains(message), "{name:?}: {found}");
        }
    }
    for order in orders {
        let sums = planted(&program, c"plesio_planted_uninitialised_read", Setup { order, ..setup });
        assert!(sums.expect("it ends")[0].is_nan(), "what was never written is NaN");
        let reversed = planted(&program, c"plesio_planted_missing_barrier", Setup { order, ..setup });
        let reversed = reversed.expect("it ends");
        let right = (0..512).all(|e| reversed[e] == (e / 256 * 256 + 255 - e % 256) as f32);
        assert!(!right, "without its barrier a kernel reads what is not there yet");
    }
}

#[test]
fn a_thread_sanitizer_finds_the_missing_barrier_and_nothing_else() {
    let Some(program) = program(Engine::Threads) else { return };
    let found = planted(&program, c"plesio_planted_missing_barrier", Setup::default());
    assert!(found.is_err(), "two threads use one place and no barrier is between");
    let sums = planted(&program, c"plesio_planted_uninitialised_read", Setup::default());
    assert!(sums.expect("its barrier is there")[0].is_nan());
}

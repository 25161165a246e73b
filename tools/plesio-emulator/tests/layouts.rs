//! The structs of `plesio_launch::params` against those of `kernels/source`, by a C++ compiler.

use std::path::Path;

use plesio_emulator::layouts::{assertions, kernels};
use plesio_emulator::{Engine, Toolchain};
use plesio_launch::params::{Field, LAYOUTS, Layout};

/// The compiler; nothing, said aloud, where there is none.
fn toolchain() -> Option<Toolchain> {
    Toolchain::find().inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

#[test]
fn every_struct_has_the_same_bytes_in_both_languages() {
    let Some(toolchain) = toolchain() else { return };
    toolchain.accept(&assertions(LAYOUTS)).expect("both sides agree");
    for layout in LAYOUTS.iter().copied().flatten() {
        let fields: usize = layout.fields.iter().map(|field| field.len_bytes).sum();
        assert_eq!(fields, layout.len_bytes, "{:?} has holes", layout.names);
        assert!(layout.len_bytes.is_multiple_of(8), "{:?} ends within a word", layout.names);
    }
}

#[test]
fn a_struct_that_differs_is_found() {
    let Some(toolchain) = toolchain() else { return };
    let field = |name, offset_bytes, len_bytes| Field { name, offset_bytes, len_bytes };
    // Two fields swapped; one too short; one that is not there; another length of the whole.
    for (len_bytes, fields, what) in [
        (40, [field("master", 8, 8), field("sum", 0, 8)], "Apply::master"),
        (40, [field("master", 0, 8), field("aligned", 32, 2)], "Apply::aligned"),
        (40, [field("master", 0, 8), field("count", 36, 4)], "count"),
        (48, [field("master", 0, 8), field("sum", 8, 8)], "Apply"),
    ] {
        let layout = Layout { names: &["Apply"], len_bytes, fields: fields.to_vec().leak() };
        let error = toolchain.accept(&assertions(&[&[layout]])).expect_err("it differs").to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
}

#[test]
fn every_kernel_takes_a_struct_that_is_listed() {
    let Some(toolchain) = toolchain() else { return };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = toolchain.emulator(Engine::Fibers, dir).expect("it compiles");
    let kernels = kernels(&program).expect("it lists them");
    assert!(!kernels.is_empty());
    for (kernel, params) in kernels.iter().filter(|(kernel, _)| !kernel.starts_with("plesio_planted_")) {
        let listed = LAYOUTS.iter().copied().flatten().any(|layout| layout.names.contains(&params.as_str()));
        assert!(listed, "{kernel} takes {params}, which `plesio_launch::params::LAYOUTS` does not have");
    }
}

//! Toolchains of shell scripts: what is found in which order, and what is said where nothing is.

use super::*;
use crate::folder::tests::Scratch;

/// A program that answers each of `answers` when it is asked so.
fn program(scratch: &Scratch, path: &str, answers: &[(&str, &str)]) -> PathBuf {
    let mut script = String::from("case \"$1\" in\n");
    for (asked, answer) in answers {
        script += &format!("{asked}) printf '%s\\n' '{answer}' ;;\n");
    }
    scratch.program(path, &(script + "*) exit 1 ;;\nesac"))
}

fn clang_of(version: &str) -> (&'static str, String) {
    ("--version", format!("Debian clang version {version} (3~deb12u1)"))
}

fn places(scratch: &Scratch) -> Places {
    Places { path: scratch.path().join("bin").into(), cuda: Vec::new() }
}

fn targets(names: &[&str]) -> Vec<Target> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

const NVCC: &[(&str, &str)] = &[
    ("--version", "nvcc: NVIDIA (R)\nCuda compilation tools, release 13.0, V13.0.88"),
    ("--list-gpu-code", "sm_75\nsm_90\nsm_110"),
];

#[test]
fn a_machine_without_compilers_is_told_where_was_looked_and_what_brings_them() {
    let scratch = Scratch::new("none");
    let mut places = places(&scratch);
    places.cuda = vec![("CUDA_HOME", scratch.path().join("gone"))];
    let found = Toolchain::find(&places);
    for target in targets(&["compute_75", "gfx942"]) {
        assert_eq!(found.job(&target, Compiler::Clang).unwrap_err(), Lack::Clang);
    }
    let told = found.job(&targets(&["sm_90"])[0], Compiler::Nvcc).unwrap_err().to_string();
    assert!(told.contains("PATH, CUDA_HOME=") && told.contains("CUDA_PATH, --cuda: pip install"), "{told}");
    assert_eq!(told.lines().count(), 1);
    let told = found.job(&targets(&["sm_61"])[0], Compiler::Nvcc).unwrap_err().to_string();
    assert!(told.ends_with(", --cuda: take --target compute_61, which clang makes"), "{told}");
    assert!(found.ptxas().is_err() && found.readelf().is_err() && found.versions().is_empty());
}

#[test]
fn an_older_clang_is_passed_over_for_a_newer_one() {
    let scratch = Scratch::new("older");
    let (asked, old) = clang_of("14.0.6");
    program(&scratch, "old/clang", &[(asked, &old)]);
    let (asked, new) = clang_of("20.1.0");
    let newer = program(&scratch, "bin/clang", &[(asked, &new)]);
    let path = std::env::join_paths([scratch.path().join("old"), scratch.path().join("bin")]).unwrap();
    let found = Toolchain::find(&Places { path, cuda: Vec::new() });
    assert_eq!(found.clang.as_ref().unwrap().program, newer);
    assert_eq!(found.versions(), ["clang Debian clang version 20.1.0 (3~deb12u1)"]);
}

#[test]
fn clang_without_its_linker_makes_ptx_and_no_objects() {
    let scratch = Scratch::new("linker");
    let (asked, version) = clang_of("19.1.7");
    // Clang answers with the bare name where it finds nothing.
    let answers = [
        (asked, version.as_str()),
        ("-print-prog-name=lld", "lld"),
        ("-print-prog-name=llvm-readelf", "llvm-readelf"),
    ];
    program(&scratch, "bin/clang-19", &answers);
    let found = Toolchain::find(&places(&scratch));
    let [ptx, object] = targets(&["compute_75", "gfx942"]).try_into().unwrap();
    assert!(found.job(&ptx, Compiler::Clang).is_ok());
    assert_eq!(found.job(&object, Compiler::Clang), Err(Lack::Lld));
    assert_eq!(found.readelf(), Err(Lack::Readelf));
}

#[test]
fn clang_with_its_linker_makes_objects() {
    let scratch = Scratch::new("linked");
    let lld = program(&scratch, "llvm/lld", &[]).display().to_string();
    let (asked, version) = clang_of("19.1.7");
    program(&scratch, "bin/clang-19", &[(asked, &version), ("-print-prog-name=lld", &lld)]);
    let object = &targets(&["gfx942"])[0];
    let job = Toolchain::find(&places(&scratch)).job(object, Compiler::Clang).unwrap();
    assert_eq!(job.program, scratch.path().join("bin/clang-19"));
}

#[test]
fn a_named_toolkit_comes_before_the_path() {
    let scratch = Scratch::new("named");
    program(&scratch, "bin/nvcc", NVCC);
    let named = program(&scratch, "cuda/bin/nvcc", NVCC);
    let ptxas = program(&scratch, "bin/ptxas", &[]);
    let mut places = places(&scratch);
    places.cuda = vec![("--cuda", scratch.path().join("cuda"))];
    let found = Toolchain::find(&places);
    assert_eq!(found.nvcc.as_ref().unwrap().program, named);
    assert_eq!(found.ptxas(), Ok(ptxas.as_path()));
}

#[test]
fn nvcc_is_not_asked_for_what_it_does_not_know() {
    let scratch = Scratch::new("codes");
    program(&scratch, "bin/nvcc", NVCC);
    let found = Toolchain::find(&places(&scratch));
    for target in targets(&["sm_75", "sm_110", "compute_75"]) {
        assert!(found.job(&target, Compiler::Nvcc).is_ok(), "{target}");
    }
    for target in targets(&["sm_70", "sm_11", "gfx942"]) {
        let told = found.job(&target, Compiler::Nvcc).unwrap_err().to_string();
        assert!(told.contains("release 13.0"), "{target}: {told}");
        let is_left_behind = target.name() == "sm_70";
        assert_eq!(told.contains(": take --target compute_70, "), is_left_behind, "{told}");
        assert_eq!(told.contains("pip install"), !is_left_behind, "{told}");
    }
}

#[test]
fn what_cannot_be_run_is_no_compiler() {
    let scratch = Scratch::new("unrunnable");
    std::fs::create_dir_all(scratch.path().join("bin/nvcc")).unwrap();
    scratch.write("bin/clang-19", "not executable");
    let broken = program(&scratch, "bin/clang", &[]);
    assert!(is_program(&broken));
    let found = Toolchain::find(&places(&scratch));
    assert!(found.clang.is_none() && found.nvcc.is_none());
    // The working folder is not searched, whatever PATH says.
    let found = Toolchain::find(&Places { path: "::bin:.".into(), cuda: Vec::new() });
    assert!(found.clang.is_none() && found.nvcc.is_none());
}

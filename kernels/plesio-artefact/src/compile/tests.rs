//! Calls of compilers: what they are told, and, where they are here, what comes out.

use super::*;
use crate::folder::tests::Scratch;
use crate::{Places, Toolchain, driver};

/// Enough of a kernel for every clang: adds what it multiplied, which a careless compiler would fuse.
const KERNEL: &str = r#"#include "device.h"
extern "C" GLOBAL void plesio_test(const float* a, const float* b, float* out) { *out = *a * *b + *a / *b; }
"#;
const DEVICE: &str = "#pragma once\n#define GLOBAL __attribute__((global))\n";

fn tree(scratch: &Scratch, folder: &str) -> PathBuf {
    let folder = scratch.path().join(folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("device.h"), DEVICE).unwrap();
    fs::write(folder.join("plesio.cu"), KERNEL).unwrap();
    folder
}

/// What this machine can make of these, and aloud what it cannot.
fn jobs(compiler: Compiler, names: &[&str]) -> Vec<Job> {
    let found = Toolchain::find(&Places::of_environment(None));
    let job = |name: &&str| found.job(&name.parse().unwrap(), compiler);
    names.iter().map(job).collect::<Result<_, _>>().unwrap_or_else(|lack| {
        eprintln!("skipped: {lack}");
        Vec::new()
    })
}

#[test]
fn no_compiler_may_contract_or_flush() {
    let line = |compiler, target: &str| {
        let job = Job { target: target.parse().unwrap(), compiler, program: "compiler".into() };
        let command = job.command(Path::new("source"), Path::new("out"));
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    };
    for target in ["compute_75", "gfx942"] {
        let told = line(Compiler::Clang, target);
        assert!(
            told.contains("-ffp-contract=off") && told.contains("-fno-gpu-flush-denormals-to-zero"),
            "{told}"
        );
    }
    assert!(line(Compiler::Clang, "compute_75").contains("--cuda-gpu-arch=sm_75"));
    assert!(line(Compiler::Clang, "gfx942").contains("--offload-arch=gfx942"));
    for target in ["compute_75", "sm_110"] {
        let told = line(Compiler::Nvcc, target);
        assert!(told.contains("--fmad=false") && told.contains("--ftz=false"), "{told}");
        assert!(told.contains(&format!("-arch={target}")), "{told}");
    }
}

#[test]
fn a_tree_elsewhere_makes_the_same_bytes() {
    let mut all = jobs(Compiler::Clang, &["compute_75", "gfx906", "gfx1100"]);
    all.extend(jobs(Compiler::Nvcc, &["compute_75", "sm_90"]));
    let scratch = Scratch::new("same");
    let (here, there) = (tree(&scratch, "here"), tree(&scratch, "some/where/else"));
    for job in &all {
        let [a, b] = [&here, &there].map(|folder| job.run(folder, scratch.path()).unwrap().artefact);
        assert_eq!(a.digest, b.digest, "{}", job.target);
        assert!(a.is_whole());
    }
}

#[test]
fn ptx_is_as_old_as_the_architecture_and_nothing_in_it_is_fused() {
    for job in jobs(Compiler::Clang, &["compute_75"]) {
        let scratch = Scratch::new("ptx");
        let built = job.run(&tree(&scratch, "source"), scratch.path()).unwrap();
        let text = String::from_utf8_lossy(&built.artefact.bytes);
        assert_eq!(driver::ptx_version(text.as_bytes()), Some(63));
        assert!(text.contains("mul.rn.f32") && text.contains("div.rn.f32"), "{text}");
        assert!(!text.contains("fma") && !text.contains(".ftz"), "{text}");
    }
}

#[test]
fn what_a_compiler_refuses_is_told_in_its_words() {
    let jobs = jobs(Compiler::Clang, &["compute_75", "gfx942"]);
    let scratch = Scratch::new("refused");
    let folder = tree(&scratch, "source");
    fs::write(folder.join("device.h"), "#pragma once\n#error no dialect\n").unwrap();
    let results = each(&jobs, &|job: &Job| job.run(&folder, scratch.path()));
    for (job, result) in jobs.iter().zip(&results) {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.target, job.target);
        assert!(error.to_string().contains("no dialect"), "{error}");
    }
}

#[test]
fn a_compiler_that_is_gone_or_writes_nothing_is_an_error() {
    let scratch = Scratch::new("gone");
    let folder = tree(&scratch, "source");
    for program in ["/dev/null", "true"] {
        let job = Job { target: "sm_90".parse().unwrap(), compiler: Compiler::Nvcc, program: program.into() };
        assert!(job.run(&folder, scratch.path()).is_err(), "{program}");
    }
}

#[test]
fn results_come_in_the_order_of_the_work() {
    let items: Vec<u64> = (0..40).collect();
    let late_first = |item: &u64| {
        thread::sleep(Duration::from_millis(if *item == 0 { 20 } else { 0 }));
        item * 3
    };
    assert_eq!(each(&items, &late_first), items.iter().map(|item| item * 3).collect::<Vec<_>>());
    assert!(each(&[], &late_first).is_empty());
}

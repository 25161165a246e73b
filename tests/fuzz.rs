//! The corpus of every target, replayed, and a few thousand damaged inputs each: what `cargo xtask fuzz` does at length.

mod counting;

use counting::COUNT;
use plesio_tests::fuzz::run::{Plan, from_file, inputs, run};
use plesio_tests::fuzz::{TARGETS, files, texts};

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

#[test]
fn the_corpus_shows_no_fault() {
    for target in TARGETS {
        let files = files(target).unwrap_or_else(|error| panic!("the corpus of {}: {error}", target.name));
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        for bytes in files {
            let mut take = (target.begin)();
            from_file(target, &bytes).iter().for_each(|input| take(input));
        }
    }
}

#[test]
fn the_corpus_holds_every_real_input() {
    for target in TARGETS {
        let kept: Vec<Vec<u8>> =
            files(target).expect("it is there").iter().flat_map(|bytes| from_file(target, bytes)).collect();
        for seed in (target.seeds)() {
            let what = "is not in the corpus: cargo xtask fuzz --corpus";
            assert!(kept.contains(&seed), "a real input of {} {what}", target.name);
        }
    }
}

#[test]
fn t1_damaged_inputs_show_no_fault() {
    for target in TARGETS {
        let plan = Plan { runs: 3_000, seed: 1, first: 0, threads: 1 };
        if let Err(finding) = run(target, &(target.seeds)(), plan) {
            panic!("{}", plesio_tests::fuzz::run::tell(target, plan.seed, &finding));
        }
    }
}

#[test]
fn t1_c9_18_no_parser_allocates() {
    assert!(allocations(|| drop(vec![0_u8; 8])) > 0, "the counter counts");
    let mut counted = 0;
    for target in TARGETS {
        let corpus = (target.seeds)();
        let inputs: Vec<Vec<u8>> = corpus
            .iter()
            .cloned()
            .chain((0..3_000).flat_map(|world| inputs(target, &corpus, 2, world)))
            .collect();
        if target.allocates {
            continue;
        }
        let mut take = (target.begin)();
        for input in &inputs {
            let count = allocations(|| take(input));
            assert_eq!(count, 0, "{}: {input:x?}", target.name);
        }
        counted += 1;
    }
    assert_eq!(counted, 5, "the decoders of what crosses a link");
    let corpus = (texts::TARGET.seeds)();
    for world in 0..3_000 {
        for input in inputs(&texts::TARGET, &corpus, 3, world) {
            let Ok(text) = str::from_utf8(&input) else { continue };
            assert_eq!(
                allocations(|| {
                    let _read = texts::read(text);
                }),
                0,
                "{text:?}"
            );
        }
    }
}

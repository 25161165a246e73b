//! Every way in which this machine runs the kernels, against the scalar reference.

use plesio_conformance::{Effort, conform};
use plesio_cpu::{Cpu, Level};
use plesio_tests::say_skipped;

#[test]
fn every_level_of_this_cpu_conforms() {
    let mut conforming = 0;
    for level in Level::ALL {
        match Cpu::with_level(level) {
            Some(cpu) => {
                conform(cpu, Effort::Whole);
                conforming += 1;
            }
            None => say_skipped(&format!("this machine has no {level}")),
        }
    }
    assert!(conforming > 0, "the scalar level is everywhere");
}

//! Meshes whose workers really learn.

use super::*;
use crate::Learning;
use crate::profile::Profile;
use std::sync::Arc;

const VERSE: &[u8] =
    b"In the beginning was the word, and the word was with all of them, and none of them was first. ";
const TABLE: &[u8] = b"0x1f 4096 17; 0x20 8192 34; 0x21 16384 68; 0x22 32768 136; 0x23 65536 272;\n";

fn learns(nodes: u8, alpha_millis: Option<u32>) -> SimConfig {
    let texts = [VERSE.repeat(12), TABLE.repeat(12)];
    let learning = Learning::new(&[&texts[0], &texts[1]], alpha_millis).expect("two texts");
    SimConfig {
        learning: Some(Arc::new(learning)),
        steps_ns: vec![10_000_000, 40_000_000],
        rates_ppb: vec![50_000, -50_000],
        profile: Some(Profile::Lan),
        period_ns: Some(250_000_000),
        seeds: 1..2,
        ..config(nodes, "none", 20)
    }
}

#[test]
fn a_mesh_learns_and_its_mass_is_exact() {
    let config = learns(4, Some(100));
    let report = reports(&config).remove(0);
    assert_eq!(report.violation, None);
    assert!(report.mass.is_exact() && report.mass.produced != 0, "{:?}", report.mass);
    let study = report.study.expect("somebody looked");
    let loss = |at: usize| study.losses[at].1;
    let last = study.losses.len() - 1;
    assert!(
        study.losses.len() > 50 && loss(0) > 3.4 && loss(last) < 0.5 * loss(0),
        "{:?}",
        study.losses.last()
    );
    // 2 x 100 and 2 x 25 steps a second; all but what is under way is in versions.
    assert!((4_500..5_100).contains(&study.steps) && study.waiting_steps < study.steps / 10, "{study:?}");
    assert!(study.clock_errors_ns.len() > 500 && study.sent_bytes.iter().all(|bytes| *bytes > 100_000));
    let learning = config.learning.as_ref().expect("it learns");
    let alone = learning.alone(1, 4, 16_000_000, 20_000_000_000);
    let best = alone.last().expect("it has points").1;
    assert!(
        loss(last) > best - 0.01,
        "{} beats {best}, which nothing stale and no unlike data kept",
        loss(last)
    );
    assert_eq!(reports(&config).remove(0).study, Some(study));
}

#[test]
fn what_is_learnt_by_who_dies_is_lost_and_the_others_go_on() {
    let crash = |host: u8, at_s: u64| Strike {
        fault: Fault::Crash,
        host,
        begin_ns: at_s * 1_000_000_000,
        lasts_ns: Some(2_000_000_000),
        reach: Reach::All,
        level: 100,
    };
    let config = SimConfig { script: Some(vec![crash(1, 4), crash(2, 9)]), ..learns(5, None) };
    let report = reports(&config).remove(0);
    assert_eq!(report.violation, None);
    assert!(report.mass.is_exact() && report.mass.killed == 2, "{:?}", report.mass);
    let study = report.study.expect("somebody looked");
    assert!(study.losses.last().expect("versions").1 < 0.5 * study.losses[0].1);
}

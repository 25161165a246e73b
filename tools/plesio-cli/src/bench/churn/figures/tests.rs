use super::*;
use crate::bench::churn::record::Life;
use crate::demo::protocol::{Entry, Said};

const MS: i64 = 1_000_000;

fn mesh(nodes: usize) -> Record {
    let mut record = Record::default();
    for node in 0..nodes {
        let (key, name) = (10 * (node as u64 + 1), format!("n{node}.1"));
        record.begin(Life { node, key, name, founder: true, ..Life::default() });
    }
    let members: Vec<u64> = record.lives.iter().map(|life| life.key).collect();
    for life in 0..nodes {
        view(&mut record, life, 0, 0, &members, &[]);
    }
    record
}

fn view(record: &mut Record, life: usize, ms: i64, number: u32, members: &[u64], removed: &[u64]) {
    let seated = members.contains(&record.lives[life].key);
    let (members, removed) = (members.to_vec(), removed.to_vec());
    let said =
        Said::View { raw_ns: ms * MS, number, members, added: vec![], removed, shares: vec![], seated };
    record.handle_said(ms * MS, life, said);
}

fn decide(record: &mut Record, ms: i64, version: u64, keys: &[u64]) {
    let entry = |node: &u64| Entry { node: *node, steps: 1, staleness: 0, margin_frames: 0.0 };
    let entries = keys.iter().map(entry).collect();
    record.handle_said(ms * MS, 0, Said::Manifest { raw_ns: ms * MS, version, frame: version, entries });
}

fn hold(record: &mut Record, ms: i64, version: u64, lives: &[usize]) {
    for life in lives {
        let said = Said::Version { raw_ns: ms * MS, version, digest: format!("{version:x}") };
        record.handle_said(ms * MS, *life, said);
    }
}

#[test]
fn recovery_is_the_first_version_decided_after_the_kill_that_all_survivors_hold() {
    let mut record = mesh(4);
    decide(&mut record, 90, 1, &[]);
    record.handle_kill(3, 100 * MS);
    // Decided before the kill, so it does not count, however late it is held.
    hold(&mut record, 300, 1, &[0, 1, 2]);
    decide(&mut record, 900, 2, &[]);
    hold(&mut record, 1_000, 2, &[0, 1]);
    decide(&mut record, 1_200, 3, &[]);
    hold(&mut record, 1_300, 3, &[0, 1]);
    assert_eq!(Figures::of(&record).unrecovered, 1, "one survivor holds neither");
    hold(&mut record, 1_400, 3, &[2]);
    let figures = Figures::of(&record);
    assert_eq!((figures.recovery_median_s, figures.recovery_max_s), (Some(1.3), Some(1.3)));
    assert_eq!((figures.unrecovered, figures.kills, figures.versions), (0, 1, 3));
    assert_eq!(figures.recovery_alone_p99_s, Some(1.3));
}

#[test]
fn who_is_killed_before_the_others_have_recovered_is_no_survivor() {
    let mut record = mesh(5);
    record.handle_kill(4, 100 * MS);
    record.handle_kill(3, 600 * MS);
    decide(&mut record, 1_700, 1, &[]);
    hold(&mut record, 1_800, 1, &[0, 1, 2]);
    let figures = Figures::of(&record);
    assert_eq!((figures.recovery_median_s, figures.recovery_max_s), (Some(1.2), Some(1.7)));
    assert_eq!(figures.recovery_alone_p99_s, None, "they overlap");
    assert_eq!(record.kills[1].survivors, [0, 1, 2]);
}

#[test]
fn detection_is_the_last_survivor_that_learns_it() {
    let mut record = mesh(4);
    let rest = [10, 20, 30];
    record.handle_kill(3, 100 * MS);
    view(&mut record, 0, 1_150, 1, &rest, &[40]);
    view(&mut record, 1, 1_160, 1, &rest, &[40]);
    assert_eq!(Figures::of(&record).undetected, 1);
    view(&mut record, 2, 1_300, 1, &rest, &[40]);
    let figures = Figures::of(&record);
    assert_eq!((figures.detection_max_s, figures.undetected), (Some(1.2), 0));
}

#[test]
fn gaps_are_those_of_nodes_that_nothing_was_done_to() {
    let mut record = mesh(3);
    hold(&mut record, 100, 1, &[0, 1, 2]);
    record.handle_pause(1, 200 * MS, 3_000 * MS);
    hold(&mut record, 350, 2, &[0, 2]);
    record.handle_wake(1, 3_200 * MS);
    record.handle_said(3_210 * MS, 1, Said::Excluded);
    hold(&mut record, 3_300, 3, &[0, 1]);
    view(&mut record, 1, 3_500, 4, &[10, 20, 30], &[]);
    decide(&mut record, 3_550, 4, &[]);
    hold(&mut record, 3_600, 4, &[0, 1]);
    record.end_gaps(4_000 * MS);
    let mut gaps: Vec<i64> = record.gaps_s.iter().map(|gap| (gap * 1e3).round() as i64).collect();
    gaps.sort_unstable();
    // Node 1 begins anew with version 4; node 2 has stood still since version 2, to the end.
    assert_eq!(gaps, [250, 250, 300, 400, 400, 2_950, 3_650]);
    let figures = Figures::of(&record);
    let pause = &figures.pauses[0];
    assert_eq!((pause.count, pause.excluded, pause.accused), (1, 1, 0));
    assert_eq!((pause.back_max_s, figures.put_out), (Some(0.4), 0));
}

#[test]
fn who_wakes_accuses_those_that_it_knew() {
    let mut record = mesh(4);
    record.handle_pause(1, 200 * MS, 3_000 * MS);
    record.handle_kill(2, 300 * MS);
    record.begin(Life { node: 2, key: 30, ..Life::default() });
    view(&mut record, 4, 2_500, 2, &[10, 20, 30, 40], &[]);
    record.handle_wake(1, 3_200 * MS);
    // Its former life, which the sleeper knew, is dead indeed; that of key 40 is not.
    record.handle_said(3_210 * MS, 1, Said::Suspect { node: 30 });
    assert_eq!(record.lives[1].pauses[0].accused, 0);
    record.handle_said(3_220 * MS, 1, Said::Suspect { node: 40 });
    assert_eq!(record.lives[1].pauses[0].accused, 1);
    record.handle_said(4_000 * MS, 1, Said::Suspect { node: 10 });
    assert_eq!(record.lives[1].pauses[0].accused, 1, "long awake");
    record.handle_kill(1, 4_100 * MS);
    assert_eq!(Figures::of(&record).pauses, [], "killed before it was back");
}

#[test]
fn a_new_life_is_first_in_a_version_decided_after_it_was_seated() {
    let mut record = mesh(3);
    record.handle_kill(2, 100 * MS);
    decide(&mut record, 150, 1, &[10, 20, 30]);
    record.begin(Life {
        node: 2,
        key: 30,
        spawned_ns: 500 * MS,
        asked_ns: Some(700 * MS),
        ..Life::default()
    });
    view(&mut record, 0, 1_200, 1, &[10, 20], &[30]);
    view(&mut record, 3, 1_500, 2, &[10, 20, 30], &[]);
    decide(&mut record, 1_600, 2, &[10, 20]);
    decide(&mut record, 1_850, 3, &[10, 20, 30]);
    let figures = Figures::of(&record);
    assert_eq!((figures.join_to_first_s, figures.open_s), (Some(1.15), Some(0.2)));
}

#[test]
fn one_other_digest_is_enough() {
    let mut record = mesh(2);
    hold(&mut record, 100, 1, &[0, 1]);
    assert!(Figures::of(&record).digests_equal);
    let said = Said::Version { raw_ns: 1, version: 1, digest: "other".into() };
    record.handle_said(1, 1, said);
    assert!(!Figures::of(&record).digests_equal);
}

#[test]
fn nobody_is_killed_below_a_quorum() {
    let mut record = mesh(4);
    assert!((0..4).all(|life| record.is_quorum_without(life, MS)));
    record.handle_kill(3, MS);
    assert!(!record.is_quorum_without(0, 2 * MS), "two of four, without the lowest");
    assert!(record.is_quorum_without(1, 2 * MS) && record.is_quorum_without(2, 2 * MS));
    record.handle_pause(2, 2 * MS, MS);
    assert!(!record.is_quorum_without(1, 3 * MS));
}

#[test]
fn one_that_died_while_it_asked_may_still_be_let_in() {
    let mut record = mesh(3);
    assert!(record.is_quorum_without(2, MS));
    record.lives.push(Life { key: 40, asked_ns: Some(0), killed_ns: Some(MS), ..Life::default() });
    assert!(record.is_quorum_without(2, 2 * MS), "two of four with the lowest");
    assert!(!record.is_quorum_without(0, 2 * MS), "without it they are none");
    assert!(record.is_quorum_without(0, 5_000 * MS), "all have noticed");
    // Nor is one killed while it asks, where it would be missed.
    let mut record = mesh(2);
    record.handle_kill(1, MS);
    record.lives.push(Life { key: 40, asked_ns: Some(0), ..Life::default() });
    assert!(!record.is_quorum_without(2, 2 * MS), "one of three, if it has just been let in");
    record.lives[2].asked_ns = None;
    assert!(record.is_quorum_without(2, 2 * MS));
}

#[test]
fn quantiles_are_values_that_occurred() {
    assert_eq!(quantile(&[], 0.99), None);
    assert_eq!(quantile(&[3.0], 0.99), Some(3.0));
    let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!((quantile(&hundred, 0.99), quantile(&hundred, 0.5)), (Some(99.0), Some(50.0)));
}

#[test]
fn nobody_is_killed_whose_view_only_it_knows() {
    let mut record = mesh(4);
    record.handle_kill(3, 100 * MS);
    // It put the dead one out, and told nobody: the others know of four, and two of them are not the half that counts.
    view(&mut record, 0, 500, 1, &[10, 20, 30], &[40]);
    assert!(!record.is_quorum_without(0, 500 * MS));
    assert!(record.is_quorum_without(1, 500 * MS), "half, with the lowest id");
    for life in 1..3 {
        view(&mut record, life, 510, 1, &[10, 20, 30], &[40]);
    }
    assert!(record.is_quorum_without(0, 510 * MS));
}

#[test]
fn news_are_the_first_of_a_newer_version() {
    let mut record = mesh(2);
    hold(&mut record, 100, 5, &[0]);
    hold(&mut record, 200, 5, &[1]);
    assert_eq!(record.newest_ns, Some(100 * MS));
    decide(&mut record, 250, 6, &[]);
    hold(&mut record, 300, 6, &[1]);
    hold(&mut record, 400, 4, &[1]);
    assert_eq!(record.newest_ns, Some(300 * MS));
}

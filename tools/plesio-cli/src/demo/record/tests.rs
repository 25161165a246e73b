use super::*;

/// A version with its manifest, as one member tells it.
fn tell(record: &mut Record, t_s: f64, index: usize, version: u64, digest: &str, entries: &[(u64, u32)]) {
    let entry = |&(node, steps): &(u64, u32)| Entry { node, steps, staleness: 0, margin_frames: 0.2 };
    let entries = entries.iter().map(entry).collect();
    record.handle_said(t_s, index, Said::Manifest { raw_ns: 0, version, frame: version, entries });
    record.handle_said(t_s, index, Said::Version { raw_ns: 0, version, digest: digest.into() });
}

fn step(steps: u64) -> Said {
    Said::Step { steps, loss: 2.0, version: 0, phase_error_ns: None }
}

fn last(version: u64, digest: &str, steps: u64) -> Said {
    Said::Final(Final { version, digest: digest.into(), steps, ..Final::default() })
}

/// Two of three live; the third is killed at 4 s after ten steps of which eight are committed.
fn a_run() -> Record {
    let mut record = Record::new([("n0".into(), 10), ("n1".into(), 20), ("n2".into(), 30)]);
    for index in 0..3 {
        record.nodes[index].fate = Fate::Alive;
        record.handle_said(0.5, index, Said::Attached { version: 0 });
        record.handle_said(3.9, index, step(10));
    }
    for (t_s, index) in [(2.0, 0), (2.1, 1), (2.2, 2)] {
        tell(&mut record, t_s, index, 1, "aa", &[(10, 8), (20, 8), (30, 8)]);
    }
    record.killed_s = Some(4.0);
    record.nodes[2].fate = Fate::Killed;
    tell(&mut record, 4.9, 0, 2, "bb", &[(10, 2)]);
    tell(&mut record, 5.5, 1, 2, "bb", &[(10, 2)]);
    tell(&mut record, 5.6, 1, 3, "cc", &[(20, 2)]);
    tell(&mut record, 5.7, 0, 3, "cc", &[(20, 2)]);
    record.handle_said(6.0, 0, last(3, "cc", 10));
    record.handle_said(6.0, 1, last(3, "cc", 10));
    record
}

#[test]
fn the_dead_nodes_steps_count_too() {
    let record = a_run();
    assert_eq!(record.versions_committed(), 3);
    assert_eq!([10, 20, 30].map(|key| record.steps_committed(key)), [10, 10, 8]);
    let ratio = record.useful_ratio().expect("steps were computed");
    assert!((ratio - 28.0 / 30.0).abs() < 1e-12, "{ratio}");
    assert_eq!(Record::default().useful_ratio(), None);
}

#[test]
fn recovery_ends_when_the_last_survivor_has_applied() {
    let mut record = a_run();
    let recovery_s = record.recovery_s().expect("they went on");
    assert!((recovery_s - 1.5).abs() < 1e-9, "{recovery_s}");
    for node in &mut record.nodes[..2] {
        node.fate = Fate::Killed;
    }
    assert_eq!(record.recovery_s(), None, "nobody is left who could have gone on");
    for node in &mut record.nodes[..2] {
        node.fate = Fate::Alive;
    }
    // A version that was decided before the kill and applied after it proves nothing.
    record.handle_said(3.9, 0, Said::Manifest { raw_ns: 0, version: 9, frame: 9, entries: vec![] });
    tell(&mut record, 4.1, 0, 9, "dd", &[]);
    tell(&mut record, 4.1, 1, 9, "dd", &[]);
    assert_eq!(record.recovery_s(), Some(recovery_s));
}

#[test]
fn digests_are_equal_only_if_all_of_them_are() {
    assert!(a_run().digests_equal());
    let mut other_end = a_run();
    other_end.handle_said(6.1, 1, last(3, "cd", 10));
    assert!(!other_end.digests_equal());
    let mut no_end = a_run();
    no_end.nodes[0].last = None;
    assert!(!no_end.digests_equal());
    let mut once_different = a_run();
    tell(&mut once_different, 6.1, 1, 1, "ab", &[]);
    assert_eq!(once_different.diverged, [1]);
    assert!(!once_different.digests_equal());
    assert!(!Record::default().digests_equal());
}

#[test]
fn a_view_is_told_once_whoever_reports_it() {
    let mut record = a_run();
    let view = || Said::View {
        raw_ns: 0,
        number: 2,
        members: vec![10, 20, 40],
        added: vec![40],
        removed: vec![30],
        shares: vec![0.5, 0.25, 0.25],
        seated: true,
    };
    record.handle_said(4.9, 1, Said::Dead { node: 30 });
    record.handle_said(5.0, 0, view());
    record.handle_said(5.1, 1, view());
    let told: Vec<(Kind, &str)> =
        record.events.iter().map(|event| (event.kind, event.node.as_str())).collect();
    assert_eq!(told, [(Kind::Join, "0000000000000028"), (Kind::Exclude, "n2")]);
    assert!(record.events[1].cause.contains("silent"));
    assert_eq!(record.views.len(), 1);
}

#[test]
fn the_first_view_is_no_event_and_leaving_is_no_crash() {
    let mut record = Record::new([("n0".into(), 10), ("n1".into(), 20)]);
    let members = vec![10, 20];
    record.handle_said(
        0.1,
        0,
        Said::View {
            raw_ns: 0,
            number: 0,
            members: members.clone(),
            added: members,
            removed: vec![],
            shares: vec![],
            seated: true,
        },
    );
    assert_eq!(record.events, []);
    record.handle_said(2.0, 0, Said::Leaving { node: 20 });
    record.handle_said(
        2.1,
        0,
        Said::View {
            raw_ns: 0,
            number: 1,
            members: vec![10],
            added: vec![],
            removed: vec![20],
            shares: vec![],
            seated: true,
        },
    );
    assert_eq!(record.events[0].kind, Kind::Leave);
}

#[test]
fn a_manifest_counts_when_its_version_is_final() {
    let mut record = Record::new([("n0".into(), 10), ("n1".into(), 20)]);
    let entries = |steps| vec![Entry { node: 10, steps, staleness: 0, margin_frames: 0.1 }];
    record.handle_said(1.0, 1, Said::Manifest { raw_ns: 0, version: 7, frame: 3, entries: entries(5) });
    assert_eq!((record.steps_committed(10), record.versions_committed()), (0, 0));
    // The first one was given up; the news of it may come late.
    record.handle_said(1.1, 0, Said::Manifest { raw_ns: 0, version: 7, frame: 4, entries: entries(6) });
    record.handle_said(1.2, 0, Said::Manifest { raw_ns: 0, version: 7, frame: 3, entries: entries(5) });
    record.handle_said(1.3, 0, Said::Version { raw_ns: 0, version: 7, digest: "aa".into() });
    assert_eq!((record.steps_committed(10), record.versions_committed()), (6, 7));
}

#[test]
fn a_long_curve_is_thinned_and_not_cut() {
    let mut record = Record::new([("n0".into(), 10)]);
    for steps in 1..=3 * SAMPLES_MAX as u64 {
        record.handle_said(steps as f64, 0, step(steps));
    }
    let losses = &record.nodes[0].losses;
    assert!(losses.len() <= SAMPLES_MAX);
    assert!(losses[0].0 < 3.0);
    assert!(losses.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(record.nodes[0].steps, 3 * SAMPLES_MAX as u64);
}

#[test]
fn a_joiner_that_never_got_a_state_is_no_survivor() {
    let mut record = a_run();
    record.nodes[1].attached = None;
    record.handle_said(6.1, 1, last(0, "00", 0));
    assert_eq!(record.survivors().map(|node| node.key).collect::<Vec<_>>(), [10]);
    assert!(record.digests_equal());
    assert_eq!(record.steps_each(), 10);
}

#[test]
fn who_may_be_killed_without_the_quorum() {
    let members = [("n0", 10), ("n1", 20), ("n2", 30), ("n3", 40)];
    let mut record = Record::new(members.map(|(name, key)| (name.into(), key)));
    assert!(!record.is_quorum_without(40), "nobody is there yet");
    record.nodes.iter_mut().for_each(|node| node.fate = Fate::Alive);
    assert!(record.is_quorum_without(10));
    record.nodes[3].fate = Fate::Killed;
    assert!(record.is_quorum_without(30), "half, with the lowest id");
    assert!(!record.is_quorum_without(10), "half, without it");
    record.nodes[2].fate = Fate::Killed;
    assert!(!record.is_quorum_without(20));
    record.views.push((1.0, 1, vec![10, 20]));
    assert!(record.is_quorum_without(20));
}

use super::*;
use plesio_wire::value::Seat;
use plesio_wire::{Bounded, MeshTime};
use proptest::prelude::*;

const MS: u64 = 1_000_000;

fn view(members: u64) -> View {
    let seats: Vec<Seat> = (0..members).map(|at| Seat { key: NodeKey(10 + at), ..Seat::default() }).collect();
    let members = Bounded::from_slice(&seats);
    View { period_us: 200_000, halvings: 1, doublings: 3, members, ..View::default() }
}

fn report(transfer_ms: u64, step_ms: u64) -> Report {
    Report { transfer_ns: Some(transfer_ms * MS), step_ns: Some(step_ms * MS) }
}

/// Runs frames with these reports until a change is due; after how many.
fn frames(view: &View, said: &[Option<Report>], most: u32) -> Option<(u32, Turn)> {
    let mut control = PeriodControl::default();
    for (seat, report) in view.members.iter().zip(said) {
        if let Some(report) = report {
            control.insert(seat.key, *report);
        }
    }
    (1..=most).find_map(|frame| {
        control.handle_frame(view, MemberSet::first(view.members.len()));
        control.due(view).map(|turn| (frame, turn))
    })
}

#[test]
fn eight_frames_up_and_thirty_two_down() {
    let view = view(4);
    let all = |report| [Some(report); 4];
    assert_eq!(frames(&view, &all(report(201, 10)), 40), Some((8, Turn::Double)), "2 T beyond 2 P");
    assert_eq!(frames(&view, &all(report(5, 401)), 40), Some((8, Turn::Double)), "a step beyond 2 P");
    assert_eq!(frames(&view, &all(report(49, 99)), 40), Some((32, Turn::Halve)));
    for between in [report(200, 400), report(50, 10), report(10, 100), report(100, 200)] {
        assert_eq!(frames(&view, &all(between), 100), None, "{between:?}");
    }
}

#[test]
fn one_frame_between_begins_the_count_anew() {
    let (view, mut control) = (view(1), PeriodControl::default());
    let mut run = |report: Report, frames: u32| {
        control.insert(NodeKey(10), report);
        (0..frames).for_each(|_| control.handle_frame(&view, MemberSet::first(1)));
        control.due(&view)
    };
    assert_eq!((run(report(0, 500), 7), run(report(0, 300), 1)), (None, None));
    assert_eq!((run(report(0, 500), 7), run(report(0, 500), 1)), (None, Some(Turn::Double)));
    assert_eq!((run(report(0, 9), 31), run(report(0, 100), 1)), (None, None));
    assert_eq!((run(report(0, 9), 31), run(report(0, 9), 1)), (None, Some(Turn::Halve)));
}

#[test]
fn where_the_range_ends_nothing_is_due() {
    let narrow = View { halvings: 0, doublings: 0, ..view(3) };
    for said in [report(900, 900), report(1, 1)] {
        assert_eq!(frames(&narrow, &[Some(said); 3], 100), None);
    }
    for turn in [Turn::Double, Turn::Halve] {
        assert_eq!(turned(&narrow, Frame(100), turn), None);
    }
}

#[test]
fn who_says_nothing_asks_for_nothing() {
    let (view, slow, fast) = (view(5), Some(report(900, 1)), Some(report(1, 1)));
    assert_eq!(frames(&view, &[slow, slow, None, None, None], 100), None);
    assert_eq!(frames(&view, &[slow, slow, slow, None, None], 100), Some((8, Turn::Double)));
    assert_eq!(frames(&view, &[fast, fast, None, None, None], 100), None);
    assert_eq!(frames(&view, &[fast, fast, fast, None, None], 100), Some((32, Turn::Halve)));
    let half = Some(Report { transfer_ns: None, ..report(0, 1) });
    assert_eq!(frames(&view, &[half; 5], 100), None, "how long its slots take nobody knows");
}

proptest! {
    /// Whatever fewer than half of the members claim, what the others agree on happens, and nothing else.
    #[test]
    fn a_minority_of_liars_moves_nothing(
        members in 2u64..=32,
        liars in 0usize..16,
        claims in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<bool>()), 16),
        truth in 0usize..3,
    ) {
        let view = view(members);
        let liars = liars.min((members as usize).saturating_sub(1) / 2);
        let (honest, due) = [
            (report(100, 150), None),
            (report(700, 10), Some((8, Turn::Double))),
            (report(10, 10), Some((32, Turn::Halve))),
        ][truth];
        let mut said = vec![Some(honest); members as usize];
        for (at, (transfer, step, speaks)) in claims.iter().enumerate().take(liars) {
            let claim = Report { transfer_ns: Some(*transfer), step_ns: Some(*step) };
            said[at * 2 % members as usize] = speaks.then_some(claim);
        }
        prop_assert_eq!(frames(&view, &said, 40), due);
    }

    /// Any run of changes stays in the range, keeps 32 frames apart, and no close of a frame that is past moves.
    #[test]
    fn any_run_of_changes_keeps_the_rule(steps in proptest::collection::vec((0u64..80, any::<bool>()), 1..60)) {
        let mut now = view(3);
        let (mut origin, mut changes) = (0, Vec::new());
        for (passed, doubles) in steps {
            origin += passed;
            let turn = if doubles { Turn::Double } else { Turn::Halve };
            let Some(next) = turned(&now, Frame(origin), turn) else { continue };
            let next = View { origin: Frame(origin), ..next };
            prop_assert_eq!(check(&now, &next).ok(), Some(true));
            prop_assert!(is_sound(&next) && (100_000..=1_600_000).contains(&next.period_us));
            let ratio = (next.period_us * 2 == now.period_us) ^ (next.period_us == now.period_us * 2);
            prop_assert!(ratio);
            let (before, after) = (now.schedule(), next.schedule());
            prop_assert_eq!(before.close_of(Frame(origin)), after.close_of(Frame(origin)));
            changes.push(origin);
            now = next;
        }
        prop_assert!(changes.windows(2).all(|pair| pair[1] - pair[0] >= FRAMES_APART));
        prop_assert!(changes.first().is_none_or(|first| *first >= FRAMES_APART));
    }

    /// Of all that a proposer may write where the period stands, only the two changes pass.
    #[test]
    fn nothing_else_passes(
        origin in 0u64..200,
        factor in 0u32..5,
        anchor in 0u64..200,
        shift in -2i64..3,
        halvings in 0u8..5,
        doublings in 0u8..5,
    ) {
        let now = View { anchor: Frame(40), anchor_close: 7_000_000_000, ..view(3) };
        let period_us = [100_000, 200_000, 400_000, 800_000, 300_000][factor as usize];
        let anchor_close = now.schedule().close_of(Frame(anchor)).0 + shift;
        let anchor = Frame(anchor);
        let next = View { origin: Frame(origin), period_us, anchor, anchor_close, halvings, doublings, ..now };
        let fits = anchor.0 == origin && shift == 0 && origin >= 72;
        let doubled = (period_us, halvings, doublings) == (400_000, 2, 2);
        let halved = (period_us, halvings, doublings) == (100_000, 0, 4);
        let same = (period_us, anchor, shift, halvings, doublings) == (200_000, Frame(40), 0, 1, 3);
        let verdict = check(&now, &next).ok();
        prop_assert_eq!(verdict, if same { Some(false) } else { (fits && (doubled || halved)).then_some(true) });
    }
}

#[test]
fn absurd_views_are_unsound_and_never_panic() {
    let sound = |period_us, halvings, doublings| {
        is_sound(&View { period_us, halvings, doublings, ..View::default() })
    };
    assert!(sound(250_000, 0, 0) && sound(250_000, 2, 7) && sound(60_000_000, 5, 0) && sound(50_000, 0, 10));
    assert!(!sound(49_999, 0, 0) && !sound(60_000_001, 0, 0) && !sound(250_000, 3, 0));
    assert!(!sound(250_001, 1, 0), "half a microsecond");
    assert!(!sound(250_000, 0, 8) && !sound(250_000, 0, 14) && !sound(0, 0, 0));
    assert!(!sound(u32::MAX, 255, 255) && !sound(1 << 31, 0, 1) && !sound(250_000, 32, 32));
    let wild = View {
        period_us: u32::MAX,
        anchor: Frame(u64::MAX),
        anchor_close: i64::MIN,
        halvings: 255,
        doublings: 255,
        ..view(1)
    };
    assert_eq!(turned(&wild, Frame(u64::MAX), Turn::Halve), None);
    let far = View { anchor: Frame(0), doublings: 3, halvings: 3, period_us: 250_000, ..wild };
    let far = turned(&far, Frame(u64::MAX), Turn::Double).unwrap();
    assert_eq!(MeshTime(far.anchor_close), MeshTime(i64::MAX));
}

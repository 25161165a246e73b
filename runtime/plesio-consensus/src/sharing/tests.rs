//! Which shares follow from what members say, liars among them.

use super::*;
use plesio_wire::shares::{SHARE_ONE, share_most};

const MBYTE: u64 = 1 << 20;

fn view(members: u64) -> View {
    let mut view = View { period_us: 250_000, elements: MBYTE, share_factor: 4, ..View::default() };
    for key in 0..members {
        view.members.push(Seat { key: NodeKey(key), ..Seat::default() }).unwrap();
    }
    view
}

/// Codes of eight bits and sums of 64.
fn sharing() -> Sharing {
    Sharing::new(Some(Work {
        elements: MBYTE,
        contribution_bytes: MBYTE,
        result_bytes: 8 * MBYTE,
        grain_elements: 256,
    }))
}

fn speeds(up_mbytes: u64, down_mbytes: u64) -> Speeds {
    let [up, down, sum] = [up_mbytes, down_mbytes, 1_000].map(|mbytes| Speed::of(mbytes * MBYTE));
    Speeds { up, down, sum }
}

fn said(members: &[Speeds]) -> Sharing {
    let mut sharing = sharing();
    for (key, speeds) in members.iter().enumerate() {
        sharing.insert(NodeKey(key as u64), *speeds);
    }
    sharing
}

fn solve(sharing: &Sharing, view: &View) -> Shares {
    let shares = sharing.solve(view, &view.members);
    assert_eq!(View { shares, ..*view }.check_shares(), Ok(()));
    shares
}

#[test]
fn slow_uplinks_own_little_and_the_same_words_make_the_same_shares() {
    let view = view(4);
    let mix = [speeds(1, 10), speeds(10, 10), speeds(1, 10), speeds(1, 10)];
    let shares = solve(&said(&mix), &view);
    assert!(shares[1] > 4 * (SHARE_ONE / 5) && shares[0] > 0, "{shares:?}");
    assert_eq!(shares, solve(&said(&mix), &view));
    let sharing = said(&mix);
    assert!(sharing.is_worth(&view, &shares));
    assert!(!sharing.is_worth(&View { shares, ..view }, &shares), "they are in force");
}

#[test]
fn what_is_unknown_alike_or_quick_is_shared_equally() {
    let four = view(4);
    let equal = Shares::default();
    assert_eq!(solve(&sharing(), &four), equal, "nobody has said anything");
    assert_eq!(solve(&said(&[speeds(1, 10), speeds(10, 10)]), &four), equal, "half of them have");
    assert_eq!(solve(&said(&[speeds(10, 10); 4]), &four), equal);
    let noise = [speeds(10, 10), speeds(9, 10), speeds(11, 9), speeds(10, 11)];
    assert_eq!(solve(&said(&noise), &four), equal);
    let quick = [1_000, 10_000, 1_000, 1_000].map(|up| speeds(up, 10_000));
    assert_eq!(solve(&said(&quick), &four), equal, "an exchange is a small part of a frame anyway");
    let alone = view(1);
    assert_eq!(solve(&said(&[speeds(1, 1)]), &alone), equal);
    let mix = [speeds(1, 10), speeds(10, 10), speeds(1, 10), speeds(1, 10)];
    assert_eq!(solve(&said(&mix), &View { share_factor: 1, ..four }), equal);
    let mut silent = said(&mix);
    silent.work = None;
    assert_eq!(solve(&silent, &four), equal);
}

#[test]
fn who_was_not_measured_yet_counts_as_the_one_in_the_middle() {
    let five = view(5);
    let mix = [speeds(1, 10), speeds(10, 10), speeds(10, 10), speeds(1, 10)];
    let shares = solve(&said(&mix), &five);
    assert_eq!(shares.len(), 5);
    let mut known = said(&mix);
    known.insert(NodeKey(4), speeds(1, 10));
    assert_eq!(shares, solve(&known, &five));
    assert!(known.is_worth(&five, &shares));
    assert!(!said(&mix).is_worth(&five, &shares), "nothing is moved for a guess");
}

#[test]
fn a_liar_gets_at_most_what_its_windows_hold_and_spoils_no_more_than_equal_shares_would() {
    let sixteen = view(16);
    let mut honest = said(&[speeds(10, 10); 16]);
    honest.insert(NodeKey(3), Speeds { up: Speed(255), down: Speed(255), sum: Speed(255) });
    let shares = solve(&honest, &sixteen);
    let most = shares.iter().copied().max().unwrap_or(SHARE_ONE / 16);
    assert!(most <= share_most(16, 4), "{shares:?}");
    // One that claims to be hopeless owns nothing, or all keep equal parts.
    honest.insert(NodeKey(3), Speeds { up: Speed(1), down: Speed(1), sum: Speed(1) });
    let shares = solve(&honest, &sixteen);
    assert!(shares.is_empty() || shares[3] == 0, "{shares:?}");
}

#[test]
fn a_view_for_shares_alone_needs_more_than_noise() {
    let mix = [speeds(1, 10), speeds(10, 10), speeds(1, 10), speeds(1, 10)];
    let before = view(4);
    let shares = solve(&said(&mix), &before);
    let now = View { shares, ..before };
    // A seventh up and down, two steps of what beats can say.
    let moved = [speeds(1, 9), speeds(9, 10), speeds(1, 11), speeds(1, 10)];
    let sharing = said(&moved);
    assert!(!sharing.is_worth(&now, &solve(&sharing, &now)));
    // The fast one becomes slow, another fast.
    let turned = [speeds(10, 10), speeds(1, 10), speeds(1, 10), speeds(1, 10)];
    let sharing = said(&turned);
    assert!(sharing.is_worth(&now, &solve(&sharing, &now)));
    // All alike: equal parts come back.
    let sharing = said(&[speeds(1, 10); 4]);
    let equal = solve(&sharing, &now);
    assert!(equal.is_empty() && sharing.is_worth(&now, &equal));
}

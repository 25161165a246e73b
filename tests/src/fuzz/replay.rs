//! The replay window against a plain set of numbers: nothing twice, nothing in the window refused, nothing older
//! accepted.

use super::{Script, Target};
use plesio_session::ReplayWindow;
use std::collections::BTreeSet;

/// Both windows, on the same numbers.
pub const TARGET: Target =
    Target { name: "replay", begin: || Box::new(take), life: 1, seeds, bytes_max: 192, allocates: true };

fn take(bytes: &[u8]) {
    compare::<2>(bytes);
    compare::<{ plesio_session::WINDOW_SIDEBAND / 64 }>(bytes);
    compare::<{ plesio_session::WINDOW_DATA / 64 }>(bytes);
}

fn compare<const WORDS: usize>(bytes: &[u8]) {
    let span = WORDS as u64 * 64;
    let mut script = Script::new(bytes);
    let mut window = ReplayWindow::<WORDS>::default();
    let mut accepted = BTreeSet::new();
    let (mut end, mut at) = (0_u64, 0_u64);
    while !script.is_over() {
        let (how, by) = (script.byte(), u64::from(script.short()));
        at = match how % 8 {
            0 | 1 => end.wrapping_add(by % 4),
            2 => end.saturating_sub(by),
            3 => end.saturating_sub(span).saturating_add(by % 3).saturating_sub(1),
            4 => end.saturating_add(span).saturating_sub(by % 3),
            5 => u64::MAX - by % 3,
            6 => at,
            _ => u64::from_le_bytes(script.array()),
        };
        let expected = if at >= end { at != u64::MAX } else { end - at <= span && !accepted.contains(&at) };
        assert_eq!(window.check(at), expected, "{at} in a window that ends at {end}");
        if expected {
            window.mark(at);
            accepted.insert(at);
            end = end.max(at + 1);
            assert!(!window.check(at), "{at} twice");
        }
        assert_eq!(window.end(), end);
        // The number nearest to the end with these low bits: within half of them, but where zero is near.
        let extended = window.extend(at as u32);
        assert_eq!(extended as u32, at as u32);
        assert!(extended.abs_diff(end) <= 1 << 31 || extended < 1 << 32 || end > u64::MAX - (1 << 32));
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let rising: Vec<u8> = (0..60).flat_map(|step| [0, step % 2, 0]).collect();
    let jumping: Vec<u8> = (0..40).flat_map(|step| [step % 7, step, step / 8]).collect();
    let far = [&[7, 0, 0][..], &(1_u64 << 40).to_le_bytes(), &[2, 9, 0, 3, 1, 0, 4, 1, 0, 5, 1, 0]].concat();
    vec![rising, jumping, far]
}

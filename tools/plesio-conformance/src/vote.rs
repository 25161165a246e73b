//! Votes of signs.

use plesio_kernels::{Device, KernelError, Reference};

use crate::Effort;
use crate::values::{Random, lengths, same, views, wild};

/// Every operation of `plesio_kernels::vote`.
pub fn conform<D: Device>(device: D, effort: Effort) {
    packs(device, effort);
    votes(device, effort);
    refusals(device);
}

fn packs<D: Device>(device: D, effort: Effort) {
    for len in lengths(effort).iter().copied().chain([8191, 8192, 8193, 16_500]) {
        let x = wild(len, 4);
        let (mut found, mut expected) = (vec![7; len.div_ceil(32)], vec![8; len.div_ceil(32)]);
        device.sign_pack(&x, &mut found).expect("it fits");
        Reference.sign_pack(&x, &mut expected).expect("it fits");
        same(&format!("sign_pack of {len}"), device, &found, &expected);
    }
}

fn votes<D: Device>(device: D, effort: Effort) {
    for &len in lengths(effort) {
        for count in 1..=32 {
            let mut random = Random::new(len as u64 + count);
            // Words of which half the bits are set, or three quarters: counts on both sides of a half.
            let mut word = |word: usize| (random.bits() | random.bits() << (word % 3 * 16)) as u32;
            let votes: Vec<Vec<u32>> = (0..count).map(|_| (0..len).map(&mut word).collect()).collect();
            let (mut found, mut expected) = (vec![7; len], vec![8; len]);
            device.sign_vote(&views(&votes), &mut found).expect("it fits");
            Reference.sign_vote(&views(&votes), &mut expected).expect("it fits");
            same(&format!("sign_vote of {count} by {len}"), device, &found, &expected);
        }
    }
}

fn refusals<D: Device>(device: D) {
    let vote = [1, 2];
    let mut out = [9; 2];
    for count in [0, 33] {
        assert_eq!(
            device.sign_vote(&vec![&vote[..]; count], &mut out),
            Err(KernelError::Count { what: "votes", found: count, min: 1, max: 32 })
        );
    }
    assert_eq!(
        device.sign_vote(&[&vote, &vote[..1]], &mut out),
        Err(KernelError::Length { what: "vote", expected: 2, found: 1 })
    );
    assert_eq!(
        device.sign_pack(&[0.0; 33], &mut out[..1]),
        Err(KernelError::Length { what: "words", expected: 2, found: 1 })
    );
    assert_eq!(out, [9; 2], "a refused call writes nothing");
}

//! Which shares the next view states: solved from what its members say they can do, and equal wherever that is as good.
//!
//! Only the proposer looks here; everybody else takes the shares from the view, once they keep its rules. So what a
//! member claims moves elements, at the price of a view now and then, between nothing and the most that the view
//! allows, and does nothing else; claims far from everybody else's count as less far.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use plesio_collective::{Parts, Rates, Work, share_weights};
use plesio_wire::shares::Shares;
use plesio_wire::sideband::Speeds;
use plesio_wire::value::{Seat, View};
use plesio_wire::{NodeKey, Speed};

/// No member counts as so many times faster or slower than the one in the middle.
const CLAIM_RATIO_MAX: u64 = 64;
/// Where an exchange takes less than this part of a frame there is nothing to be gained.
const FRAME_PARTS: f64 = 8.0;
/// Unlike shares must be faster than equal ones by so much, else equal ones are stated.
const GAIN_OVER_EQUAL: f64 = 0.9;
/// And a view for their sake alone must be faster than the one in force by so much.
const GAIN_OVER_NOW: f64 = 0.8;

/// What members said, and what is shared out.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    /// None: all own equal parts.
    work: Option<Work>,
    said: BTreeMap<NodeKey, Speeds>,
}

impl Sharing {
    pub(crate) fn new(work: Option<Work>) -> Self {
        Self { work, said: BTreeMap::new() }
    }

    /// The newest word of a member.
    pub(crate) fn insert(&mut self, key: NodeKey, speeds: Speeds) {
        self.said.insert(key, speeds);
    }

    /// Only members are remembered.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(NodeKey) -> bool) {
        self.said.retain(|key, _| is_kept(*key));
    }

    /// The shares of a view of these members after `view`.
    pub(crate) fn solve(&self, view: &View, seats: &[Seat]) -> Shares {
        let Some((work, rates)) = self.rates(view, seats) else { return Shares::default() };
        let equal_s = time_s(work, &rates, &[]);
        if equal_s * FRAME_PARTS <= period_s(view) {
            return Shares::default();
        }
        let weights = share_weights(work, &rates, view.share_factor);
        let is_better = time_s(work, &rates, &weights) <= equal_s * GAIN_OVER_EQUAL;
        if is_better { Shares::from_slice(&weights) } else { Shares::default() }
    }

    /// Whether these shares are worth a view that changes nothing else.
    pub(crate) fn is_worth(&self, view: &View, shares: &Shares) -> bool {
        // A member that was not measured yet may say soon what is better still.
        let all_said =
            view.members.iter().all(|seat| self.speeds(seat).is_some_and(|speeds| is_known(&speeds)));
        let Some((work, rates)) = self.rates(view, &view.members).filter(|_| all_said) else { return false };
        let (now_s, then_s) = (time_s(work, &rates, &view.shares), time_s(work, &rates, shares));
        now_s * FRAME_PARTS > period_s(view) && then_s <= now_s * GAIN_OVER_NOW
    }

    fn speeds(&self, seat: &Seat) -> Option<Speeds> {
        self.said.get(&seat.key).copied()
    }

    /// What the members can do, if there is anything to share out and more than half of them are known in each respect;
    /// of the others each is taken for the one in the middle.
    fn rates(&self, view: &View, seats: &[Seat]) -> Option<(&Work, Vec<Rates>)> {
        let work = self.work.as_ref().filter(|_| view.share_factor > 1 && seats.len() > 1)?;
        let said: Vec<Speeds> = seats.iter().map(|seat| self.speeds(seat).unwrap_or_default()).collect();
        let column = |of: fn(&Speeds) -> Speed| fill(said.iter().map(|speeds| of(speeds).per_s()).collect());
        let (up, down) = (column(|speeds| speeds.up)?, column(|speeds| speeds.down)?);
        let sum = column(|speeds| speeds.sum)?;
        let rates = up.iter().zip(&down).zip(&sum).map(|((up, down), sum)| Rates {
            up_bytes_per_s: *up,
            down_bytes_per_s: *down,
            sum_elements_per_s: *sum,
        });
        Some((work, rates.collect()))
    }
}

fn is_known(speeds: &Speeds) -> bool {
    [speeds.up, speeds.down, speeds.sum].iter().all(|speed| speed.per_s().is_some())
}

fn fill(said: Vec<Option<u64>>) -> Option<Vec<u64>> {
    let mut known: Vec<u64> = said.iter().flatten().copied().collect();
    known.sort_unstable();
    if 2 * known.len() <= said.len() {
        return None;
    }
    let middle = known[(known.len() - 1) / 2];
    let (low, high) = (middle / CLAIM_RATIO_MAX, middle.saturating_mul(CLAIM_RATIO_MAX));
    Some(said.into_iter().map(|said| said.unwrap_or(middle).clamp(low, high)).collect())
}

fn time_s(work: &Work, rates: &[Rates], weights: &[u16]) -> f64 {
    let parts = Parts::new(work.elements, work.grain_elements, rates.len(), weights);
    let ranges: Vec<_> = (0..rates.len()).map(|index| parts.range(index)).collect();
    work.time_s(rates, &ranges)
}

fn period_s(view: &View) -> f64 {
    f64::from(view.period_us) / 1e6
}

#[cfg(test)]
mod tests;

//! The frame period follows the links and the steps (section 6, "frame period control"): what members report, for how
//! long it has spoken for another period, and which view may state one (R26).
//!
//! ```text
//!   P* = max(P_min, 2 median T_xfer, median s)
//!   P* > 2 P   for 8 frames    a view that states 2 P        at most one change in 32 frames,
//!   P* < P / 2 for 32 frames   a view that states P / 2      within the range of the first view
//! ```
//!
//! The new period begins at the close of the frame that the view comes from, which both periods share ([`Schedule`]): who
//! knows the view knows when frames close, so a snapshot, a record on a disk and a joiner need nothing else. Whoever does
//! not know it yet numbers frames otherwise for a while; but it is an index behind, has no vote there (R1), and what it
//! is told first is that view. Numbers order the ballots of one index, and there all voters count alike.
//!
//! Only the proposer looks at reports; everybody else judges the view by [`check`] alone. A report that is missing
//! stands for no change: more than half of the members must say that P is too short, or too long, so fewer liars move
//! nothing, and an even split does not either.

use crate::config::{PERIOD_US_MAX, PERIOD_US_MIN};
use crate::log::Rule;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use plesio_wire::value::View;
use plesio_wire::{Frame, MemberSet, NodeKey, Schedule};

/// Frames from one change to the next, at least.
pub(crate) const FRAMES_APART: u64 = 32;
/// Frames that P* lies above 2 P before the period is doubled.
const FRAMES_UP: u32 = 8;
/// Frames that P* lies below P / 2 before it is halved.
const FRAMES_DOWN: u32 = 32;

/// What a member says of itself; what it does not know is none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// `T_xfer`: how long its slots take to the last owner, nanoseconds.
    pub transfer_ns: Option<u64>,
    /// s: how long a step takes, nanoseconds.
    pub step_ns: Option<u64>,
}

/// One change of the period.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Turn {
    Double,
    Halve,
}

/// The reports, and for how many frames in a row they have asked for another period.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(crate) struct PeriodControl {
    said: BTreeMap<NodeKey, Report>,
    up: u32,
    down: u32,
    schedule: Schedule,
}

impl PeriodControl {
    /// The newest word of a member.
    pub(crate) fn insert(&mut self, key: NodeKey, report: Report) {
        self.said.insert(key, report);
    }

    /// A view is in force: only its members are remembered. When frames close otherwise from here on, what was asked for
    /// before says nothing any more; then it tells how they closed before.
    pub(crate) fn enter(&mut self, view: &View) -> Option<Schedule> {
        self.said.retain(|key, _| view.index_of(*key).is_some());
        let before = core::mem::replace(&mut self.schedule, view.schedule());
        let is_turned = before != self.schedule;
        if is_turned {
            (self.up, self.down) = (0, 0);
        }
        is_turned.then_some(before)
    }

    /// A frame has closed; `heard`: the members that are not suspected.
    pub(crate) fn handle_frame(&mut self, view: &View, heard: MemberSet) {
        let period_ns = view.schedule().period_ns;
        let (least_ns, most_ns) = (self.goal_ns(view, heard, 0), self.goal_ns(view, heard, u64::MAX));
        count(&mut self.up, least_ns > 2 * period_ns);
        count(&mut self.down, most_ns < period_ns / 2);
    }

    /// The change that is due, if any; the range of the view allows it.
    pub(crate) const fn due(&self, view: &View) -> Option<Turn> {
        if self.up >= FRAMES_UP && view.doublings > 0 {
            Some(Turn::Double)
        } else if self.down >= FRAMES_DOWN && view.halvings > 0 {
            Some(Turn::Halve)
        } else {
            None
        }
    }

    /// P* without P_min, `unknown` standing for what nobody said: with 0 it is what more than half of the members need at
    /// least, with the most there is what more than half of them can do with.
    fn goal_ns(&self, view: &View, heard: MemberSet, unknown: u64) -> u64 {
        let reports = view.members.iter().enumerate().map(|(at, seat)| {
            let said = heard.contains(at as u16).then(|| self.said.get(&seat.key)).flatten();
            said.copied().unwrap_or_default()
        });
        let (mut transfers, mut steps): (Vec<u64>, Vec<u64>) = reports
            .map(|report| (report.transfer_ns.unwrap_or(unknown), report.step_ns.unwrap_or(unknown)))
            .unzip();
        if transfers.len() == 1 {
            // Nobody is there to send anything to.
            transfers[0] = 0;
        }
        let middle = if unknown == 0 { transfers.len().saturating_sub(1) / 2 } else { transfers.len() / 2 };
        let median = |said: &mut Vec<u64>| {
            said.sort_unstable();
            said.get(middle).copied().unwrap_or(unknown)
        };
        median(&mut transfers).saturating_mul(2).max(median(&mut steps))
    }
}

/// Extends the run while `holds`, else ends it.
fn count(run: &mut u32, holds: bool) {
    *run = if holds { run.saturating_add(1) } else { 0 };
}

/// The view after `now`, of the same members, that changes the period at the close of `origin`; none where that is too
/// soon after the change before, or out of the range.
pub(crate) fn turned(now: &View, origin: Frame, turn: Turn) -> Option<View> {
    if origin.0 < now.anchor.0.checked_add(FRAMES_APART)? {
        return None;
    }
    let (period_us, halvings, doublings) = match turn {
        Turn::Double => {
            (now.period_us.checked_mul(2)?, now.halvings.checked_add(1)?, now.doublings.checked_sub(1)?)
        }
        Turn::Halve => {
            let doublings = now.doublings.checked_add(1)?;
            (now.period_us / 2, now.halvings.checked_sub(1)?, doublings)
        }
    };
    let anchor_close = now.schedule().close_of(origin).0;
    Some(View { period_us, anchor: origin, anchor_close, halvings, doublings, ..*now })
}

/// R26: whether the period of `view` may follow that of `now`, the view before it: the same, or one change that is
/// allowed. True when it is a change.
pub(crate) fn check(now: &View, view: &View) -> Result<bool, Rule> {
    let pace = |view: &View| (view.period_us, view.anchor, view.anchor_close, view.halvings, view.doublings);
    if pace(view) == pace(now) {
        return Ok(false);
    }
    let may_be = |turn| turned(now, view.origin, turn).is_some_and(|expected| pace(&expected) == pace(view));
    if may_be(Turn::Double) || may_be(Turn::Halve) { Ok(true) } else { Err(Rule(26)) }
}

/// Whether a view can state that period and that range: whole microseconds between 0.05 s and 60 s, all the way.
pub(crate) fn is_sound(view: &View) -> bool {
    let longest = view.period_us.checked_shl(view.doublings.into());
    let shortest = view.period_us.checked_shr(view.halvings.into());
    let back = |short: u32, places: u8| short.checked_shl(places.into());
    let (Some(longest), Some(shortest)) = (longest, shortest) else { return false };
    longest.checked_shr(view.doublings.into()) == Some(view.period_us)
        && back(shortest, view.halvings) == Some(view.period_us)
        && shortest >= PERIOD_US_MIN
        && longest <= PERIOD_US_MAX
}

#[cfg(test)]
mod tests;

//! What the machines say, as a program and a trace are told it. Node and simulator use the same words.

use super::{Contribution, What};
use plesio_consensus::Event as Agreed;
use plesio_phase::{ClockState, MeshClock, State, Transition};
use plesio_sideband::{Event as Sensed, KeyChange};
use plesio_wire::NodeKey;
use plesio_wire::value::{Manifest, Value, View};

impl What {
    /// An event of the agreement, where `view` is in force. None of those that a shell words itself: views, which say whether
    /// this node is in them, and notes.
    #[must_use]
    pub fn agreed(event: &Agreed, view: &View) -> Option<Self> {
        Some(match event {
            Agreed::Open { context, version, manifest } => Self::Manifest {
                index: context.0,
                version: *version,
                digest: Value::Manifest(*manifest).digest(),
                frame: manifest.origin.0,
                entries: contributions(manifest, view),
            },
            Agreed::Reopen { context, version, manifest, dropped } => Self::Reopened {
                index: context.0,
                version: *version,
                entries: contributions(manifest, view),
                dropped: dropped.iter().count(),
            },
            Agreed::Sealed { index, version, complete } => {
                Self::Sealed { index: index.0, version: *version, complete: *complete }
            }
            Agreed::Gather { version, .. } => Self::Gathered(*version),
            Agreed::Fetch { from, version } => Self::Fetching { from: *from, version: *version },
            Agreed::Listed { seq, version, margin, staleness } => Self::Listed {
                slot: *seq,
                version: *version,
                margin_frames: frames(*margin),
                staleness: *staleness,
            },
            Agreed::Release { seq, part } => Self::Released { slot: *seq, whole: part.is_whole() },
            Agreed::Fold { seq, reason } => Self::Folded { slot: *seq, reason: *reason },
            Agreed::Lost { seq } => Self::Lost(*seq),
            Agreed::Excluded { .. } => Self::Excluded,
            Agreed::Left => Self::Left,
            Agreed::NoQuorum { live, members } => Self::NoQuorum { live: *live, members: *members },
            Agreed::Quorum => Self::Quorum,
            Agreed::Diverged { version, peer, .. } => Self::Diverged { version: *version, peer: *peer },
            Agreed::Resync { version } => Self::Resync(*version),
            Agreed::Stopped { version, cause } => Self::Stopped { version: *version, cause: *cause },
            Agreed::Void { frame } => Self::Void(*frame),
            Agreed::Period { frame, before_ns, period_ns } => {
                Self::Period { frame: *frame, before_ns: *before_ns, period_ns: *period_ns }
            }
            Agreed::Queried { index, ballot } => Self::Queried { index: index.0, ballot: *ballot },
            Agreed::Proposed { index, ballot, kind } => {
                Self::Proposed { index: index.0, ballot: *ballot, kind: *kind }
            }
            Agreed::Decided { index, ballot, kind } => {
                Self::Decided { index: index.0, ballot: *ballot, kind: *kind }
            }
            _ => return None,
        })
    }

    /// A view that came into force, or with which a mesh begins; `seated`: this life of the node is one of its members.
    #[must_use]
    pub fn view(
        view: &View,
        index: u64,
        (added, removed): (Vec<NodeKey>, Vec<NodeKey>),
        seated: bool,
    ) -> Self {
        let members = view.members.iter().map(|seat| seat.key).collect();
        let one = f64::from(plesio_wire::shares::SHARE_ONE);
        let shares = view.shares.iter().map(|share| f64::from(*share) / one).collect();
        Self::View { number: view.number, index, members, added, removed, shares, seated }
    }

    /// What the sideband noticed, as far as somebody should hear of it.
    #[must_use]
    pub fn sensed(event: &Sensed) -> Option<Self> {
        Some(match event {
            Sensed::Suspect { key } => Self::Suspect(*key),
            Sensed::Recover { key } => Self::Recover(*key),
            Sensed::Dead { key } => Self::Dead(*key),
            Sensed::Leaving { key } => Self::Leaving(*key),
            Sensed::Sick { sick } => Self::Sick(*sick),
            Sensed::Late { late_ns } => Self::Late(*late_ns),
            Sensed::Reference { key } => Self::Reference(*key),
            Sensed::FalseTicker { key } => Self::FalseTicker(*key),
            _ => return None,
        })
    }

    /// What a new line of the mesh clock changes: how well it is known, and whether it jumps.
    #[must_use]
    pub fn clock(before: &MeshClock, after: &MeshClock) -> [Option<Self>; 2] {
        let change = (before.state != after.state).then(|| Self::Clock {
            from: clock_state(before.state),
            to: clock_state(after.state),
            eps_ns: after.eps_ns,
            rate_ppb: after.rate_ppb,
        });
        // Lines meet where the newer one begins, but for rounding.
        let by_ns = after.base_mesh.0.saturating_sub(before.at(after.base_local).0);
        let jumps = before.usable && after.usable && by_ns.unsigned_abs() > 1;
        [change, jumps.then_some(Self::ClockStep(by_ns))]
    }

    /// A transition of the phase corrector.
    #[must_use]
    pub fn phase(change: Transition) -> Self {
        Self::Phase { from: phase_state(change.from), to: phase_state(change.to) }
    }

    /// A change of keys; the keys themselves are in nothing that is told.
    #[must_use]
    pub fn keys(peer: NodeKey, change: &KeyChange) -> Self {
        let change = match change {
            KeyChange::Open(_) => "open",
            KeyChange::Seal(_) => "seal",
            KeyChange::Close(_) => "close",
            KeyChange::Expire => "expire",
            _ => "other",
        };
        Self::Keys { peer, change }
    }
}

fn contributions(manifest: &Manifest, view: &View) -> Vec<Contribution> {
    let named = manifest.entries.iter().filter_map(|entry| {
        Some(Contribution {
            node: view.members.get(usize::from(entry.member))?.key,
            slot: entry.slot_seq,
            steps: entry.n_steps,
            weight: entry.weight,
            staleness: entry.staleness,
            margin_frames: frames(entry.margin),
        })
    });
    named.collect()
}

/// Q1.14 frames.
fn frames(margin: i16) -> f32 {
    f32::from(margin) / 16_384.0
}

const fn clock_state(state: ClockState) -> &'static str {
    match state {
        ClockState::Acquire => "acquire",
        ClockState::Locked => "locked",
        ClockState::Holdover => "holdover",
    }
}

const fn phase_state(state: State) -> &'static str {
    match state {
        State::Acquire => "acquire",
        State::Locked => "locked",
        State::Strained => "strained",
        State::Slipping => "slipping",
        State::Holdover => "holdover",
        State::Resync => "resync",
        State::Detached => "detached",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plesio_wire::{Instant, MeshTime};

    #[test]
    fn a_clock_tells_of_locks_and_steps_and_not_of_every_line() {
        let before = MeshClock {
            base_mesh: MeshTime(1_000),
            usable: true,
            state: ClockState::Locked,
            eps_ns: 9,
            ..MeshClock::default()
        };
        let later =
            |by_ns: i64| MeshClock { base_local: Instant(500), base_mesh: MeshTime(1_500 + by_ns), ..before };
        assert_eq!(What::clock(&before, &later(1)), [None, None]);
        assert_eq!(What::clock(&before, &later(-40)), [None, Some(What::ClockStep(-40))]);
        let lost = MeshClock { state: ClockState::Holdover, ..later(0) };
        let told = What::Clock { from: "locked", to: "holdover", eps_ns: 9, rate_ppb: 0 };
        assert_eq!(What::clock(&before, &lost), [Some(told), None]);
        // The first line of a node that had no clock is no step.
        assert_eq!(What::clock(&MeshClock::default(), &before)[1], None);
    }
}

//! Tempo, late slots, and what follows from the corrector's states: the state fetched anew in RESYNC, the pause of a member
//! that is away.

use super::Engine;
use super::transfer::Judged;
use plesio_consensus::Report;
use plesio_phase::{Pulse, State, Tempo, Transition};
use plesio_wire::{Frame, Instant, MemberSet, MeshTime, NodeKey};
use std::collections::VecDeque;

/// How well this node keeps in time, since its process began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Punctuality {
    /// Own slots whose margin is known.
    pub slots: u64,
    /// Of these, complete at the last owner only after the close that they were aimed at.
    pub late: u64,
    /// Slots folded, merged, or put off by a full ring.
    pub folds: u64,
    /// How often an actuator of the corrector moved.
    pub corrections: u64,
    /// When the corrector was LOCKED first.
    pub locked: Option<Instant>,
}

/// What the engine keeps of it.
#[derive(Debug, Default)]
pub(super) struct Timing {
    pub(super) tempo: Tempo,
    pub(super) punctuality: Punctuality,
    /// Close of the manifest that opened the newest version.
    pub(super) close: MeshTime,
    /// Cuts that found the ring full, as last told, and whether there was one in this frame.
    folds: u64,
    is_full: bool,
    transitions: VecDeque<Transition>,
    /// When the attempt to take over the state, in RESYNC, counts as failed unless something comes.
    resync_due: Option<Instant>,
}

impl Engine {
    /// Who has no mesh clock, and who hears no quorum, as indices of the view `view`.
    pub fn handle_states(&mut self, now: Instant, view: u32, untimed: MemberSet, detached: MemberSet) {
        if view == self.consensus.view().number {
            let untimed: Vec<NodeKey> = self.named(untimed).collect();
            let detached: Vec<NodeKey> = self.named(detached).collect();
            self.consensus.handle_states(now, &untimed, &detached);
            self.turn(now);
        }
    }

    /// The step loop's pulse, some times a second.
    pub fn handle_pulse(&mut self, pulse: Pulse) {
        self.timing.tempo.handle_pulse(pulse);
    }

    /// How many cuts have found the ring full so far: merged into an earlier slot or put off.
    pub fn handle_ring(&mut self, now: Instant, folds: u64) {
        let news = folds.saturating_sub(self.timing.folds);
        if news > 0 {
            self.timing.folds = folds;
            self.timing.is_full = true;
            self.note_folds(now, news);
            self.turn(now);
        }
    }

    pub(super) fn note_folds(&mut self, now: Instant, folds: u64) {
        self.timing.punctuality.folds += folds;
        self.corrector.handle_fold(now);
    }

    /// Runs without hysteresis from here on, for comparison: the simulator's affair alone.
    ///
    /// # Panics
    /// Never: the settings were accepted before.
    pub fn ablate_hysteresis(&mut self, now: Instant) {
        let config = super::corrector_config(&self.config);
        let mut corrector =
            plesio_phase::Corrector::without_hysteresis(now, config).expect("they were accepted before");
        corrector.handle_master(now, self.consensus.has_state());
        self.corrector = corrector;
    }

    /// The next change of the corrector's state, for the trace.
    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.timing.transitions.pop_front()
    }

    /// Whether the worker has to stand still: this node has been in RESYNC or DETACHED for tau + 1 frames.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.corrector.is_paused()
    }

    /// How well this node keeps in time.
    #[must_use]
    pub fn punctuality(&self) -> Punctuality {
        Punctuality { corrections: self.corrector.actuations(), ..self.timing.punctuality }
    }

    /// The tempo of this node.
    #[must_use]
    pub fn tempo(&self) -> &Tempo {
        &self.timing.tempo
    }

    /// What the frame period follows: how long its slots and its steps take.
    pub(super) fn report(&self, now: Instant) -> Report {
        let step_ns = self.timing.tempo.pulse().step_ns;
        let transfer_ns = self.transfers.took_ns(now, self.suspects.is_empty());
        Report { transfer_ns, step_ns: (step_ns > 0).then_some(step_ns) }
    }

    /// e: how late this node is against the mesh, lead included, frames; 0 before its first cut.
    #[must_use]
    pub fn phase_error_frames(&self, now: Instant) -> f64 {
        let aim = self.aim();
        self.timing.tempo.phase(aim.stride).map_or(0.0, |phase| {
            let apart = i128::from(aim.mesh_phase(now)) - i128::from(phase);
            apart as f64 / 4_294_967_296.0 + aim.lead_ns as f64 / aim.period_ns().max(1) as f64
        })
    }

    /// Own slots that a version now lists, and what that says of how this node cuts: its margin is that of the close it
    /// was aimed at, whatever close it was listed at.
    pub(super) fn judge_listed(
        &mut self,
        now: Instant,
        seq: plesio_wire::SlotSeq,
        listed: f64,
        staleness: u64,
    ) {
        let Some(Judged { aim, is_behind, delivered }) = self.transfers.judge(seq) else { return };
        let steered = self.aim();
        let waited = steered.closes_after(aim.target, self.timing.close).round();
        // Frames of another period, or a proposer's nonsense.
        if waited.abs() > WAIT_FRAMES_MAX {
            return;
        }
        let delivered = delivered.filter(|_| steered.clock.usable);
        let delivered = delivered.map(|at| steered.closes_after(aim.target, steered.clock.at(at)));
        let margin = margin(listed, waited, delivered);
        // Closes that passed after it was complete.
        let idle = if margin < 0.0 { libm::floor(listed) } else { waited };
        self.judge(now, margin, idle.max(0.0) as u64, staleness, is_behind);
    }

    fn judge(&mut self, now: Instant, margin: f64, waited: u64, staleness: u64, is_behind: bool) {
        self.margin = margin as f32;
        self.timing.punctuality.slots += 1;
        if margin < 0.0 {
            self.timing.punctuality.late += 1;
        }
        if is_behind {
            self.corrector.handle_slot_behind(now, margin, waited, staleness);
        } else {
            self.corrector.handle_slot(now, margin, waited, staleness);
        }
    }

    /// A frame has closed: slots that should have been there a whole frame ago and are not count as late now, once.
    pub(super) fn note_close(&mut self, now: Instant, closed: Frame) {
        let reached = self.consensus.version_reached();
        if self.consensus.has_quorum() {
            for Judged { aim, is_behind, .. } in self.transfers.overdue(closed) {
                let margin = aim.target.0 as f64 - closed.0 as f64;
                self.judge(now, margin, 0, reached.0.saturating_sub(aim.base.0), is_behind);
            }
        }
        let is_full = std::mem::take(&mut self.timing.is_full);
        let fill = if is_full { self.config.regions.depth } else { self.transfers.fill() };
        self.corrector.handle_frame(now, fill);
    }

    /// Ring slots in use, as beats say it: as many as there are when the last cut found no place.
    pub(super) fn fill(&self) -> u8 {
        if self.timing.is_full { self.config.regions.depth } else { self.transfers.fill() }
    }

    /// Carries on what the corrector's states ask for; whether there was anything.
    pub(super) fn turn_states(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(transition) = self.corrector.poll_event() {
            any = true;
            match transition.to {
                State::Locked => {
                    self.timing.punctuality.locked.get_or_insert(now);
                }
                State::Resync => {
                    self.timing.resync_due = Some(now.after(RESYNC_NS));
                    self.consensus.handle_resync(now);
                }
                _ => {}
            }
            if self.timing.transitions.len() == TRANSITIONS_MAX {
                self.timing.transitions.pop_front();
            }
            self.timing.transitions.push_back(transition);
        }
        if self.corrector.state() != State::Resync {
            self.timing.resync_due = None;
        } else if self.consensus.is_up_to_date() {
            any = true;
            self.corrector.handle_resync(now, true);
        }
        any
    }

    /// The attempt to take over the state came to nothing.
    pub(super) fn fail_resync(&mut self, now: Instant) {
        if self.corrector.state() == State::Resync {
            self.timing.resync_due = Some(now.after(RESYNC_NS));
            self.corrector.handle_resync(now, false);
        }
    }

    /// The state is coming, slowly.
    pub(super) fn extend_resync(&mut self, now: Instant) {
        if let Some(due) = &mut self.timing.resync_due {
            *due = now.after(RESYNC_NS);
        }
    }

    pub(super) fn handle_resync_timeout(&mut self, now: Instant) {
        if self.timing.resync_due.is_some_and(|due| now >= due) {
            self.fail_resync(now);
        }
    }

    pub(super) fn resync_timeout(&self) -> Option<Instant> {
        self.timing.resync_due
    }
}

/// How long before the close that it was aimed at a slot was there, frames, from what is known of it where it is `listed`,
/// `waited` closes later, and from when it was `delivered`, in frames after that close, as its owners acknowledged it.
///
/// Owners tell of a slot those who close this frame and the next. Who closes a later one hears of it from then on, however
/// long it has been there: his word is no news of when that was, and taken for it makes a slot that waits for its turn late
/// at any lead.
fn margin(listed: f64, waited: f64, delivered: Option<f64>) -> f64 {
    let margin = listed - waited;
    match delivered {
        Some(after) if waited >= 2.0 => margin.max(-after),
        _ => margin,
    }
}

const TRANSITIONS_MAX: usize = 64;
/// Nothing comes for so long: that attempt of RESYNC has failed.
const RESYNC_NS: u64 = 2_000_000_000;
/// No slot waits for so many closes and is listed then.
const WAIT_FRAMES_MAX: f64 = 128.0;

#[cfg(test)]
mod tests;

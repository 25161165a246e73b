//! What engine and sideband of a process say, before it is acted on: judged, traced, and handed on.

use super::{Process, Scene, host_of};
use crate::trace::Happened;
use plesio::What;
use plesio_consensus::Event;
use plesio_phase::MeshClock;
use plesio_sideband::Event as SidebandEvent;
use plesio_wire::MeshTime;

impl Process {
    pub(super) fn take_events(&mut self, scene: &mut Scene<'_>) {
        while let Some(event) = self.engine.poll_event() {
            self.note(scene, &event);
        }
        let moves = self.engine.corrector().actuations();
        if moves > self.cut / self.dwell + 1 {
            let (host, cut) = (scene.host, self.cut);
            scene.checker.fail(format!("I9: n{host}: the corrector has moved {moves} times in {cut} slots"));
        }
        while let Some(transition) = self.engine.poll_transition() {
            let states = [transition.from.code(), transition.to.code()];
            scene.trace.record(scene.now_ns, scene.host, TRANSITION, &states);
            self.say(scene, |_| Some(What::phase(transition)));
            scene
                .trace
                .tell(scene.now_ns, scene.host, || format!("{} -> {}", transition.from, transition.to));
        }
    }

    fn note(&mut self, scene: &mut Scene<'_>, event: &Event) {
        #[cfg(test)]
        let event = &if self.repeats { repeat(event) } else { event.clone() };
        scene.phases.handle_event(scene.now_ns, scene.host, event);
        scene.checker.handle_event(scene.host, self.number, event);
        if let Event::View { removed, .. } = event {
            removed.iter().for_each(|key| scene.watch.handle_noticed(scene.now_ns, self.number, *key));
        }
        let (kind, index) = match event {
            Event::Open { context, .. } => (1, context.0),
            Event::Reopen { context, .. } => (2, context.0),
            Event::Sealed { index, .. } => (3, index.0),
            Event::View { index, .. } => (4, index.0),
            Event::Release { seq, .. } => (5, u64::from(seq.0)),
            Event::Fold { seq, .. } => (6, u64::from(seq.0)),
            Event::Lost { seq } => (7, u64::from(seq.0)),
            Event::Left => (8, 0),
            Event::Excluded { index } => (9, index.0),
            Event::Fetch { version, .. } => (10, version.0),
            _ => (0, 0),
        };
        scene.trace.record(scene.now_ns, scene.host, kind, &index.to_le_bytes());
        scene.trace.tell(scene.now_ns, scene.host, || crate::words::event(event));
        self.say(scene, |own| match event {
            Event::View { index, view, added, removed } => {
                Some(What::view(view, index.0, (added.clone(), removed.clone()), own.engine.is_seated(view)))
            }
            other => What::agreed(other, own.engine.consensus().view()),
        });
        match event {
            Event::Left => self.left = true,
            // What was gathered without the others is more than one contribution may be.
            Event::Excluded { .. } | Event::Quorum => self.worker.come_back(),
            _ => {}
        }
    }

    /// What a node would say to its program, where there is a trace.
    pub(super) fn say(&self, scene: &mut Scene<'_>, what: impl FnOnce(&Self) -> Option<What>) {
        let local = scene.local;
        scene.trace.happen(scene.now_ns, scene.host, || {
            let clock = self.engine.aim().clock;
            let mesh_ns = clock.usable.then(|| clock.at(local).0);
            Some(Happened::Said { node: self.key, mesh_ns, what: Box::new(what(self)?) })
        });
    }

    /// I10: mesh time goes forward, but for the steps of a clock that enters anew, and about as fast as it is found to go.
    fn judge_clock(&mut self, scene: &mut Scene<'_>, clock: MeshClock) {
        let host = scene.host;
        let before = std::mem::replace(&mut self.clock, clock);
        if !before.usable || !clock.usable {
            return;
        }
        // A line meets the one before where it begins; both round to whole nanoseconds.
        let back_ns = before.at(clock.base_local).0 - clock.base_mesh.0;
        let steps = self.machine.clock_counters().steps;
        self.steps.1 += steps - std::mem::replace(&mut self.steps.0, steps);
        if back_ns > 1 && self.steps.1 == 0 {
            scene.checker.fail(format!("I10: n{host}: mesh time goes back by {back_ns} ns"));
        }
        self.steps.1 -= u64::from(back_ns > 1 && self.steps.1 > 0);
        if clock != self.machine.mesh_clock() {
            // Told late: the next line is in force already, and what is found now is of that one.
            return;
        }
        let (rate, found) = (i64::from(clock.rate_ppb), self.machine.rate_ppb());
        if (rate - found).abs() > SLEW_PPB_MAX || found.abs() > RATE_PPB_MAX {
            scene.checker.fail(format!("I10: n{host}: mesh time runs at {rate} ppb, found are {found}"));
        }
    }

    pub(super) fn take_sideband(&mut self, scene: &mut Scene<'_>, event: SidebandEvent) {
        let now = scene.local;
        match event {
            SidebandEvent::Message { from, from_addr, view, message, .. } => {
                scene.trace.tell(scene.now_ns, scene.host, || {
                    let host = host_of(from_addr).unwrap_or(u8::MAX);
                    let known = if from.is_some() { "" } else { ", unknown," };
                    format!("  <- n{host}{known} of view {view}: {}", crate::words::message(&message))
                });
                self.engine.handle_message(now, from, from_addr, view, &message);
            }
            SidebandEvent::Hold { from, version, index, .. } => {
                self.engine.handle_hold(now, from, version, index);
            }
            SidebandEvent::Liveness { view, suspects, dead, .. } => {
                self.engine.handle_liveness(now, view, suspects, dead);
            }
            SidebandEvent::States { view, untimed, detached } => {
                self.engine.handle_states(now, view, untimed, detached);
            }
            SidebandEvent::Clock(clock) => {
                let news = What::clock(&self.clock, &clock);
                self.judge_clock(scene, clock);
                let base_mesh = MeshTime(clock.base_mesh.0.saturating_add(self.clock_error_ns));
                self.engine.handle_clock(now, MeshClock { base_mesh, ..clock });
                for what in news.into_iter().flatten() {
                    self.say(scene, |_| Some(what));
                }
            }
            SidebandEvent::Beat { from, beat } => self.engine.handle_beat(from, &beat),
            other => {
                if let SidebandEvent::Suspect { key } = other {
                    scene.watch.handle_noticed(scene.now_ns, self.number, key);
                }
                scene.trace.tell(scene.now_ns, scene.host, || format!("{other:?}"));
                self.say(scene, |_| What::sensed(&other));
            }
        }
    }
}

/// Lists the slot before instead of the one that was meant.
#[cfg(test)]
fn repeat(event: &Event) -> Event {
    let mut event = event.clone();
    if let Event::Open { manifest, .. } = &mut event
        && let Some(entry) = manifest.entries.first_mut()
    {
        entry.slot_seq = entry.slot_seq.saturating_sub(1).max(1);
    }
    event
}

/// I10: how much faster or slower than it is found to run mesh time may be made to run, and what is believed at all.
const SLEW_PPB_MAX: i64 = 500_000;
const RATE_PPB_MAX: i64 = 2_000_000;
/// In the trace, beside the kinds of `note`.
const TRANSITION: u8 = 11;

//! A simulated worker: it takes steps of its own length, cuts a slot when the real cut rule says so, and keeps its
//! books. It never waits for anybody.

use crate::books::Books;
use crate::learning::{Learner, Learning};
use plesio_memory::{CutMeta, CutOutcome, Fate, Producer};
use plesio_phase::{Aim, Cutter, Pulse};
use plesio_wire::{Frame, Instant, Schedule, Version};
use std::sync::Arc;

/// See the module.
pub(crate) struct Worker {
    producer: Producer,
    cutter: Cutter,
    pub(crate) books: Books,
    /// What it learns, if it does.
    learns: Option<(Arc<Learning>, Learner)>,
    target: Option<(Frame, Schedule)>,
    n_steps: u32,
    /// Version the filling slot's work started from, and the one the worker has moved to.
    base: Version,
    version: Version,
    /// The node came back: what is cut until nothing of before is out is trimmed (section 8).
    returned: bool,
    tau: u64,
    /// The node is leaving: what is there is cut, nothing is added.
    stopped: bool,
    #[cfg(test)]
    pub(crate) spills: bool,
}

impl Worker {
    pub(crate) fn new(
        producer: Producer,
        books: Books,
        tau: u64,
        learns: Option<(Arc<Learning>, Learner)>,
    ) -> Self {
        Self {
            producer,
            cutter: Cutter::new(),
            books,
            learns,
            target: None,
            n_steps: 0,
            base: Version(0),
            version: Version(0),
            returned: false,
            tau,
            stopped: false,
            #[cfg(test)]
            spills: false,
        }
    }

    /// A step has ended; true when a slot was cut or added to. `master` is the state of `applied`.
    pub(crate) fn handle_step(
        &mut self,
        now: Instant,
        took_ns: u64,
        aim: &Aim,
        (applied, master): (Version, &[i64]),
    ) -> Result<bool, String> {
        self.reclaim(applied)?;
        if self.stopped {
            // What was folded meanwhile goes out again.
            let before =
                self.target.map_or(Frame(0), |_| aim.target(now, self.cutter.step_ns(), self.target));
            let target = aim.next_target(now, before);
            return if self.n_steps > 0 && aim.clock.usable { self.cut(target) } else { Ok(false) };
        }
        self.n_steps += 1;
        match &mut self.learns {
            Some((learning, learner)) => {
                let change = learner.step(learning, master, &self.books.own());
                self.books.handle_learnt(change);
            }
            None => self.books.handle_step(),
        }
        self.cutter.handle_step(took_ns);
        if !aim.clock.usable || aim.holds {
            return Ok(false);
        }
        if self.cutter.rebase(aim.resyncs) {
            self.base = self.version;
        }
        let target = aim.target(now, self.cutter.step_ns(), self.target);
        self.target = Some((target, aim.schedule));
        if !self.cutter.is_due(now, aim.cut(target), self.n_steps) {
            return Ok(false);
        }
        let passed = Frame(target.0.saturating_add(self.cutter.pass(aim.passes)));
        self.target = Some((aim.next_target(now, passed), aim.schedule));
        self.base = aim.base(self.base, self.version, self.tau);
        self.cut(target)
    }

    /// The mesh went on without this node, and it is back.
    pub(crate) fn come_back(&mut self) {
        self.returned = true;
    }

    /// It stands still: only what came back is taken.
    pub(crate) fn handle_rest(&mut self, applied: Version) -> Result<(), String> {
        self.reclaim(applied)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// s, h and H, for the beats.
    pub(crate) fn pulse(&self) -> Pulse {
        self.cutter.pulse()
    }

    /// The node wants to go: cut what there is, then stop. True when a slot was cut.
    pub(crate) fn stop(&mut self) -> Result<bool, String> {
        self.stopped = true;
        match self.target {
            Some((target, _)) if self.n_steps > 0 => self.cut(target),
            _ => Ok(false),
        }
    }

    /// All that was ever produced is committed.
    pub(crate) fn is_settled(&self) -> bool {
        let occupancy = self.producer.occupancy();
        self.n_steps == 0 && occupancy.free + 1 == occupancy.depth
    }

    /// Slots that came back, and a state that moved on.
    fn reclaim(&mut self, applied: Version) -> Result<(), String> {
        if applied > self.version {
            self.version = applied;
            if self.n_steps == 0 {
                self.base = applied;
            }
        }
        while let Some((info, fate)) = self.producer.poll_returned() {
            let mut differs = None;
            let expected = self.books.parcel(info.index).cloned().unwrap_or_default();
            self.producer
                .reclaim(info.index, |_, _, content| {
                    let pairs = content.iter().zip(&expected.content);
                    differs = pairs
                        .enumerate()
                        .find(|(_, (real, due))| i64::from(**real) != **due)
                        .map(|(at, _)| at);
                })
                .map_err(|error| format!("ring: a returned slot cannot be reclaimed: {error}"))?;
            if let Some(element) = differs {
                return Err(format!("R21: slot {} changed at element {element} while frozen", info.seq.0));
            }
            match fate {
                Fate::Committed => {
                    self.books.commit(info.index);
                    self.n_steps += expected.part.map_or(0, |part| part.steps_back(info.n_steps));
                }
                Fate::Folded => {
                    self.books.fold(info.index);
                    self.n_steps += info.n_steps;
                    // The rebase: a slot that kept its old base would be refused for ever.
                    self.base = self.version;
                }
            }
            #[cfg(test)]
            if self.spills && fate == Fate::Folded {
                self.books.spill();
            }
            self.books.check()?;
        }
        Ok(())
    }

    fn cut(&mut self, target: Frame) -> Result<bool, String> {
        let usual = self.n_steps;
        if self.returned {
            let occupancy = self.producer.occupancy();
            self.returned = occupancy.free + 1 != occupancy.depth;
            let most = (self.tau + 1).saturating_mul(self.cutter.steps_per_slot().into());
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            self.books.trim(usual.saturating_sub(most));
            self.n_steps = usual.min(most);
        }
        let meta = CutMeta { base_version: self.base, target_frame: target, n_steps: self.n_steps };
        let books = &mut self.books;
        let outcome = self.producer.cut(meta, |slot| {
            books.quantise(slot);
            true
        });
        match outcome {
            CutOutcome::Cut(info) => books.handle_cut(info.index, false, None),
            CutOutcome::Merged { into, excess } => books.handle_cut(into.index, true, excess),
            CutOutcome::Open => return Ok(false),
            CutOutcome::Discarded => return Err("ring: a finite contribution was discarded".into()),
        }
        self.n_steps = 0;
        self.base = self.version;
        self.cutter.handle_cut();
        self.books.check()?;
        Ok(true)
    }
}

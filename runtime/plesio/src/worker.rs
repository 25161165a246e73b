//! The training thread's end of a node: cuts contributions when they are due, takes committed states when they come.
//!
//! Knows the parameters x only while a call lasts. Invariant (I1): x = x(0) + float(G(v)) + u, where u, the
//! uncommitted mass, is what the announced slots carry plus `x - anchor`. No call waits for the node thread, the
//! network or another worker (I8); [`Worker::attach`] alone waits, for the first state, and [`Worker::await_resume`] as
//! long as it is told to.

use crate::mailbox::Mailbox;
use plesio_collective::Regions;
use plesio_consensus::Part;
use plesio_kernels::{Codec, Device, Scale};
use plesio_memory::{Arena, CutMeta, CutOutcome, Fate, Producer, SlotInfo};
use plesio_phase::Cutter;
use plesio_sideband::LocalClock;
use plesio_udp::Waker;
use plesio_wire::{Frame, Instant, Schedule, Version};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The node has ended; there is nobody to work for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node has stopped; its last event says why")
    }
}

impl std::error::Error for Stopped {}

/// What a step led to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StepOutcome {
    /// A contribution was cut.
    pub cut: bool,
    /// How late the cut was against the close of its frame less the lead: the phase error; zero without a cut.
    pub phase_error_ns: i64,
    /// A newer state was taken: the parameters moved.
    pub version: Option<Version>,
    /// Steps thrown away because they were not finite; the parameters are back at the last good point.
    pub discarded_steps: u32,
    /// How often in a row that happened, without a contribution in between.
    pub discards_in_row: u32,
    /// The operators halted the mesh: nothing is cut, and training is to stand still. [`Worker::await_resume`] waits.
    pub halted: bool,
    /// This node is not with its mesh for longer than tau + 1 frames: training is to stand still, as what it would add is
    /// too old to be counted. [`Worker::await_resume`] waits.
    pub paused: bool,
}

/// Where own slots lie as they were sent, when that is not as they were cut: what a codec left out is found there.
pub(crate) struct Sent {
    arena: Arena,
    regions: Regions,
    slot: Vec<i32>,
}

impl Sent {
    /// `None` where slots travel as they are.
    pub(crate) fn new(arena: &Arena, regions: Regions) -> Option<Self> {
        let slot = || vec![0; regions.elements as usize];
        (regions.codec != Codec::Full).then(|| Self { arena: arena.clone(), regions, slot: slot() })
    }

    /// The integers that everybody else has counted of the slot in `index`. Nobody writes them before the slot is
    /// announced again, which this thread's next cut comes before.
    fn read<D: Device>(&mut self, device: D, index: u8) -> &[i32] {
        let codes = self
            .arena
            .share(self.regions.slot(index))
            .expect("a slot that has come back is not being encoded");
        device
            .decode_slot(self.regions.codec, codes.as_bytes(), &mut self.slot)
            .expect("the plan has room for a slot as encoded");
        &self.slot
    }
}

/// The training thread's end of a node; see the module.
pub struct Worker<D: Device> {
    device: D,
    scale: Scale,
    sent: Option<Sent>,
    producer: Producer,
    mailbox: Arc<Mailbox>,
    clock: LocalClock,
    waker: Waker,
    cutter: Cutter,
    /// x less what is not cut yet.
    anchor: Vec<f32>,
    residue: Vec<f32>,
    /// float(G(v)) as taken last.
    taken: Vec<f32>,
    fresh: Vec<f32>,
    /// Own slots that are committed in a state not taken yet.
    settled: Vec<f32>,
    scratch: Vec<f32>,
    /// What a version took of a slot, where that is not all.
    part: Vec<i32>,
    version: Version,
    base: Version,
    /// Where the slot that is filling is aimed, and when frames closed when that was chosen.
    target: Option<(Frame, Schedule)>,
    n_steps: u32,
    commits: u64,
    /// Letter taken last.
    serial: u64,
    step_began: Instant,
    discarded_steps: u32,
    discards_in_row: u32,
    /// Returns of the node that were acted on; while there are newer ones, cuts are trimmed.
    returns: u32,
    /// Most versions that a contribution may lie behind.
    tau: u64,
}

impl<D: Device> Worker<D> {
    #[expect(clippy::too_many_arguments, reason = "one for each thing that it shares with the node's thread")]
    pub(crate) fn new(
        device: D,
        scale: Scale,
        sent: Option<Sent>,
        producer: Producer,
        mailbox: Arc<Mailbox>,
        clock: LocalClock,
        waker: Waker,
        elements: usize,
        tau: u64,
    ) -> Self {
        let zeros = || vec![0.0; elements];
        Self {
            device,
            scale,
            sent,
            producer,
            mailbox,
            clock,
            waker,
            cutter: Cutter::new(),
            anchor: zeros(),
            residue: zeros(),
            taken: zeros(),
            fresh: zeros(),
            settled: zeros(),
            scratch: zeros(),
            part: Vec::new(),
            version: Version(0),
            base: Version(0),
            target: None,
            n_steps: 0,
            commits: 0,
            serial: 0,
            step_began: Instant(0),
            discarded_steps: 0,
            discards_in_row: 0,
            returns: 0,
            tau,
        }
    }

    /// Waits for the first state and adds it to `params`, which holds x(0), the start that all members share.
    ///
    /// # Errors
    /// [`Stopped`] when the node ends before.
    ///
    /// # Panics
    /// When `params` is not as long as the node's state.
    pub fn attach(&mut self, params: &mut [f32]) -> Result<(), Stopped> {
        assert_eq!(params.len(), self.anchor.len(), "the parameters are the node's elements");
        self.anchor.copy_from_slice(params);
        loop {
            if self.mailbox.is_stopped() {
                return Err(Stopped);
            }
            if self.take_state(params) {
                self.step_began = self.clock.now();
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// After every local step: cuts a contribution if one is due, takes what was committed meanwhile.
    ///
    /// # Errors
    /// [`Stopped`] when the node has ended.
    pub fn handle_step(&mut self, params: &mut [f32]) -> Result<StepOutcome, Stopped> {
        let now = self.clock.now();
        self.cutter.handle_step(now.since(self.step_began));
        self.n_steps += 1;
        self.mailbox.leave_pulse(self.cutter.pulse());
        let outcome = self.turn(now, params, false)?;
        self.step_began = self.clock.now();
        Ok(outcome)
    }

    /// Without a step: cuts what is left and takes what was committed. True when nothing of this worker is
    /// uncommitted but the rounding residue.
    ///
    /// # Errors
    /// [`Stopped`] when the node has ended.
    pub fn handle_idle(&mut self, params: &mut [f32]) -> Result<bool, Stopped> {
        let now = self.clock.now();
        self.turn(now, params, true)?;
        self.step_began = self.clock.now();
        Ok(self.n_steps == 0 && self.slots_out() == 0)
    }

    /// Slots of this worker's ring that hold a contribution which is not final, or has not come back yet.
    #[must_use]
    pub fn slots_out(&self) -> u8 {
        let occupancy = self.producer.occupancy();
        // One is always open for the next cut.
        occupancy.depth.saturating_sub(occupancy.free + 1)
    }

    /// Whether the operators halted the mesh.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.mailbox.is_halted()
    }

    /// Waits until a halt or a pause is over, but not for longer than `limit`; whether it is over.
    ///
    /// # Errors
    /// [`Stopped`] when the node ends before.
    pub fn await_resume(&mut self, limit: Duration) -> Result<bool, Stopped> {
        if !self.mailbox.is_halted() && !self.mailbox.is_paused() {
            return Ok(true);
        }
        let goes_on = self.mailbox.await_way(limit);
        if self.mailbox.is_stopped() {
            return Err(Stopped);
        }
        // Standing is no part of a step.
        self.step_began = self.clock.now();
        Ok(goes_on)
    }

    /// Version that the parameters stand on.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Smoothed duration of a step, nanoseconds.
    #[must_use]
    pub fn step_ns(&self) -> u64 {
        self.cutter.step_ns()
    }

    fn turn(&mut self, now: Instant, params: &mut [f32], flush: bool) -> Result<StepOutcome, Stopped> {
        if self.mailbox.is_stopped() {
            return Err(Stopped);
        }
        let mut outcome = StepOutcome::default();
        self.take_returned();
        if self.take_state(params) {
            outcome.version = Some(self.version);
        }
        (outcome.halted, outcome.paused) = (self.mailbox.is_halted(), self.mailbox.is_paused());
        if outcome.halted {
            return Ok(outcome);
        }
        let Some(aim) = self.mailbox.try_lock().and_then(|letter| letter.aim) else { return Ok(outcome) };
        if !aim.clock.usable || aim.holds {
            return Ok(outcome);
        }
        if self.cutter.rebase(aim.resyncs) {
            // After RESYNC: whatever is not announced goes into one slot, on the version that was taken over.
            self.base = self.version;
        }
        let target = aim.target(now, self.cutter.step_ns(), self.target);
        self.target = Some((target, aim.schedule));
        if self.n_steps > 0 && (flush || self.cutter.is_due(now, aim.cut(target), self.n_steps)) {
            let due = aim.cut(target);
            outcome.phase_error_ns = now.since(due) as i64 - due.since(now) as i64;
            self.base = aim.base(self.base, self.version, self.tau);
            outcome.cut = self.cut(params, target);
            let passed = Frame(target.0.saturating_add(self.cutter.pass(aim.passes)));
            self.target = Some((aim.next_target(now, passed), aim.schedule));
            self.mailbox.leave_pulse(self.cutter.pulse());
        }
        outcome.discarded_steps = std::mem::take(&mut self.discarded_steps);
        outcome.discards_in_row = self.discards_in_row;
        Ok(outcome)
    }

    /// The caller's step came to nothing that is finite: the parameters are back at the last good point, and the steps since
    /// are thrown away and counted (section 2 of the consensus text). The outcome says how often in a row.
    ///
    /// # Errors
    /// [`Stopped`] when the node has ended.
    pub fn discard(&mut self, params: &mut [f32]) -> Result<StepOutcome, Stopped> {
        if self.mailbox.is_stopped() {
            return Err(Stopped);
        }
        self.n_steps += 1;
        self.throw_away(params);
        self.step_began = self.clock.now();
        let discarded_steps = std::mem::take(&mut self.discarded_steps);
        Ok(StepOutcome { discarded_steps, discards_in_row: self.discards_in_row, ..StepOutcome::default() })
    }

    fn throw_away(&mut self, params: &mut [f32]) {
        self.discarded_steps += self.n_steps;
        self.discards_in_row += 1;
        self.mailbox.throw_away(self.n_steps, 0);
        params.copy_from_slice(&self.anchor);
        self.n_steps = 0;
    }

    /// Steps that the next contribution may stand for: any number that others take, and after a return so many only as a
    /// contribution could have gathered in the time that one may be late (section 8).
    fn steps_max(&mut self) -> u32 {
        let returns = self.mailbox.returns();
        if returns == self.returns {
            return STEPS_MAX;
        }
        // As long as slots of before are out, what they bring back counts as gathered then.
        if self.slots_out() == 0 {
            self.returns = returns;
        }
        let steps = (self.tau + 1).saturating_mul(self.cutter.steps_per_slot().into());
        u32::try_from(steps).unwrap_or(STEPS_MAX).min(STEPS_MAX)
    }

    fn cut(&mut self, params: &mut [f32], target: Frame) -> bool {
        let steps_max = self.steps_max();
        for ((residue, x), anchor) in self.residue.iter_mut().zip(params.iter()).zip(&self.anchor) {
            *residue = x - anchor;
        }
        if self.n_steps > steps_max {
            let share = steps_max as f32 / self.n_steps as f32;
            for ((residue, x), anchor) in self.residue.iter_mut().zip(params.iter_mut()).zip(&self.anchor) {
                *residue *= share;
                *x = anchor + *residue;
            }
            self.mailbox.throw_away(0, self.n_steps - steps_max);
            self.n_steps = steps_max;
        }
        let meta = CutMeta { base_version: self.base, target_frame: target, n_steps: self.n_steps };
        let (device, scale, residue) = (self.device, self.scale, &mut self.residue);
        match self.producer.cut(meta, |slot| device.quantise_residue(residue, scale, slot).is_ok()) {
            CutOutcome::Open => return false,
            CutOutcome::Discarded => {
                self.throw_away(params);
                return false;
            }
            CutOutcome::Cut(_) => {}
            CutOutcome::Merged { excess, .. } => {
                if let Some(excess) = excess {
                    let unit = libm::exp2f(-f32::from(self.scale.exponent()));
                    for (residue, excess) in self.residue.iter_mut().zip(excess) {
                        *residue += *excess as f32 * unit;
                    }
                }
            }
        }
        for ((anchor, x), residue) in self.anchor.iter_mut().zip(params.iter()).zip(&self.residue) {
            *anchor = x - residue;
        }
        self.discards_in_row = 0;
        self.n_steps = 0;
        self.base = self.version;
        self.cutter.handle_cut();
        self.waker.wake();
        true
    }

    /// Own slots that ended: committed ones wait for the state that holds them, folded ones are uncommitted again.
    fn take_returned(&mut self) {
        while let Some((info, fate)) = self.producer.poll_returned() {
            let part = match fate {
                Fate::Committed => match self.mailbox.try_part(info.seq) {
                    Some(part) => part,
                    None => return, // the node's thread has the lock: next time
                },
                Fate::Folded => Part::WHOLE,
            };
            let (device, scale, scratch) = (self.device, self.scale, &mut self.scratch);
            let (sent, anchor, taken) = (&mut self.sent, &mut self.anchor, &mut self.part);
            let read = |info: &SlotInfo, fate: Fate, slot: &[i32]| {
                let why = "a slot has as many elements as the state";
                let mut counted = match sent.as_mut().filter(|_| fate == Fate::Committed) {
                    Some(sent) => sent.read(device, info.index),
                    None => slot,
                };
                if !part.is_whole() {
                    taken.clear();
                    taken.extend(counted.iter().map(|q| part.of(*q)));
                    counted = taken;
                }
                device.dequantise(counted, scale, scratch).expect(why);
                if !std::ptr::eq(counted, slot) {
                    // What was counted leaves the uncommitted mass; what codec or version left out stays, not cut yet.
                    let unit = libm::exp2f(-f32::from(scale.exponent()));
                    for ((anchor, &cut), &counted) in anchor.iter_mut().zip(slot).zip(counted) {
                        *anchor -= (i64::from(cut) - i64::from(counted)) as f32 * unit;
                    }
                }
            };
            if self.producer.reclaim(info.index, read).is_err() {
                return; // a reader still holds it: next time
            }
            match fate {
                Fate::Committed => {
                    self.device.axpy(1.0, &self.scratch, &mut self.settled);
                    self.n_steps = self.n_steps.saturating_add(part.steps_back(info.n_steps));
                    self.commits += 1;
                }
                Fate::Folded => {
                    self.device.axpy(-1.0, &self.scratch, &mut self.anchor);
                    self.n_steps = self.n_steps.saturating_add(info.n_steps);
                    self.base = self.version;
                }
            }
        }
    }

    /// x += float(G(new)) - float(G(old)) - own slots committed between.
    fn take_state(&mut self, params: &mut [f32]) -> bool {
        {
            let Some(mut letter) = self.mailbox.try_lock() else { return false };
            // A state that holds an own slot is taken together with that slot, never before it.
            if letter.serial == self.serial || letter.commits != self.commits {
                return false;
            }
            std::mem::swap(&mut letter.state, &mut self.fresh);
            self.serial = letter.serial;
            self.version = letter.version;
        }
        for (((x, anchor), (new, old)), own) in
            params.iter_mut().zip(&mut self.anchor).zip(self.fresh.iter().zip(&self.taken)).zip(&self.settled)
        {
            let shift = new - old - own;
            *x += shift;
            *anchor += shift;
        }
        std::mem::swap(&mut self.taken, &mut self.fresh);
        self.settled.fill(0.0);
        if self.n_steps == 0 {
            self.base = self.version;
        }
        true
    }
}

/// Most steps of one contribution; members refuse more.
const STEPS_MAX: u32 = 1 << 20;

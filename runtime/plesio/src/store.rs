//! The bytes of a node: master state, slots, windows, sums and snapshots in one arena, and the kernels that run
//! over them.
//!
//! Executes what [`crate::engine::Work`] asks. Invariant: the master state changes only by [`Store::apply`] and
//! [`Store::install`], whole or not at all.

pub mod near;

use plesio_collective::{Regions, Sum};
use plesio_consensus::{SNAPSHOT_CUT_BYTES_MAX, SnapshotCut};
use plesio_kernels::{Codec, Coding, Device, KernelError, Outer, Scale};
use plesio_memory::{AccessError, Arena, ArenaPlan, Filling, Lease, RingPlan, Shared};
use plesio_wire::digest::Hasher;
use plesio_wire::{Digest, NodeKey, SlotSeq, Span};
use std::fmt;

/// Why a command on the store failed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StoreError {
    /// The arena refuses an access: a region is in use, or a span is wrong.
    Access(AccessError),
    /// A kernel refuses its operands. An overflow of the master state is told of after the state was changed whole.
    Kernel(KernelError),
    /// What was read in a peer's memory is not what it told of, or not any more.
    Torn,
    /// There is no room for the results of one more version after a state that is on its way: fetch a newer one.
    Full,
    /// The received bytes are no snapshot, or its state has another digest than it says.
    Snapshot,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(error) => write!(f, "tensor memory: {error}"),
            Self::Kernel(error) => write!(f, "aggregation: {error}"),
            Self::Torn => f.write_str("a peer's memory: written since it was told of; ask for the payload"),
            Self::Full => f.write_str("gathered results: no room for one more version; fetch a newer state"),
            Self::Snapshot => f.write_str("snapshot: damaged bytes; fetch it from another member"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<AccessError> for StoreError {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}

impl From<KernelError> for StoreError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

/// Where everything lies in a node's arena.
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// For `Arena::map` or `Arena::heap`.
    pub arena: ArenaPlan,
    /// For the exchange.
    pub regions: Regions,
    /// For the elastic ring.
    pub ring: RingPlan,
    master: u16,
    gathered: Vec<u16>,
    /// Beside the master state, where the outer step has one.
    momentum: Option<u16>,
    outer: Outer,
}

impl StorePlan {
    /// The plan for a state of `elements` elements and a ring of `depth` slots, which travel by `codec`, where a member
    /// may own `factor` equal parts.
    #[must_use]
    pub fn new(elements: u64, depth: u8, codec: Codec, factor: u8) -> Self {
        Self::with(elements, depth, codec, factor, Outer::Sum)
    }

    /// The same where versions go through an outer step. A momentum takes 8 bytes an element beside the state and in each
    /// snapshot region, and results that are gathered are kept one by one: what comes first matters then.
    #[must_use]
    pub fn with(elements: u64, depth: u8, codec: Codec, factor: u8, outer: Outer) -> Self {
        let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut arena = ArenaPlan::new("plesio", usize::MAX);
        let ring = arena.push_ring(usize::from(depth), bytes(elements));
        let slots = ring.first_region + 1;
        let codes = match codec {
            Codec::Full => slots,
            _ => {
                let first = arena.push(bytes(Regions::code_bytes(elements, codec)));
                for _ in 1..depth {
                    arena.push(bytes(Regions::code_bytes(elements, codec)));
                }
                first
            }
        };
        let window_bytes = bytes(Regions::window_bytes(elements, codec, factor));
        let windows = arena.push(window_bytes);
        for _ in 1..2 * u16::from(depth) {
            arena.push(window_bytes);
        }
        let sums = arena.push(bytes(Regions::sum_bytes(elements)));
        arena.push(bytes(Regions::sum_bytes(elements)));
        let results = arena.push(bytes(Regions::sum_bytes(elements)));
        let master = arena.push(bytes(Regions::sum_bytes(elements)));
        let snapshot_out = arena.push(bytes(snapshot_bytes(elements, outer)));
        let snapshot_in = arena.push(bytes(snapshot_bytes(elements, outer)));
        let (gathered, momentum) = match outer {
            Outer::Sum => (1, None),
            Outer::Nesterov(_) => (GATHERED_MAX, Some(arena.push(bytes(Regions::sum_bytes(elements))))),
        };
        let gathered = (0..gathered).map(|_| arena.push(bytes(Regions::sum_bytes(elements)))).collect();
        let cells = arena.push(bytes(Regions::cells_bytes()));
        arena.push(bytes(Regions::cells_bytes()));
        // Room for the last of its pages, should they be huge.
        arena.budget_bytes = arena.needed_bytes().checked_next_multiple_of(2 << 20).unwrap_or(usize::MAX);
        let regions = Regions {
            elements,
            codec,
            factor,
            depth,
            slots,
            codes,
            windows,
            sums,
            results,
            snapshot_out,
            snapshot_in,
            cells,
        };
        Self { arena, regions, ring, master, gathered, momentum, outer }
    }
}

/// Versions whose results are kept one by one while a state is on its way, where the outer step has a momentum.
const GATHERED_MAX: usize = 4;

/// Bytes of a snapshot: the cut, padded, then the master state, and the momentum where there is one.
#[must_use]
pub fn snapshot_bytes(elements: u64, outer: Outer) -> u64 {
    let words = if outer == Outer::Sum { 1 } else { 2 };
    SNAPSHOT_HEAD_BYTES as u64 + words * Regions::sum_bytes(elements)
}

/// A node's tensor memory with the device that computes on it.
#[derive(Debug)]
pub struct Store<D: Device> {
    arena: Arena,
    device: D,
    regions: Regions,
    scale: Scale,
    /// Seeds the rounding of this node's slots.
    key: NodeKey,
    /// The master state, i64 fixed point; leased for good: nobody else ever touches it.
    master: Lease<Filling>,
    /// The outer step's momentum, part of the state where there is one.
    momentum: Option<Lease<Filling>>,
    outer: Outer,
    /// Results of versions after a state that is on its way, leased for good as well: their sum, or with a momentum each of
    /// them, so many.
    gathered: Vec<Lease<Filling>>,
    gathered_versions: usize,
}

impl<D: Device> Store<D> {
    /// The all-zero state of version 0.
    ///
    /// # Errors
    /// The arena is not the plan's.
    pub fn new(
        arena: Arena,
        plan: &StorePlan,
        device: D,
        scale: Scale,
        key: NodeKey,
    ) -> Result<Self, StoreError> {
        let master = arena.lease(plan.master)?;
        let gathered = plan.gathered.iter().map(|region| arena.lease(*region)).collect::<Result<_, _>>()?;
        let momentum = plan.momentum.map(|region| arena.lease(region)).transpose()?;
        Ok(Self {
            arena,
            device,
            regions: plan.regions,
            scale,
            key,
            master,
            momentum,
            outer: plan.outer,
            gathered,
            gathered_versions: 0,
        })
    }

    /// Encodes an announced slot to where it is sent from; the digest of the bytes that travel. What they do not
    /// carry stays the worker's, who finds it when the slot comes back.
    ///
    /// # Errors
    /// The span is wrong, or something reads the place still.
    pub fn encode(&self, index: u8, slot: Span, seq: SlotSeq) -> Result<Digest, StoreError> {
        if self.regions.codec != Codec::Full {
            // Another seed for each slot of each node: rounding errors that repeated would add up.
            let seed = self.key.0.rotate_left(32) ^ u64::from(seq.0);
            let slot = self.arena.share(slot)?;
            let mut codes = self.arena.lease(self.regions.slot(index).region)?;
            self.device.encode_slot(
                Coding::new(self.regions.codec, seed),
                slot.as_i32(),
                codes.as_bytes_mut(),
            )?;
        }
        Ok(Digest::of(self.arena.share(self.regions.slot(index))?.as_bytes()))
    }

    /// Digest of the master state, the momentum included.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.update(self.master.as_bytes());
        if let Some(momentum) = &self.momentum {
            hasher.update(momentum.as_bytes());
        }
        hasher.finish()
    }

    /// Saturating sum of squares of a contribution of `elements` elements.
    ///
    /// # Errors
    /// The span is wrong or being written.
    pub fn square(&self, span: Span, elements: u32) -> Result<u64, StoreError> {
        let (shared, codec) = (self.arena.share(span)?, self.regions.codec);
        let (mut rest, mut codes) = (elements as usize, shared.as_bytes());
        let (mut sum, mut part) = (0u128, [0; SQUARE_ELEMENTS]);
        while rest > 0 {
            let len = rest.min(SQUARE_ELEMENTS);
            let bytes = codes.split_at_checked(codec.encoded_bytes(len)).ok_or(AccessError::Range)?;
            self.device.decode_slot(codec, bytes.0, &mut part[..len])?;
            sum += part[..len].iter().map(|q| u128::from(q.unsigned_abs()).pow(2)).sum::<u128>();
            (rest, codes) = (rest - len, bytes.1);
        }
        Ok(u64::try_from(sum).unwrap_or(u64::MAX))
    }

    /// The weighted sum of contributions, into its place.
    ///
    /// # Errors
    /// A span is wrong or in use, or the weights exceed what 64 bits can sum.
    pub fn sum(&self, sum: &Sum) -> Result<(), StoreError> {
        let guards =
            sum.inputs.iter().map(|span| self.arena.share(*span)).collect::<Result<Vec<Shared>, _>>()?;
        let mut out = self.arena.lease(sum.out.region)?;
        let elements = sum.out.len_bytes as usize / 8;
        let target = out.as_i64_mut().get_mut(..elements).ok_or(AccessError::Range)?;
        match self.regions.codec {
            Codec::Full => {
                let inputs: Vec<&[i32]> = guards.iter().map(Shared::as_i32).collect();
                self.device.slot_sum(&sum.weights, &inputs, target)?;
            }
            codec => {
                let inputs: Vec<&[u8]> = guards.iter().map(Shared::as_bytes).collect();
                self.device.coded_sum(codec, &sum.weights, &inputs, target)?;
            }
        }
        Ok(())
    }

    /// Takes the summed ranges, in order of their owners, through the outer step into the master state; its digest
    /// afterwards.
    ///
    /// # Errors
    /// [`KernelError::Overflow`]: the state is that version's, with the elements concerned at their limit, as at every
    /// other member; the node must stop.
    pub fn apply(&mut self, results: &[Span]) -> Result<Digest, StoreError> {
        let guards = share(&self.arena, results)?;
        let parts: Vec<&[i64]> = guards.iter().map(Shared::as_i64).collect();
        step(self.device, self.outer, &mut self.master, self.momentum.as_mut(), &parts)?;
        Ok(self.digest())
    }

    /// Keeps summed ranges until the state that they go on top of is here; `first`: these alone.
    ///
    /// # Errors
    /// As for [`Store::apply`]; [`StoreError::Full`] when so many versions cannot be kept.
    pub fn gather(&mut self, results: &[Span], first: bool) -> Result<(), StoreError> {
        if first {
            self.gathered_versions = 0;
        }
        let at = if self.outer == Outer::Sum { 0 } else { self.gathered_versions };
        let into = self.gathered.get_mut(at).ok_or(StoreError::Full)?;
        if self.gathered_versions == at {
            into.as_i64_mut().fill(0);
        }
        self.gathered_versions += 1;
        let guards = share(&self.arena, results)?;
        let parts: Vec<&[i64]> = guards.iter().map(Shared::as_i64).collect();
        step(self.device, Outer::Sum, into, None, &parts)
    }

    /// Takes what was gathered into the master state; its digest afterwards.
    ///
    /// # Errors
    /// As for [`Store::apply`].
    pub fn merge(&mut self) -> Result<Digest, StoreError> {
        let kept = if self.outer == Outer::Sum { 1 } else { self.gathered_versions };
        let mut overflow = Ok(());
        for gathered in self.gathered.iter().take(kept) {
            let parts = [gathered.as_i64()];
            overflow =
                overflow.and(step(self.device, self.outer, &mut self.master, self.momentum.as_mut(), &parts));
        }
        self.gathered_versions = 0;
        overflow.map(|()| self.digest())
    }

    /// Writes a snapshot: the cut's bytes and the master state; its length.
    ///
    /// # Errors
    /// The staging region is still being sent, or the cut is larger than any legal one.
    pub fn capture(&self, cut: &[u8]) -> Result<u32, StoreError> {
        if cut.len() > SNAPSHOT_CUT_BYTES_MAX {
            return Err(StoreError::Snapshot);
        }
        let mut out = self.arena.lease(self.regions.snapshot_out)?;
        let (head, state) = out.as_bytes_mut().split_at_mut(SNAPSHOT_HEAD_BYTES);
        head.fill(0);
        head[..4].copy_from_slice(&(cut.len() as u32).to_le_bytes());
        head[4..CUT_HEAD_BYTES].copy_from_slice(&Digest::of(cut).0);
        head[CUT_HEAD_BYTES..][..cut.len()].copy_from_slice(cut);
        let (master, rest) = state.split_at_mut(self.master.as_bytes().len());
        master.copy_from_slice(self.master.as_bytes());
        if let Some(momentum) = &self.momentum {
            rest.copy_from_slice(momentum.as_bytes());
        }
        Ok(snapshot_bytes(self.regions.elements, self.outer) as u32)
    }

    /// Reads the cut of a received snapshot and checks that its state has the digest it names.
    ///
    /// # Errors
    /// [`StoreError::Snapshot`] when anything does not fit.
    pub fn inspect(&self, span: Span) -> Result<SnapshotCut, StoreError> {
        let shared = self.arena.share(span)?;
        let bytes = shared.as_bytes();
        if bytes.len() as u64 != snapshot_bytes(self.regions.elements, self.outer) {
            return Err(StoreError::Snapshot);
        }
        let (head, state) = bytes.split_at(SNAPSHOT_HEAD_BYTES);
        let cut = read_cut(head)?;
        if Digest::of(state) == cut.digest { Ok(cut) } else { Err(StoreError::Snapshot) }
    }

    /// Reads the cut alone, before its state is here.
    ///
    /// # Errors
    /// [`StoreError::Snapshot`] when it is none.
    pub fn inspect_cut(&self, span: Span) -> Result<SnapshotCut, StoreError> {
        read_cut(self.arena.share(span)?.as_bytes())
    }

    /// The inspected snapshot's state becomes the master state.
    ///
    /// # Errors
    /// The staging region is being written.
    pub fn install(&mut self) -> Result<(), StoreError> {
        let region = self.regions.snapshot_in;
        let len_bytes = snapshot_bytes(self.regions.elements, self.outer) as u32;
        let shared = self.arena.share(Span { region, offset_bytes: 0, len_bytes })?;
        let state = &shared.as_bytes()[SNAPSHOT_HEAD_BYTES..];
        let (master, rest) = state.split_at(self.master.as_bytes().len());
        self.master.as_bytes_mut().copy_from_slice(master);
        if let Some(momentum) = &mut self.momentum {
            momentum.as_bytes_mut().copy_from_slice(rest);
        }
        Ok(())
    }

    /// The master state as floats, G x 2^-(sx+24).
    ///
    /// # Errors
    /// `out` is not as long as the state.
    pub fn state(&self, out: &mut [f32]) -> Result<(), StoreError> {
        Ok(self.device.to_float(self.master.as_i64(), self.scale, out)?)
    }

    /// Writes the state as it lies in memory, the momentum behind it.
    pub fn copy_state(&self, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(self.master.as_bytes());
        if let Some(momentum) = &self.momentum {
            into.extend_from_slice(momentum.as_bytes());
        }
    }

    /// Bytes of the state, the momentum included.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        snapshot_bytes(self.regions.elements, self.outer) - SNAPSHOT_HEAD_BYTES as u64
    }

    /// Fills the state, and the momentum behind it, by `read`; its digest afterwards.
    ///
    /// # Errors
    /// What `read` says; the state is of no use then.
    pub fn restore<E>(&mut self, mut read: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Digest, E> {
        read(self.master.as_bytes_mut())?;
        if let Some(momentum) = &mut self.momentum {
            read(momentum.as_bytes_mut())?;
        }
        Ok(self.digest())
    }

    /// The master state itself.
    #[must_use]
    pub fn master(&self) -> &[i64] {
        self.master.as_i64()
    }

    /// The momentum beside it; empty where there is none.
    #[must_use]
    pub fn momentum(&self) -> &[i64] {
        self.momentum.as_ref().map_or(&[], |momentum| momentum.as_i64())
    }

    /// The arena, for sockets.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> D {
        self.device
    }
}

fn share(arena: &Arena, results: &[Span]) -> Result<Vec<Shared>, StoreError> {
    Ok(results.iter().map(|span| arena.share(*span)).collect::<Result<_, _>>()?)
}

/// Takes parts of one version's sum, which follow one another over all elements, through the outer step.
fn step<D: Device>(
    device: D,
    outer: Outer,
    master: &mut Lease<Filling>,
    momentum: Option<&mut Lease<Filling>>,
    parts: &[&[i64]],
) -> Result<(), StoreError> {
    let mut rest = master.as_i64_mut();
    let mut velocity = momentum.map_or(&mut [][..], |momentum| momentum.as_i64_mut());
    if parts.iter().map(|part| part.len()).sum::<usize>() != rest.len() {
        return Err(AccessError::Range.into());
    }
    let (mut at, mut overflow) = (0, None);
    for sum in parts {
        let (state, behind) = rest.split_at_mut(sum.len());
        let applied = match outer {
            Outer::Sum => device.apply(state, sum),
            Outer::Nesterov(factors) => {
                let (part, behind) = velocity.split_at_mut(sum.len());
                velocity = behind;
                device.apply_nesterov(factors, state, part, sum)
            }
        };
        match applied {
            // The rest all the same: a version is applied whole, so that all members hold the same.
            Err(KernelError::Overflow { element }) => overflow = overflow.or(Some(at + element)),
            applied => applied?,
        }
        (at, rest) = (at + sum.len(), behind);
    }
    overflow.map_or(Ok(()), |element| Err(KernelError::Overflow { element }.into()))
}

/// Elements of a contribution that are decoded together; whole blocks of every codec.
const SQUARE_ELEMENTS: usize = 4 * Codec::GRAIN_ELEMENTS;

fn read_cut(head: &[u8]) -> Result<SnapshotCut, StoreError> {
    let (len, rest) = head.split_first_chunk::<4>().ok_or(StoreError::Snapshot)?;
    let (digest, cut) = rest.split_first_chunk::<16>().ok_or(StoreError::Snapshot)?;
    let cut = cut.get(..u32::from_le_bytes(*len) as usize).ok_or(StoreError::Snapshot)?;
    // Fields of one cut and the ledger of another make a log that nobody has.
    if Digest::of(cut).0 != *digest {
        return Err(StoreError::Snapshot);
    }
    SnapshotCut::decode(cut).map_err(|_| StoreError::Snapshot)
}

/// A cut's length and digest, which stand before it.
pub(crate) const CUT_HEAD_BYTES: usize = 4 + 16;
/// Room for the cut before the state; keeps the state aligned.
pub(crate) const SNAPSHOT_HEAD_BYTES: usize =
    (SNAPSHOT_CUT_BYTES_MAX + CUT_HEAD_BYTES).next_multiple_of(4096);

#[cfg(target_endian = "big")]
compile_error!("slots and states travel as they lie in memory, little endian");

#[cfg(test)]
mod tests;

//! How a mesh begins: what its nodes must have in common, the view that an operator's roster makes, and names for
//! nodes.

use super::Rules;
use plesio_consensus::Config as ConsensusConfig;
use plesio_kernels::Codec;
use plesio_wire::digest::Hasher;
use plesio_wire::sideband::RosterEntry;
use plesio_wire::value::View;
use plesio_wire::{Digest, Incarnation, LogIndex, NodeId, NodeKey};

/// What all nodes of a mesh must be started with, beside the frame period that the view says. Its digest is in the
/// first view and in every JOIN, so nodes that differ find out before they work on one state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Common {
    /// Digest of model and adapter configuration.
    pub model: Digest,
    /// Elements of the trained state.
    pub elements: u64,
    /// How slots are encoded on the wire.
    pub codec: Codec,
    /// Equal parts that a member may own at most; 1: all own equal parts.
    pub share_factor: u8,
    /// Fixed-point exponent of slots.
    pub scale_exponent: i8,
    /// Slots of the elastic ring.
    pub ring_depth: u8,
    /// Payload bytes per datagram.
    pub chunk_bytes: u32,
    /// What versions are decided by.
    pub rules: Rules,
    /// Digest of the operators and of how many of them it takes; zero without.
    pub operators: Digest,
}

impl Common {
    fn consensus(&self) -> ConsensusConfig {
        let base = ConsensusConfig::new(NodeKey(0), Incarnation(0));
        self.rules.apply(ConsensusConfig { ring_depth: self.ring_depth, ..base })
    }

    /// What nodes compare, the agreement's own parameters included.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.update(b"plesio parameters 3");
        hasher.update(&self.model.0);
        hasher.update(&self.elements.to_le_bytes());
        hasher.update(&self.scale_exponent.to_le_bytes());
        hasher.update(&[self.codec.id(), self.share_factor]);
        hasher.update(&u64::from(self.chunk_bytes).to_le_bytes());
        hasher.update(&self.operators.0);
        for value in self.consensus().common() {
            hasher.update(&value.to_le_bytes());
        }
        self.rules.hash(&mut hasher);
        hasher.finish()
    }

    /// What fits a refusal: enough to name what differs. A number that has no room leaves its low bits.
    pub(super) fn pack(&self) -> u64 {
        let mut at = 0;
        let mut packed = 0;
        for (_, value, bits) in self.named() {
            packed |= (value & ((1 << bits) - 1)) << at;
            at += bits;
        }
        packed
    }

    /// The name of the first field in which the mesh differs, by its packed parameters.
    pub(super) fn compare(&self, mesh: u64) -> &'static str {
        let differs = self.pack() ^ mesh;
        let mut at = 0;
        for (name, _, bits) in self.named() {
            if (differs >> at) & ((1 << bits) - 1) != 0 {
                return name;
            }
            at += bits;
        }
        "the model, its number of elements, the operators and their threshold, or another default of the agreement"
    }

    /// Name, value and bits of what a refusal can name: 64 bits together at most.
    fn named(&self) -> [(&'static str, u64, u32); 9] {
        let lambda = self.rules.lambda.q24();
        let outer = self.rules.outer_word();
        [
            ("chunk_bytes", u64::from(self.chunk_bytes), 17),
            ("ring_depth", u64::from(self.ring_depth), 5),
            ("the scale exponent", u64::from(self.scale_exponent as u8), 8),
            ("tau", self.consensus().tau, 7),
            ("the codec", u64::from(self.codec.id()), 4),
            ("how much a member may own", u64::from(self.share_factor), 4),
            ("how contributions weigh", u64::from(self.rules.weights.id()), 2),
            ("what staleness leaves of a weight", u64::from(lambda ^ lambda >> 8 ^ lambda >> 16), 8),
            ("the outer step", outer ^ outer >> 8 ^ outer >> 32 ^ outer >> 40, 8),
        ]
    }
}

/// The frame period that a mesh begins with, and how far it may follow links and steps: by factors of two, so what is not
/// reached by them is not reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Period {
    /// In the first view, nanoseconds.
    pub first_ns: u64,
    /// Never shorter, nanoseconds.
    pub min_ns: u64,
    /// Never longer, nanoseconds.
    pub max_ns: u64,
}

impl Period {
    /// Not shorter than at first, and as long as any may be.
    #[must_use]
    pub const fn of(first_ns: u64) -> Self {
        Self { first_ns, min_ns: first_ns, max_ns: Self::LONGEST_NS }
    }

    /// The shortest that there is.
    pub const SHORTEST_NS: u64 = 50_000_000;
    /// The longest that there is.
    pub const LONGEST_NS: u64 = 60_000_000_000;

    /// Whether it is one that a mesh can have.
    ///
    /// # Errors
    /// Name, value and range of the first that is not.
    pub fn check(&self) -> Result<(), String> {
        let (short, long) = (Self::SHORTEST_NS, Self::LONGEST_NS);
        let ranges = [
            ("period", self.first_ns, short, long),
            ("period_min", self.min_ns, short, self.first_ns),
            ("period_max", self.max_ns, self.first_ns, long),
        ];
        match ranges.into_iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((name, value, low, high)) => {
                let [value, low, high] = [value, low, high].map(|ns| ns as f64 / 1e6);
                Err(format!("{name} is {value} ms; it must be {low} to {high} ms"))
            }
            None => Ok(()),
        }
    }

    /// The period in microseconds, how often it may be halved, and how often doubled.
    fn steps(&self) -> Option<(u32, u8, u8)> {
        let period_us = u32::try_from(self.first_ns / 1_000).ok()?;
        let first_ns = u64::from(period_us) * 1_000;
        let halves = |times: u32| first_ns >> times >= self.min_ns && period_us.trailing_zeros() >= times;
        let doubles = |times: u32| first_ns << times <= self.max_ns.min(Self::LONGEST_NS);
        // No range spans more than eleven octaves.
        let halvings = (1..=11).take_while(|times| halves(*times)).count() as u8;
        let doublings = (1..=11).take_while(|times| doubles(*times)).count() as u8;
        Some((period_us, halvings, doublings))
    }
}

/// The view that an operator's roster makes: log index 0.
///
/// # Errors
/// The reason, when ids repeat or there are none or too many.
pub fn genesis(
    entries: &[(RosterEntry, Incarnation)],
    period: &Period,
    common: &Common,
) -> Result<(Vec<RosterEntry>, View), &'static str> {
    let mut sorted = entries.to_vec();
    sorted.sort_by_key(|(entry, _)| entry.id.key());
    if sorted.is_empty() || sorted.len() > plesio_wire::MEMBERS_MAX {
        return Err("a roster names 1 to 32 nodes");
    }
    if sorted.windows(2).any(|pair| pair[0].0.id.key() == pair[1].0.id.key()) {
        return Err("two nodes of the roster have the same first eight bytes of id; draw one anew");
    }
    let roster: Vec<RosterEntry> = sorted.iter().map(|(entry, _)| *entry).collect();
    let (period_us, halvings, doublings) =
        period.steps().ok_or("the frame period is longer than 71 minutes")?;
    let mut view = View {
        period_us,
        halvings,
        doublings,
        scale_exponent: common.scale_exponent,
        weight_mode: common.rules.weights.id(),
        elements: common.elements,
        share_factor: common.share_factor,
        // No view comes before the first: there it says what all nodes share, and every later one is chained to it.
        previous: common.digest(),
        roster: plesio_consensus::roster_digest(&roster),
        ..View::default()
    };
    for (entry, incarnation) in &sorted {
        let seat = plesio_wire::value::Seat {
            key: entry.id.key(),
            incarnation: *incarnation,
            admitted: LogIndex(0),
        };
        view.members.push(seat).map_err(|_| "a roster names 1 to 32 nodes")?;
    }
    Ok((roster, view))
}

/// A node id from its seed material, for tests and the demo.
#[must_use]
pub fn node_id(material: &[u8]) -> NodeId {
    let (mut low, mut high) = (Hasher::default(), Hasher::default());
    low.update(material);
    high.update(material);
    high.update(b"high");
    let mut id = [0; 32];
    id[..16].copy_from_slice(&low.finish().0);
    id[16..].copy_from_slice(&high.finish().0);
    NodeId(id)
}

#[cfg(test)]
mod tests;

//! Who takes part in a demo and what befalls them, drawn from the seed before anything starts.
//!
//! Pure. The rules it keeps: the lowest id is neither killed nor given the odd clock, so that what remains
//! is a quorum whatever the number of nodes; the member that joins trains data that nobody else trains.

use super::keys::Keys;
use super::protocol::{Clock, Setup, Work};
use crate::args::{BackendArg, CodecArg, DataPathArg, DeviceArg, RulesArgs, SharesArg};
use crate::hex::hex;
use plesio_wire::{NodeId, NodeKey};

/// Texts that come with the program.
pub(crate) const SHARDS: usize = 8;

/// Frame period of the demo's mesh.
pub(crate) const PERIOD_NS: u64 = 250_000_000;

/// When the kill and the join happen, as parts of the training time.
const KILL_AT: f64 = 0.4;
const JOIN_AT: f64 = 0.6;

/// The odd clock: this fast, and this far off from the start.
const ODD_CLOCK: Clock = Clock { offset_ns: 5_000_000_000, rate_ppm: 200.0 };

/// How fast the founders are in comparison; later nodes take the pattern up again.
const SPEEDS: [f64; 8] = [1.0, 0.7, 0.5, 0.35, 0.85, 0.6, 0.42, 0.3];
const JOINER_SPEED: f64 = 0.8;

/// Part of the machine that training may take. The rest belongs to the nodes' own threads: a mesh whose
/// machines had no time left for their sockets would show the scheduler of this one and nothing else.
const TRAINING_SHARE: f64 = 0.8;

/// A whole demo, decided.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Founders first, the joiner last.
    pub(crate) members: Vec<Member>,
    /// Index of the founder that is killed.
    pub(crate) victim: usize,
    pub(crate) seconds: f64,
    pub(crate) kill_s: f64,
    pub(crate) join_s: f64,
    pub(crate) mesh: u64,
    /// Whether the links are sealed; the ids are then those of keys made for the run.
    pub(crate) sealed: bool,
    /// Seed of the adapter's start, the same for every member.
    pub(crate) adapter_seed: u64,
}

/// One member of the demo.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) id: NodeId,
    pub(crate) speed: f64,
    /// Share of one core its training takes.
    pub(crate) duty: f64,
    pub(crate) clock: Clock,
    pub(crate) work: Work,
}

impl Plan {
    /// Draws a demo of `nodes` founders and one joiner that trains for `seconds` on `cores` cores.
    pub(crate) fn draw(seed: u64, nodes: u8, seconds: u16, cores: usize) -> Self {
        assert!(crate::args::NODES.contains(&nodes), "the command line has checked this");
        let founders = usize::from(nodes);
        let mut draw = SplitMix64(seed);
        let wanted: f64 = (0..founders).map(founder_speed).sum();
        let scale = (TRAINING_SHARE * cores as f64 / wanted).min(1.0);
        let mut members: Vec<Member> = (0..=founders)
            .map(|index| {
                let speed = if index == founders { JOINER_SPEED } else { founder_speed(index) };
                Member {
                    name: format!("n{index}"),
                    id: draw.node_id(),
                    speed,
                    duty: speed * scale,
                    clock: Clock::default(),
                    work: work(index, founders + 1, draw.next()),
                }
            })
            .collect();
        let lowest = (0..founders).min_by_key(|&index| members[index].key()).unwrap_or_default();
        let others: Vec<usize> = (0..founders).filter(|&index| index != lowest).collect();
        let first = draw.below(others.len());
        let victim = others[first];
        // Of two founders one must be both; of more, the odd clock lives to the end.
        let odd = others[(first + 1) % others.len()];
        members[odd].clock = ODD_CLOCK;
        let seconds = f64::from(seconds);
        Self {
            members,
            victim,
            seconds,
            kill_s: seconds * KILL_AT,
            join_s: seconds * JOIN_AT,
            mesh: draw.next(),
            sealed: false,
            adapter_seed: draw.next(),
        }
    }

    /// How many members start the mesh.
    pub(crate) fn founders(&self) -> usize {
        self.members.len() - 1
    }

    /// What member `index` is told, with nothing chosen that a command line may choose.
    pub(crate) fn setup(&self, index: usize, keys: Option<&Keys>) -> Setup {
        let member = &self.members[index];
        Setup {
            launcher_pid: std::process::id(),
            name: member.name.clone(),
            id: hex(&member.id.0),
            mesh: self.mesh,
            keys: keys.map(|keys| keys.of(index)),
            backend: BackendArg::Auto,
            device: DeviceArg::default(),
            kernels_dir: None,
            path: DataPathArg::default(),
            codec: CodecArg::default(),
            shares: SharesArg::default(),
            rules: RulesArgs::default(),
            advertise: None,
            clock: member.clock,
            period_ns: PERIOD_NS,
            members_max: self.members.len() as u8,
            adapter_seed: self.adapter_seed,
            work: member.work,
            duty: member.duty,
            trace: false,
        }
    }

    /// Index of the member that joins.
    pub(crate) fn joiner(&self) -> usize {
        self.members.len() - 1
    }
}

impl Member {
    /// How the log names it.
    pub(crate) fn key(&self) -> NodeKey {
        self.id.key()
    }
}

/// A pseudo-random sequence: SplitMix64 (Steele, Lea, Flood, 2014). Plans need spread, not secrecy.
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; zero for none.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn node_id(&mut self) -> NodeId {
        let mut id = [0; 32];
        for part in id.chunks_exact_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes());
        }
        NodeId(id)
    }
}

fn founder_speed(index: usize) -> f64 {
    SPEEDS[index % SPEEDS.len()]
}

/// Deals the shards out in turn; members that share a text get disjoint parts of it.
fn work(index: usize, members: usize, sampler_seed: u64) -> Work {
    let shard = index % SHARDS;
    let parts = (members - shard).div_ceil(SHARDS);
    Work { shard: shard as u8, part: (index / SHARDS) as u8, parts: parts as u8, sampler_seed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_lowest_id_is_neither_killed_nor_odd() {
        for nodes in crate::args::NODES {
            for seed in 0..50 {
                let plan = Plan::draw(seed, nodes, 30, 2);
                let founders = &plan.members[..plan.founders()];
                assert_eq!(founders.len(), usize::from(nodes));
                let lowest = founders.iter().min_by_key(|member| member.key()).expect("founders");
                assert_ne!(plan.members[plan.victim].name, lowest.name);
                assert!(plan.victim < plan.founders());
                let odd: Vec<&Member> =
                    plan.members.iter().filter(|member| member.clock == ODD_CLOCK).collect();
                assert_eq!(odd.len(), 1);
                assert_ne!(odd[0].name, lowest.name);
                assert_eq!(odd[0].name == plan.members[plan.victim].name, nodes == 2);
            }
        }
    }

    #[test]
    fn every_member_trains_data_of_its_own() {
        for nodes in crate::args::NODES {
            let plan = Plan::draw(3, nodes, 30, 2);
            let parts: BTreeSet<(u8, u8)> =
                plan.members.iter().map(|member| (member.work.shard, member.work.part)).collect();
            assert_eq!(parts.len(), plan.members.len());
            for member in &plan.members {
                let work = member.work;
                assert!(work.part < work.parts && usize::from(work.shard) < SHARDS, "{work:?}");
                let sharing = plan.members.iter().filter(|other| other.work.shard == work.shard);
                assert_eq!(sharing.count(), usize::from(work.parts));
            }
        }
    }

    #[test]
    fn training_leaves_room_for_the_sockets() {
        for (nodes, cores) in [(2, 2), (4, 2), (16, 2), (16, 64)] {
            let plan = Plan::draw(1, nodes, 30, cores);
            let duty: f64 = plan.members[..plan.founders()].iter().map(|member| member.duty).sum();
            assert!(duty <= TRAINING_SHARE * cores as f64 + 1e-9, "{nodes} nodes on {cores}: {duty}");
            assert!(plan.members.iter().all(|member| member.duty > 0.0 && member.duty <= 1.0));
        }
    }

    #[test]
    fn a_seed_is_a_demo() {
        assert_eq!(Plan::draw(5, 4, 30, 2), Plan::draw(5, 4, 30, 2));
        let ids = |seed| Plan::draw(seed, 4, 30, 2).members.iter().map(|m| m.id).collect::<Vec<_>>();
        assert_ne!(ids(5), ids(6));
        // First outputs of the published generator from seed 1234567.
        let mut draw = SplitMix64(1_234_567);
        assert_eq!([draw.next(), draw.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }
}

//! Whole meshes of machines that come back, on a network that loses, doubles and delays, beside members that kept their
//! memory: however it goes, never two meshes that can both go on; and in the end one.

use super::*;
use core::net::Ipv4Addr;
use plesio_wire::sideband::Address;
use plesio_wire::{Bounded, NodeId, Reader};

fn address(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 7_000 + node as u16))
}

fn id(node: usize) -> NodeId {
    let mut id = NodeId([0; 32]);
    id.0[7] = node as u8 + 1;
    id.0[0] = node as u8 + 1;
    id
}

fn view_of(number: u32, index: u64, nodes: &[usize]) -> View {
    let mut seats: Vec<Seat> = nodes
        .iter()
        .map(|node| Seat {
            key: id(*node).key(),
            incarnation: Incarnation(*node as u64),
            admitted: LogIndex(index),
        })
        .collect();
    seats.sort_by_key(|seat| seat.key);
    let members = Bounded::from_slice(&seats);
    View { number, period_us: 250_000, elements: 9, share_factor: 1, members, ..View::default() }
}

/// A process: its disk outlives it.
struct Node {
    disk: Record,
    checkpoint: Option<(Version, Digest)>,
    life: u64,
    machine: Option<Restart>,
    /// Begins that generation when its state is loaded.
    loading: Option<(Instant, Founding)>,
    /// Went on with its memory, in that view.
    lives_in: Option<(LogIndex, View)>,
}

struct World {
    nodes: Vec<Node>,
    random: u64,
    now: Instant,
    flying: Vec<(u64, usize, SocketAddr, Revive)>,
    lossy: bool,
    founded: Vec<(LogIndex, View, usize)>,
    foundings: Vec<Founding>,
}

impl World {
    fn new(seed: u64, disks: Vec<(Record, Option<u64>)>) -> Self {
        let nodes = disks
            .into_iter()
            .map(|(disk, version)| Node {
                disk,
                checkpoint: version.map(|version| (Version(version), Digest([version as u8; 16]))),
                life: 0,
                machine: None,
                loading: None,
                lives_in: None,
            })
            .collect();
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let (flying, founded, foundings) = (Vec::new(), Vec::new(), Vec::new());
        Self { nodes, random, now: Instant(0), flying, lossy: true, founded, foundings }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn start(&mut self, node: usize) {
        let everybody = (0..self.nodes.len()).map(address).collect::<Vec<_>>();
        let now = self.now;
        let it = &mut self.nodes[node];
        it.life += 1;
        let entry = RosterEntry {
            id: id(node),
            sideband: Address(address(node)),
            data: Address(address(node)),
            weight: 1_000,
        };
        let me = Returner {
            entry,
            incarnation: Incarnation(1_000 * it.life + node as u64),
            model: Digest::default(),
        };
        (it.lives_in, it.loading) = (None, None);
        it.machine = Some(Restart::new(me, it.disk.clone(), it.checkpoint, everybody, now));
    }

    /// One step: what is due goes out, what has arrived is taken, disks are written.
    fn step(&mut self) {
        self.now = self.now.after(20_000_000);
        for node in 0..self.nodes.len() {
            let now = self.now;
            if let Some(machine) = &mut self.nodes[node].machine
                && now >= machine.poll_timeout()
            {
                machine.handle_timeout(now);
            }
            self.drain(node);
            self.load(node);
        }
        let now = self.now.0;
        let due: Vec<_> = self.flying.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, to, from, word) in due {
            let now = self.now;
            if let Some(machine) = &mut self.nodes[to].machine {
                machine.handle_message(now, from, &word);
            }
            self.drain(to);
        }
        self.enter();
        self.check();
    }

    fn drain(&mut self, node: usize) {
        loop {
            let now = self.now;
            let Some(machine) = &mut self.nodes[node].machine else { return };
            let mut words = Vec::new();
            while let Some(word) = machine.poll_transmit() {
                words.push(word);
            }
            let event = machine.poll_event();
            for (to, word) in words {
                let copies = if self.lossy { self.draw(3) } else { 1 };
                for _ in 0..copies {
                    let delay = 1 + if self.lossy { self.draw(600_000_000) } else { 1_000_000 };
                    let to = usize::from(to.port() - 7_000);
                    self.flying.push((now.0 + delay, to, address(node), word));
                }
            }
            match event {
                None => return,
                Some(Restarted::Persist) => {
                    // Killed before, while or after it is written; what is not written is not said.
                    let fate = if self.lossy { self.draw(12) } else { 9 };
                    let it = &mut self.nodes[node];
                    if fate != 0 {
                        it.disk = it.machine.as_ref().expect("it asks").record().clone();
                    }
                    if fate < 2 {
                        (it.machine, it.loading) = (None, None);
                        return;
                    }
                    it.machine.as_mut().expect("it asks").handle_persisted(now);
                }
                Some(Restarted::Found(founding)) => {
                    let loaded = now.after(1 + if self.lossy { self.draw(400_000_000) } else { 50_000_000 });
                    let it = &mut self.nodes[node];
                    assert_eq!(founding.checkpoint, it.checkpoint);
                    assert_eq!(it.loading.replace((loaded, founding)), None, "one at a time");
                }
            }
        }
    }

    /// Whoever founded has its state, and is in the mesh as far as its machine let it.
    fn load(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        let Some((_, founding)) = it.loading.take_if(|(loaded, _)| now >= *loaded) else { return };
        let mut machine = it.machine.take().expect("it is loading");
        assert!(machine.record().floor() <= founding.index, "pledged to take no part in what it founds");
        machine.handle_learnt(founding.index, &founding.view);
        it.disk = machine.into_record();
        it.lives_in = Some((founding.index, founding.view));
        self.founded.push((founding.index, founding.view, node));
        self.foundings.push(founding);
    }

    /// Whoever is seated in a view that stands, and pledged to nothing after it, may enter it.
    fn enter(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(machine) = self.nodes[node].machine.as_ref().filter(|machine| !machine.is_founder)
            else {
                continue;
            };
            let life = machine.me.incarnation;
            let seated = |view: &View| {
                view.members.iter().any(|seat| (seat.key, seat.incarnation) == (id(node).key(), life))
            };
            let open = self.founded.iter().rev().find(|(index, view, founder)| {
                self.nodes[*founder].lives_in.is_some_and(|lives| lives == (*index, *view))
                    && seated(view)
                    && *index >= machine.record().floor()
            });
            let Some((index, view, _)) = open.copied() else { continue };
            if self.lossy && self.draw(4) > 0 {
                continue;
            }
            let it = &mut self.nodes[node];
            it.disk.learn(index, &view);
            it.machine = None;
            it.lives_in = Some((index, view));
        }
    }

    /// Of all views there are, at most one has a quorum of members with memory.
    fn check(&self) {
        let mut able: Vec<View> = Vec::new();
        for node in &self.nodes {
            let Some((_, view)) = &node.lives_in else { continue };
            let lives = |key: NodeKey| {
                self.nodes.iter().enumerate().any(|(other, it)| {
                    id(other).key() == key && it.lives_in.is_some_and(|(_, lives)| lives == *view)
                })
            };
            if has_quorum(view, lives) && !able.contains(view) {
                able.push(*view);
            }
        }
        assert!(able.len() <= 1, "two meshes that can both go on: {able:?}");
    }
}

fn same_disks(nodes: usize, versions: &[u64]) -> Vec<(Record, Option<u64>)> {
    let all: Vec<usize> = (0..nodes).collect();
    let view = view_of(3, 40, &all);
    versions.iter().map(|version| (Record::new(LogIndex(40), view), Some(*version))).collect()
}

#[test]
fn after_a_quiet_power_cut_the_newest_state_goes_on_once() {
    let mut world = World::new(1, same_disks(4, &[10, 30, 30, 20]));
    world.lossy = false;
    for node in 0..4 {
        world.nodes[node].disk.reach(Version(31));
        world.start(node);
    }
    for _ in 0..40 {
        world.step();
    }
    assert_eq!(world.foundings.len(), 1);
    let founding = &world.foundings[0];
    assert_eq!(founding.checkpoint, Some((Version(30), Digest([30; 16]))));
    assert_eq!((generation(founding.index), founding.view.number, founding.reached), (1, 4, Version(31)));
    assert_eq!(world.founded[0].2, 1, "of two with the newest state the lower one founds");
    assert!(world.nodes.iter().all(|node| node.lives_in == Some((founding.index, founding.view))));
    assert_eq!(founding.view.members.len(), 4);
}

#[test]
fn a_majority_waits_for_the_rest_and_goes_on_without_and_a_minority_never_does() {
    let mut world = World::new(2, same_disks(4, &[10, 30, 30, 20]));
    world.lossy = false;
    (1..3).for_each(|node| world.start(node));
    for _ in 0..500 {
        world.step();
    }
    assert!(world.foundings.is_empty(), "two of four without the lowest are no quorum");
    world.start(3);
    for _ in 0..90 {
        world.step();
    }
    assert!(world.foundings.is_empty(), "the fourth may still come");
    for _ in 0..60 {
        world.step();
    }
    assert_eq!(world.foundings.len(), 1);
    assert_eq!(world.foundings[0].view.members.len(), 3);
}

/// B accepted that A goes on without C, and may have been the one who decided it; so B and C found nothing without A.
#[test]
fn a_view_that_may_have_been_decided_counts_as_one_that_was() {
    let mut disks = same_disks(3, &[5, 5, 5]);
    let later = View { number: 4, ..view_of(4, 41, &[0, 1]) };
    assert!(disks[1].0.accept(LogIndex(41), &later));
    let mut world = World::new(3, disks);
    world.lossy = false;
    (1..3).for_each(|node| world.start(node));
    for _ in 0..500 {
        world.step();
    }
    assert!(world.foundings.is_empty());
    world.start(0);
    for _ in 0..200 {
        world.step();
    }
    assert_eq!(world.foundings.len(), 1);
    assert_eq!(world.foundings[0].view.number, 5);
}

/// One wanted to let two in, and died before it was known whether it had: a quorum of the three needs one of the two, who
/// are in no view that is known to be decided.
#[test]
fn those_who_may_have_been_let_in_are_asked_too() {
    let wider = View { number: 4, ..view_of(4, 41, &[0, 1, 2]) };
    let mut disks = same_disks(1, &[5]);
    assert!(disks[0].0.accept(LogIndex(41), &wider));
    disks.extend([1, 2].map(|_| (Record::new(LogIndex(40), view_of(3, 40, &[0])), None)));
    let mut world = World::new(5, disks);
    world.lossy = false;
    (0..2).for_each(|node| world.start(node));
    for _ in 0..200 {
        world.step();
    }
    let seats = |founding: &Founding| founding.view.members.len();
    assert_eq!(world.foundings.iter().map(seats).collect::<Vec<_>>(), [2]);
    assert_eq!(world.foundings[0].checkpoint, Some((Version(5), Digest([5; 16]))));
}

/// Three of five were put out long ago and come back with old disks: the two that went on are the mesh.
#[test]
fn old_disks_found_nothing_beside_newer_ones() {
    let newer = View { number: 5, ..view_of(5, 60, &[0, 1]) };
    let mut disks = same_disks(5, &[5, 5, 9, 9, 9]);
    for disk in &mut disks[..2] {
        assert!(disk.0.learn(LogIndex(60), &newer));
    }
    // A quorum of the old view decided it, so one of those who went accepted it.
    assert!(disks[2].0.accept(LogIndex(60), &newer));
    let mut world = World::new(4, disks);
    world.lossy = false;
    (1..5).for_each(|node| world.start(node));
    for _ in 0..500 {
        world.step();
    }
    assert!(world.foundings.is_empty(), "of two the higher one is no quorum");
    world.start(0);
    for _ in 0..200 {
        world.step();
    }
    assert_eq!(
        (world.foundings.len(), world.foundings[0].checkpoint),
        (1, Some((Version(5), Digest([5; 16]))))
    );
    assert_eq!(world.foundings[0].view.members.len(), 2);
}

#[test]
fn whatever_dies_meanwhile_there_is_never_a_second_mesh_and_in_the_end_one() {
    let (mut foundings, mut crowded) = (0, 0);
    for seed in 0..300 {
        let versions = [3, 9, 9, 4, 7];
        let mut world = World::new(seed, same_disks(5, &versions));
        // Some kept their memory.
        let kept = world.draw(4) as usize;
        for node in 0..kept.min(2) {
            let (index, view) = (world.nodes[node].disk.decided.0, world.nodes[node].disk.decided.1);
            world.nodes[node].lives_in = Some((index, view));
        }
        for _ in 0..1_500 {
            let node = world.draw(5) as usize;
            match world.draw(100) {
                0 => {
                    let it = &mut world.nodes[node];
                    (it.machine, it.loading, it.lives_in) = (None, None, None);
                }
                1..4 if world.nodes[node].machine.is_none() && world.nodes[node].lives_in.is_none() => {
                    world.start(node)
                }
                _ => {}
            }
            world.step();
        }
        // Everybody dies once more, and comes back to a quiet network; then somebody founds, or has no room left.
        world.lossy = false;
        world.flying.clear();
        for node in 0..5 {
            world.start(node);
        }
        let before = world.foundings.len();
        for _ in 0..400 {
            world.step();
        }
        foundings += before;
        let full = world.nodes.iter().any(|node| node.disk.maybe.len() == MAYBE_MAX);
        assert!(full || world.foundings.len() > before, "seed {seed}: nobody begins");
        let Some((_, view, _)) = world.founded.last() else { continue };
        let lives = |key: NodeKey| {
            let mut nodes = world.nodes.iter().enumerate();
            nodes.any(|(node, it)| {
                id(node).key() == key && it.lives_in.is_some_and(|(_, lives)| lives == *view)
            })
        };
        assert!(
            full || view.members.iter().all(|seat| lives(seat.key)),
            "seed {seed}: a member stays outside"
        );
        crowded += u32::from(full);
    }
    assert!(foundings > 300, "{foundings} foundings under way: the story is too quiet");
    assert!(crowded < 30, "{crowded} of 300 times somebody is pledged to too many");
}

#[test]
fn a_record_is_read_as_it_was_written_and_nothing_else_is_one() {
    let mut record = Record::new(LogIndex(7), view_of(2, 7, &[0, 1, 2]));
    record.reach(Version(12));
    record.accept(LogIndex(9), &view_of(3, 9, &[0, 1]));
    for pledge in 1..MAYBE_MAX as u64 {
        let index = LogIndex(pledge << GENERATION_BITS);
        assert!(record.pledge(index, &view_of(3 + pledge as u32, index.0, &(0..32).collect::<Vec<_>>())));
    }
    assert!(!record.pledge(LogIndex(77 << GENERATION_BITS), &view_of(99, 1, &[0])), "bounded");
    let bytes = record.encode();
    assert_eq!(Record::decode(&mut Reader::new(&bytes)), Ok(record.clone()));
    for end in 0..bytes.len() {
        assert!(Record::decode(&mut Reader::new(&bytes[..end])).is_err(), "cut at {end}");
    }
    let mut other = record.clone();
    assert!(other.learn(LogIndex(record.floor().0), &view_of(50, 1, &[0])));
    assert!(other.maybe.is_empty() && other.digest() != record.digest());
    assert!(Record::decode(&mut Reader::new(&[0xFF; 64])).is_err());
}

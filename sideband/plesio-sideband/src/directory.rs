//! Who is who: source addresses, roles, and the last few views that headers may speak of.
//!
//! Identity is the source address. Members, observers and those who left lately are known; all others are
//! strangers. Bounds: 32 members, 4 observers, 8 former members, 4 views.

use crate::replay::ReplayWindow;
use plesio_wire::sideband::INDEX_NONE;
use plesio_wire::value::View;
use plesio_wire::{Bounded, Incarnation, Instant, MEMBERS_MAX, MemberIndex, NodeKey};
use std::net::SocketAddr;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Member(MemberIndex),
    Observer,
    /// Left or was excluded; still asked for what it holds.
    Former {
        since: Instant,
    },
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) incarnation: Incarnation,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) role: Role,
    pub(crate) replay: ReplayWindow,
    /// Newest checked phase of its beats and when it came; for the 8-frame rule.
    pub(crate) phase: Option<(Instant, i64)>,
    pub(crate) phase_jumps: u8,
}

impl Node {
    fn new(key: NodeKey, incarnation: Incarnation, address: Option<SocketAddr>, role: Role) -> Self {
        let replay = ReplayWindow::new();
        Self { key, incarnation, address, role, replay, phase: None, phase_jumps: 0 }
    }
}

/// The members of a view, in order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seats {
    pub(crate) number: u32,
    pub(crate) seats: Bounded<(NodeKey, Incarnation), MEMBERS_MAX>,
}

impl Seats {
    pub(crate) fn of(view: &View) -> Self {
        let mut seats = Bounded::default();
        for seat in view.members.iter() {
            let _ = seats.push((seat.key, seat.incarnation)); // same capacity
        }
        Self { number: view.number, seats }
    }

    pub(crate) fn index_of(&self, key: NodeKey, incarnation: Incarnation) -> u16 {
        let at = self.seats.iter().position(|seat| *seat == (key, incarnation));
        at.map_or(INDEX_NONE, |at| at as u16)
    }
}

#[derive(Debug)]
pub(crate) struct Directory {
    me: NodeKey,
    pub(crate) nodes: Vec<Node>,
    views: Vec<Seats>, // oldest first
}

impl Directory {
    pub(crate) fn new(me: NodeKey) -> Self {
        Self { me, nodes: Vec::with_capacity(NODES_MAX), views: Vec::with_capacity(VIEWS_MAX) }
    }

    /// The view in force.
    pub(crate) fn seats(&self) -> Seats {
        self.views.last().copied().unwrap_or_default()
    }

    pub(crate) fn handle_view(&mut self, now: Instant, view: &View, addresses: &[(NodeKey, SocketAddr)]) {
        let seats = Seats::of(view);
        self.views.retain(|known| known.number != seats.number);
        if self.views.len() == VIEWS_MAX {
            self.views.remove(0);
        }
        self.views.push(seats);
        for node in &mut self.nodes {
            node.role = match (seats.index_of(node.key, node.incarnation), node.role) {
                (INDEX_NONE, Role::Member(_)) => Role::Former { since: now },
                (INDEX_NONE, role) => role,
                (index, _) => Role::Member(index),
            };
        }
        let me = self.me;
        for (index, (key, incarnation)) in seats.seats.iter().enumerate().filter(|(_, seat)| seat.0 != me) {
            let address = addresses.iter().find(|(known, _)| known == key).map(|(_, address)| *address);
            let known =
                self.nodes.iter_mut().find(|node| (node.key, node.incarnation) == (*key, *incarnation));
            if let Some(node) = known {
                node.address = address.or(node.address);
            } else {
                self.make_room(now);
                self.nodes.push(Node::new(*key, *incarnation, address, Role::Member(index as MemberIndex)));
            }
        }
        self.make_room(now);
    }

    /// Registers an observer, or forgets it. False: there are enough of them.
    pub(crate) fn handle_observer(
        &mut self,
        now: Instant,
        key: NodeKey,
        life: Option<(Incarnation, SocketAddr)>,
    ) -> bool {
        if key == self.me {
            return false;
        }
        let Some((incarnation, address)) = life else {
            self.nodes.retain(|node| node.key != key || node.role != Role::Observer);
            return true;
        };
        let known = self.nodes.iter().position(|node| (node.key, node.incarnation) == (key, incarnation));
        if let Some(at) = known {
            let node = &mut self.nodes[at];
            node.address = Some(address);
            if !matches!(node.role, Role::Member(_)) {
                node.role = Role::Observer;
            }
            return true;
        }
        // A new life of an observer takes its place.
        self.nodes.retain(|node| node.key != key || node.role != Role::Observer);
        if self.nodes.iter().filter(|node| node.role == Role::Observer).count() >= OBSERVERS_MAX {
            return false;
        }
        self.make_room(now);
        self.nodes.push(Node::new(key, incarnation, Some(address), Role::Observer));
        true
    }

    /// Who sends from `address`; those who are here before those who left, the newest first.
    pub(crate) fn position_of(&self, address: SocketAddr) -> Option<usize> {
        let matches = |node: &Node| node.address == Some(address);
        let former = |node: &Node| matches!(node.role, Role::Former { .. });
        let here = self.nodes.iter().rposition(|node| matches(node) && !former(node));
        here.or_else(|| self.nodes.iter().rposition(matches))
    }

    /// The newest life of `key`.
    pub(crate) fn find(&self, key: NodeKey) -> Option<&Node> {
        let former = |node: &Node| matches!(node.role, Role::Former { .. });
        let here = self.nodes.iter().rfind(|node| node.key == key && !former(node));
        here.or_else(|| self.nodes.iter().rfind(|node| node.key == key))
    }

    /// The source index `node` must use in view `number`; `None`: we do not know that view.
    pub(crate) fn index_in(&self, number: u32, node: &Node) -> Option<u16> {
        let seats = self.views.iter().find(|seats| seats.number == number)?;
        Some(seats.index_of(node.key, node.incarnation))
    }

    /// Forgets those who left long ago, or the first of too many.
    fn make_room(&mut self, now: Instant) {
        let former = |node: &Node| match node.role {
            Role::Former { since } => Some(since),
            _ => None,
        };
        self.nodes.retain(|node| former(node).is_none_or(|since| now.since(since) < FORMER_NS));
        while self.nodes.iter().filter(|node| former(node).is_some()).count() > FORMER_MAX {
            let oldest = (0..self.nodes.len())
                .filter(|at| former(&self.nodes[*at]).is_some())
                .min_by_key(|at| former(&self.nodes[*at]));
            match oldest {
                Some(at) => self.nodes.remove(at),
                None => return,
            };
        }
    }
}

const OBSERVERS_MAX: usize = 4;
const FORMER_MAX: usize = 8;
const NODES_MAX: usize = MEMBERS_MAX + OBSERVERS_MAX + FORMER_MAX + 1;
const VIEWS_MAX: usize = 4;
/// How long a removed member is remembered: it may hold the only copy of a shard.
const FORMER_NS: u64 = 120_000_000_000;

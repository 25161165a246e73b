//! Credit for all peers of a node out of one budget: what keeps many senders from overrunning one receiver.
//!
//! ```text
//!  Connection::demand ─▶ handle_demand ─┐ wanted, outstanding, per connection
//!                                       ├─▶ poll_grant ─▶ Connection::handle_grant
//!  budget: half the receive buffer ─────┘   while outstanding < budget
//! ```
//!
//! A message's first 64 KiB come unscheduled and announce it; everything behind them waits for a grant, as in
//! receiver-driven transports (pHost, 2015; NDP, 2017; Homa, 2018). Knows numbers only, no connections: the shell keeps
//! those and carries the words between them. Invariant: as long as peers keep to their grants, what they were granted
//! and have not sent is never more than the budget and one grant.

use alloc::vec::Vec;

/// What a connection's peer waits for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Demand {
    /// Payload of begun messages that is neither here nor granted.
    pub wanted_bytes: u64,
    /// Payload granted that is not here.
    pub outstanding_bytes: u64,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Turn {
    /// One grant each, in turn: everybody gets on at the same pace.
    #[default]
    RoundRobin,
    /// Who lacks least: the mean message is done soonest, a long one may wait.
    ShortestFirst,
}

/// The budget of one receive buffer.
#[derive(Debug)]
pub struct Granter {
    budget_bytes: u64,
    grant_bytes: u64,
    turn: Turn,
    /// Sorted by key.
    demands: Vec<(u32, Demand)>,
    outstanding_bytes: u64,
    last: u32,
}

impl Granter {
    /// Shares `budget_bytes` (half of what the kernel granted as receive buffer) in grants of `grant_bytes`, a chunk or
    /// more, among at most `peers_max` connections before it allocates again.
    #[must_use]
    pub fn new(budget_bytes: u64, grant_bytes: u64, turn: Turn, peers_max: usize) -> Self {
        Self {
            budget_bytes,
            grant_bytes: grant_bytes.max(1),
            turn,
            demands: Vec::with_capacity(peers_max),
            outstanding_bytes: 0,
            last: u32::MAX,
        }
    }

    /// What connection `key` waits for now; nothing wanted and nothing outstanding forgets it.
    pub fn handle_demand(&mut self, key: u32, demand: Demand) {
        let at = self.demands.binary_search_by_key(&key, |(key, _)| *key);
        let before = at.map_or(0, |at| self.demands[at].1.outstanding_bytes);
        self.outstanding_bytes = self.outstanding_bytes - before + demand.outstanding_bytes;
        match (at, demand == Demand::default()) {
            (Ok(at), true) => {
                self.demands.remove(at);
            }
            (Ok(at), false) => self.demands[at].1 = demand,
            (Err(at), false) => self.demands.insert(at, (key, demand)),
            (Err(_), true) => {}
        }
    }

    /// The next grant, in bytes of payload; call until `None`.
    pub fn poll_grant(&mut self) -> Option<(u32, u64)> {
        if self.outstanding_bytes > 0 && self.outstanding_bytes + self.grant_bytes > self.budget_bytes {
            return None;
        }
        let wanting = |(_, demand): &&mut (u32, Demand)| demand.wanted_bytes > 0;
        let next = match self.turn {
            Turn::RoundRobin => {
                let from = self.demands.partition_point(|(key, _)| *key <= self.last);
                let (before, after) = self.demands.split_at_mut(from);
                after.iter_mut().chain(before).find(wanting)
            }
            Turn::ShortestFirst => self
                .demands
                .iter_mut()
                .filter(wanting)
                .min_by_key(|(_, demand)| demand.wanted_bytes.saturating_add(demand.outstanding_bytes)),
        };
        let (key, demand) = next?;
        let bytes = demand.wanted_bytes.min(self.grant_bytes);
        demand.wanted_bytes -= bytes;
        demand.outstanding_bytes += bytes;
        self.outstanding_bytes += bytes;
        self.last = *key;
        Some((*key, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn granter(turn: Turn, wanted: [u64; 3]) -> Granter {
        let mut granter = Granter::new(100, 30, turn, 3);
        for (key, wanted_bytes) in (0..).zip(wanted) {
            granter.handle_demand(key, Demand { wanted_bytes, outstanding_bytes: 0 });
        }
        granter
    }

    fn grants(granter: &mut Granter) -> Vec<(u32, u64)> {
        core::iter::from_fn(|| granter.poll_grant()).collect()
    }

    #[test]
    fn grants_go_round_and_never_beyond_the_budget() {
        let mut granter = granter(Turn::RoundRobin, [200, 40, 200]);
        assert_eq!(grants(&mut granter), vec![(0, 30), (1, 30), (2, 30)]);
        granter.handle_demand(2, Demand { wanted_bytes: 170, outstanding_bytes: 0 });
        assert_eq!(grants(&mut granter), vec![(0, 30)]);
        granter.handle_demand(0, Demand { wanted_bytes: 140, outstanding_bytes: 0 });
        granter.handle_demand(1, Demand { wanted_bytes: 10, outstanding_bytes: 0 });
        assert_eq!(grants(&mut granter), vec![(1, 10), (2, 30), (0, 30), (2, 30)]);
        for key in 0..3 {
            granter.handle_demand(key, Demand::default());
        }
        assert_eq!((granter.outstanding_bytes, granter.demands.len()), (0, 0));
    }

    #[test]
    fn the_shortest_goes_first_and_a_large_grant_is_better_than_none() {
        let mut shortest = granter(Turn::ShortestFirst, [200, 50, 200]);
        assert_eq!(grants(&mut shortest), vec![(1, 30), (1, 20), (0, 30)]);
        let mut tight = Granter::new(10, 30, Turn::RoundRobin, 1);
        tight.handle_demand(9, Demand { wanted_bytes: 500, outstanding_bytes: 0 });
        assert_eq!(grants(&mut tight), vec![(9, 30)]);
    }
}

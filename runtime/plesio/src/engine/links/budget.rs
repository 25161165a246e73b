//! What all peers off this host may send together: one budget, granted in turn.
//!
//! Whom nothing is heard of holds nothing of it, whatever it was granted: a peer that stands still would otherwise keep
//! the others waiting until a view excludes it.

use plesio_proto::{Connection, Demand, Granter, Turn};
use plesio_wire::Instant;

#[derive(Debug)]
pub(super) struct Budget {
    granter: Granter,
    /// Name of the next session; they are never used twice while both live.
    next: u32,
}

impl Budget {
    pub(super) fn new(budget_bytes: u64, chunk_bytes: u32) -> Self {
        let grant_bytes = GRANT_BYTES.max(u64::from(chunk_bytes));
        Self { granter: Granter::new(budget_bytes, grant_bytes, Turn::RoundRobin, SESSIONS), next: 0 }
    }

    /// A name for a session.
    pub(super) const fn name(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// What a session's peer waits for; whether it waits for anything.
    pub(super) fn handle_session(&mut self, now: Instant, key: u32, connection: &Connection) -> bool {
        let mut demand = connection.demand();
        let waits = demand != Demand::default();
        if demand != Demand::default() {
            let stats = connection.stats();
            let patience_ns = SILENCE_NS + 2 * stats.srtt_ns.unwrap_or(0);
            if now.since(stats.heard) > patience_ns {
                demand = Demand::default();
            }
        }
        self.granter.handle_demand(key, demand);
        waits
    }

    /// The session is over.
    pub(super) fn forget(&mut self, key: u32) {
        self.granter.handle_demand(key, Demand::default());
    }

    /// The next grant: which session, how much.
    pub(super) fn poll_grant(&mut self) -> Option<(u32, u64)> {
        self.granter.poll_grant()
    }
}

const GRANT_BYTES: u64 = 16 << 10;
/// Room for so many before it allocates again: a view, its standing and its bulk session for each member of a large mesh.
const SESSIONS: usize = 3 * 32;
/// A sender that waits for a grant asks at least twice as often.
const SILENCE_NS: u64 = 250_000_000;

//! Keys of one run: made by the launcher, told to each node over its pipe, and gone with the processes.
//!
//! They are random whatever the seed, or everybody could make them. So that a seed still is a demo, the members get them
//! in the order of the ids that the seed drew: who has the lowest id, whom that spares, and whose clock is odd stay the same.

use super::plan::Plan;
use crate::failure::Failure;
use crate::hex::{self, hex};
use crate::random;
use plesio::Identity;
use plesio_session::{Entropy, NodeSecret, OperatorSecret, PoolKey, Ticket};
use plesio_wire::NodeId;
use plesio_wire::handshake::Role;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// A secret on its way through a pipe: `Debug` says nothing of it, and it is wiped when it goes.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Confidential(String);

impl Confidential {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Confidential {
    fn drop(&mut self) {
        drop(Zeroizing::new(std::mem::take(&mut self.0)));
    }
}

impl fmt::Debug for Confidential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confidential(..)")
    }
}

/// What a node is told of them, in the texts of key files.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Told {
    pub(crate) node: Confidential,
    pub(crate) pool: Confidential,
    pub(crate) ticket: String,
    /// The operator's public key, hexadecimal.
    pub(crate) operator: String,
}

impl Told {
    /// Who the node is by that.
    pub(crate) fn identity(&self) -> Result<Identity, Failure> {
        let what = "cannot read the keys of this run";
        let broken = |cause| Failure::run("node", what, cause);
        let operator = hex::parse(&self.operator);
        Ok(Identity {
            node: NodeSecret::from_text(self.node.expose()).map_err(broken)?,
            ticket: Ticket::from_text(&self.ticket).map_err(broken)?,
            pool: PoolKey::from_text(self.pool.expose()).map_err(broken)?,
            operators: vec![
                operator.ok_or_else(|| Failure::run("node", what, "an operator's key is 64 digits"))?,
            ],
            seed: random::seed()?,
        })
    }
}

/// All keys of a run.
pub(crate) struct Keys {
    pool: PoolKey,
    operator: OperatorSecret,
    /// In the order of the plan's members.
    nodes: Vec<NodeSecret>,
}

impl Keys {
    /// Keys for so many nodes.
    pub(crate) fn draw(mesh: u64, count: usize) -> Result<Self, Failure> {
        let mut entropy: Entropy = random::entropy()?;
        Ok(Self {
            pool: PoolKey::generate(mesh, &mut entropy),
            operator: OperatorSecret::generate(&mut entropy),
            nodes: (0..count).map(|_| NodeSecret::generate(&mut entropy)).collect(),
        })
    }

    /// Makes keys for all members of a plan, whose ids become theirs.
    pub(crate) fn make(plan: &mut Plan) -> Result<Self, Failure> {
        let Self { pool, operator, nodes: mut made } = Self::draw(plan.mesh, plan.members.len())?;
        made.sort_by_key(|node| node.public().id().key());
        let mut order: Vec<usize> = (0..plan.members.len()).collect();
        order.sort_by_key(|index| plan.members[*index].key());
        let mut nodes: Vec<(usize, NodeSecret)> = order.into_iter().zip(made).collect();
        nodes.sort_by_key(|(index, _)| *index);
        let nodes: Vec<NodeSecret> = nodes.into_iter().map(|(_, node)| node).collect();
        for (member, node) in plan.members.iter_mut().zip(&nodes) {
            member.id = node.public().id();
        }
        plan.sealed = true;
        Ok(Self { pool, operator, nodes })
    }

    /// Everybody's.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().map(|node| node.public().id())
    }

    /// What member `index` is told: its own secret, and what admits it for as long as the run may last.
    pub(crate) fn of(&self, index: usize) -> Told {
        let node = &self.nodes[index];
        let ticket = Ticket::sign(&self.operator, self.pool.mesh, node.public(), Role::Member, u32::MAX);
        Told {
            node: Confidential(node.to_text().expose().to_owned()),
            pool: Confidential(self.pool.to_text().expose().to_owned()),
            ticket: ticket.to_text(),
            operator: hex(&self.operator.public()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::NODES;

    #[test]
    fn keys_keep_the_order_that_the_seed_drew() {
        for nodes in NODES {
            let drawn = Plan::draw(7, nodes, 30, 2);
            let mut plan = drawn.clone();
            let keys = Keys::make(&mut plan).expect("the system's randomness");
            let rank = |plan: &Plan| {
                let mut order: Vec<usize> = (0..plan.members.len()).collect();
                order.sort_by_key(|index| plan.members[*index].key());
                order
            };
            assert_eq!(rank(&plan), rank(&drawn));
            assert!(
                plan.sealed && plan.members.iter().zip(&drawn.members).all(|(one, two)| one.id != two.id)
            );
            for (index, member) in plan.members.iter().enumerate() {
                let told = keys.of(index);
                let node = NodeSecret::from_text(told.node.expose()).expect("its own text");
                let ticket = Ticket::from_text(&told.ticket).expect("its own text");
                assert_eq!((node.public().id(), ticket.node), (member.id, node.public()));
                assert!(!format!("{told:?}").contains(&told.node.expose()[20..60]));
            }
        }
    }
}

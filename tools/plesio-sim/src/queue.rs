//! What happens next, in virtual time. Things due at the same moment happen in the order in which they were
//! arranged, so that a seed has one story only.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that is going to happen.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Due {
    /// A host's machines asked to be called.
    Timer { host: u8 },
    /// A datagram arrives.
    Deliver { packet: u32 },
    /// A worker's step ends; `life` tells it from a step of an earlier process of the host.
    Step { host: u8, life: u32 },
    /// The node thread looks at its ring.
    Look { host: u8, life: u32 },
    /// The node thread runs; `process` tells it from that of another process of the host.
    Turn { host: u8, process: u32 },
    /// A fault begins.
    Begin { fault: u16 },
    /// A fault has waited long enough.
    Strike { fault: u16 },
    /// A host that is starved gets a slice of time, or has had it.
    Slice { fault: u16, runs: bool },
    /// A fault ends.
    End { fault: u16 },
    /// A disk has an order of the operators.
    Stored { host: u8, process: u32 },
    /// Whoever an order could reach must follow it by now.
    Obeyed { sequence: u64 },
    /// What was decided before an order was followed is learnt by now.
    Settled { sequence: u64 },
    /// The operators say again what they ordered.
    Remind,
    /// Nothing is broken from here on.
    Quiet,
    /// The mesh has had its time to make a version.
    Recovered,
}

/// The queue; see the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, Due)>>,
    order: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at_ns: u64, due: Due) {
        self.order += 1;
        self.heap.push(Reverse((at_ns, self.order, due)));
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Due)> {
        self.heap.pop().map(|Reverse((at_ns, _, due))| (at_ns, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_and_ties_keep_their_order() {
        let mut queue = Queue::default();
        queue.push(5, Due::Quiet);
        queue.push(3, Due::Step { host: 9, life: 0 });
        queue.push(3, Due::Timer { host: 1 });
        queue.push(4, Due::Deliver { packet: 0 });
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|(at, _)| at).collect();
        assert_eq!(order, [3, 3, 4, 5]);
        queue.push(1, Due::Step { host: 9, life: 0 });
        queue.push(1, Due::Timer { host: 1 });
        assert_eq!(queue.pop(), Some((1, Due::Step { host: 9, life: 0 })));
    }
}

//! How long it takes until everybody has seen that a member is gone (F1): from the kill to the moment at which the last
//! of the others suspects it, or has learnt a view without it.

use plesio_wire::NodeKey;
use std::collections::BTreeSet;

/// A member that died.
#[derive(Debug)]
struct Gone {
    key: NodeKey,
    at_ns: u64,
    /// Processes that had a seat beside it and have not noticed.
    unaware: BTreeSet<u32>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    gone: Vec<Gone>,
    seen_ns: Vec<u64>,
}

impl Watch {
    /// A member's process was killed; these go on.
    pub(crate) fn handle_killed(&mut self, now_ns: u64, key: NodeKey, others: impl Iterator<Item = u32>) {
        let unaware: BTreeSet<u32> = others.collect();
        if !unaware.is_empty() {
            self.gone.push(Gone { key, at_ns: now_ns, unaware });
        }
    }

    /// A process does not wait for `key` any more.
    pub(crate) fn handle_noticed(&mut self, now_ns: u64, process: u32, key: NodeKey) {
        self.forget(process, |gone| gone.key == key, Some(now_ns));
    }

    /// A process ended: it is not waited for.
    pub(crate) fn handle_ended(&mut self, process: u32) {
        self.forget(process, |_| true, None);
    }

    /// Nanoseconds from a kill to the moment at which all had seen it, one for each, in no order.
    pub(crate) fn seen_ns(&self) -> &[u64] {
        &self.seen_ns
    }

    fn forget(&mut self, process: u32, concerns: impl Fn(&Gone) -> bool, seen: Option<u64>) {
        for gone in self.gone.iter_mut().filter(|gone| concerns(gone)) {
            // When the last one to notice dies first, nobody has seen it last.
            if gone.unaware.remove(&process)
                && gone.unaware.is_empty()
                && let Some(now_ns) = seen
            {
                self.seen_ns.push(now_ns - gone.at_ns);
            }
        }
        self.gone.retain(|gone| !gone.unaware.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_seen_when_the_last_one_has_seen_it() {
        let mut watch = Watch::default();
        let (first, second) = (NodeKey(1), NodeKey(2));
        watch.handle_killed(100, first, [10, 11, 12].into_iter());
        watch.handle_killed(150, second, [11, 12].into_iter());
        watch.handle_noticed(600, 10, first);
        watch.handle_noticed(610, 10, first);
        watch.handle_noticed(620, 12, first);
        assert!(watch.seen_ns().is_empty());
        watch.handle_noticed(640, 11, first);
        assert_eq!(watch.seen_ns(), [540]);
        watch.handle_noticed(700, 11, second);
        watch.handle_ended(12);
        watch.handle_noticed(900, 11, second);
        assert_eq!(watch.seen_ns(), [540], "the last one died before it could see anything");
        assert!(watch.gone.is_empty());
    }
}

//! What a run is measured by, beside its promises: what was learnt, how well the clocks agreed, what it took.
//!
//! A survey looks and changes nothing: a run is the same with it and without.

use crate::learning::Learning;
use plesio_wire::Version;
use std::sync::Arc;

/// What came of a run whose workers learn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Study {
    /// Virtual time at which somebody first held a version, nanoseconds, and the loss of that state, nats per letter.
    pub losses: Vec<(u64, f64)>,
    /// How far the mesh clocks of the nodes were from the middle of them, nanoseconds: a value for every node and tenth of a
    /// second in which two of them at least had one.
    pub clock_errors_ns: Vec<u64>,
    /// The bounds that the nodes had of these errors.
    pub eps_ns: Vec<u64>,
    /// Steps of all processes.
    pub steps: u64,
    /// Those of them that living processes had not brought into a version at the end.
    pub waiting_steps: u64,
    /// Steps that were not taken, because a node was not with the mesh.
    pub rests: u64,
    /// Bytes of datagrams sent, headers of the protocol included: data, sideband.
    pub sent_bytes: [u64; 2],
}

/// It, as it is made.
#[derive(Debug)]
pub(crate) struct Survey {
    learning: Arc<Learning>,
    study: Study,
    newest: Version,
    due_ns: u64,
}

impl Survey {
    pub(crate) fn new(learning: Arc<Learning>, elements: u64) -> Self {
        let begin = learning.loss(&vec![0; elements as usize]);
        let study = Study { losses: vec![(0, begin)], ..Study::default() };
        Self { learning, study, newest: Version(0), due_ns: 0 }
    }

    /// Somebody holds a version.
    pub(crate) fn handle_version(&mut self, now_ns: u64, version: Version, master: &[i64]) {
        if version > self.newest {
            self.newest = version;
            self.study.losses.push((now_ns, self.learning.loss(master)));
        }
    }

    /// Whether the clocks are to be looked at.
    pub(crate) fn is_due(&mut self, now_ns: u64) -> bool {
        let due = now_ns >= self.due_ns;
        if due {
            self.due_ns = now_ns + EVERY_NS;
        }
        due
    }

    /// What all usable clocks show at one moment, with their bounds.
    pub(crate) fn handle_clocks(&mut self, clocks: &[(i64, u32)]) {
        if clocks.len() < 2 {
            return;
        }
        let mut times: Vec<i64> = clocks.iter().map(|(time, _)| *time).collect();
        times.sort_unstable();
        let (low, high) = (times[(times.len() - 1) / 2], times[times.len() / 2]);
        let middle = low + (high - low) / 2;
        self.study.clock_errors_ns.extend(times.iter().map(|time| time.abs_diff(middle)));
        self.study.eps_ns.extend(clocks.iter().map(|(_, eps_ns)| u64::from(*eps_ns)));
    }

    /// A process ends, or the run does: steps made, not in any version, not taken.
    pub(crate) fn handle_end(&mut self, (steps, waiting, rests): (u64, u64, u64), lives: bool) {
        self.study.steps += steps;
        self.study.rests += rests;
        self.study.waiting_steps += if lives { waiting } else { 0 };
    }

    pub(crate) fn finish(self, sent_bytes: [u64; 2]) -> Box<Study> {
        Box::new(Study { sent_bytes, ..self.study })
    }
}

const EVERY_NS: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_measured_against_their_middle() {
        let learning = Learning::new(&[&[b'a'; 100]], None).expect("a text");
        let mut survey = Survey::new(Arc::new(learning), 1_024);
        survey.handle_clocks(&[(5, 1)]);
        survey.handle_clocks(&[(100, 7), (-50, 8), (103, 9)]);
        survey.handle_clocks(&[(10, 7), (20, 8)]);
        assert_eq!(survey.study.clock_errors_ns, [150, 0, 3, 5, 5]);
        assert_eq!(survey.study.eps_ns, [7, 8, 9, 7, 8]);
        assert!(survey.is_due(0) && !survey.is_due(99_999_999) && survey.is_due(100_000_000));
        survey.handle_end((9, 2, 1), true);
        survey.handle_end((5, 5, 0), false);
        let study = survey.finish([3, 4]);
        assert_eq!((study.steps, study.waiting_steps, study.rests, study.sent_bytes), (14, 2, 1, [3, 4]));
    }
}

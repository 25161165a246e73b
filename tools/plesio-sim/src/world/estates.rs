//! What processes leave behind when they end, and where all mass is when the run does.

use super::World;
use crate::mass::{End, Mass};
use plesio::Lambda;

impl World {
    /// A host's process ends: what it had is written down.
    pub(super) fn bury(&mut self, number: u8, end: End) {
        let host = &mut self.hosts[usize::from(number)];
        if let Some(process) = &host.process {
            self.estates.add(number, process.number(), end, &process.worker.books);
            self.watch.handle_ended(process.number());
            if let Some(survey) = &mut self.survey {
                survey.handle_end(process.steps(), false);
            }
        }
        host.end_process();
    }

    /// Where all mass is in the end. Where a contribution weighs less with its age it comes back in parts, which the log
    /// alone does not show; where all of a mesh may die and begin again, versions are lost with what they held; and of a mesh
    /// in which somebody lied about payload, or a promise broke, nothing is said.
    pub(super) fn weigh(&mut self) -> Mass {
        if self.checker.violation().is_some()
            || !self.checker.is_honest()
            || self.disks
            || self.mesh.common.rules.lambda != Lambda::ONE
        {
            return Mass::default();
        }
        for (number, host) in self.hosts.iter().enumerate() {
            if let Some(process) = &host.process {
                self.estates.add(number as u8, process.number(), End::Lives, &process.worker.books);
            }
        }
        let depth = self.mesh.common.ring_depth;
        let is_final = |process, unit| self.checker.is_final(process, unit);
        let mass = self.estates.sum(depth, &self.checker.final_mass(), is_final);
        mass.unwrap_or_else(|what| {
            self.checker.fail(what);
            Mass::default()
        })
    }
}

//! What a lie leaves of the promises (T11): the checker is told who lies, and about what.

use super::Checker;
use crate::process::Lie;

impl Checker {
    /// A member sends another contribution than it announced: what the sum is from here on nobody can say, and all
    /// honest members must hold the same.
    pub(crate) fn handle_lied(&mut self, host: u8, lie: Lie) {
        match lie {
            Lie::Contribution => self.forged = true,
            Lie::Sum => self.equivocated = true,
        }
        self.lie(host);
    }

    /// A member tells some another proposal than the rest: the agreement does not survive that, but it must be noticed.
    pub(crate) fn handle_equivocated(&mut self, host: u8, index: u64) {
        if index >= self.log_len() {
            self.equivocated = true;
            self.lie(host);
        }
    }

    fn lie(&mut self, host: u8) {
        self.lies += 1;
        self.liars |= 1 << host;
    }

    /// Lies so far.
    pub(crate) fn lies(&self) -> u64 {
        self.lies
    }

    /// Whether honest members differ, as a liar can make them.
    pub(crate) fn has_diverged(&self) -> bool {
        self.diverged_ns.is_some()
    }

    /// T11: whoever differs hears of it, from a digest of the state or of the view.
    pub(crate) fn check_noticed(&mut self) {
        let since_ns =
            self.diverged_ns.filter(|since_ns| !self.noticed && self.now_ns - since_ns > NOTICE_NS);
        if let Some(since_ns) = since_ns {
            let at = since_ns as f64 / 1e9;
            self.fail(format!("T11: honest members differ since {at:.3} s, and nobody has noticed"));
        }
    }
}

/// How long until somebody who applies what others do not has heard of it.
const NOTICE_NS: u64 = 2_000_000_000;

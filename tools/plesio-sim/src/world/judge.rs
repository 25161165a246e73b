//! What must hold of a whole mesh when its faults are over: somebody commits, everybody follows, nothing is stuck.

use super::{CALM_NS, SECOND_NS, World};
use crate::host::Host;
use plesio_consensus::is_quorum;
use plesio_wire::MemberSet;
use plesio_wire::value::View;

impl World {
    /// Whether the live lives of the newest view are a quorum, and those of the one before, as long as somebody
    /// may still live in it; `without` one host.
    pub(super) fn has_quorum(&self, without: Option<u8>) -> bool {
        let index = self.checker.log_len();
        let learnt = |host: &Host| {
            let consensus = host.process.as_ref().map(|process| process.engine.consensus());
            consensus.is_some_and(|consensus| consensus.index().0 >= index)
        };
        let lives = |view: &View, and: &dyn Fn(&Host) -> bool| {
            let mut set = MemberSet::EMPTY;
            for (number, host) in self.hosts.iter().enumerate() {
                let seat =
                    view.index_of(host.key()).map(|at| (at, view.members[usize::from(at)].incarnation));
                if let Some((at, incarnation)) = seat
                    && without != Some(number as u8)
                    && host.incarnation() == Some(incarnation)
                    && and(host)
                {
                    set.insert(at);
                }
            }
            is_quorum(view.members.len(), set)
        };
        let newest = self.checker.newest_view();
        let known = lives(newest, &learnt);
        lives(newest, &|_| true) && (known || lives(self.checker.previous_view(), &|_| true))
    }

    /// Liveness (A6): some frames after the last fault, three seconds at least, there is a new version, where a quorum lives.
    pub(super) fn check_recovery(&mut self) {
        let before = self.checker.final_before(self.plan.quiet_ns);
        let works =
            self.hosts.iter().any(|host| host.leaving.is_none() && host.lives_in(self.checker.newest_view()));
        if self.hopeful
            && works
            && !self.checker.has_diverged()
            && self.has_quorum(None)
            && self.checker.newest_final() == before
        {
            let at = self.checker.final_at(before).unwrap_or(0) as f64 / 1e9;
            self.checker.fail(format!(
                "liveness: no version since {} became final at {at:.3} s, though the faults are over for {} s and a \
                 quorum lives",
                before.0,
                self.calm_ns as f64 / 1e9
            ));
        }
    }

    /// How long a slot may be neither final nor folded: it may be listed late, where frames are long.
    fn settled_ns(&self) -> u64 {
        let late_ns = if self.calm_ns > CALM_NS { 2 * self.mesh.period_ns } else { 0 };
        self.calm_ns + self.patience_ns + late_ns
    }

    /// I7 is for delays that are bounded: how long a datagram may take on the network of a profile.
    fn delay_ns(&self) -> u64 {
        let tail = self.profile.and_then(|profile| profile.impairment().tail);
        tail.map_or(0, |tail| tail.most_ns)
    }

    /// Whether a member of `view` other than `host` has a process.
    fn knows_somebody(&self, host: &Host, view: &View) -> bool {
        self.hosts.iter().any(|other| {
            other.key() != host.key() && other.process.is_some() && view.index_of(other.key()).is_some()
        })
    }

    /// I7: in good weather versions follow each other within three frames; a view takes the place of one.
    fn check_pace(&mut self) {
        let since_ns = self.plan.quiet_ns + self.calm_ns;
        let frames = 3 + self.checker.views_since(since_ns);
        let period_ns = self.checker.longest_period_ns(since_ns);
        let most_ns = frames * period_ns + SLACK_NS + self.delay_ns();
        if let Some((version, gap_ns)) =
            self.checker.slowest_since(since_ns).filter(|(_, gap_ns)| *gap_ns > most_ns)
        {
            self.checker.fail(format!(
                "I7: version {} came {} ms after the one before, in good weather, with frames of {} ms",
                version.0,
                gap_ns / 1_000_000,
                period_ns / 1_000_000
            ));
        }
    }

    /// What must hold when everything had its time.
    pub(super) fn check_end(&mut self) {
        let stays =
            self.hosts.iter().any(|host| host.leaving.is_none() && host.lives_in(self.checker.newest_view()));
        self.checker.check_noticed();
        let calm = self.plan.quiet_ns + self.calm_ns <= self.now_ns;
        if !calm || !self.hopeful || !stays || !self.has_quorum(None) || self.checker.has_diverged() {
            return;
        }
        if self.patience_ns == SECOND_NS {
            self.check_pace();
        }
        self.checker.check_bent();
        let due = self.checker.final_before(self.now_ns.saturating_sub(self.patience_ns));
        let view = *self.checker.newest_view();
        for number in 0..self.hosts.len() {
            let host = &self.hosts[number];
            let Some(process) = &host.process else { continue };
            let seated = host.lives_in(&view);
            let held = process.engine.consensus().version_held();
            // Everybody it ever knew has gone, and who came since does not know it: nobody can find it.
            if !seated && process.started && !self.knows_somebody(host, process.engine.consensus().view()) {
                continue;
            }
            let since_ns = self.now_ns.saturating_sub(self.settled_ns());
            let seated_ns = host.incarnation().and_then(|life| self.checker.seated_since(host.key(), life));
            let works = host.leaving.is_none() && self.checker.offers_before(process.number(), since_ns);
            let aside = seated_ns.is_some_and(|seated_ns| works && seated_ns < since_ns)
                && self.checker.counted_at(process.number()) < since_ns;
            let stuck = self.checker.stuck(process.number(), self.now_ns.saturating_sub(self.settled_ns()));
            if aside {
                let counted = self.checker.counted_at(process.number()) as f64 / 1e9;
                let what = format!(
                    "I7: n{number} has a seat, and none of its work is in any version since {counted:.3} s"
                );
                self.checker.fail(what);
            } else if host.leaving.is_some() && self.checker.view_age_ns() > self.calm_ns {
                let what = format!("liveness: n{number} wants to leave and still is here");
                self.checker.fail(what);
            } else if !seated && !host.excluded {
                let what = format!("liveness: n{number} lives and is not in view {} at the end", view.number);
                self.checker.fail(what);
            } else if held < due {
                let what = format!(
                    "liveness: n{number} holds version {}, {} is final for {} s",
                    held.0,
                    due.0,
                    self.patience_ns / SECOND_NS
                );
                self.checker.fail(what);
            } else if let Some((seq, announced_ns)) = stuck {
                let at = announced_ns as f64 / 1e9;
                let what = format!(
                    "I7: slot {} of n{number}, announced at {at:.3} s, is neither final nor folded",
                    seq.0
                );
                self.checker.fail(what);
            }
        }
    }
}

/// Ways, naps and steps of the workers.
const SLACK_NS: u64 = 300_000_000;

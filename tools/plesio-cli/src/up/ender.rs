//! When a node ends, and how it leaves.

use super::seen::{Seen, Voice};
use plesio::Control;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// How long the others may take to do without this node.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// How often it looks whether there are any others.
const LEAVE_LOOK: Duration = Duration::from_millis(20);
/// How long the last one stays for those who went before it: several rounds of their questions.
const LEAVE_LINGER: Duration = Duration::from_millis(500);
/// How long a mesh may take to answer one that wants to join.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to let one in whom it has answered: a large state over a thin path takes its time.
const ADMIT_LIMIT: Duration = Duration::from_secs(300);
/// How long what is still this node's may take to be brought in; the training thread ends its wait before.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// What the ender hears.
pub(super) enum Heard {
    /// Ctrl-C.
    Signal,
    Settled,
    Left,
    /// A member will never let this node in.
    Refused,
    /// The node has ended by itself.
    Ended,
}

/// Why a node ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    Signal,
    Time,
    /// Nobody let it in.
    Outside,
    /// By itself; its last event says why.
    Itself,
}

/// Brings a node to its end in good order.
pub(super) struct Ender {
    pub(super) heard: Receiver<Heard>,
    pub(super) control: Control,
    pub(super) settle: Arc<AtomicBool>,
    pub(super) seen: Arc<Seen>,
    pub(super) voice: Arc<Voice>,
    /// It comes back from its disk, and waits for others to do so.
    pub(super) returns: bool,
    pub(super) limit: Option<Duration>,
}

impl Ender {
    /// Waits for a reason to end, then ends.
    pub(super) fn run(self) -> Why {
        let why = self.reason();
        self.settle.store(true, Ordering::Relaxed);
        if matches!(why, Why::Itself | Why::Outside) || !self.seen.was_member() {
            self.control.stop();
            return why;
        }
        if self.seen.is_halted() {
            self.voice.say("the mesh is halted: nothing is brought in, and nobody can agree to a leave");
        } else if self.seen.is_member() {
            self.leave();
        } else {
            self.voice.say(
                "the mesh goes on without this node, so there is nothing to bring in and nobody to leave",
            );
        }
        self.control.finish();
        why
    }

    fn leave(&self) {
        let had_others = !self.is_alone();
        self.voice.say("bringing in what is trained; Ctrl-C again ends at once");
        let _late = self.wait(Some(SETTLE_LIMIT), |heard| matches!(heard, Heard::Settled));
        if !self.is_alone() {
            self.control.leave();
            let end = Instant::now() + LEAVE_LIMIT;
            // Where all leave at once, the last one has nobody to agree to it.
            while Instant::now() < end && !self.is_alone() {
                if self.wait(Some(LEAVE_LOOK), |heard| matches!(heard, Heard::Left)).is_some() {
                    return;
                }
            }
        }
        if !self.is_alone() {
            self.voice.say(&format!(
                "the others did not agree to its leaving within {LEAVE_LIMIT:?}; they will exclude it as if it had \
                 failed"
            ));
        } else if had_others {
            self.voice.say("the others have left; this node was the last");
            // Those who went last may still ask whether this node has learnt it.
            self.wait(Some(LEAVE_LINGER), |heard| matches!(heard, Heard::Signal));
        }
    }

    fn is_alone(&self) -> bool {
        let status = self.seen.status();
        status.member && status.members.len() < 2
    }

    fn reason(&self) -> Why {
        let begun = Instant::now();
        let end = self.limit.map(|limit| begun + limit);
        for (patience, is_enough) in
            [(JOIN_LIMIT, Seen::is_answered as fn(&Seen) -> bool), (ADMIT_LIMIT, Seen::was_member)]
        {
            let until = begun + patience;
            // Who comes back from its disk waits for the others as long as it takes.
            if self.returns || self.seen.was_member() || end.is_some_and(|end| end <= until) {
                break;
            }
            match self.wait_until(Some(until), |heard| matches!(heard, Heard::Signal | Heard::Refused)) {
                Some(heard) => return why(&heard),
                // A halted mesh lets nobody in: whoever waits for RESUME waits.
                None if !is_enough(&self.seen) && !self.seen.is_halted() => return Why::Outside,
                None => {}
            }
        }
        self.wait_until(end, |heard| matches!(heard, Heard::Signal | Heard::Refused))
            .map_or(Why::Time, |heard| why(&heard))
    }

    fn wait(&self, limit: Option<Duration>, wanted: impl Fn(&Heard) -> bool) -> Option<Heard> {
        self.wait_until(limit.map(|limit| Instant::now() + limit), wanted)
    }

    /// Waits for what is wanted, or the end of the node; `None` when the time has come.
    fn wait_until(&self, deadline: Option<Instant>, wanted: impl Fn(&Heard) -> bool) -> Option<Heard> {
        loop {
            let heard = match deadline {
                None => self.heard.recv().ok(),
                Some(deadline) => {
                    self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
                }
            }?;
            if wanted(&heard) || matches!(heard, Heard::Ended) {
                return Some(heard);
            }
        }
    }
}

fn why(heard: &Heard) -> Why {
    match heard {
        Heard::Signal => Why::Signal,
        Heard::Refused => Why::Outside,
        _ => Why::Itself,
    }
}

//! What the launcher has seen of a mesh, and what follows from it.
//!
//! Knows nothing of processes or screens: it is filled with what nodes said and answers with the figures of
//! the document. Every figure is derived from at least two nodes' words where that is possible: committed
//! steps from the manifests, not from the member that trained them.

use super::protocol::{Entry, Final, Found, Hello, Progress, Said};
use serde::Serialize;
use std::collections::BTreeMap;

/// Most samples a node's curve keeps; a longer run is thinned by halves.
const SAMPLES_MAX: usize = 8192;

/// Why a member that said so is gone.
const LEAVING: &str = "it said that it leaves";

/// How a member's part in the mesh ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// Not started yet, or never.
    #[default]
    Absent,
    Alive,
    /// Killed with SIGKILL, by the demo or by somebody else: a death that the mesh must survive.
    Killed,
    /// Gone by its own fault: it was neither told to stop nor killed.
    Crashed,
    /// Told to stop, and stopped.
    Stopped,
}

/// One member, as seen from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) key: u64,
    pub(crate) fate: Fate,
    pub(crate) pid: Option<u32>,
    pub(crate) hello: Option<Hello>,
    pub(crate) found: Found,
    /// When training began, and with which version.
    pub(crate) attached: Option<(f64, u64)>,
    /// Local steps computed, as last said.
    pub(crate) steps: u64,
    /// (time, loss) of every step.
    pub(crate) losses: Vec<(f64, f32)>,
    /// (time, phase error in nanoseconds) of every cut.
    pub(crate) phases: Vec<(f64, i64)>,
    pub(crate) progress: Vec<(f64, Progress)>,
    /// Versions it has applied: when, and the digest.
    pub(crate) versions: BTreeMap<u64, (f64, String)>,
    pub(crate) settled: Option<u64>,
    /// Version whose state it took over whole from another member last, and how often it did.
    pub(crate) installed: Option<u64>,
    pub(crate) installs: u64,
    pub(crate) last: Option<Final>,
    /// Adapter's movement from its start, as the node handed it over.
    pub(crate) state: Option<Vec<f32>>,
    pub(crate) quorum_lost: bool,
}

/// What a version was made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Commit {
    /// When the first member knew the manifest.
    pub(crate) decided_s: Option<f64>,
    /// When the first member held it; none while it is open.
    pub(crate) final_s: Option<f64>,
    pub(crate) frame: u64,
    pub(crate) entries: Vec<Entry>,
}

/// What happened, in the words of the document.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Join,
    Leave,
    Crash,
    Exclude,
}

/// One line of the story.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Event {
    pub(crate) t_s: f64,
    pub(crate) node: String,
    pub(crate) kind: Kind,
    pub(crate) cause: String,
}

/// The mesh, as seen from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) nodes: Vec<Seen>,
    pub(crate) commits: BTreeMap<u64, Commit>,
    /// Members that were called dead or said that they leave: why they are gone.
    farewells: BTreeMap<u64, &'static str>,
    /// (time, number, members) of every view in force.
    pub(crate) views: Vec<(f64, u32, Vec<u64>)>,
    /// What the members of the newest view own; none: equal parts.
    pub(crate) shares: Vec<f64>,
    pub(crate) events: Vec<Event>,
    /// What is worth a line and is not an event of the document.
    pub(crate) notes: Vec<(f64, String)>,
    /// Versions for which two members' digests differ.
    pub(crate) diverged: Vec<u64>,
    /// When the demo killed its victim.
    pub(crate) killed_s: Option<f64>,
    /// How long the mesh trained.
    pub(crate) trained_s: f64,
    /// What the bad path did, if there was one.
    pub(crate) path: Option<plesio_relay::Report>,
}

impl Record {
    pub(crate) fn new(members: impl IntoIterator<Item = (String, u64)>) -> Self {
        let nodes =
            members.into_iter().map(|(name, key)| Seen { name, key, ..Seen::default() }).collect::<Vec<_>>();
        Self { nodes, ..Self::default() }
    }

    /// A node's name by its key; the key in hexadecimal for one we do not know.
    pub(crate) fn name(&self, key: u64) -> String {
        let known = self.nodes.iter().find(|node| node.key == key);
        known.map_or_else(|| format!("{key:016x}"), |node| node.name.clone())
    }

    pub(crate) fn note(&mut self, t_s: f64, text: impl Into<String>) {
        self.notes.push((t_s, text.into()));
    }

    pub(crate) fn event(&mut self, t_s: f64, node: usize, kind: Kind, cause: impl Into<String>) {
        self.events.push(Event { t_s, node: self.nodes[node].name.clone(), kind, cause: cause.into() });
    }

    /// Takes in what node `index` said at `t_s`.
    pub(crate) fn handle_said(&mut self, t_s: f64, index: usize, said: Said) {
        match said {
            Said::Version { version, digest, .. } => self.handle_version(t_s, index, version, digest),
            Said::Manifest { version, frame, entries, .. } => {
                let commit = self.commits.entry(version).or_default();
                // A manifest that was given up is followed by one of a later frame.
                if commit.decided_s.is_none() || frame > commit.frame {
                    *commit = Commit { decided_s: Some(t_s), final_s: commit.final_s, frame, entries };
                }
            }
            Said::View { number, members, added, removed, shares, .. } => {
                self.handle_shares(t_s, number, shares);
                self.handle_view(t_s, number, members, &added, &removed);
            }
            Said::Dead { node } => {
                self.farewells.insert(node, "silent, and a quorum agrees");
            }
            Said::Leaving { node } => {
                self.farewells.insert(node, LEAVING);
            }
            said => self.handle_own(t_s, index, said),
        }
    }

    /// What a node says of itself, and what is worth a line.
    fn handle_own(&mut self, t_s: f64, index: usize, said: Said) {
        let node = &mut self.nodes[index];
        let name = node.name.clone();
        let note = match said {
            Said::Hello { hello, pid, found, .. } => {
                (node.pid, node.hello, node.found) = (Some(pid), Some(hello), found);
                return;
            }
            Said::Attached { version } => {
                node.attached = Some((t_s, version));
                return;
            }
            Said::Step { steps, loss, phase_error_ns, .. } => {
                node.steps = node.steps.max(steps);
                if let Some(error_ns) = phase_error_ns {
                    push_thinned(&mut node.phases, (t_s, error_ns));
                }
                return push_thinned(&mut node.losses, (t_s, loss));
            }
            Said::Progress(progress) => return push_thinned(&mut node.progress, (t_s, progress)),
            Said::Installed { version } => {
                node.installed = Some(version);
                node.installs += 1;
                // A laggard does it again and again; the count is in the document.
                if node.installs > 1 {
                    return;
                }
                format!("{name} took over the state of version {version} from the mesh")
            }
            Said::NoQuorum { live, members } => {
                node.quorum_lost = true;
                format!(
                    "{name} sees no quorum, {live} of {members}: it commits nothing, and trains on for some frames"
                )
            }
            Said::Quorum => {
                node.quorum_lost = false;
                format!("{name} is part of a quorum again")
            }
            Said::Settled { whole, discarded, version, .. } => {
                node.settled = Some(version);
                match (whole, discarded) {
                    (true, 0) => return,
                    (true, _) => format!("{name} threw {discarded} steps away: they were not finite"),
                    (false, _) => format!("{name} could not bring in all that it trained"),
                }
            }
            Said::Final(last) => {
                node.steps = node.steps.max(last.steps);
                node.last = Some(last);
                return;
            }
            Said::Suspect { node } => format!("{name} suspects {}", self.name(node)),
            Said::Recover { node } => format!("{name} hears {} again", self.name(node)),
            Said::Diverged { version, peer } => {
                self.diverged.push(version);
                format!("{name} holds another state of version {version} than {}", self.name(peer))
            }
            Said::Excluded => format!("{name} is not in the view any more and asks to be let in"),
            Said::Left => format!("{name} has left in good order"),
            Said::Note { text } => format!("{name}: {text}"),
            Said::Failed { error } => format!("{name} cannot go on: {error}"),
            // The caller has taken these.
            Said::Version { .. }
            | Said::Manifest { .. }
            | Said::Trace { .. }
            | Said::View { .. }
            | Said::Dead { .. }
            | Said::Leaving { .. } => return,
        };
        self.note(t_s, note);
    }

    fn handle_version(&mut self, t_s: f64, index: usize, version: u64, digest: String) {
        let differs = self.nodes.iter().filter_map(|node| node.versions.get(&version));
        if differs.into_iter().any(|(_, other)| *other != digest) && !self.diverged.contains(&version) {
            self.diverged.push(version);
        }
        self.nodes[index].versions.entry(version).or_insert((t_s, digest));
        self.commits.entry(version).or_default().final_s.get_or_insert(t_s);
    }

    /// Whoever enters the mesh tells of old views too.
    fn handle_shares(&mut self, t_s: f64, number: u32, shares: Vec<f64>) {
        if self.views.iter().any(|(_, seen, _)| *seen >= number) {
            return;
        }
        if self.shares != shares {
            self.note(t_s, format!("view {number} shares out anew: {}", crate::shares::text(&shares)));
        }
        self.shares = shares;
    }

    fn handle_view(&mut self, t_s: f64, number: u32, members: Vec<u64>, added: &[u64], removed: &[u64]) {
        // Whoever enters the mesh tells of old views too.
        if self.views.iter().any(|(_, seen, _)| *seen >= number) {
            return;
        }
        self.views.push((t_s, number, members));
        // The first view is how the mesh began; nobody came or went.
        if number == 0 {
            return;
        }
        for key in added {
            let installed = self.nodes.iter().find(|node| node.key == *key).and_then(|node| node.installed);
            let cause = match installed {
                Some(version) => {
                    format!("view {number} adds it: it holds version {version}, taken from the mesh")
                }
                None => format!("view {number} adds it: it asked to join"),
            };
            self.events.push(Event { t_s, node: self.name(*key), kind: Kind::Join, cause });
        }
        for key in removed {
            let farewell = self.farewells.get(key).copied();
            let kind = if farewell == Some(LEAVING) { Kind::Leave } else { Kind::Exclude };
            let cause = farewell.unwrap_or("a quorum agrees that it is gone");
            let cause = format!("view {number} is without it: {cause}");
            self.events.push(Event { t_s, node: self.name(*key), kind, cause });
        }
    }

    /// Members that took part until the orderly end. A joiner that never got a state is none.
    pub(crate) fn survivors(&self) -> impl Iterator<Item = &Seen> {
        self.nodes
            .iter()
            .filter(|node| matches!(node.fate, Fate::Alive | Fate::Stopped) && node.attached.is_some())
    }

    /// Whether those who live would still weigh more than half of the newest view without `victim`, or half with its
    /// lowest id.
    pub(crate) fn is_quorum_without(&self, victim: u64) -> bool {
        // Nobody tells of the view that the founders begin with.
        let founders =
            || self.nodes.iter().filter(|node| node.fate != Fate::Absent).map(|node| node.key).collect();
        let members: Vec<u64> = self.views.last().map_or_else(founders, |(_, _, members)| members.clone());
        let stays = |key: &&u64| {
            **key != victim && self.nodes.iter().any(|node| node.key == **key && node.fate == Fate::Alive)
        };
        let (left, lowest) = (members.iter().filter(stays).count(), members.iter().min());
        2 * left > members.len() || (2 * left == members.len() && lowest.as_ref().is_some_and(stays))
    }

    /// Local steps that each survivor has taken, on average.
    pub(crate) fn steps_each(&self) -> u64 {
        let (nodes, steps) =
            self.survivors().fold((0, 0), |(nodes, steps), node| (nodes + 1, steps + node.steps));
        steps / u64::max(nodes, 1)
    }

    /// Processes that were opened.
    pub(crate) fn processes(&self) -> usize {
        self.nodes.iter().filter(|node| node.pid.is_some()).count()
    }

    /// Versions known to be committed.
    pub(crate) fn versions_committed(&self) -> u64 {
        let mut finals = self.commits.iter().filter(|(_, commit)| commit.final_s.is_some());
        finals.next_back().map_or(0, |(version, _)| *version)
    }

    /// When the story ends: with training, or with the last version after it.
    pub(crate) fn end_s(&self) -> f64 {
        self.commits.values().filter_map(|commit| commit.final_s).fold(self.trained_s, f64::max)
    }

    /// Whether every survivor ends with the same version and digest, and nobody ever differed.
    pub(crate) fn digests_equal(&self) -> bool {
        let mut ends =
            self.survivors().map(|node| node.last.as_ref().map(|last| (last.version, &last.digest)));
        let Some(Some(first)) = ends.next() else { return false };
        self.diverged.is_empty() && ends.all(|end| end == Some(first))
    }

    /// Local steps of a member that are in committed versions.
    pub(crate) fn steps_committed(&self, key: u64) -> u64 {
        let finals = self.commits.values().filter(|commit| commit.final_s.is_some());
        let entries = finals.flat_map(|commit| &commit.entries);
        entries.filter(|entry| entry.node == key).map(|entry| u64::from(entry.steps)).sum()
    }

    /// Local steps computed by all members. The last word of one that died may have come too late for a step
    /// that was committed.
    pub(crate) fn steps_computed(&self) -> u64 {
        self.nodes.iter().map(|node| node.steps.max(self.steps_committed(node.key))).sum()
    }

    /// Local steps in committed slots over all local steps computed, whatever became of their members.
    pub(crate) fn useful_ratio(&self) -> Option<f64> {
        let computed = self.steps_computed();
        let committed: u64 = self.nodes.iter().map(|node| self.steps_committed(node.key)).sum();
        (computed > 0).then(|| committed as f64 / computed as f64)
    }

    /// From the kill to the first version decided after it that all survivors have applied.
    pub(crate) fn recovery_s(&self) -> Option<f64> {
        let killed_s = self.killed_s?;
        let founders: Vec<&Seen> = self
            .survivors()
            .filter(|node| node.attached.is_some_and(|(attached_s, _)| attached_s < killed_s))
            .collect();
        if founders.is_empty() {
            return None;
        }
        self.commits
            .iter()
            .filter(|(_, commit)| commit.decided_s.is_some_and(|decided_s| decided_s > killed_s))
            .filter_map(|(version, _)| {
                founders
                    .iter()
                    .try_fold(0.0_f64, |latest, node| Some(latest.max(node.versions.get(version)?.0)))
            })
            .map(|applied_s| applied_s - killed_s)
            .min_by(f64::total_cmp)
    }
}

/// Appends, and halves the resolution when the curve has grown too long.
fn push_thinned<T>(curve: &mut Vec<T>, sample: T) {
    if curve.len() >= SAMPLES_MAX {
        let mut keep = false;
        curve.retain(|_| {
            keep = !keep;
            keep
        });
    }
    curve.push(sample);
}

#[cfg(test)]
mod tests;

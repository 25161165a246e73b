//! Whole nodes with real sockets and threads in one process: they begin, commit, lose one, take one in, agree.

use plesio::engine::node_id;
use plesio::{Control, Final, Node, NodeConfig, NodeEvent, Running, What};
use plesio_udp::Requested;
use plesio_wire::{Digest, Incarnation};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ELEMENTS: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(20);

struct Member {
    control: Control,
    sideband: SocketAddr,
    seen: Arc<Mutex<Vec<NodeEvent>>>,
    settle: Arc<AtomicBool>,
    settled: Arc<AtomicBool>,
    trainer: JoinHandle<Vec<f32>>,
}

fn bind(index: u64, backend: Requested) -> Node {
    let id = node_id(format!("member {index}").as_bytes());
    let mut config = NodeConfig::new(id, Incarnation(1000 + index), 7, ELEMENTS);
    config.period_ns = 100_000_000;
    config.backend = backend;
    Node::bind(config).expect("loopback sockets and a few megabytes can be had")
}

/// A trainer that moves every parameter by `amount` per step, a step every 5 ms.
fn employ(running: Running, sideband: SocketAddr, amount: f32) -> Member {
    let Running { mut worker, events, control, .. } = running;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (settle, settled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || events.into_iter().for_each(|event| log.lock().unwrap().push(event)));
    let (settle_asked, settled_told) = (Arc::clone(&settle), Arc::clone(&settled));
    let trainer = std::thread::spawn(move || {
        let mut params = vec![0.0; ELEMENTS];
        if worker.attach(&mut params).is_err() {
            return params;
        }
        loop {
            std::thread::sleep(Duration::from_millis(5));
            if settle_asked.load(Ordering::Relaxed) {
                match worker.handle_idle(&mut params) {
                    Ok(done) => settled_told.store(done, Ordering::Relaxed),
                    Err(_) => return params,
                }
                continue;
            }
            params.iter_mut().enumerate().for_each(|(index, x)| *x += amount * (1 + index % 3) as f32);
            if worker.handle_step(&mut params).is_err() {
                return params;
            }
        }
    });
    Member { control, sideband, seen, settle, settled, trainer }
}

impl Member {
    fn version(&self) -> u64 {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .rev()
            .find_map(|event| match event.what {
                What::Version { version, .. } => Some(version.0),
                _ => None,
            })
            .unwrap_or(0)
    }

    fn has(&self, wanted: impl Fn(&What) -> bool) -> bool {
        self.seen.lock().unwrap().iter().any(|event| wanted(&event.what))
    }

    fn digests(&self) -> BTreeMap<u64, Digest> {
        let seen = self.seen.lock().unwrap();
        let digests = seen.iter().filter_map(|event| match event.what {
            What::Version { version, digest } => Some((version.0, digest)),
            _ => None,
        });
        digests.collect()
    }

    fn finish(self) -> (Final, Vec<f32>) {
        self.control.finish();
        wait("the final report", || self.has(|what| matches!(what, What::Final(_) | What::Failed(_))));
        let params = self.trainer.join().expect("the trainer does not panic");
        let seen = self.seen.lock().unwrap();
        let last = seen.iter().find_map(|event| match &event.what {
            What::Final(last) => Some((**last).clone()),
            _ => None,
        });
        (
            last.unwrap_or_else(|| panic!("no final report; last events: {:?}", &seen[seen.len() - 3..])),
            params,
        )
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn agree(members: &[&Member]) {
    let all: Vec<BTreeMap<u64, Digest>> = members.iter().map(|member| member.digests()).collect();
    for one in &all {
        for other in &all {
            for (version, digest) in one {
                assert_eq!(other.get(version).unwrap_or(digest), digest, "version {version}");
            }
        }
    }
}

/// Everybody stops training, everything is committed, everybody reports the same state and stands on it.
fn settle_and_compare(members: Vec<Member>) {
    members.iter().for_each(|member| member.settle.store(true, Ordering::Relaxed));
    wait("all contributions to be committed", || {
        let versions: Vec<u64> = members.iter().map(Member::version).collect();
        members.iter().all(|member| member.settled.load(Ordering::Relaxed))
            && versions.iter().all(|version| *version == versions[0])
    });
    agree(&members.iter().collect::<Vec<_>>());
    let ends: Vec<(Final, Vec<f32>)> = members.into_iter().map(Member::finish).collect();
    for (end, params) in &ends {
        assert_eq!(end.digest, ends[0].0.digest);
        assert_eq!(end.state, ends[0].0.state);
        for (x, g) in params.iter().zip(&end.state) {
            assert!((x - g).abs() < 1e-3, "I1 with nothing uncommitted: x is float(G): {x} {g}");
        }
        assert!(end.progress.steps_committed > 0);
        assert_eq!(end.progress.counters.copied_sent_bytes, 0);
    }
}

fn begin(n: u64, backend: Requested) -> Vec<Member> {
    let nodes: Vec<Node> = (0..n).map(|index| bind(index, backend)).collect();
    let roster: Vec<_> = nodes.iter().map(Node::hello).collect();
    let enter = |(index, node): (usize, Node)| {
        let sideband = node.hello().sideband;
        employ(node.start(&roster).expect("the roster is whole"), sideband, 1e-4 * (index + 1) as f32)
    };
    nodes.into_iter().enumerate().map(enter).collect()
}

#[test]
fn one_node_commits_alone() {
    let members = begin(1, Requested::Auto);
    wait("versions", || members[0].version() >= 5);
    settle_and_compare(members);
}

#[test]
fn three_nodes_commit_the_same_bits() {
    for backend in [Requested::Auto, Requested::Mio] {
        let members = begin(3, backend);
        wait("versions", || members.iter().all(|member| member.version() >= 8));
        settle_and_compare(members);
    }
}

#[test]
fn a_node_dies_and_another_joins() {
    let mut members = begin(3, Requested::Auto);
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    let dead = members.pop().unwrap();
    dead.control.stop();
    let before = members[0].version();
    wait("versions without it", || members.iter().all(|member| member.version() >= before + 4));
    let removed = |what: &What| matches!(what, What::View { removed, .. } if removed.len() == 1);
    assert!(members[0].has(removed));

    let joiner = bind(9, Requested::Auto);
    let (key, sideband) = (joiner.hello().id.key(), joiner.hello().sideband);
    let running = joiner.join(&[members[1].sideband]).expect("a loopback seed");
    members.push(employ(running, sideband, 5e-4));
    wait("the view with it", || {
        members[0].has(|what| matches!(what, What::View { added, .. } if added.contains(&key)))
    });
    wait("its contribution", || {
        members[0].has(|what| {
            matches!(what, What::Manifest { entries, .. } if entries.iter().any(|entry| entry.0 == key))
        })
    });
    settle_and_compare(members);
}

//! F27: every node of a mesh is killed and started again as it was; and what a state folder may refuse.

use super::common::{Node, folder, key, output, plesio, refused, wait};
use serde_json::Value;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

struct Mesh {
    at: PathBuf,
    ports: Vec<[u16; 2]>,
    join: String,
    /// Of `--path`.
    path: &'static str,
    /// Of `--checkpoint-s`.
    checkpoint_s: &'static str,
}

impl Mesh {
    fn new(name: &str) -> Self {
        let at = folder(name);
        key(&at, "gen operator -o operator.key");
        key(&at, "pub operator.key -o operator.pub");
        key(&at, "gen pool -o pool.key");
        for name in NAMES {
            key(&at, &format!("gen -o {name}.key"));
            key(&at, &format!("pub {name}.key -o {name}.pub"));
            let ticket = "ticket --operator operator.key --pool pool.key --not-after-view 1000";
            key(&at, &format!("{ticket} --node {name}.pub -o {name}.ticket"));
        }
        // Where a node is found again is where it was; whoever takes such a port meanwhile fails the test aloud.
        let free = || UdpSocket::bind("127.0.0.1:0").expect("a port");
        let held: Vec<[UdpSocket; 2]> = NAMES.iter().map(|_| [free(), free()]).collect();
        let port = |socket: &UdpSocket| socket.local_addr().expect("it is bound").port();
        let ports = held.iter().map(|[first, second]| [port(first), port(second)]).collect();
        Self { at, ports, join: String::new(), path: "udp", checkpoint_s: "1" }
    }

    fn start(&mut self, number: usize) -> Node {
        let name = NAMES[number];
        let file = |kind: &str| format!("{name}.{kind}");
        let [sideband, data] = self.ports[number].map(|port| format!("127.0.0.1:{port}"));
        let own = [file("key"), file("ticket"), file("sock"), file("state"), file("trace")];
        let mut line =
            vec!["up", "--json-stream", "--duty", "0.05", "--path", self.path, "--pool", "pool.key"];
        line.extend(["--operator", "operator.pub", "--out", name, "--listen", &sideband]);
        line.extend(["--listen-data", &data, "--key", &own[0], "--ticket", &own[1], "--socket", &own[2]]);
        line.extend(["--state", &own[3], "--checkpoint-s", self.checkpoint_s, "--trace", &own[4]]);
        if number == 0 {
            line.push("--found");
        } else {
            line.extend(["--join", &self.join]);
        }
        let mut node = Node::start(plesio(&self.at, &line));
        let reached = node.started("join");
        if number == 0 {
            self.join = reached;
        }
        node
    }

    fn start_all(&mut self) -> Vec<Node> {
        (0..NAMES.len()).map(|number| self.start(number)).collect()
    }

    fn checkpoint(&self, name: &str) -> u64 {
        status(&self.at, name)["disk"]["checkpoint"].as_u64().unwrap_or(0)
    }
}

fn status(at: &Path, name: &str) -> Value {
    let asked = output(at, &["status", "--socket", &format!("{name}.sock"), "--json"]);
    serde_json::from_slice(&asked.stdout).expect("one document")
}

/// Waits until all are members and hold the same bits for some versions of all of them; the newest version then.
fn agree(nodes: &[Node]) -> u64 {
    wait("a view of all", || nodes.iter().all(|node| node.members() == nodes.len()));
    let before = nodes.iter().map(Node::version).max().expect("there are nodes");
    wait("versions of all", || nodes.iter().all(|node| node.version() > before + 8));
    let digests: Vec<_> = nodes.iter().map(Node::digests).collect();
    // One that lived may have versions from before that were lost with the others.
    let newer = digests[0].keys().filter(|version| **version > before);
    let shared: Vec<_> =
        newer.filter(|version| digests.iter().all(|one| one.contains_key(version))).collect();
    assert!(shared.len() >= 4, "{shared:?}");
    for version in shared {
        assert!(digests.iter().all(|one| one[version] == digests[0][version]), "version {version}");
    }
    nodes.iter().map(Node::version).min().expect("there are nodes")
}

/// The traces of all lives of these nodes agree: whatever was lost was lost with a generation of the log.
fn audit(mesh: &Mesh, names: &[&str]) {
    let mut line = vec!["sim".to_owned(), "--json".to_owned()];
    line.extend(names.iter().flat_map(|name| ["--replay".to_owned(), format!("{name}.trace")]));
    let replayed = output(&mesh.at, &line.iter().map(String::as_str).collect::<Vec<_>>());
    let document: Value = serde_json::from_slice(&replayed.stdout).expect("one document on stdout");
    let audit = &document["replay"]["audit"];
    assert_eq!(audit["broken"].as_array().map(Vec::len), Some(0), "{audit:#}");
    assert!(audit["versions_compared"].as_u64() > Some(8), "{audit:#}");
}

fn lost(node: &Node) -> Option<u64> {
    node.newest(|event, data| (event == "revived").then(|| data["lost_versions"].as_u64()).flatten())
}

#[test]
fn f27_after_kill_9_of_all_the_mesh_goes_on_from_its_disks_once() {
    let mut mesh = Mesh::new("up-restart");
    let nodes = mesh.start_all();
    let reached = agree(&nodes);
    wait("checkpoints of all", || NAMES.iter().all(|name| mesh.checkpoint(name) >= reached));
    let stood = nodes.iter().map(Node::version).max().expect("there are nodes");
    drop(nodes);

    // Started as they were, the founder included.
    let nodes = mesh.start_all();
    let goes_on = agree(&nodes);
    let begun = nodes.iter().filter_map(lost).collect::<Vec<_>>();
    assert_eq!(begun.len(), 1, "one begins: {begun:?}");
    let first = nodes.iter().filter_map(|node| node.digests().into_keys().next()).min().expect("versions");
    assert!(first >= reached && goes_on > first, "from {first}, {reached} was on all disks");
    assert!(first + begun[0] + 8 >= stood, "from {first}, {} lost, {stood} was reached", begun[0]);

    // Who began it is one of them: killed alone, it is let in again.
    let mut nodes = nodes;
    let founder = nodes.iter().position(|node| lost(node).is_some()).expect("one of them");
    drop(nodes.remove(founder));
    nodes.insert(founder, mesh.start(founder));
    agree(&nodes);

    // Again, and one does not come back at once: a majority goes on without it, and lets it in afterwards.
    wait("newer checkpoints", || NAMES.iter().all(|name| mesh.checkpoint(name) >= goes_on));
    drop(nodes);
    let mut nodes: Vec<Node> = (0..3).map(|number| mesh.start(number)).collect();
    let later = agree(&nodes);
    assert!(later > goes_on, "{later} after {goes_on}");
    nodes.push(mesh.start(3));
    agree(&nodes);
    assert_eq!(nodes.iter().filter_map(lost).count(), 1);
    drop(nodes);
    audit(&mesh, &NAMES);
}

/// The node that lived goes on as another life, and the two that came back had connections with its former one: sealed,
/// those were taken for the new one's, and from some time on nothing went between two of the three.
#[test]
fn all_that_are_told_to_end_at_once_leave_but_one_and_lose_nothing() {
    let mut mesh = Mesh { checkpoint_s: "3600", ..Mesh::new("up-all-end") };
    let nodes = mesh.start_all();
    agree(&nodes);
    let ends: Vec<Value> = std::thread::scope(|scope| {
        let threads: Vec<_> = nodes.into_iter().map(|node| scope.spawn(|| node.interrupt().1)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    });
    let newest = ends.iter().filter_map(|end| end["version"].as_u64()).max().expect("they ended");
    let left = |name: &str| {
        let trace = fs::read_to_string(mesh.at.join(format!("{name}.trace"))).expect("its own file");
        trace.contains("\"left\"")
    };
    assert_eq!(NAMES.iter().filter(|name| left(name)).count(), NAMES.len() - 1);
    let nodes = mesh.start_all();
    agree(&nodes);
    let begun = nodes.iter().filter_map(lost).collect::<Vec<_>>();
    let first = nodes.iter().filter_map(|node| node.digests().into_keys().next()).min();
    assert!(begun == [0] && first >= Some(newest), "{begun:?}: from {first:?}, {newest} was reached");
}

#[test]
fn f27_two_of_three_that_come_back_go_on_with_the_one_that_lived() {
    let mut mesh = Mesh { path: "auto", checkpoint_s: "4", ..Mesh::new("up-survivor") };
    let mut nodes: Vec<Node> = (0..3).map(|number| mesh.start(number)).collect();
    agree(&nodes);
    for _ in 0..3 {
        wait("checkpoints of all", || NAMES[..3].iter().all(|name| mesh.checkpoint(name) > 0));
        let stood = nodes[1..].iter().map(Node::version).max().expect("there are nodes");
        nodes.truncate(1);
        nodes.extend((1..3).map(|number| mesh.start(number)));
        agree(&nodes);
        let begun = nodes[1..].iter().filter_map(lost).collect::<Vec<_>>();
        let first = nodes[1..].iter().filter_map(|node| node.digests().into_keys().next()).min();
        let (first, begun) = (first.expect("versions"), begun.first().copied().unwrap_or(0));
        // What was reached is noted each second, and heard here a little later.
        assert!(first + begun + 12 >= stood, "from {first}, {begun} lost, {stood} was reached");
    }
    drop(nodes);
    audit(&mesh, &NAMES[..3]);
}

#[test]
fn a_state_folder_that_is_anothers_or_damaged_refuses_the_node() {
    let mesh = Mesh::new("up-state-refused");
    let at = &mesh.at;
    let up = ["up", "--found", "--key", "a.key", "--ticket", "a.ticket", "--pool", "pool.key"];
    let up = [&up[..], &["--operator", "operator.pub", "--socket", "a.sock", "--seconds", "1"]].concat();
    let with = |folder: &str| refused(at, &[&up[..], &["--state", folder]].concat(), 2);
    fs::write(at.join("file"), b"no folder").expect("our own folder");
    assert!(with("file").contains("file"));
    fs::create_dir(at.join("damaged")).expect("our own folder");
    fs::write(at.join("damaged/views"), [7; 24_576]).expect("our own folder");
    let said = with("damaged");
    assert!(said.contains("nothing in it is whole") && !said.contains("may write"), "{said}");
    assert!(refused(at, &[&up[..], &["--checkpoint-s", "5"]].concat(), 2).contains("--state"));
    let mut holder = Mesh { at: at.clone(), ports: mesh.ports.clone(), join: String::new(), ..mesh };
    let node = holder.start(0);
    wait("a version", || node.version() > 0);
    let plain = ["up", "--found", "--plaintext", "--state", "a.state", "--out", "x"];
    assert!(refused(at, &plain, 2).contains("--key"));
    assert!(refused(at, &[&plain[..], &["--key", "b.key"]].concat(), 2).contains("another process"));
    drop(node);
    let views = fs::read(at.join("a.state/views")).expect("it was kept");
    for (name, bytes) in [("cut", &views[..12_288]), ("longer", &[&views[..], b"junk"].concat())] {
        fs::create_dir(at.join(name)).expect("our own folder");
        fs::write(at.join(name).join("views"), bytes).expect("our own folder");
        let said = with(name);
        assert!(said.contains(&format!("{} bytes long and should be 24576", bytes.len())), "{said}");
        assert!(said.contains("move the folder away") && !said.contains("may write"), "{said}");
    }
    let of_b = ["up", "--found", "--key", "b.key", "--ticket", "b.ticket", "--pool", "pool.key"];
    let of_b = [&of_b[..], &["--operator", "operator.pub", "--halt-record", "b.halt"]].concat();
    assert!(refused(at, &[&of_b[..], &["--state", "a.state"]].concat(), 2).contains("another node"));
    key(at, "gen pool -o other.key");
    key(
        at,
        "ticket --operator operator.key --pool other.key --not-after-view 9 --node a.pub -o other.ticket",
    );
    let foreign = ["up", "--found", "--key", "a.key", "--ticket", "other.ticket", "--pool", "other.key"];
    let foreign = [&foreign[..], &["--operator", "operator.pub", "--socket", "a.sock"]].concat();
    assert!(
        refused(at, &[&foreign[..], &["--halt-record", "x.halt", "--state", "a.state"]].concat(), 2)
            .contains("pool key")
    );
}

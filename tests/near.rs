//! Nodes of one host that read in each other's memory: the same bits as by UDP, next to nothing sent, and UDP wherever
//! memory cannot be had.

use plesio::{Codec, DataPath, Final, Node, NodeConfig, What};
use plesio_memory::Door;
use plesio_tests::mesh::{Member, begin_as, config, join_as, plaintext, settle_and_end, wait};
use plesio_udp::Requested;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A folder for doors, which must be empty in the end.
struct Doors(PathBuf);

impl Doors {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("plesio-near-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a folder of our own");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("our folder");
        Self(path)
    }

    fn names(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).expect("our folder");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    fn told(&self, config: NodeConfig) -> NodeConfig {
        NodeConfig { doors: Some(self.0.clone()), ..config }
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether nothing but notices goes between a node and all its peers.
fn is_near(member: &Member, peers: usize) -> bool {
    let ways = |what: &What| match what {
        What::Ways(ways) => Some(ways.iter().filter(|way| way.path == "memory").count()),
        _ => None,
    };
    member.newest(ways) == Some(peers)
}

fn all_near(members: &[Member]) -> bool {
    members.iter().all(|member| is_near(member, members.len() - 1))
}

/// Whether nothing but notices goes between two nodes, as both say.
fn are_near(pair: [&Member; 2]) -> bool {
    let near = |[one, other]: [&Member; 2]| {
        let peer = other.hello.id.key();
        let says = |what: &What| match what {
            What::Ways(ways) => Some(ways.iter().any(|way| way.peer == peer && way.path == "memory")),
            _ => None,
        };
        one.newest(says) == Some(true)
    };
    near(pair) && near([pair[1], pair[0]])
}

/// Every trainer moves element i by 1 + i % 3 times what it moves the first by: so does any sum of what they cut, unless
/// something else was summed.
fn assert_pattern(end: &Final, tolerance: f32) {
    let unit = end.state[0];
    assert!(unit > 0.0);
    for (index, value) in end.state.iter().enumerate() {
        let expected = unit * (1 + index % 3) as f32;
        assert!((value - expected).abs() < tolerance, "element {index}: {value}, not {expected}");
    }
}

fn bytes(end: &Final) -> (u64, u64) {
    let counters = &end.progress.counters;
    (counters.data_sent_bytes / end.version.0, counters.memory_read_bytes + counters.memory_taken_bytes)
}

#[test]
fn neighbours_read_in_each_others_memory_and_send_notices() {
    let doors = Doors::new("three");
    let members = begin_as(3, |index| doors.told(config(index, Requested::Auto)));
    wait("everybody's memory", || all_near(&members));
    let since = members[0].version();
    wait("versions", || members.iter().all(|member| member.version() >= since + 30));
    let near = settle_and_end(members);
    for end in &near {
        assert_pattern(end, 1e-3);
        assert_eq!(end.progress.counters.notices_refused, 0);
        assert!(end.progress.counters.memory_read_bytes > 0 && end.progress.counters.memory_taken_bytes > 0);
    }
    assert_eq!(doors.names(), [] as [PathBuf; 0], "doors go with their nodes");

    let by_udp = |index| NodeConfig { path: DataPath::Udp, ..doors.told(config(index, Requested::Auto)) };
    let members = begin_as(3, by_udp);
    wait("versions", || members.iter().all(|member| member.version() >= 30));
    assert_eq!(doors.names(), [] as [PathBuf; 0]);
    let udp = settle_and_end(members);
    for (near, udp) in near.iter().zip(&udp) {
        assert_pattern(udp, 1e-3);
        let (near, udp) = (bytes(near), bytes(udp));
        assert_eq!(udp.1, 0);
        assert!(near.0 * 8 < udp.0, "{} bytes a version by notices, {} by UDP", near.0, udp.0);
    }
}

/// Of those who can and one who must not: whoever sums, the bits are the same.
#[test]
fn memory_and_udp_mix() {
    for codec in [Codec::Full, Codec::Int8] {
        let doors = Doors::new(&format!("mix-{codec:?}"));
        let told = |index| {
            let path = if index == 1 { DataPath::Udp } else { DataPath::Auto };
            NodeConfig { path, codec, ..doors.told(plaintext(index, Requested::Auto)) }
        };
        let mut members = begin_as(3, told);
        wait("memory of two", || are_near([&members[0], &members[2]]));
        let since = members[0].version();
        wait("versions", || members.iter().all(|member| member.version() >= since + 10));
        // One goes without a word, and one comes, which takes the state out of somebody's memory.
        let gone = members.pop().expect("three began");
        gone.control.stop();
        wait("a view without it", || members.iter().all(|member| member.view().len() == 2));
        members.push(join_as(told(3), members[0].hello.seed()));
        wait("a view with another", || members.iter().all(|member| member.view().len() == 3));
        wait("its memory", || are_near([&members[0], &members[2]]));
        assert!(!are_near([&members[0], &members[1]]));
        let since = members[0].version();
        wait("versions", || members.iter().all(|member| member.version() >= since + 10));
        for end in &plesio_tests::mesh::settle_and_end_within(members, 2e-3) {
            assert_pattern(end, 4e-3);
        }
        assert_eq!(doors.names(), [] as [PathBuf; 0]);
    }
}

#[test]
fn without_a_folder_of_ones_own_it_goes_by_udp() {
    let doors = Doors::new("none");
    let file = doors.0.join("file");
    fs::write(&file, "").expect("our folder");
    let open = doors.0.join("open");
    fs::create_dir(&open).expect("our folder");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("our folder");
    for (folder, cause) in [(file, "ENOTDIR"), (open, "mode 755"), (doors.0.join("no/such"), "No such file")]
    {
        let told = |index| NodeConfig { doors: Some(folder.clone()), ..config(index, Requested::Auto) };
        let node = Node::bind(told(0)).expect("a node without a door is a node");
        let path = node.found().path.clone();
        assert!(path.starts_with("udp: ") && (path.contains(cause) || cause == "ENOTDIR"), "{path}");
        drop(node);
        let members = begin_as(2, told);
        wait("versions", || members.iter().all(|member| member.version() >= 4));
        let ends = settle_and_end(members);
        assert!(ends.iter().all(|end| end.progress.counters.memory_read_bytes == 0));
    }
}

#[test]
fn what_stands_between_nodes_is_not_gone_around() {
    let advertised = "127.0.0.1:9".parse().ok();
    let told = NodeConfig { advertise_data: advertised, ..config(0, Requested::Auto) };
    let node = Node::bind(told).expect("loopback sockets and a few megabytes");
    assert_eq!(node.found().path, "udp: another address than its own is advertised");
}

#[test]
fn names_that_killed_nodes_left_are_taken_away() {
    let doors = Doors::new("stale");
    let stale = doors.0.join("0123456789abcdef-0123456789abcdef");
    drop(UnixListener::bind(&stale).expect("our folder"));
    let living = Door::open(&doors.0, "living").expect("our folder");
    let node = Node::bind(doors.told(config(0, Requested::Auto))).expect("loopback sockets");
    assert!(node.found().path.starts_with("memory"), "{}", node.found().path);
    assert!(!stale.exists() && living.path().exists());
    assert_eq!(doors.names().len(), 2);
    drop(node);
    wait("its name to go", || doors.names() == [living.path()].map(Path::to_path_buf));
}

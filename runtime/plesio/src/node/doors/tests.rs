//! Two nodes' doors in one folder, and what else may lie or answer there.

use super::*;
use plesio_memory::{ArenaPlan, Segment, SegmentPlan};
use plesio_udp::{Requested, SocketConfig};
use std::os::unix::fs::PermissionsExt;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("plesio-doors-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder of our own");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("our folder");
        Self(path)
    }

    fn names(&self) -> usize {
        std::fs::read_dir(&self.0).expect("our folder").count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn arena(bytes: usize) -> Arena {
    let mut plan = ArenaPlan::new("doors", 1 << 20);
    plan.push(bytes);
    Arena::map(&plan).expect("a page").0
}

/// Waking a node that does not wait.
fn waker(arena: &Arena) -> Waker {
    let socket = SocketConfig::new(([127, 0, 0, 1], 0).into());
    plesio_udp::open(Requested::Mio, &socket, arena.clone()).expect("a loopback socket").io.waker()
}

fn doors(folder: &Folder, arena: &Arena, key: u64) -> Doors {
    Doors::open(&folder.0, arena, NodeKey(key), waker(arena)).expect("our own folder")
}

fn news(doors: &mut Doors) -> News {
    loop {
        if let Some(news) = doors.poll_news() {
            return news;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn refusal(doors: &mut Doors) -> String {
    match news(doors) {
        News::Refused(_, cause) => cause,
        News::Mapped(arena, _) => panic!("{arena:?} was mapped"),
        News::Shut(cause) => panic!("{cause}"),
    }
}

#[test]
fn two_nodes_map_each_others_arenas() {
    let folder = Folder::new("two");
    let arenas = [arena(5_000), arena(5_000)];
    let mut one = doors(&folder, &arenas[0], 1);
    let mut other = doors(&folder, &arenas[1], 2);
    assert_ne!(one.arena, other.arena);
    one.map((NodeKey(2), other.arena));
    other.map((NodeKey(1), one.arena));
    for (doors, arena) in [(&mut one, &arenas[1]), (&mut other, &arenas[0])] {
        let News::Mapped(_, foreign) = news(doors) else { panic!("it was not mapped") };
        let all = arena.whole(0).expect("one region");
        arena.write(all, &[7; 5_000]).expect("idle");
        let mut bytes = [0; 5_000];
        foreign.read(all, &mut bytes).expect("nobody writes");
        assert_eq!(bytes, [7; 5_000]);
        doors.unmap(foreign);
    }
    assert_eq!(folder.names(), 2);
    drop((one, other));
    assert_eq!(folder.names(), 0);
}

/// Two nodes that put each other out and came together again kept the connection of every visit, at both ends, for as long
/// as they lived: a mesh with a member that sleeps too long again and again ran out of descriptors.
#[test]
fn who_maps_an_arena_again_keeps_one_connection_to_its_owner() {
    let folder = Folder::new("again");
    let (mine, other) = (arena(5_000), arena(5_000));
    let mut doors_here = doors(&folder, &mine, 1);
    let door = Door::open(&folder.0, &name(NodeKey(2), 7)).expect("our folder");
    let offer = Offer { kind: KIND, len_bytes: other.memory().1 as u64, generation: 7, tag: 2 };
    let mut tethers: Vec<Tether> = Vec::new();
    for _ in 0..3 {
        doors_here.map((NodeKey(2), 7));
        tethers.push(loop {
            wait(&[door.as_fd()], Duration::from_secs(20)).expect("a socket");
            let file = other.file().expect("tensor memory has a file");
            if let Some(tether) = door.answer(&offer, file).expect("our own user") {
                break tether;
            }
        });
        let News::Mapped(_, foreign) = news(&mut doors_here) else { panic!("it was not mapped") };
        doors_here.unmap(foreign);
    }
    assert_eq!(tethers.iter().map(Tether::parted).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn only_the_arena_that_was_told_of_is_mapped() {
    let folder = Folder::new("told");
    let mine = arena(5_000);
    let mut doors_here = doors(&folder, &mine, 1);
    let key = NodeKey(2);
    // Nobody: on another host, or gone. There is nothing to say of that.
    doors_here.map((key, 5));
    // Laid out another way.
    let other = arena(5_001);
    let strange = doors(&folder, &other, 2);
    doors_here.map((key, strange.arena));
    assert!(refusal(&mut doors_here).contains("another way"));
    // Another's number, another's key, and what is no arena.
    let segment = |len_bytes| {
        let plan =
            SegmentPlan { name: "doors".into(), len_bytes, access: Access::ReadOnly, budget_bytes: 1 << 20 };
        Segment::create(&plan).expect("a page").0
    };
    let segment = segment(8_192);
    for (generation, tag, cause) in [(8, 2, "generation 8"), (7, 3, "another node"), (7, 2, "no arena")] {
        let door = Door::open(&folder.0, &name(key, 7)).expect("our folder");
        let offer = Offer { kind: KIND, len_bytes: 8_192, generation, tag };
        doors_here.map((key, 7));
        let kept = loop {
            wait(&[door.as_fd()], Duration::from_secs(20)).expect("a socket");
            let answered = door.answer(&offer, segment.file().expect("it is mapped"));
            if let Some(tether) = answered.expect("our own user") {
                break tether;
            }
        };
        let refusal = refusal(&mut doors_here);
        assert!(refusal.contains(cause), "{refusal}");
        drop((kept, door));
    }
    assert!(doors_here.poll_news().is_none());
}

#[test]
fn a_door_that_opens_again_is_found() {
    let folder = Folder::new("again");
    let (mine, theirs) = (arena(5_000), arena(5_000));
    let mut doors_here = doors(&folder, &mine, 1);
    let key = NodeKey(2);
    let begun = Instant::now();
    doors_here.map((key, 7));
    while begun.elapsed() < AGAIN {
        assert!(doors_here.poll_news().is_none(), "nobody is there yet");
        std::thread::sleep(Duration::from_millis(5));
    }
    let door = Door::open(&folder.0, &name(key, 7)).expect("our folder");
    let offer = Offer { kind: KIND, len_bytes: theirs.memory().1 as u64, generation: 7, tag: key.0 };
    let tether = loop {
        wait(&[door.as_fd()], Duration::from_secs(20)).expect("a socket");
        if let Some(tether) = door.answer(&offer, theirs.file().expect("mapped")).expect("our own user") {
            break tether;
        }
    };
    assert!(matches!(news(&mut doors_here), News::Mapped(..)));
    drop(tether);
}

#[test]
fn a_node_that_was_killed_leaves_no_name() {
    let folder = Folder::new("killed");
    let (mine, theirs) = (arena(5_000), arena(5_000));
    let mut doors_here = doors(&folder, &mine, 1);
    let key = NodeKey(2);
    let door = Door::open(&folder.0, &name(key, 7)).expect("our folder");
    let path = door.path().to_path_buf();
    doors_here.map((key, 7));
    let len_bytes = theirs.memory().1 as u64;
    let tether = loop {
        wait(&[door.as_fd()], Duration::from_secs(20)).expect("a socket");
        let offer = Offer { kind: KIND, len_bytes, generation: 7, tag: key.0 };
        if let Some(tether) = door.answer(&offer, theirs.file().expect("mapped")).expect("our own user") {
            break tether;
        }
    };
    assert!(matches!(news(&mut doors_here), News::Mapped(..)));
    // As a kill leaves it: all descriptors closed, the name there.
    drop(door);
    drop(std::os::unix::net::UnixListener::bind(&path).expect("our folder"));
    drop(tether);
    let begun = Instant::now();
    while path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody took it away");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(folder.names(), 1, "that of the living");
}

#[test]
fn a_door_that_others_took_away_is_opened_again() {
    let folder = Folder::new("swept");
    let arenas = [arena(100), arena(100)];
    let mut one = doors(&folder, &arenas[0], 1);
    std::fs::remove_dir_all(&folder.0).expect("our folder");
    while !folder.0.exists() || folder.names() == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut other = doors(&folder, &arenas[1], 2);
    other.map((NodeKey(1), one.arena));
    assert!(matches!(news(&mut other), News::Mapped(..)), "who comes later finds it");
    std::fs::remove_dir_all(&folder.0).expect("our folder");
    std::fs::write(&folder.0, "something else").expect("its name is free");
    let News::Shut(cause) = news(&mut one) else { panic!("it is told") };
    assert!(cause.contains("is no folder"), "{cause}");
    std::fs::remove_file(&folder.0).expect("ours");
    while !folder.0.exists() || folder.names() == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
}

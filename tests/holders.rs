//! A shared ring between real processes that are killed at any instruction, and one that writes whatever it likes into
//! the words: nobody gets a signal for it, every slot comes back, and nothing stays behind.
//!
//! This program starts itself again for the other processes.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use plesio_memory::{
    Access, Arena, ArenaPlan, CutMeta, CutOutcome, Door, Fate, Foreign, Handed, Held, Holder, KnockError,
    Offer, Producer, RingError, RingPlan, Segment, SegmentPlan, Tether, knock, shared_ring,
};
use plesio_wire::{Frame, SlotSeq, Version};

const DEPTH: usize = 4;
const LEN_ELEMS: usize = 16_384;
const WORDS: u16 = 1;
const ELEMENTS: u16 = 2;
const GENERATION: u64 = 77;
/// Holders killed, one after the other.
const KILLS: u32 = 50;
/// Workers killed.
const WORKER_KILLS: u32 = 12;
/// Within which every slot of a dead holder is back.
const RECLAIM_MAX: Duration = Duration::from_millis(1_500);
/// Names the folder of the doors to a process that the tests start.
const FOLDER: &str = "PLESIO_HOLDERS_FOLDER";
const ROLE: &str = "PLESIO_HOLDERS_ROLE";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// A folder that only we reach, gone with its value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("plesio-{name}-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).expect("a new folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed with its value, if not before.
struct Other(Child);

impl Other {
    fn start(role: &str, folder: &Path) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args(["--exact", "another_process", "--nocapture"]).env(ROLE, role).env(FOLDER, folder);
        Self(command.stdout(Stdio::null()).spawn().expect("this program runs itself"))
    }

    /// Kills it; it must not have died of anything else.
    fn kill(&mut self) {
        self.0.kill().expect("our own child");
        let status = self.0.wait().expect("our own child");
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The worker's side: its ring, and the doors to it.
struct Ring {
    arena: Arena,
    words: Segment,
    producer: Producer,
    doors: [Door; 2],
}

fn ring_plan() -> (ArenaPlan, RingPlan) {
    let mut plan = ArenaPlan::new("holders-test", 1 << 20);
    let shape = plan.push_ring(DEPTH, LEN_ELEMS);
    (plan, shape)
}

/// Another map of a segment that everybody writes.
fn again(words: &Segment) -> Segment {
    let file = words.file().expect("it is mapped").try_clone_to_owned().expect("a free descriptor");
    let uid = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).expect("proc");
    Segment::attach(file, words.len_bytes(), Access::Shared, uid).expect("our own segment")
}

impl Ring {
    fn new(folder: &Path) -> Self {
        let (plan, shape) = ring_plan();
        let (arena, _) = Arena::map(&plan).expect("a small arena");
        let words = SegmentPlan {
            name: "holders-test".into(),
            len_bytes: DEPTH * 64,
            access: Access::Shared,
            budget_bytes: 1 << 16,
        };
        let (words, _) = Segment::create(&words).expect("a small segment");
        let producer =
            shared_ring(&arena, &shape, SlotSeq(1), again(&words)).expect("the plan's own regions");
        let doors = ["words", "elements"].map(|name| Door::open(folder, name).expect("a folder of our own"));
        Self { arena, words, producer, doors }
    }

    /// Lets one process in, as the holder `id`.
    fn admit(&self, id: u8) -> [Tether; 2] {
        let offers = [(WORDS, self.words.len_bytes()), (ELEMENTS, self.arena.memory().1)];
        let files = [self.words.file(), self.arena.file()];
        let mut tethers = [None, None];
        let deadline = soon();
        while tethers.iter().any(Option::is_none) {
            for at in 0..2 {
                let (kind, len) = offers[at];
                let offer = Offer { kind, len_bytes: len as u64, generation: GENERATION, tag: u64::from(id) };
                let came = self.doors[at].answer(&offer, files[at].expect("both are mapped"));
                tethers[at] = tethers[at].take().or(came.expect("our own user"));
            }
            assert!(Instant::now() < deadline, "nobody came");
            thread::sleep(Duration::from_micros(100));
        }
        tethers.map(|tether| tether.expect("the loop ended"))
    }
}

fn ask(folder: &Path, name: &str) -> Handed {
    let deadline = soon();
    loop {
        match knock(&folder.join(name), deadline) {
            Err(KnockError::Nobody { .. }) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            other => return other.expect("a door that is open or soon will be"),
        }
    }
}

/// Joins the ring behind the doors of a folder.
fn join(folder: &Path) -> (Holder, Segment, [Tether; 2]) {
    let (plan, shape) = ring_plan();
    let words = ask(folder, "words");
    let id = words.offer.tag as u8;
    let (words, first) =
        words.attach(WORDS, GENERATION, DEPTH * 64, Access::Shared).expect("the worker's words");
    let elements = ask(folder, "elements");
    let len_bytes = usize::try_from(elements.offer.len_bytes).expect("a map's length");
    assert!(len_bytes >= plan.needed_bytes());
    let (elements, second) =
        elements.attach(ELEMENTS, GENERATION, len_bytes, Access::ReadOnly).expect("the worker's arena");
    let elements = Foreign::open(elements).expect("an arena's layout");
    let holder = Holder::new(again(&words), elements, &shape, id).expect("the same plan");
    (holder, words, [first, second])
}

/// What the worker has done so far; every unit is somewhere.
#[derive(Debug, Default)]
struct Books {
    quantised: i64,
    excess: i64,
    committed: i64,
    folded: i64,
    commits: u32,
    value: i32,
}

impl Books {
    /// Cuts one contribution, takes back whatever has come back.
    fn turn(&mut self, producer: &mut Producer) {
        self.value = self.value % 1_000 + 1;
        let outcome = producer.cut(meta(), |slot| {
            slot.fill(self.value);
            true
        });
        match outcome {
            CutOutcome::Cut(_) | CutOutcome::Merged { excess: None, .. } => {
                self.quantised += i64::from(self.value)
            }
            CutOutcome::Merged { excess: Some(excess), .. } => {
                self.quantised += i64::from(self.value);
                self.excess += i64::from(excess[0]);
            }
            CutOutcome::Open => thread::yield_now(),
            CutOutcome::Discarded => panic!("every contribution is finite"),
        }
        self.take_back(producer);
    }

    fn take_back(&mut self, producer: &mut Producer) {
        while let Some((info, _)) = producer.poll_returned() {
            let read = |_: &_, fate, elements: &[i32]| {
                assert!(elements.iter().all(|element| *element == elements[0]), "torn");
                match fate {
                    Fate::Committed => {
                        self.committed += i64::from(elements[0]);
                        self.commits += 1;
                    }
                    Fate::Folded => self.folded += i64::from(elements[0]),
                }
            };
            producer.reclaim(info.index, read).expect("it has come back");
        }
    }
}

fn meta() -> CutMeta {
    CutMeta { base_version: Version(1), target_frame: Frame(1), n_steps: 1 }
}

/// Reads a held slot; every element of it is the same.
fn uniform(holder: &Holder, held: &Held, bytes: &mut [u8]) -> Result<i32, RingError> {
    holder.read(held, bytes)?;
    assert!(bytes.chunks_exact(4).all(|element| element == &bytes[..4]), "torn and not seen");
    Ok(i32::from_ne_bytes(bytes[..4].try_into().expect("an element")))
}

/// Descriptors and maps of this process that belong to these tests.
fn possessions() -> (usize, usize) {
    let files = fs::read_dir("/proc/self/fd").expect("proc").flatten();
    let ours = |link: &fs::DirEntry| {
        fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().contains("holders-test"))
    };
    let maps = fs::read_to_string("/proc/self/maps").expect("proc");
    (files.filter(ours).count(), maps.lines().filter(|line| line.contains("holders-test")).count())
}

#[test]
fn killed_processes_and_a_scribbler_cost_nothing_but_their_slots() {
    assert_eq!(possessions(), (0, 0));
    let began = Instant::now();
    holders_are_killed();
    let kills_took = began.elapsed();
    workers_are_killed();
    somebody_scribbles();
    assert_eq!(possessions(), (0, 0), "descriptors or maps were left behind");
    println!("{KILLS} holders were killed in {kills_took:?}");
}

/// Holders die with a slot SENDING, with one OFFERED, and at any moment while they go round.
fn holders_are_killed() {
    let folder = Folder::new("holders");
    let mut ring = Ring::new(&folder.0);
    let mut books = Books::default();
    let mut slowest = Duration::ZERO;
    let mut came_back = 0;
    for kill in 0..KILLS {
        let role = ["sending", "offered", "round"][kill as usize % 3];
        let mut other = Other::start(role, &folder.0);
        let tethers = ring.admit(kill as u8 + 1);
        let (commits, deadline) = (books.commits, soon());
        loop {
            books.turn(&mut ring.producer);
            let count = ring.producer.occupancy();
            let there = match role {
                "sending" => count.sending > 0,
                "offered" => count.offered > 0,
                // Somewhere within a round, another place each time.
                _ => books.commits >= commits + 10 + kill,
            };
            if there {
                break;
            }
            assert!(Instant::now() < deadline, "{role}: the holder does nothing");
        }
        let killed = Instant::now();
        other.kill();
        while !tethers.iter().all(Tether::parted) {
            assert!(killed.elapsed() < RECLAIM_MAX, "the death of a holder went unseen");
        }
        let taken = ring.producer.recover(|_| false);
        books.take_back(&mut ring.producer);
        let count = ring.producer.occupancy();
        assert_eq!((count.sending, count.offered, count.returned), (0, 0, 0), "{role}: a slot is lost");
        assert!(taken == 1 || role == "round", "{role}: {taken} slots");
        came_back += taken;
        slowest = slowest.max(killed.elapsed());
    }
    assert!(slowest < RECLAIM_MAX, "a slot came back after {slowest:?}");
    // A last holder of our own empties the ring, and the books are even.
    let host = thread::scope(|scope| {
        let joining = scope.spawn(|| join(&folder.0));
        let host = ring.admit(200);
        let (mut holder, _words, _tethers) = joining.join().expect("it joins");
        while let Some(info) = holder.poll_cut() {
            let held = holder.announce(info.index).expect("nobody else is there");
            holder.commit(held).expect("nobody takes it back");
        }
        host
    });
    assert!(host.iter().all(Tether::parted), "it has left in good order");
    books.take_back(&mut ring.producer);
    assert_eq!(books.quantised, books.committed + books.folded + books.excess, "{books:?}");
    assert_eq!(usize::from(ring.producer.occupancy().free), DEPTH - 1);
    println!(
        "the slowest of {came_back} slots of dead holders was back after {slowest:?}; {} commits",
        books.commits
    );
    drop(ring);
    assert!(fs::read_dir(&folder.0).expect("our own").next().is_none(), "a door left its name");
}

/// Workers die anywhere in a cut or a merge; what they leave is whole or not offered.
fn workers_are_killed() {
    let mut bytes = vec![0; LEN_ELEMS * 4];
    let mut whole = 0;
    for kill in 0..WORKER_KILLS {
        let folder = Folder::new("workers");
        let mut other = Other::start("worker", &folder.0);
        let (mut holder, _words, tethers) = join(&folder.0);
        // Let it run dry of free slots or not, by turns.
        for _ in 0..kill % 4 * 3 {
            if let Some(info) = holder.poll_cut()
                && let Ok(held) = holder.announce(info.index)
            {
                uniform(&holder, &held, &mut bytes).expect("nobody takes it back");
                holder.commit(held).expect("nobody takes it back");
            }
        }
        thread::sleep(Duration::from_micros(u64::from(kill) * 700));
        other.kill();
        let deadline = soon();
        while !tethers.iter().all(Tether::parted) {
            assert!(Instant::now() < deadline, "the death of a worker went unseen");
        }
        while let Some(info) = holder.poll_cut() {
            let held = holder.announce(info.index).expect("the worker is dead");
            uniform(&holder, &held, &mut bytes).expect("the worker is dead");
            holder.commit(held).expect("the worker is dead");
            whole += 1;
        }
    }
    println!("{whole} whole slots were read after the deaths of {WORKER_KILLS} workers");
}

/// One process writes all over the words and punches holes below them, at full speed, while the worker goes on.
fn somebody_scribbles() {
    let folder = Folder::new("scribbler");
    let mut ring = Ring::new(&folder.0);
    let mut kept = 0_u64;
    let mut bytes = vec![0; LEN_ELEMS * 4];
    // First ours: where a hole was punched nobody is let in any more.
    let (own, (mut holder, _words, _tethers)) = thread::scope(|scope| {
        let joining = scope.spawn(|| join(&folder.0));
        let own = ring.admit(2);
        (own, joining.join().expect("it joins"))
    });
    let mut other = Other::start("scribbler", &folder.0);
    let _tethers_of_scribbler = ring.admit(1);
    for turn in 0..20_000_u32 {
        let outcome = ring.producer.cut(meta(), |slot| {
            slot[..64].fill(3);
            true
        });
        kept += u64::from(matches!(outcome, CutOutcome::Cut(_)));
        if let Some((info, _)) = ring.producer.poll_returned() {
            // The word may have changed again.
            let _ = ring.producer.reclaim(info.index, |_, _, elements| assert_eq!(elements.len(), LEN_ELEMS));
        }
        if let Some(info) = holder.poll_cut()
            && let Ok(held) = holder.announce(info.index)
        {
            // Whatever it reads, it reads it, and hardly ever is it still its own.
            let _ = holder.read(&held, &mut bytes);
            let _ = holder.commit(held);
        }
        if turn.is_multiple_of(8) {
            ring.producer.recover(|id| id == 2);
        }
    }
    drop(own);
    assert!(kept > 0);
    assert!(other.0.try_wait().expect("our own child").is_none(), "the scribbler is still at it");
    other.kill();
    // With it gone the worker takes stock, and has every slot back.
    for _ in 0..2 {
        ring.producer.recover(|_| false);
        while let Some((info, _)) = ring.producer.poll_returned() {
            ring.producer.reclaim(info.index, |_, _, _| {}).expect("nobody writes any more");
        }
    }
    let count = ring.producer.occupancy();
    assert_eq!(usize::from(count.free + count.cut), DEPTH - 1, "{count:?}");
    println!("{kept} slots were cut under a scribbler");
}

/// What the test above starts: holders, workers and a scribbler, each until it is killed.
#[test]
fn another_process() {
    let (Some(role), Some(folder)) = (std::env::var_os(ROLE), std::env::var_os(FOLDER)) else {
        println!("skipped: this is for the test that kills it");
        return;
    };
    let folder = PathBuf::from(folder);
    match role.to_str().expect("a role of ours") {
        "worker" => work(&folder),
        "scribbler" => scribble(&folder),
        role => hold(&folder, role),
    }
}

fn hold(folder: &Path, role: &str) {
    let (mut holder, _words, tethers) = join(folder);
    let mut bytes = vec![0; LEN_ELEMS * 4];
    let mut turn = 0_u32;
    loop {
        // Whoever started us may itself be killed.
        if tethers.iter().any(Tether::parted) {
            return;
        }
        let Some(info) = holder.poll_cut() else {
            thread::yield_now();
            continue;
        };
        let Ok(held) = holder.announce(info.index) else { continue };
        uniform(&holder, &held, &mut bytes).expect("nobody takes it back");
        turn += 1;
        match role {
            "sending" => wait_for_the_end(&tethers),
            "offered" => {
                let _held = holder.offer(held).expect("nobody takes it back");
                wait_for_the_end(&tethers);
            }
            _ if turn.is_multiple_of(5) => holder.fold(held).expect("nobody takes it back"),
            _ => {
                let held = holder.offer(held).expect("nobody takes it back");
                holder.commit(held).expect("nobody takes it back");
            }
        }
    }
}

fn wait_for_the_end(tethers: &[Tether; 2]) {
    while !tethers.iter().any(Tether::parted) {
        thread::sleep(Duration::from_millis(5));
    }
}

fn work(folder: &Path) {
    let mut ring = Ring::new(folder);
    let tethers = ring.admit(1);
    let mut books = Books::default();
    while !tethers.iter().any(Tether::parted) {
        books.turn(&mut ring.producer);
    }
}

fn scribble(folder: &Path) {
    let (_holder, words, tethers) = join(folder);
    let all = words.words(0, DEPTH * 16).expect("the words of all headers");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut turn = 0_u32;
    while !turn.is_multiple_of(1_024) || !tethers.iter().any(Tether::parted) {
        turn = turn.wrapping_add(1);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Often a state that exists, else nobody would act on it.
        let value = if random & 1 == 0 { (random >> 32) as u32 } else { (random >> 32) as u32 & 0xffff_0107 };
        all[(random >> 8) as usize % all.len()].store(value, Ordering::Relaxed);
        if turn.is_multiple_of(4_096) {
            punch(&words);
        }
    }
}

/// Takes the memory away below a segment; whoever touches it next finds zeros.
fn punch(words: &Segment) {
    use nix::fcntl::{FallocateFlags, fallocate};
    let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(words.file().expect("it is mapped"), how, 0, 4_096).expect("who may write may punch");
}

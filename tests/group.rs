//! Groups of real processes on one host: sums, disagreements, and ranks killed anywhere inside an operation.
//!
//! A rank is this test binary again, told by its environment what to do.

use plesio::{Codec, GroupError, Narrowing, SharedGroup, SharedPlan};
use plesio_collective::{Call, CallError, Element, Operation, Places, Rates};
use plesio_tests::ranks::{by_datagrams, bytes, real, value};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "PLESIO_TEST_GROUP_RANK";
const COUNT: u64 = 4 << 20;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("plesio-group-{name}-{}", std::process::id()));
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

fn plan(folder: &Path, rank: u8, ranks: u8, tensor_bytes: usize) -> SharedPlan {
    SharedPlan {
        folder: folder.into(),
        name: "test".into(),
        generation: 11,
        rank,
        ranks,
        tensor_bytes,
        deadline: Duration::from_secs(20),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Every rank in a thread of its own.
fn together<T: Send>(
    name: &str,
    ranks: u8,
    bytes: usize,
    act: impl Fn(u8, SharedGroup) -> T + Sync,
) -> Vec<T> {
    let folder = Folder::new(name);
    std::thread::scope(|scope| {
        let (folder, act) = (&folder.0, &act);
        let rank = |rank| {
            move || act(rank, SharedGroup::form(&plan(folder, rank, ranks, bytes), soon()).expect("all come"))
        };
        let threads: Vec<_> = (0..ranks).map(|number| scope.spawn(rank(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

#[test]
fn tensors_of_any_length_are_summed_for_everybody() {
    for ranks in [1u8, 2, 3, 5] {
        let lengths = [0u64, 1, 2, 1023, 2048, 2049, 10_007, 300_001];
        let all = together(&format!("sum{ranks}"), ranks, 2 << 20, |rank, mut group| {
            let mut sums = Vec::new();
            for count in lengths {
                group.write(64, &bytes((0..count).map(|at| value(rank.into(), at)))).expect("it fits");
                let present = group.all_reduce(Element::F32, count, Places::in_place(64)).expect("all call");
                assert_eq!(present.len(), usize::from(ranks));
                let mut sum = vec![0; count as usize * 4];
                group.read(64, &mut sum).expect("it fits");
                sums.push(sum);
            }
            sums
        });
        for sums in &all {
            for (count, sum) in lengths.iter().zip(sums) {
                let wanted = (0..*count).map(|at| (0..u64::from(ranks)).map(|rank| value(rank, at)).sum());
                assert_eq!(*sum, bytes(wanted), "{ranks} ranks, {count} elements");
            }
        }
    }
}

#[test]
fn ranges_are_scattered_gathered_and_broadcast() {
    let count = 50_021u64;
    together("others", 3, 1 << 20, |rank, mut group| {
        let mut tensor = vec![0; count as usize * 4];
        let own = plesio_collective::range(count, 3, rank.into());
        group.write(0, &bytes((0..count).map(|at| value(rank.into(), at)))).expect("it fits");
        group.reduce_scatter(Element::F32, count, Places { input: 0, output: 400_000 }).expect("all call");
        group.all_gather(Element::F32, count, Places::in_place(400_000)).expect("all call");
        group.read(400_000, &mut tensor).expect("it fits");
        let sum = |at| (0..3).map(|rank| value(rank, at)).sum();
        assert_eq!(tensor, bytes((0..count).map(sum)), "rank {rank}, own range {own:?}");
        group.broadcast(2, Element::F32, count, Places { input: 0, output: 400_000 }).expect("all call");
        group.read(400_000, &mut tensor).expect("it fits");
        assert_eq!(tensor, bytes((0..count).map(|at| value(2, at))));
    });
}

#[test]
fn ranks_that_disagree_are_told_and_go_on() {
    let verdicts = together("differ", 3, 1 << 20, |rank, mut group| {
        let call = |operation, element, count| Call { operation, element, count };
        let good = call(Operation::AllReduce, Element::F32, 5000);
        let mut verdicts = Vec::new();
        for other in [
            call(Operation::AllReduce, Element::F32, 5001),
            call(Operation::AllReduce, Element::Bf16, 5000),
            call(Operation::AllGather, Element::F32, 5000),
            call(Operation::AllReduce, Element::F32, 5),
        ] {
            let own = if rank == 1 { other } else { good };
            match group.call(own, Places::in_place(0)) {
                Err(GroupError::Call(error)) => verdicts.push((error, other)),
                other => panic!("{other:?}"),
            }
        }
        // One asks for more than its tensors hold; all hear of it, itself included.
        let count = if rank == 2 { 1 << 20 } else { 5000 };
        let outcome = group.call(Call { count, ..good }, Places::in_place(0));
        assert!(matches!(outcome, Err(GroupError::Call(CallError::Mismatch { .. }))), "{outcome:?}");
        for (place, count) in [(1 << 20, 5000), (1 << 40, 5000), (1 << 40, 7), (2, 7), (u64::MAX - 3, 7)] {
            let own = if rank == 2 { place } else { 0 };
            let outcome = group.call(Call { count, ..good }, Places::in_place(own));
            assert!(
                matches!(outcome, Err(GroupError::Call(CallError::Place { rank: 2 }))),
                "{place}: {outcome:?}"
            );
        }
        group.call(good, Places::in_place(0)).expect("the group goes on");
        verdicts
    });
    for told in &verdicts {
        for (error, other) in told {
            let CallError::Mismatch { first, other: (rank, call) } = error else { panic!("{error}") };
            assert_eq!((first.0, *rank, call), (0, 1, other));
        }
    }
}

#[test]
fn sums_by_datagrams_are_those_of_shared_memory() {
    for ranks in [2u8, 3, 4] {
        let lengths = [0u64, 1, 1000, 70_001, 600_001];
        let out = 2_400_064u32;
        let all = by_datagrams(ranks, 2 * out, |rank, group| {
            let mut sums = Vec::new();
            for count in lengths {
                for output in [0, out] {
                    group.write(0, &bytes((0..count).map(|at| value(rank.into(), at)))).expect("it fits");
                    let places = Places { input: 0, output: output.into() };
                    let present = group.all_reduce(Element::F32, count, places).expect("all call");
                    assert_eq!(present.len(), usize::from(ranks));
                    let mut sum = vec![0; count as usize * 4];
                    group.read(output, &mut sum).expect("it fits");
                    sums.push(sum);
                }
            }
            sums
        });
        for sums in &all {
            for (count, sum) in lengths.iter().flat_map(|count| [count, count]).zip(sums) {
                let wanted = (0..*count).map(|at| (0..u64::from(ranks)).map(|rank| value(rank, at)).sum());
                assert_eq!(*sum, bytes(wanted), "{ranks} ranks, {count} elements");
            }
        }
    }
}

#[test]
fn narrowed_sums_are_the_same_for_everybody_and_near_the_exact_one() {
    let (count, out, kept) = (200_003u64, 1u64 << 20, 2u64 << 20);
    for (ranks, codec, error_max) in
        [(2u8, Codec::Bf16, 0.005), (3, Codec::Int8, 0.02), (4, Codec::Int4By64, 0.2), (2, Codec::Int8, 0.02)]
    {
        let rounds = 16;
        let exact: Vec<f32> = (0..count).map(|at| (0..ranks).map(|rank| real(rank, at)).sum()).collect();
        let norm =
            |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
        let error = |sum: &[f32]| {
            let apart = norm(&mut sum.iter().zip(&exact).map(|(found, wanted)| found - wanted));
            (apart / norm(&mut exact.iter().copied())).sqrt()
        };
        let all = by_datagrams(ranks, 3 << 20, |rank, group| {
            let mut sums: Vec<Vec<f32>> = Vec::new();
            for round in 0..rounds {
                let input = bytes((0..count).map(|at| real(rank, at)));
                let output = if round % 2 == 0 { out } else { 0 };
                group.write(0, &input).expect("it fits");
                let narrowing = Narrowing { codec, residue: Some(kept) };
                let places = Places { input: 0, output };
                group.all_reduce_narrowed(count, places, narrowing).expect("all call");
                let mut sum = vec![0; count as usize * 4];
                group.read(output as u32, &mut sum).expect("it fits");
                sums.push(sum.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect());
            }
            sums
        });
        assert!(
            all.iter().all(|sums| sums == &all[0]),
            "{ranks} ranks, {codec:?}: everybody has the same bits"
        );
        let first = error(&all[0][0]);
        assert!(first > 0.0 && first < error_max, "{ranks} ranks, {codec:?}: {first}");
        let mean: Vec<f32> = (0..count as usize)
            .map(|at| all[0].iter().map(|sum| sum[at]).sum::<f32>() / rounds as f32)
            .collect();
        let mean = error(&mean);
        assert!(
            mean < first / 4.0,
            "{ranks} ranks, {codec:?}: what is left out comes later: {mean} of {first}"
        );
    }
}

#[test]
fn ranks_with_unlike_codecs_or_rates_are_told_and_go_on() {
    let fast = Rates { up_bytes_per_s: 1 << 30, down_bytes_per_s: 1 << 30, sum_elements_per_s: 1 << 30 };
    let slow = Rates { up_bytes_per_s: 1 << 24, down_bytes_per_s: 1 << 24, ..fast };
    by_datagrams(3, 4 << 20, |rank, group| {
        let count = 300_000;
        let narrowing = |codec| Narrowing { codec, residue: None };
        let codec = if rank == 1 { Codec::Int8 } else { Codec::Bf16 };
        let outcome = group.all_reduce_narrowed(count, Places::in_place(0), narrowing(codec));
        assert!(matches!(outcome, Err(GroupError::Call(_))), "{outcome:?}");
        for (residue, output) in [(4, 0), (2 << 20, 2 << 20), (3 << 20, 0), (u64::MAX, 0), (2_000_001, 0)] {
            let narrowing = Narrowing { codec, residue: Some(residue) };
            let outcome = group.all_reduce_narrowed(count, Places { input: 0, output }, narrowing);
            assert!(matches!(outcome, Err(GroupError::Range)), "{residue}: {outcome:?}");
        }
        assert!(group.set_rates(&[fast]).is_err());
        group.set_rates(&[fast, slow, if rank == 1 { slow } else { fast }]).expect("one each");
        let outcome = group.all_reduce(Element::F32, count, Places::in_place(0));
        assert!(matches!(outcome, Err(GroupError::Call(_))), "{outcome:?}");
        group.set_rates(&[fast, slow, fast]).expect("one each");
        for codec in [Codec::Full, Codec::Bf16] {
            group.write(0, &bytes((0..count).map(|at| value(rank.into(), at) % 16.0))).expect("it fits");
            group.all_reduce_narrowed(count, Places::in_place(0), narrowing(codec)).expect("all call");
            let mut sum = vec![0; count as usize * 4];
            group.read(0, &mut sum).expect("it fits");
            let wanted = (0..count).map(|at| (0..3).map(|rank| value(rank, at) % 16.0).sum());
            assert_eq!(sum, bytes(wanted));
        }
    });
}

#[test]
fn a_plan_that_cannot_be_and_a_rank_that_never_comes_are_errors() {
    let folder = Folder::new("alone");
    for (rank, ranks, name) in [(0, 0, "a"), (2, 2, "a"), (0, 33, "a"), (0, 2, ""), (0, 2, "a/b")] {
        let plan = SharedPlan { name: name.into(), ..plan(&folder.0, rank, ranks, 4096) };
        assert!(matches!(SharedGroup::form(&plan, soon()), Err(GroupError::Plan { .. })), "{plan:?}");
    }
    let brief = Instant::now() + Duration::from_millis(50);
    let outcome = SharedGroup::form(&plan(&folder.0, 0, 2, 4096), brief);
    let error = outcome.expect_err("nobody else is there");
    assert!(
        matches!(error, GroupError::Alone { came: 0, expected: 1 } | GroupError::Knock { rank: 1, .. }),
        "{error}"
    );
    let mut alone = SharedGroup::form(&plan(&folder.0, 0, 1, 4096), soon()).expect("nobody to wait for");
    alone.all_reduce(Element::F32, 1024, Places::in_place(0)).expect("one rank is a group");
}

#[test]
fn a_rank_that_lives_and_does_not_call_ends_the_call_and_breaks_the_group() {
    let folder = Folder::new("late");
    std::thread::scope(|scope| {
        let (called, may_end) = std::sync::mpsc::channel::<()>();
        let path = &folder.0;
        let form = move |rank| {
            let brief = SharedPlan { deadline: Duration::from_millis(100), ..plan(path, rank, 2, 1 << 20) };
            SharedGroup::form(&brief, soon()).expect("all come")
        };
        let idle = scope.spawn(move || {
            let group = form(1);
            // It lives until the other has given up.
            let _ended = may_end.recv();
            drop(group);
        });
        let mut group = form(0);
        let outcome = group.all_reduce(Element::F32, 100_000, Places::in_place(0));
        let Err(GroupError::Late { ranks, .. }) = &outcome else { panic!("{outcome:?}") };
        assert_eq!(ranks.0, 0b10);
        let again = group.all_reduce(Element::F32, 1, Places::in_place(0));
        assert!(matches!(again, Err(GroupError::Broken)), "{again:?}");
        called.send(()).expect("it waits for this");
        idle.join().expect("it only waited");
    });
}

struct Rank {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Rank {
    fn start(folder: &Path, rank: u8, ranks: u8) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test has a binary"))
            .args(["--exact", "a_rank_of_a_group", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{rank} {ranks} {}", folder.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the test can start itself");
        let out = BufReader::new(child.stdout.take().expect("is piped"));
        Self { child, out }
    }

    fn tell(&mut self) {
        writeln!(self.child.stdin.as_mut().expect("is piped"), "go").expect("the rank listens");
    }

    /// The next line that begins with `word`, without it; `None` when the rank is gone.
    fn hear(&mut self, word: &str) -> Option<String> {
        for line in (&mut self.out).lines().map_while(Result::ok) {
            if let Some(at) = line.find(word) {
                return Some(line[at + word.len()..].trim().into());
            }
        }
        None
    }
}

/// Not a test by itself: one rank of [`ranks_killed_inside_an_operation_leave_the_same_bits_to_the_others`].
#[test]
fn a_rank_of_a_group() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
    let (rank, ranks): (u8, u8) = (number(), number());
    let folder = PathBuf::from(role.splitn(3, ' ').nth(2).expect("a folder"));
    let tensor_bytes = COUNT as usize * 4;
    let mut group = SharedGroup::form(&plan(&folder, rank, ranks, tensor_bytes), soon()).expect("all come");
    let tensor = bytes((0..COUNT).map(|at| value(rank.into(), at)));
    println!("MET");
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).is_ok_and(|len| len > 0) {
        group.write(0, &tensor).expect("it fits");
        println!("READY");
        std::io::stdin().read_line(&mut line).expect("the test goes on");
        let began = Instant::now();
        let outcome = group.all_reduce(Element::F32, COUNT, Places::in_place(0));
        let took = began.elapsed();
        let present = outcome.expect("those that live finish");
        let mut sum = vec![0; tensor_bytes];
        group.read(0, &mut sum).expect("it fits");
        let wanted = bytes((0..COUNT).map(|at| present.iter().map(|rank| value(rank as u64, at)).sum()));
        println!("DONE {} {} {}", present.0, took.as_micros(), u8::from(sum == wanted));
    }
}

#[test]
fn ranks_killed_inside_an_operation_leave_the_same_bits_to_the_others() {
    let mut late = 0;
    for trial in 0..6u32 {
        let folder = Folder::new(&format!("kill{trial}"));
        let mut ranks: Vec<Rank> = (0..4).map(|rank| Rank::start(&folder.0, rank, 4)).collect();
        ranks.iter_mut().for_each(|rank| rank.hear("MET").map(drop).expect("the group is formed"));
        let victim = trial as usize % 4;
        for round in 0..2 {
            ranks.iter_mut().for_each(Rank::tell);
            ranks.iter_mut().for_each(|rank| rank.hear("READY").map(drop).expect("is ready"));
            ranks.iter_mut().for_each(Rank::tell);
            if round == 0 {
                // Anywhere from the call to its end; where it hits is chance, what it leaves behind is not.
                std::thread::sleep(Duration::from_micros(u64::from(trial) * 700));
                ranks[victim].child.kill().expect("it is ours");
            }
            let mut told: Vec<String> = Vec::new();
            for (rank, process) in ranks.iter_mut().enumerate() {
                match process.hear("DONE") {
                    Some(line) => told.push(line),
                    None => assert_eq!((rank, round), (victim, 0), "only the victim is gone"),
                }
            }
            if round == 0 && told.len() == 4 {
                late += 1;
            }
            let present = |line: &String| line.split(' ').next().map(str::to_owned);
            assert!(told.iter().all(|line| line.ends_with(" 1")), "trial {trial}: {told:?}");
            assert!(
                told.windows(2).all(|two| present(&two[0]) == present(&two[1])),
                "trial {trial}: {told:?}"
            );
            if round == 0 {
                ranks.remove(victim);
            } else {
                assert_eq!(told.len(), 3);
                assert_eq!(present(&told[0]), Some((0b1111u32 & !(1 << victim)).to_string()));
            }
        }
    }
    assert!(late < 6, "every kill came too late to be inside");
}

//! Nodes on a machine that grants little: no locked memory, no io_uring. They say so, and work or refuse clearly.
#![expect(unsafe_code, reason = "installing a seccomp filter has no safe interface here")]

use nix::libc;
use plesio::{Found, Node, NodeError};
use plesio_tests::mesh::{config, employ, node_threads, settle_and_end, wait};
use plesio_tests::say_skipped;
use plesio_udp::{OpenError, Requested, Tier, probe};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Tests that these run again, each in a process of its own: limits and filters end with it.
const UNLOCKED: &str = "a_node_under_the_limits_at_hand";
const DENIED: &str = "a_node_without_io_uring";
/// Set for the child: its errno, or that it is one.
const ASKED: &str = "PLESIO_TEST_LIMITS";

/// Runs one test of this program with `asked`, after `prelude` in a shell; its output, or why there is none.
fn again(test: &str, asked: &str, prelude: &str, as_nobody: bool) -> Result<String, String> {
    let mut shell = Command::new("sh");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let script = format!("{prelude} exec \"$0\" --exact {test} --nocapture");
    shell.arg("-c").arg(script).arg(program).env(ASKED, asked);
    // Root ignores the limit on locked memory.
    if as_nobody && fs::metadata("/proc/self").map_err(|error| error.to_string())?.uid() == 0 {
        shell.uid(65_534).gid(65_534).current_dir("/");
    }
    let output = shell.output().map_err(|error| error.to_string())?;
    let (text, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if text.is_empty() {
        return Err(format!("{}: {complaint}", output.status));
    }
    assert!(output.status.success(), "{text}{complaint}");
    Ok(text.into_owned())
}

/// Starts a node alone, has it commit, ends it; what it found.
fn commit_alone(backend: Requested) -> Found {
    let node = Node::bind(config(0, backend)).expect("the least that a node needs is granted");
    let (hello, found) = (node.hello(), node.found().clone());
    let member = employ(node.start(&[hello]).expect("the roster is this node"), hello, 1e-4);
    wait("versions", || member.version() >= 4);
    let ends = settle_and_end(vec![member]);
    assert!(ends[0].version.0 >= 4);
    found
}

#[test]
fn a_node_without_locked_memory_works_and_says_so() {
    for limit_kib in [0, 64, 8_192] {
        match again(UNLOCKED, "memlock", &format!("ulimit -l {limit_kib};"), true) {
            Ok(text) => {
                assert!(limit_kib > 0 || text.contains("locked 0 of"), "{text}");
                let told =
                    |what: &str| text.lines().any(|line| line.starts_with("note:") && line.contains(what));
                assert!(told("lock"), "limit {limit_kib} KiB: {text}");
                // Where there is a ring, what it holds is said too, with the bytes it needs.
                assert!(told("io_uring") || text.contains("over mio"), "limit {limit_kib} KiB: {text}");
            }
            Err(cause) => {
                say_skipped(&format!("{limit_kib} KiB to lock: nobody cannot run this program: {cause}"))
            }
        }
    }
}

/// What the test above runs with nothing to lock; under ordinary limits an ordinary node.
#[test]
fn a_node_under_the_limits_at_hand() {
    if std::env::var_os(ASKED).is_none() {
        println!("skipped: this is for the test that sets the limit");
        return;
    }
    let found = commit_alone(Requested::Auto);
    println!("locked {} of {} bytes over {}", found.locked_bytes, found.arena_bytes, found.backend);
    found.notes.iter().for_each(|note| println!("note: {note}"));
}

#[test]
fn a_node_without_io_uring_works_on_mio_or_refuses() {
    for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM] {
        match again(DENIED, &errno.to_string(), "", false) {
            Ok(text) if text.contains("skipped:") => say_skipped("no io_uring: no seccomp filters here"),
            Ok(text) => assert!(text.contains("backend mio"), "{text}"),
            Err(cause) => panic!("this program cannot run itself: {cause}"),
        }
    }
}

/// What the test above runs under a filter.
#[test]
fn a_node_without_io_uring() {
    let Some(errno) = std::env::var(ASKED).ok().and_then(|asked| asked.parse().ok()) else {
        println!("skipped: this is for the test that denies io_uring");
        return;
    };
    if !deny_io_uring(errno) {
        println!("skipped: no seccomp filters here");
        return;
    }
    let auto = probe(Requested::Auto).expect("mio is always there");
    assert_eq!(auto.tier, Tier::Mio);
    let Err(OpenError::Backend { reason }) = probe(Requested::Uring) else {
        panic!("forced io_uring must be an error");
    };
    assert!(reason.contains("cannot be set up"), "{reason}");
    // The threads of a node inherit the filter.
    let error = match Node::bind(config(0, Requested::Uring)) {
        Ok(node) => panic!("io_uring is denied, and the node found {:?}", node.found()),
        Err(error) => error,
    };
    assert!(matches!(error, NodeError::Open(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("io_uring") && text.contains("auto"), "what is wrong and what would help: {text}");
    wait("the refused node's threads to end", || node_threads().is_empty());

    let found = commit_alone(Requested::Auto);
    assert_eq!((found.backend.as_str(), &found.backend_reason), ("mio", &auto.reason));
    assert!(found.backend_reason.contains("io_uring"), "{}", found.backend_reason);
    println!("backend {}: {}; forced: {text}", found.backend, found.backend_reason);
}

/// From now on `io_uring_setup` fails with `errno` on this thread and those that it starts.
fn deny_io_uring(errno: i32) -> bool {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // The number of io_uring_setup on every architecture, at offset 0 of seccomp_data.
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, 425),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes only integers.
    let privileged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let installed =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    (privileged, installed) == (0, 0)
}

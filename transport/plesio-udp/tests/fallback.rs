//! io_uring refused by the kernel: the stated fallback, and a clear error where it was forced.
#![expect(unsafe_code, reason = "installing a seccomp filter has no safe interface here")]

use std::thread;

use nix::libc;
use plesio_memory::{Arena, ArenaPlan};
use plesio_udp::{OpenError, Requested, SocketConfig, Tier, open, probe};

/// From now on `io_uring_setup` fails on this thread, and only on this one.
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

#[test]
fn io_uring_denied_by_seccomp_is_said_and_survived() {
    for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM] {
        let denied = thread::spawn(move || {
            if !deny_io_uring(errno) {
                println!("skipped: no seccomp filters here");
                return;
            }
            let auto = probe(Requested::Auto).unwrap();
            assert_eq!(auto.tier, Tier::Mio);
            assert!(auto.reason.contains("io_uring"), "{}", auto.reason);
            let Err(OpenError::Backend { reason }) = probe(Requested::Uring) else {
                panic!("forced io_uring must be an error");
            };
            assert!(reason.contains("cannot be set up"), "{reason}");
            let mut plan = ArenaPlan::new("fallback", 1 << 20);
            plan.push(4_096);
            let arena = Arena::heap(&plan).unwrap();
            let config = SocketConfig::new("127.0.0.1:0".parse().unwrap());
            let opened = open(Requested::Auto, &config, arena).unwrap();
            assert_eq!(opened.io.tier(), Tier::Mio);
            assert_eq!(opened.probe, auto);
        });
        denied.join().unwrap();
    }
}

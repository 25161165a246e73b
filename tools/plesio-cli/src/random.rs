//! The system's randomness: identities, keys, and what tells one life of a process from another.

use crate::failure::Failure;
use plesio_session::{Entropy, Secret};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroize;

/// Fills `bytes`; waits until the system has gathered enough, early after a start of the machine.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    let mut left = bytes;
    while !left.is_empty() {
        match getrandom(&mut *left, GetRandomFlags::empty()) {
            Ok(count) => left = &mut left[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(cause) => {
                return Err(Failure::run("random", "cannot draw random bytes", cause)
                    .fix("run it on Linux 3.17 or newer, and let the sandbox pass getrandom"));
            }
        }
    }
    Ok(())
}

/// 64 random bits.
pub(crate) fn number() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// 32 bytes that never come twice.
pub(crate) fn seed() -> Result<Secret<32>, Failure> {
    let mut bytes = [0; 32];
    let filled = fill(&mut bytes);
    let seed = Secret::new(bytes);
    bytes.zeroize();
    filled.map(|()| seed)
}

/// Randomness for a few keys.
pub(crate) fn entropy() -> Result<Entropy, Failure> {
    seed().map(|seed| Entropy::new(&seed))
}

//! What memory alone costs, at an instruction set and on as many threads as a kernel: see [`plesio_kernels::stream`].
#![expect(unsafe_code, reason = "code for an instruction set is entered here")]

use crate::dispatch::Cpu;
use crate::level::Level;
use plesio_kernels::stream::stream;

macro_rules! level {
    ($name:ident $(, $features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        fn $name(salt: u32, reads: &[&[u32]], updates: &mut [&mut [u32]], writes: &mut [&mut [u32]]) -> u32 {
            stream(salt, reads, updates, writes)
        }
    };
}

level!(scalar);
#[cfg(target_arch = "aarch64")]
level!(neon, "neon");
#[cfg(target_arch = "x86_64")]
level!(avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
level!(avx512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl");

impl Cpu {
    /// See [`plesio_kernels::stream::stream`].
    pub fn stream(
        self,
        salt: u32,
        reads: &[&[u32]],
        updates: &mut [&mut [u32]],
        writes: &mut [&mut [u32]],
    ) -> u32 {
        match self.level() {
            // SAFETY: a `Cpu` of this level exists only where the features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512(salt, reads, updates, writes) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2(salt, reads, updates, writes) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::Neon => unsafe { neon(salt, reads, updates, writes) },
            _ => scalar(salt, reads, updates, writes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_reads_rewrites_and_writes_all_of_it() {
        for len in [0usize, 1, 15, 64, 1_000, 4_099] {
            let read: Vec<u32> = (1..=len as u32).map(|e| e.wrapping_mul(2_654_435_761)).collect();
            let mut expected = None;
            for cpu in Level::ALL.into_iter().filter_map(Cpu::with_level) {
                let (mut update, mut write) = (read.clone(), vec![0; len / 2]);
                let seen = cpu.stream(7, &[&read, &read[..len / 3]], &mut [&mut update], &mut [&mut write]);
                assert_eq!(seen, *expected.get_or_insert(seen), "{} {len}", cpu.level());
                assert!(
                    update.iter().zip(&read).all(|(now, before)| *now == before ^ 7),
                    "{} {len}",
                    cpu.level()
                );
                assert!(write.iter().all(|element| *element == seen), "{} {len}", cpu.level());
            }
            let plain = read.iter().chain(&read[..len / 3]).fold(7, |seen, element| seen ^ element);
            assert_eq!(expected, Some(plain), "{len}");
        }
    }
}

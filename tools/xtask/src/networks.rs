//! Sorting networks as literal lists of compare-swaps: `cargo xtask networks`.
//!
//! Knows: Batcher's odd-even merge sort and the two files that hold it, one for the reference and the CPU, one for the
//! accelerators. Does not know: what is sorted. Invariant: both files are what this generator makes; a test says so.
//! They are lists because a loop over comparators keeps its lanes in memory: 90 times slower on a CPU, and more on a GPU.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

/// Numbers of lanes that are sorted: contributions of a robust rule.
const LANES: RangeInclusive<usize> = 2..=32;

/// Longest line of a generated file.
const LINE_MAX: usize = 110;

/// A generated file, and who makes it.
type Generated = (&'static str, fn() -> String);
const FILES: [Generated; 2] =
    [("kernels/plesio-kernels/src/robust/networks.rs", rust), ("kernels/source/networks.h", header)];

/// `networks [--check]`: writes both files, or says which one is not what it should be.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let check = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err(format!("unknown arguments {arguments:?}; it takes --check or nothing")),
    };
    for (name, make) in FILES {
        let path = root.join(name);
        if !check {
            std::fs::write(&path, make()).map_err(|error| format!("{}: {error}", path.display()))?;
            println!("networks: wrote {name}");
        } else if std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?
            != make()
        {
            return Err(format!("{name} is not what the generator makes: cargo xtask networks"));
        }
    }
    Ok(())
}

/// One compare-swap: the smaller value goes to the first lane.
type Swap = (usize, usize);

/// The network of `lanes` lanes: both parts, then Batcher's merge of the two ("Sorting networks and their applications",
/// 1968). The first part is a power of two.
fn network(lanes: usize) -> Vec<Swap> {
    if lanes < 2 {
        return Vec::new();
    }
    let half = lanes.next_power_of_two() / 2;
    let mut swaps = network(half);
    swaps.extend(network(lanes - half).into_iter().map(|(low, high)| (low + half, high + half)));
    merge(half, lanes, &mut swaps);
    swaps
}

/// Merges the sorted lanes 0..half and half..lanes. Lanes from there to 2 half would hold what is largest anyway, so
/// swaps that touch them are left out.
fn merge(half: usize, lanes: usize, swaps: &mut Vec<Swap>) {
    let mut keep = |low: usize, distance: usize| {
        if low + distance < lanes {
            swaps.push((low, low + distance));
        }
    };
    (0..half).for_each(|low| keep(low, half));
    let mut distance = half / 2;
    while distance > 0 {
        for first in (distance..2 * half - distance).step_by(2 * distance) {
            (first..first + distance).for_each(|low| keep(low, distance));
        }
        distance /= 2;
    }
}

/// The list for the reference and the CPU.
fn rust() -> String {
    let mut text = String::from(
        "//! The compare-swaps that sort 2 to 32 lanes, as written by `cargo xtask networks`: change the generator.\n\
         //!\n\
         //! Knows: Batcher's odd-even merge sort. Does not know: what a swap is; `networks!` does. Invariant: each list\n\
         //! sorts, which the generator's tests prove.\n\n\
         networks! {\n",
    );
    for lanes in LANES {
        let swaps: Vec<String> = network(lanes).iter().map(|(low, high)| format!("{low} {high},")).collect();
        writeln!(text, "    {lanes} {{").expect("a string takes it");
        fill(&mut text, "        ", &swaps);
        text.push_str("    }\n");
    }
    text.push_str("}\n");
    text
}

/// The list for the accelerators.
fn header() -> String {
    let mut text = String::from(
        "// The compare-swaps that sort 2 to 32 lanes, as written by `cargo xtask networks`: change the generator.\n\
         //\n\
         // Knows: Batcher's odd-even merge sort. Does not know: what a swap is; the caller's `swap` leaves the smaller of\n\
         // two values in the first. Invariant: each list sorts, which the generator's tests prove. Lists and no loops: every\n\
         // index is a literal, so all lanes stay in registers.\n\
         #pragma once\n\n\
         #include \"device.h\"\n",
    );
    for lanes in LANES {
        let swaps: Vec<String> =
            network(lanes).iter().map(|(low, high)| format!("swap(v[{low}], v[{high}]);")).collect();
        write!(
            text,
            "\ntemplate <class T, class Swap> DEVICE void sort_lanes(T (&v)[{lanes}], Swap&& swap) {{\n"
        )
        .expect("a string takes it");
        fill(&mut text, "  ", &swaps);
        text.push_str("}\n");
    }
    text
}

/// Writes words, as many to a line as it holds.
fn fill(text: &mut String, indent: &str, words: &[String]) {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() && line.len() + 1 + word.len() > LINE_MAX {
            writeln!(text, "{line}").expect("a string takes it");
            line.clear();
        }
        line.push_str(if line.is_empty() { indent } else { " " });
        line.push_str(word);
    }
    writeln!(text, "{line}").expect("a string takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the zero-one principle a network that sorts every input of zeros and ones sorts everything.
    /// One bit a case, 64 cases at once: lane l of case c is bit c of `lanes[l]`.
    fn sorts(swaps: &[Swap], lanes: &mut [u64]) -> bool {
        for &(low, high) in swaps {
            (lanes[low], lanes[high]) = (lanes[low] & lanes[high], lanes[low] | lanes[high]);
        }
        lanes.windows(2).all(|pair| pair[0] & !pair[1] == 0)
    }

    #[test]
    fn the_files_are_what_the_generator_makes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        run(&root, &["--check".to_string()]).unwrap_or_else(|error| panic!("{error}"));
        assert!(run(&root, &["--chekc".to_string()]).is_err());
    }

    #[test]
    fn every_input_of_zeros_and_ones_is_sorted_up_to_twenty_lanes() {
        // Cases 0 to 63 differ in the first six lanes, blocks of them in the others.
        let first = [0xAAAA_AAAA_AAAA_AAAA, 0xCCCC_CCCC_CCCC_CCCC, 0xF0F0_F0F0_F0F0_F0F0u64];
        let second = [0xFF00_FF00_FF00_FF00, 0xFFFF_0000_FFFF_0000, 0xFFFF_FFFF_0000_0000u64];
        for count in 2..=20usize {
            let swaps = network(count);
            for block in 0..1u64 << count.saturating_sub(6) {
                let lane = |lane: usize| match lane {
                    0..3 => first[lane],
                    3..6 => second[lane - 3],
                    _ => 0u64.wrapping_sub(block >> (lane - 6) & 1),
                };
                let mut lanes: Vec<u64> = (0..count).map(lane).collect();
                assert!(sorts(&swaps, &mut lanes), "{count} lanes, block {block}");
            }
        }
    }

    /// The induction for every size: a network is that of its two parts and a merge, and the merge sorts each pair of
    /// sorted parts. Sorted zeros and ones are told by how many ones there are, so all pairs can be tried.
    #[test]
    fn a_network_sorts_its_parts_and_merges_every_pair_of_sorted_parts() {
        for count in LANES {
            let (half, swaps) = (count.next_power_of_two() / 2, network(count));
            let (first, second) = (network(half), network(count - half));
            let parts = first.len() + second.len();
            assert_eq!(swaps[..first.len()], first, "{count} lanes");
            let shifted: Vec<Swap> = second.iter().map(|(low, high)| (low + half, high + half)).collect();
            assert_eq!(swaps[first.len()..parts], shifted, "{count} lanes");
            for ones in 0..=half {
                for others in 0..=count - half {
                    let lane = |lane: usize| {
                        let one = if lane < half { lane >= half - ones } else { lane >= count - others };
                        0u64.wrapping_sub(u64::from(one))
                    };
                    let mut lanes: Vec<u64> = (0..count).map(lane).collect();
                    assert!(sorts(&swaps[parts..], &mut lanes), "{count} lanes, {ones} and {others} ones");
                }
            }
        }
    }

    #[test]
    fn random_inputs_are_sorted_and_no_network_has_more_swaps_than_batchers() {
        let mut state = 1u64;
        for count in LANES {
            let swaps = network(count);
            for case in 0..2000 {
                let mut lanes: Vec<u64> = (0..count)
                    .map(|_| {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        state >> (case % 64)
                    })
                    .collect();
                let mut wanted = lanes.clone();
                wanted.sort_unstable();
                for &(low, high) in &swaps {
                    if lanes[low] > lanes[high] {
                        lanes.swap(low, high);
                    }
                }
                assert_eq!(lanes, wanted, "{count} lanes, case {case} of the seed 1");
            }
        }
        let sizes = [2, 4, 8, 16, 32].map(|count| network(count).len());
        assert_eq!(sizes, [1, 5, 19, 63, 191]);
    }

    #[test]
    fn a_broken_network_is_noticed() {
        for lost in 0..network(8).len() {
            let mut swaps = network(8);
            swaps.remove(lost);
            let caught = (0..256u32).any(|case| {
                let mut lanes: Vec<u64> = (0..8).map(|lane| u64::from(case >> lane & 1)).collect();
                !sorts(&swaps, &mut lanes)
            });
            assert!(caught, "the swap {lost} was left out and nobody noticed");
        }
    }
}

//! Both vendors' runtimes through libraries that pretend to be theirs: every method, and every way in which a device
//! fails.
//!
//! A library is opened once for a process, so each story is told in one of its own. What these tests cannot show is
//! that a vendor's own library answers so; `kernels/source/emulator/fake.h` says what the pretended ones leave out.

mod bench;
mod fakes;
mod images;
mod stories;

use plesio_cuda::Cuda;
use plesio_hip::Hip;
use plesio_launch::Vendor;
use plesio_tests::say_skipped;

use fakes::{Libraries, STORY, tell};

const VENDORS: [Vendor; 2] = [Vendor::Nvidia, Vendor::Amd];

/// The other end of every test here.
#[test]
fn a_process_with_libraries_of_its_own() {
    let Ok(asked) = std::env::var(STORY) else {
        println!("skipped: this is for the tests that start it");
        return;
    };
    match asked.split_once(' ').expect("a vendor and a story") {
        ("Nvidia", story) => stories::tell(story, Cuda::open, plesio_cuda::discover),
        (_, story) => stories::tell(story, Hip::open, plesio_hip::discover),
    }
}

/// What a story printed when all went well and nothing was left behind; empty where there is no compiler.
fn well(vendor: Vendor, story: &str, libraries: Libraries, settings: &[(&str, &str)]) -> String {
    let Some(output) = tell(vendor, story, libraries, settings) else { return String::new() };
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{vendor:?} {story}: {}\n{said}{complained}", output.status);
    assert!(!complained.contains("left behind"), "{vendor:?} {story}: {complained}");
    said.into_owned()
}

/// The same with both vendors' fakes, with a look at what was printed.
fn both(story: &str, settings: &[(&str, &str)], look: impl Fn(Vendor, &str)) {
    for vendor in VENDORS {
        let said = well(vendor, story, Libraries::Fakes, settings);
        if !said.is_empty() {
            look(vendor, &said);
        }
    }
}

fn lines<'a>(said: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    said.lines().filter_map(move |line| line.split_once(kind).map(|(_, rest)| rest))
}

#[test]
fn devices_are_found_and_told_as_they_are() {
    both(
        "look",
        &[("PLESIO_FAKE_DEVICES", "2"), ("PLESIO_FAKE_MEMORY_BYTES", "12345678")],
        |vendor, said| {
            let chips: Vec<&str> = lines(said, "chip: ").collect();
            assert_eq!((chips.len(), lines(said, "remark: ").count()), (2, 0), "{said}");
            let (begin, facts) = match vendor {
                Vendor::Nvidia => ("Emulated sm_90 (sm_90, 1 units)", "warp_threads: 32, units: 1"),
                Vendor::Amd => ("Emulated gfx942 (gfx942, 1 units)", "warp_threads: 64, units: 1"),
            };
            for (ordinal, chip) in chips.iter().enumerate() {
                assert!(chip.starts_with(begin) && chip.contains(facts), "{chip}");
                assert!(chip.contains(&format!("ordinal: {ordinal},")), "{chip}");
                assert!(chip.contains("memory_bytes: 12345678, integrated: false"), "{chip}");
            }
        },
    );
}

#[test]
fn a_chip_is_what_its_runtime_says_and_takes_the_images_made_for_it() {
    let settings = [
        ("PLESIO_FAKE_CUDA_ARCHITECTURE", "sm_110"),
        ("PLESIO_FAKE_HIP_ARCHITECTURE", "gfx1151"),
        ("HSA_OVERRIDE_GFX_VERSION", "11.5.1"),
        ("PLESIO_FAKE_INTEGRATED", "1"),
    ];
    both("chips", &settings, |_, said| assert!(said.contains("warp of 32, integrated true"), "{said}"));
}

#[test]
fn every_method_does_what_the_seam_says() {
    both("work", &[], |_, _| ());
}

#[test]
fn any_thread_may_call_anything() {
    both("threads", &[], |_, _| ());
}

#[test]
fn two_devices_are_kept_apart() {
    both("devices", &[("PLESIO_FAKE_DEVICES", "2")], |_, _| ());
}

#[test]
fn images_that_are_not_for_this_chip_are_refused_with_what_the_compiler_said() {
    let settings = [("PLESIO_FAKE_CUDA_ARCHITECTURE", "sm_87"), ("PLESIO_FAKE_CUDA_VERSION", "11040")];
    both("images", &settings, |vendor, said| {
        if vendor == Vendor::Nvidia {
            assert!(said.contains("Unsupported .version 8.5; current version is '7.4'"), "{said}");
            assert!(said.contains("is higher than default SM version"), "{said}");
        }
    });
}

#[test]
fn memory_that_is_not_there_is_an_error_and_what_was_had_is_given_back() {
    let settings = [("PLESIO_FAKE_MEMORY_BYTES", "65536"), ("PLESIO_FAKE_FAIL_ALLOCATION", "4")];
    both("memory", &settings, |_, _| ());
}

#[test]
fn a_device_may_refuse_our_memory_and_take_its_own() {
    both("no registration", &[("PLESIO_FAKE_REFUSE_REGISTRATION", "1")], |_, _| ());
}

#[test]
fn a_launch_that_never_ends_holds_up_its_stream_alone() {
    both("hang", &[("PLESIO_FAKE_HANG_LAUNCH", "2")], |_, _| ());
}

#[test]
fn to_wait_for_such_a_launch_is_told_and_ends_the_process() {
    for vendor in VENDORS {
        let settings = [("PLESIO_FAKE_HANG_LAUNCH", "2")];
        let Some(output) = tell(vendor, "wait", Libraries::Fakes, &settings) else { return };
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(complained.contains("Unload waits for a launch that never ends"), "{complained}");
        assert!(!output.status.success(), "a device would have waited for ever");
    }
}

#[test]
fn a_lost_device_says_so_at_every_call_and_is_dropped_without_harm() {
    for (code, names) in [
        ("719", ["CUDA_ERROR_LAUNCH_FAILED", "hipErrorLaunchFailure"]),
        ("700", ["CUDA_ERROR_ILLEGAL_ADDRESS", "hipErrorIllegalAddress"]),
        ("214", ["CUDA_ERROR_ECC_UNCORRECTABLE", "hipErrorECCNotCorrectable"]),
    ] {
        let settings = [("PLESIO_FAKE_LOSE_LAUNCH", "2"), ("PLESIO_FAKE_LOST_CODE", code)];
        both("lost", &settings, |vendor, said| {
            assert!(said.contains(names[usize::from(vendor == Vendor::Amd)]), "{said}");
        });
    }
}

#[test]
fn a_launch_of_another_shape_than_the_kernels_ends_the_device() {
    both("misuse", &[], |_, _| ());
}

#[test]
fn a_runtime_that_does_not_begin_says_why() {
    for (settings, cuda, hip) in [
        ([("PLESIO_FAKE_INIT_CODE", "999")], "CUDA_ERROR_UNKNOWN (999)", "hipErrorUnknown (999)"),
        ([("PLESIO_FAKE_DEVICES", "0")], "CUDA_ERROR_NO_DEVICE (100)", "hipErrorNoDevice (100)"),
        (
            [("PLESIO_FAKE_VERSION", "10020")],
            "CUDA 10.2 is too old, CUDA 11.4",
            "HIP 0.0 is too old, HIP 5.0",
        ),
    ] {
        for story in ["look", "refused"] {
            both(story, &settings, |vendor, said| {
                let why = if vendor == Vendor::Nvidia { cuda } else { hip };
                assert!(said.contains(why), "{said}");
                assert_eq!(lines(said, "chip: ").count(), 0, "{said}");
                assert_eq!(lines(said, "remark: ").count(), usize::from(story == "look"), "{said}");
            });
        }
    }
}

#[test]
fn without_a_library_looking_gives_one_remark_within_five_milliseconds() {
    for vendor in VENDORS {
        let looks: Vec<String> = (0..5).map(|_| well(vendor, "look", Libraries::Own, &[])).collect();
        let absent = |said: &String| said.contains("cannot open shared object file");
        if !looks.iter().all(absent) {
            say_skipped(&format!("there is a library of {vendor:?}'s on this machine"));
            continue;
        }
        assert!(looks.iter().all(|said| lines(said, "remark: ").count() == 1), "{looks:?}");
        assert!(looks.iter().all(|said| lines(said, "chip: ").count() == 0), "{looks:?}");
        let took_us = |said: &String| -> u32 {
            let line = lines(said, "took ").next().and_then(|line| line.strip_suffix(" us"));
            line.and_then(|number| number.parse().ok()).expect("a look says how long it took")
        };
        let fastest_us = looks.iter().map(took_us).min().expect("five looks");
        assert!(fastest_us < 5000, "{fastest_us} us");
    }
}

#[test]
fn a_library_that_lacks_a_function_is_not_used() {
    for (vendor, function) in [(Vendor::Nvidia, "cuDeviceGetCount"), (Vendor::Amd, "hipGetDeviceCount")] {
        for story in ["look", "refused"] {
            let said = well(vendor, story, Libraries::Hollow, &[]);
            assert!(said.is_empty() || said.contains(&format!("the library has no {function}")), "{said}");
        }
    }
}

#[test]
fn a_chip_whose_architecture_nobody_tells_is_left_out_aloud() {
    for version in ["", "eleven"] {
        let said = well(Vendor::Amd, "look", Libraries::Fakes, &[("HSA_OVERRIDE_GFX_VERSION", version)]);
        if !said.is_empty() {
            assert_eq!(lines(&said, "chip: ").count(), 0, "{said}");
            assert!(said.contains("remark: HIP device 0: ") && said.contains("ffff:01:00.0"), "{said}");
        }
    }
}

#[test]
fn what_is_left_behind_is_told_at_the_end() {
    for vendor in VENDORS {
        let Some(output) = tell(vendor, "leave", Libraries::Fakes, &[]) else { return };
        let complained = String::from_utf8_lossy(&output.stderr);
        let left = "left behind: 1 allocation of the device";
        assert!(complained.contains(left) && complained.contains("1 event"), "{complained}");
        assert!(complained.contains("1 module") && !complained.contains("stream"), "{complained}");
    }
}

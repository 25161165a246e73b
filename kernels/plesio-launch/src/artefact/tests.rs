//! Which artefact a chip gets, and what it is told where it gets none.

use super::*;
use crate::Vendor;

fn chip(architecture: &str, driver: u32) -> Chip {
    Chip {
        vendor: if architecture.starts_with("gfx") { Vendor::Amd } else { Vendor::Nvidia },
        ordinal: 0,
        name: "Test".into(),
        architecture: architecture.into(),
        warp_threads: 32,
        units: 8,
        memory_bytes: 1 << 30,
        integrated: false,
        driver,
    }
}

/// Artefacts for these targets: PTX of the version behind the colon, cubins as CUDA writes them before and from
/// release 13.
fn artefacts(names: &[&str]) -> Artefacts {
    let made = names.iter().map(|name| {
        let (name, version) = name.split_once(':').unwrap_or((name, "12"));
        let target: Target = name.parse().unwrap();
        let bytes = match (target.kind(), version) {
            (Kind::Ptx, version) => format!("//\n.version {version}\n").into_bytes(),
            (Kind::Cubin, "13") => b"\x7fELF\x02\x01\x01\x41\x08\0\0\0\0\0\0\0".to_vec(),
            _ => b"\x7fELF\x02\x01\x01\x33\x07\0\0\0\0\0\0\0".to_vec(),
        };
        Artefact::new(target, bytes)
    });
    Artefacts::new(made.collect())
}

fn chosen(names: &[&str], architecture: &str, driver: u32) -> Result<String, String> {
    let artefacts = artefacts(names);
    let chosen = artefacts.choose(&chip(architecture, driver));
    let told = |error: ArtefactError| format!("{error}; {}", error.fix("--kernels DIR"));
    chosen.map(|artefact| artefact.target.to_string()).map_err(told)
}

const ALL: [&str; 12] = [
    "compute_75:6.3",
    "sm_75",
    "sm_80",
    "sm_87",
    "sm_90",
    "sm_100",
    "sm_110",
    "gfx906",
    "gfx90a",
    "gfx942",
    "gfx1100",
    "gfx1151",
];

#[test]
fn a_chip_gets_its_own_machine_code_first() {
    for architecture in [
        "sm_75", "sm_80", "sm_87", "sm_90", "sm_100", "sm_110", "gfx906", "gfx90a", "gfx942", "gfx1100",
        "gfx1151",
    ] {
        assert_eq!(chosen(&ALL, architecture, 13000), Ok(architecture.into()));
    }
}

#[test]
fn a_later_chip_of_a_family_runs_the_family_s_code() {
    assert_eq!(chosen(&ALL, "sm_86", 13000), Ok("sm_80".into()));
    assert_eq!(chosen(&ALL, "sm_89", 13000), Ok("sm_80".into()));
    assert_eq!(chosen(&["sm_80", "sm_86", "compute_75:6.3"], "sm_89", 13000), Ok("sm_86".into()));
    assert_eq!(chosen(&ALL, "sm_103", 13000), Ok("sm_100".into()));
    // No code of another family, and none of a later chip.
    assert_eq!(chosen(&["sm_90", "compute_75:6.3"], "sm_80", 13000), Ok("compute_75".into()));
    assert_eq!(chosen(&["sm_86", "compute_75:6.3"], "sm_80", 13000), Ok("compute_75".into()));
    assert_eq!(chosen(&ALL, "sm_120", 13000), Ok("compute_75".into()));
}

#[test]
fn robots_chips_and_others_share_no_machine_code() {
    assert_eq!(chosen(&["sm_80", "compute_75:6.3"], "sm_87", 13000), Ok("compute_75".into()));
    assert_eq!(chosen(&["sm_87", "compute_75:6.3"], "sm_89", 13000), Ok("compute_75".into()));
    assert_eq!(chosen(&["sm_100", "compute_75:6.3"], "sm_101", 13000), Ok("compute_75".into()));
    assert_eq!(chosen(&["sm_110", "compute_75:6.3"], "sm_111", 13000), Ok("compute_75".into()));
    let told = chosen(&["sm_80", "gfx942"], "sm_87", 13000).unwrap_err();
    assert_eq!(
        told,
        "no kernel for Test (sm_87, 8 units): there are sm_80, gfx942; cargo xtask kernels --target sm_87 \
         --out DIR, and --kernels DIR"
    );
}

#[test]
fn text_is_taken_where_the_driver_is_new_enough() {
    assert_eq!(chosen(&["compute_75:7.0"], "sm_86", 11000), Ok("compute_75".into()));
    let told = chosen(&["compute_75:9.0"], "sm_86", 12080).unwrap_err();
    assert!(
        told.contains(
            "driver of Test (sm_86, 8 units) is of CUDA 12.8 and compute_75 needs 13.0; update the driver"
        ),
        "{told}"
    );
    // The newest text that the chip and its driver both take.
    assert_eq!(chosen(&["compute_75:6.3", "compute_80:9.0"], "sm_86", 12080), Ok("compute_75".into()));
    assert!(chosen(&["compute_75:6.3"], "sm_70", 13000).unwrap_err().contains("no kernel for"));
}

#[test]
fn a_cubin_that_the_driver_does_not_know_gives_way_to_text() {
    assert_eq!(chosen(&["sm_87:13", "compute_75:6.3"], "sm_87", 12060), Ok("compute_75".into()));
    assert_eq!(chosen(&["sm_87:13", "compute_75:6.3"], "sm_87", 13000), Ok("sm_87".into()));
    let told = chosen(&["sm_87:13"], "sm_87", 12060).unwrap_err();
    assert!(told.contains("12.6 and sm_87 needs 13.0"), "{told}");
}

#[test]
fn amd_s_code_runs_on_its_own_architecture_alone() {
    for architecture in ["gfx1030", "gfx940", "gfx90c", "gfx1101"] {
        assert!(
            chosen(&ALL, architecture, 60200000).unwrap_err().contains("no kernel for"),
            "{architecture}"
        );
    }
    assert_eq!(chosen(&ALL, "gfx942", 0), Ok("gfx942".into()));
}

#[test]
fn names_that_no_compiler_has_get_nothing() {
    for architecture in ["", "sm_", "gfx", "sm_90a", "compute", "gfx942:xnack+", "sm_4294967296"] {
        assert!(chosen(&ALL, architecture, 13000).is_err(), "{architecture}");
    }
}

#[test]
fn an_altered_artefact_is_refused() {
    let mut artefacts = artefacts(&["gfx942"]);
    artefacts.0[0].bytes.to_mut()[3] ^= 1;
    let error = artefacts.choose(&chip("gfx942", 0)).unwrap_err();
    assert_eq!(error.to_string(), "the kernels for gfx942 are altered");
    assert_eq!(error.fix("--kernels DIR"), "install this program again");
}

#[test]
fn kernels_for_a_chip_that_compilers_have_left_behind_are_asked_for_as_text() {
    for (chip, target) in [("sm_61", "compute_61"), ("sm_120", "sm_120"), ("gfx1030", "gfx1030")] {
        let told = chosen(&["gfx942"], chip, 13000).unwrap_err();
        let fix = format!("; cargo xtask kernels --target {target} --out DIR, and --kernels DIR");
        assert!(told.ends_with(&fix), "{told}");
    }
}

#[test]
fn what_the_program_carries_is_whole_or_said_to_be_missing() {
    match available() {
        Ok(carried) => {
            assert!(carried.0.iter().all(Artefact::is_whole));
            for target in carried.targets().filter(|target| target.kind() != Kind::Ptx) {
                assert_eq!(&choose(&chip(target.name(), 13000)).unwrap().target, target);
            }
        }
        Err(error) => {
            let told = error.to_string();
            assert!(told.starts_with("built without kernels: "), "{told}");
            assert!(matches!(choose(&chip("sm_90", 13000)), Err(ArtefactError::Without { .. })));
        }
    }
}

#[test]
fn a_folder_serves_as_well_and_only_with_kernels_of_this_source() {
    let path = std::env::temp_dir().join(format!("plesio-launch-{}", std::process::id()));
    let written = artefacts(&["gfx1151", "sm_87"]);
    folder::write(&path, SOURCE, Vec::new(), &written.0).unwrap();
    let read = Artefacts::read(&path).unwrap();
    assert_eq!(read.choose(&chip("sm_87", 12060)).unwrap(), &written.0[1]);
    folder::write(&path, Digest([0; 16]), Vec::new(), &written.0).unwrap();
    let error = Artefacts::read(&path).unwrap_err();
    assert!(error.to_string().contains("kernels of another source"), "{error}");
    assert_eq!(error.fix("--kernels DIR"), folder::FIX);
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn every_artefact_is_told_to_run_to_want_a_newer_driver_or_to_be_for_others() {
    let artefacts = artefacts(&["compute_75:6.3", "sm_80", "sm_90:13", "gfx942"]);
    let told = |driver| {
        let chip = chip("sm_90", driver);
        artefacts.fits(&chip).map(|(_, fit)| fit).collect::<Vec<_>>()
    };
    assert_eq!(told(12080), [Fit::Runs(PTX_RANK + 15), Fit::Other, Fit::Driver(13000), Fit::Other]);
    assert_eq!(told(13000)[2], Fit::Runs(0));
}

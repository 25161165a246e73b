//! Which driver an artefact needs, read from the artefact itself.
//!
//! A driver takes PTX up to the version that its CUDA release defined, and cubins whose ELF layout it knows. AMD's
//! code objects name nothing of the kind.

use crate::{Artefact, Kind};

/// PTX versions times ten, and the first driver that takes them as it tells its own version (12.8 is 12080): the
/// release history of NVIDIA's PTX manual.
const PTX_DRIVERS: [(u32, u32); 21] = [
    (63, 10000),
    (64, 10010),
    (65, 10020), // Turing begins with 6.3
    (70, 11000),
    (71, 11010),
    (72, 11020),
    (73, 11030),
    (74, 11040),
    (75, 11050),
    (76, 11060),
    (77, 11070),
    (78, 11080),
    (80, 12000),
    (81, 12010),
    (82, 12020),
    (83, 12030),
    (84, 12040),
    (85, 12050),
    (86, 12070),
    (87, 12080),
    (88, 12090),
];
/// From CUDA 13 on versions of PTX rise with the release again.
const PTX_OF_CUDA_13: u32 = 90;

/// The directive stands within the first lines of a file.
const HEAD_BYTES_MAX: usize = 4096;

/// Where an ELF file says which version of its layout it has, and that of CUDA 13.
const ELF_LAYOUT_AT: usize = 8;
const ELF_LAYOUT_OF_CUDA_13: u8 = 8;
const CUDA_13: u32 = 13000;

/// The least driver that loads it, as drivers tell their version; `None` where the bytes name none, as AMD's never
/// do.
#[must_use]
pub fn least(artefact: &Artefact) -> Option<u32> {
    match artefact.kind() {
        Kind::Ptx => ptx_version(&artefact.bytes).map(driver_of_ptx),
        Kind::Cubin => {
            let layout = *artefact.bytes.get(ELF_LAYOUT_AT)?;
            (layout >= ELF_LAYOUT_OF_CUDA_13).then_some(CUDA_13)
        }
        Kind::CodeObject => None,
    }
}

/// The version that PTX says it is written in, times ten: 6.3 is 63.
#[must_use]
pub fn ptx_version(ptx: &[u8]) -> Option<u32> {
    let head = String::from_utf8_lossy(&ptx[..ptx.len().min(HEAD_BYTES_MAX)]);
    let version = head.lines().find_map(|line| line.trim().strip_prefix(".version"))?.trim();
    let (major, minor) = version.split_once('.')?;
    let number = |digits: &str| digits.parse::<u32>().ok().filter(|number| *number < 100);
    Some(number(major)? * 10 + number(minor).filter(|minor| *minor < 10)?)
}

fn driver_of_ptx(version: u32) -> u32 {
    let listed = PTX_DRIVERS.iter().find(|(listed, _)| version <= *listed).map(|(_, driver)| *driver);
    listed.unwrap_or_else(|| CUDA_13 + version.saturating_sub(PTX_OF_CUDA_13) * 10)
}

/// A driver's version as people write it: 12080 is 12.8.
#[must_use]
pub fn spell(driver: u32) -> String {
    format!("{}.{}", driver / 1000, driver % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(target: &str, bytes: &[u8]) -> Option<u32> {
        least(&Artefact::new(target.parse().unwrap(), bytes.to_vec()))
    }

    #[test]
    fn ptx_needs_the_driver_of_its_release() {
        let ptx = |version: &str| {
            needs("compute_75", format!("//\n\n.version {version}\n.target sm_75\n").as_bytes())
        };
        assert_eq!(ptx("6.3"), Some(10000));
        assert_eq!(ptx("7.0"), Some(11000));
        assert_eq!(ptx("8.5"), Some(12050));
        assert_eq!(ptx("8.6"), Some(12070)); // CUDA 12.6 brought none
        assert_eq!(ptx("8.9"), Some(13000)); // there is none: the next that exists
        assert_eq!(ptx("9.0"), Some(13000));
        assert_eq!(ptx("9.1"), Some(13010));
    }

    #[test]
    fn what_is_no_ptx_names_no_driver() {
        let far = "//\n".repeat(1 << 14) + ".version 6.3\n";
        for text in [
            "",
            ".version",
            ".version 7",
            ".version x.y",
            ".version 7.70",
            ".version 4294967295.0",
            far.as_str(),
        ] {
            assert_eq!(needs("compute_75", text.as_bytes()), None, "{:?}", &text[..text.len().min(40)]);
        }
        assert_eq!(needs("compute_75", &[0xff; 64]), None);
    }

    #[test]
    fn cubins_of_cuda_13_need_its_driver_and_older_ones_none() {
        // The first sixteen bytes of cubins as nvcc 13.0 and the releases before it write them.
        assert_eq!(needs("sm_90", b"\x7fELF\x02\x01\x01\x41\x08\0\0\0\0\0\0\0"), Some(13000));
        assert_eq!(needs("sm_90", b"\x7fELF\x02\x01\x01\x33\x07\0\0\0\0\0\0\0"), None);
        assert_eq!(needs("sm_90", b"\x7fELF"), None);
        assert_eq!(needs("gfx942", b"\x7fELF\x02\x01\x01\x40\x08\0\0\0\0\0\0\0"), None);
    }

    #[test]
    fn drivers_are_spelt_as_releases() {
        assert_eq!([spell(12080), spell(13000), spell(11040)], ["12.8", "13.0", "11.4"]);
    }
}

//! What the kernel tells of NVIDIA's hardware without the driver's library: a Jetson says in its device tree which
//! board it is, any other machine lists the kernel's driver.
//!
//! Whatever is not as expected counts as not there.

use plesio_launch::Absence;
use plesio_launch::system::Reader;

/// Where the device tree is, by the kernel's own path and by the older name for it.
const TREES: [&str; 2] = ["/sys/firmware/devicetree/base", "/proc/device-tree"];
const KERNEL_DRIVER: &str = "/proc/driver/nvidia/version";

/// A Jetson, or another board with a Tegra.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Tegra {
    /// What its maker calls it.
    pub(crate) model: String,
    /// Its chip, `tegra234` for instance.
    pub(crate) chip: String,
}

/// The board, if it is a Tegra's.
pub(crate) fn tegra(read: Reader<'_>) -> Option<Tegra> {
    TREES.iter().find_map(|tree| {
        let compatible = read(&format!("{tree}/compatible"))?;
        let chip = compatible.split('\0').find_map(|name| name.strip_prefix("nvidia,tegra"))?;
        let model = read(&format!("{tree}/model"))?.trim_end_matches('\0').to_string();
        Some(Tegra { model, chip: format!("tegra{chip}") })
    })
}

/// Whether the kernel tells of a device of NVIDIA's, or of its driver.
pub(crate) fn is_seen(read: Reader<'_>) -> bool {
    tegra(read).is_some() || read(KERNEL_DRIVER).is_some()
}

/// Why there is no device, with what is strange about that on this machine.
pub(crate) fn remark(read: Reader<'_>, absence: &Absence) -> String {
    if let Some(Tegra { model, chip }) = tegra(read) {
        return format!(
            "no CUDA, though this is a {model} ({chip}): {absence}; the board's driver is not here, or its \
             container lacks NVIDIA's runtime"
        );
    }
    match read(KERNEL_DRIVER) {
        Some(_) => format!("no CUDA, though the kernel has NVIDIA's driver: {absence}"),
        None => format!("no CUDA: {absence}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Absence {
        Absence::Missing("libcuda.so.1: not found".into())
    }

    fn with<T>(files: &[(&str, &str)], ask: impl Fn(Reader<'_>) -> T) -> T {
        ask(&|path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_string()))
    }

    #[test]
    fn a_jetson_is_known_by_either_tree_and_named_when_its_driver_is_missing() {
        for tree in TREES {
            let files = [
                (&*format!("{tree}/model"), "NVIDIA Jetson AGX Orin Developer Kit\0"),
                (&*format!("{tree}/compatible"), "nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0"),
            ];
            let board = with(&files, tegra).expect("a Tegra");
            assert_eq!(board.chip, "tegra234");
            assert_eq!(board.model, "NVIDIA Jetson AGX Orin Developer Kit");
            assert!(with(&files, is_seen));
            let said = with(&files, |read| remark(read, &missing()));
            assert!(said.contains("Jetson AGX Orin") && said.contains("libcuda.so.1: not found"), "{said}");
        }
    }

    #[test]
    fn other_boards_and_broken_trees_are_no_tegra() {
        let (model, compatible) =
            ("/sys/firmware/devicetree/base/model", "/sys/firmware/devicetree/base/compatible");
        let cases: [&[(&str, &str)]; 4] = [
            &[],
            &[(model, "Raspberry Pi 5\0")],
            &[(model, "Raspberry Pi 5\0"), (compatible, "raspberrypi,5-model-b\0brcm,bcm2712\0")],
            &[(compatible, "nvidia,tegra234\0")],
        ];
        for files in cases {
            assert_eq!(with(files, tegra), None, "{files:?}");
            assert!(!with(files, is_seen), "{files:?}");
            assert_eq!(
                with(files, |read| remark(read, &missing())),
                "no CUDA: libcuda.so.1: not found",
                "{files:?}"
            );
        }
    }

    #[test]
    fn a_kernel_with_the_driver_makes_a_missing_library_strange() {
        let files = [(KERNEL_DRIVER, "NVRM version: NVIDIA UNIX x86_64 Kernel Module\n")];
        assert!(with(&files, is_seen));
        let said = with(&files, |read| remark(read, &missing()));
        assert!(said.starts_with("no CUDA, though the kernel has NVIDIA's driver: "), "{said}");
    }
}

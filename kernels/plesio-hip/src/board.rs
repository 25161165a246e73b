//! What the kernel tells of AMD's chips without the runtime: its compute driver lists them, each with its
//! architecture.
//!
//! The architecture is asked here and not of the runtime, which tells it only in a struct that changed between
//! versions. Whatever is not as expected counts as not there.

use plesio_launch::system::Reader;

/// The list of the compute driver; a node is a processor of any kind.
const NODES: &str = "/sys/class/kfd/kfd/topology/nodes";
/// More nodes are not looked at.
const NODES_MAX: u32 = 256;

/// A graphics chip as the kernel lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Node {
    /// `gfx942` for instance.
    pub(crate) architecture: String,
    /// Where it is on the bus.
    place: Place,
    /// The node is a CPU as well: both share the memory.
    pub(crate) shared: bool,
}

/// Domain, bus and device of PCI. The function is left out: parts of one chip differ in that alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    domain: u64,
    bus: u64,
    device: u64,
}

/// The chips that the kernel lists.
pub(crate) fn nodes(read: Reader<'_>) -> Vec<Node> {
    (0..NODES_MAX)
        .map_while(|index| read(&format!("{NODES}/{index}/properties")))
        .filter_map(|text| node(&text))
        .collect()
}

/// The chip at a place that the runtime wrote as `0000:c1:00.0`.
pub(crate) fn node_at<'a>(nodes: &'a [Node], place: &str) -> Option<&'a Node> {
    let mut parts = place.split([':', '.']).map(|part| u64::from_str_radix(part, 16).ok());
    let mut next = || parts.next().flatten();
    let place = Place { domain: next()?, bus: next()?, device: next()? };
    nodes.iter().find(|node| node.place == place)
}

/// A node's properties, if it is a graphics chip.
fn node(text: &str) -> Option<Node> {
    let property = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    let version = property("gfx_target_version").filter(|version| *version > 0)?;
    let location = property("location_id")?;
    Some(Node {
        architecture: architecture(version / 10_000, version / 100 % 100, version % 100),
        place: Place {
            domain: property("domain").unwrap_or(0),
            bus: location >> 8 & 0xff, // Above it stands which part of a chip in parts this is.
            device: location >> 3 & 31,
        },
        shared: property("cpu_cores_count").is_some_and(|cores| cores > 0),
    })
}

/// The name that compilers have for a version.
fn architecture(major: u64, minor: u64, step: u64) -> String {
    format!("gfx{major}{minor:x}{step:x}")
}

/// The architecture that the runtime is told to take every chip for, as `HSA_OVERRIDE_GFX_VERSION` says it: `11.0.0`.
pub(crate) fn overridden(version: &str) -> Option<String> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let mut next = || parts.next().flatten();
    let (major, minor, step) = (next()?, next()?, next()?);
    (parts.next().is_none() && major < 100 && minor < 16 && step < 16)
        .then(|| architecture(major, minor, step))
}

/// Why there is no device, with what is strange about that on this machine.
pub(crate) fn remark(read: Reader<'_>, why: &str) -> String {
    match &nodes(read)[..] {
        [] => format!("no HIP: {why}"),
        [node, ..] => format!(
            "no HIP, though the kernel lists a {}: {why}; ROCm's runtime is not here, or this user may not open \
             the kernel's device (the groups render and video)",
            node.architecture
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = "cpu_cores_count 16\nsimd_count 0\ngfx_target_version 0\nlocation_id 0\ndomain 0\n";
    const MI300X: &str =
        "cpu_cores_count 0\nsimd_count 1216\ngfx_target_version 90402\nlocation_id 49408\ndomain 2\n";
    const STRIX_HALO: &str =
        "cpu_cores_count 32\nsimd_count 80\ngfx_target_version 110501\nlocation_id 50176\n";

    fn with<T>(texts: &[&str], ask: impl Fn(Reader<'_>) -> T) -> T {
        ask(&|path| {
            let index = path.strip_prefix(NODES)?.strip_prefix('/')?.strip_suffix("/properties")?;
            texts.get(index.parse::<usize>().ok()?).map(|text| (*text).to_string())
        })
    }

    #[test]
    fn chips_are_listed_with_architecture_place_and_whether_they_share_memory() {
        let nodes = with(&[CPU, MI300X, STRIX_HALO], nodes);
        assert_eq!(nodes.len(), 2, "a CPU alone is no chip: {nodes:?}");
        let found = node_at(&nodes, "0002:c1:00.0").expect("the accelerator");
        assert_eq!((found.architecture.as_str(), found.shared), ("gfx942", false));
        let found = node_at(&nodes, "0000:c4:00.0").expect("the APU");
        assert_eq!((found.architecture.as_str(), found.shared), ("gfx1151", true));
        // The same place, as the second part of its chip.
        let part = MI300X.replace("49408", "268484864");
        let parts = with(&[&part], super::nodes);
        assert!(node_at(&parts, "0002:c1:00.0").is_some(), "{parts:?}");
        for nowhere in ["0000:c1:00.0", "0002:c1:01.0", "", "zebra", "0002:c1", "0002:c1:"] {
            assert_eq!(node_at(&nodes, nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn versions_become_the_names_of_compilers() {
        for (version, name) in
            [(90_010, "gfx90a"), (90_006, "gfx906"), (110_000, "gfx1100"), (120_001, "gfx1201")]
        {
            let text = format!("gfx_target_version {version}\nlocation_id 768\n");
            assert_eq!(node(&text).map(|node| node.architecture).as_deref(), Some(name));
        }
        for broken in
            ["", "gfx_target_version x\nlocation_id 1\n", "gfx_target_version 90402\n", "location_id 1\n"]
        {
            assert_eq!(node(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_version_that_the_runtime_is_told_to_take_counts_if_the_runtime_would_take_it() {
        assert_eq!(overridden("11.0.0").as_deref(), Some("gfx1100"));
        assert_eq!(overridden("9.0.10").as_deref(), Some("gfx90a"));
        for broken in
            ["", "11", "11.0", "11.0.0.0", "a.b.c", "11.0.-1", "11.99.0", "18446744073709551616.0.0"]
        {
            assert_eq!(overridden(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_chip_without_its_library_is_told() {
        let said = with(&[CPU, STRIX_HALO], |read| remark(read, "why"));
        assert!(said.starts_with("no HIP, though the kernel lists a gfx1151: why;"), "{said}");
        assert_eq!(with(&[CPU], |read| remark(read, "why")), "no HIP: why");
        assert_eq!(with(&[], |read| remark(read, "why")), "no HIP: why");
    }
}

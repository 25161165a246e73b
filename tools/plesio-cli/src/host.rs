//! What this machine is: the `host` object of every document.
//!
//! Reads what the kernel publishes and takes nothing for granted: an absent file is an absent fact, never
//! an error. Nothing here is changed or opened for writing.

use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// The machine under a measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) kernel: String,
    pub(crate) architecture: &'static str,
    pub(crate) cpu: Option<String>,
    /// Cores this process may use.
    pub(crate) cores: usize,
    /// Vector features that the kernels can choose from.
    pub(crate) features: Vec<&'static str>,
    /// Data plane that the probe chose, and why.
    pub(crate) tier: String,
    pub(crate) tier_reason: String,
    /// GPU run-time libraries found on this machine.
    pub(crate) gpu: Vec<Library>,
    pub(crate) memlock: Memlock,
    pub(crate) memory_bytes: Option<u64>,
    /// Load averages over 1, 5 and 15 minutes when the command began.
    pub(crate) load: Option<[f64; 3]>,
}

/// A library that is here, and where.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Library {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
}

/// How much memory may be locked; none of a pair means no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Memlock {
    pub(crate) soft_bytes: Option<u64>,
    pub(crate) hard_bytes: Option<u64>,
}

impl Host {
    /// Looks around, where nobody has probed the data plane.
    pub(crate) fn probed() -> Self {
        match plesio_udp::probe(plesio_udp::Requested::Auto) {
            Ok(probe) => Self::look(probe.tier.to_string(), probe.reason),
            Err(error) => Self::look("none".into(), error.to_string()),
        }
    }

    /// Looks around. `tier` and its reason come from the data plane's own probe.
    pub(crate) fn look(tier: String, tier_reason: String) -> Self {
        Self {
            kernel: kernel(),
            architecture: std::env::consts::ARCH,
            cpu: cpu_name(),
            cores: cores(),
            features: cpu_features(),
            tier,
            tier_reason,
            gpu: gpu_libraries(),
            memlock: Memlock::read(),
            memory_bytes: meminfo_bytes("MemTotal"),
            load: load(),
        }
    }
}

impl Memlock {
    /// The limits of this process.
    pub(crate) fn read() -> Self {
        use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else {
            return Self { soft_bytes: Some(0), hard_bytes: Some(0) };
        };
        let bytes = |limit| (limit != RLIM_INFINITY).then_some(limit);
        Self { soft_bytes: bytes(soft), hard_bytes: bytes(hard) }
    }
}

/// Cores this process may use: its affinity and its control group count.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A number of `/proc/meminfo` that is given in kB.
pub(crate) fn meminfo_bytes(key: &str) -> Option<u64> {
    meminfo_value(&fs::read_to_string("/proc/meminfo").ok()?, key).map(|kib| kib.saturating_mul(1024))
}

/// A count of `/proc/meminfo`, without unit.
pub(crate) fn meminfo_count(key: &str) -> Option<u64> {
    meminfo_value(&fs::read_to_string("/proc/meminfo").ok()?, key)
}

/// One line of a file under /proc or /sys.
pub(crate) fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let first = text.lines().next()?.trim();
    (!first.is_empty()).then(|| first.to_owned())
}

/// The largest cache of the first core; where the kernel does not say, what a server has.
pub(crate) fn cache_bytes() -> u64 {
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let sizes = (0..CACHES_MAX).filter_map(|index| line(folder.join(format!("index{index}/size"))));
    sizes
        .filter_map(|size| size.strip_suffix('K')?.parse::<u64>().ok())
        .max()
        .map_or(CACHE_BYTES, |kib| kib * 1024)
}

const CACHES_MAX: usize = 8;
const CACHE_BYTES: u64 = 32 << 20;

/// The kernel's name, release and version.
pub(crate) fn kernel() -> String {
    let part = |name: &str| line(Path::new("/proc/sys/kernel").join(name)).unwrap_or_else(|| "?".into());
    format!("{} {}", part("ostype"), part("osrelease"))
}

fn meminfo_value(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Load averages over 1, 5 and 15 minutes.
pub(crate) fn load() -> Option<[f64; 3]> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

/// x86 says "model name"; arm boards name themselves in the device tree.
fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':')).map(str::trim)
    };
    let board = || line("/proc/device-tree/model").map(|name| name.trim_end_matches('\0').to_owned());
    field("model name").map(str::to_owned).or_else(board)
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    let mut found = Vec::new();
    macro_rules! look { ($($name:tt),*) => { $( if std::arch::is_x86_feature_detected!($name) { found.push($name); } )* } }
    look!(
        "sse4.2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512vnni",
        "aes",
        "vaes",
        "sha"
    );
    found
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<&'static str> {
    let mut found = Vec::new();
    macro_rules! look { ($($name:tt),*) => { $( if std::arch::is_aarch64_feature_detected!($name) { found.push($name); } )* } }
    look!("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2", "aes", "sha2");
    found
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

/// Looks for the vendors' libraries where loaders look. Nothing is loaded: loading a driver to see whether
/// it is there can take seconds and wake the device.
fn gpu_libraries() -> Vec<Library> {
    const NAMES: &[&str] = &["libcuda.so.1", "libamdhip64.so", "libze_loader.so.1"];
    let folders = library_folders();
    let mut found: Vec<Library> = NAMES
        .iter()
        .filter_map(|&name| {
            let path = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists())?;
            Some(Library { name, path })
        })
        .collect();
    let tegra = Path::new("/sys/devices/soc0/family");
    if line(tegra).is_some_and(|family| family.eq_ignore_ascii_case("tegra")) {
        found.push(Library { name: "tegra", path: tegra.into() });
    }
    found
}

fn library_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH")
        .map(|paths| std::env::split_paths(&paths).filter(|path| path.is_absolute()).collect())
        .unwrap_or_default();
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    for base in ["/usr/lib", "/lib", "/usr/local/lib"] {
        folders.push(Path::new(base).join(&triplet));
        folders.push(base.into());
    }
    folders.extend(
        [
            "/usr/lib64",
            "/usr/local/cuda/compat",
            "/usr/local/nvidia/lib64",
            "/opt/rocm/lib",
            "/usr/lib/wsl/lib",
        ]
        .map(PathBuf::from),
    );
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_meminfo_is_found_by_its_whole_name() {
        let text = "MemTotal:       24000 kB\nHugePages_Total:       3\nHugepagesize:       2048 kB\n";
        assert_eq!(meminfo_value(text, "MemTotal"), Some(24_000));
        assert_eq!(meminfo_value(text, "HugePages_Total"), Some(3));
        assert_eq!(meminfo_value(text, "Mem"), None);
        assert_eq!(meminfo_value("MemTotal: none", "MemTotal"), None);
    }

    #[test]
    fn this_machine_has_a_kernel_and_a_core() {
        let host = Host::look("mio".into(), "a test".into());
        assert!(host.kernel.starts_with("Linux "), "{}", host.kernel);
        assert!(host.cores >= 1);
        assert!(host.memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
    }
}

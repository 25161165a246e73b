//! The vendors' libraries that are not: compiled once for all tests here, opened by processes that the tests start.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use plesio_emulator::Toolchain;
use plesio_launch::Vendor;
use plesio_tests::say_skipped;

/// Where a process hears which story it tells.
pub(crate) const STORY: &str = "PLESIO_TEST_STORY";

/// A kernel of these tests alone; each block of 64 threads adds to its part of `out`.
const KERNELS: &str = r#"
#include "device.h"
struct Scale { const float* x; float* out; u64 n; float factor; u32 rest; };
KERNEL(test_scale, Scale, 64) {
  const u64 e = u64(block_index()) * 64 + thread_index();
  if (e < p.n) p.out[e] = fused(p.x[e], p.factor, p.out[e]);
}
"#;

/// A library that lacks nearly everything.
const HOLLOW: &str = r#"
extern "C" int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
extern "C" int cuInit(unsigned) { return 0; }
extern "C" int hipRuntimeGetVersion(int* version) { return *version = 60200000, 0; }
extern "C" int hipInit(unsigned) { return 0; }
"#;

/// Which libraries a process finds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Libraries {
    /// Both fakes.
    Fakes,
    /// Such with two functions each.
    Hollow,
    /// What the machine has.
    Own,
}

/// A folder with libraries that are compiled, or nothing where there is no compiler for them.
fn folder(libraries: Libraries) -> Option<PathBuf> {
    static FAKES: OnceLock<Option<PathBuf>> = OnceLock::new();
    static HOLLOWS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = |make: fn(&Toolchain, &Path) -> std::io::Result<PathBuf>| match Toolchain::find() {
        Ok(toolchain) => Some(make(&toolchain, Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("it compiles")),
        Err(why) => {
            say_skipped(&why);
            None
        }
    };
    match libraries {
        Libraries::Own => None,
        Libraries::Fakes => FAKES.get_or_init(|| build(fakes)).clone(),
        Libraries::Hollow => HOLLOWS.get_or_init(|| build(hollows)).clone(),
    }
}

/// Both fakes, with the kernel of these tests.
fn fakes(toolchain: &Toolchain, dir: &Path) -> std::io::Result<PathBuf> {
    toolchain.fakes(&written(dir, "scale.cc", KERNELS)?, dir)
}

/// Libraries of the vendors' names that lack nearly everything.
fn hollows(toolchain: &Toolchain, dir: &Path) -> std::io::Result<PathBuf> {
    let source = written(dir, "hollow.cc", HOLLOW)?;
    let folder = dir.join("hollow");
    for library in ["libcuda.so.1", "libamdhip64.so.6"] {
        toolchain.library(&source, &folder.join(library))?;
    }
    Ok(folder)
}

/// A source of these tests, whole at once: another process may be compiling it.
fn written(dir: &Path, name: &str, text: &str) -> std::io::Result<PathBuf> {
    let (path, unfinished) = (dir.join(name), dir.join(format!("{}-{name}", std::process::id())));
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, &path)?;
    Ok(path)
}

/// Tells a story about a vendor's device in a process of its own; nothing where that needs a compiler that is not
/// here.
pub(crate) fn tell(
    vendor: Vendor,
    story: &str,
    libraries: Libraries,
    settings: &[(&str, &str)],
) -> Option<Output> {
    let mut path = match libraries {
        Libraries::Own => Vec::new(),
        Libraries::Fakes | Libraries::Hollow => vec![folder(libraries)?],
    };
    path.extend(std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths));
    let mut process = Command::new(std::env::current_exe().expect("this test has a path"));
    process
        .args(["--exact", "a_process_with_libraries_of_its_own", "--nocapture", "--test-threads=1"])
        .env("LD_LIBRARY_PATH", std::env::join_paths(path).expect("paths of libraries have no colons"))
        .env("HSA_OVERRIDE_GFX_VERSION", "9.4.2")
        .env(STORY, format!("{vendor:?} {story}"));
    for (name, value) in settings {
        process.env(name, value);
    }
    Some(process.output().expect("the test can start itself"))
}

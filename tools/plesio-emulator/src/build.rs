//! Compiles the emulator, once for each state of its sources.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A C++17 compiler.
#[derive(Clone, Debug)]
pub struct Toolchain {
    compiler: OsString,
    version: String,
}

/// How device threads are run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Engine {
    /// As fibers, in an order that is chosen.
    Fibers,
    /// As OS threads that `ThreadSanitizer` watches.
    Threads,
}

/// Compilers by name, after `CXX`.
const COMPILERS: [&str; 4] = ["c++", "g++", "clang++", "clang++-19"];

impl Toolchain {
    /// The first compiler that answers; the error says what was asked and what brings one.
    ///
    /// # Errors
    /// There is none.
    pub fn find() -> Result<Self, String> {
        let wanted = env::var_os("CXX").into_iter().chain(COMPILERS.map(OsString::from));
        for compiler in wanted {
            let Ok(answer) = Command::new(&compiler).arg("--version").output() else { continue };
            if answer.status.success() {
                let version = String::from_utf8_lossy(&answer.stdout).into_owned();
                return Ok(Self { compiler, version });
            }
        }
        Err("no C++ compiler (CXX, c++, g++, clang++); on Debian: apt-get install g++".into())
    }

    /// The emulator as a program, below `dir`.
    ///
    /// # Errors
    /// The sources cannot be read, or the compiler refuses them.
    pub fn emulator(&self, engine: Engine, dir: &Path) -> io::Result<PathBuf> {
        let (name, flags): (_, &[&str]) = match engine {
            Engine::Fibers => ("emulator", &["-O2"]),
            Engine::Threads => {
                ("emulator-threads", &["-O1", "-g", "-fsanitize=thread", "-DEMULATOR_THREADS"])
            }
        };
        let folder = self.folder(dir, name)?;
        self.compile(flags, &kernels(), &["machine.cc", "main.cc"], &folder.join(name))
    }

    /// Whether a text compiles that includes files of the kernels; nothing is made of it.
    ///
    /// # Errors
    /// The compiler cannot be run, or refuses the text: then it says why.
    pub fn accept(&self, text: &str) -> io::Result<()> {
        let mut command = Command::new(&self.compiler);
        command.args(COMMON_FLAGS).arg("-fsyntax-only").arg("-I").arg(source_dir()).args(["-x", "c++", "-"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let written = stdin.write_all(text.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(refused(&command, &output));
        }
        written
    }

    /// A folder with libraries that pretend to be the vendors' and run `kernels` on the emulator; for `LD_LIBRARY_PATH`.
    ///
    /// # Errors
    /// As [`Self::emulator`].
    pub fn fakes(&self, kernels: &Path, dir: &Path) -> io::Result<PathBuf> {
        let folder = self.folder(dir, "fakes")?.join(kernels.file_stem().unwrap_or_default());
        fs::create_dir_all(&folder)?;
        for (library, vendor) in [("libcuda.so.1", "fake_cuda.cc"), ("libamdhip64.so.6", "fake_hip.cc")] {
            let files = [&FAKE_FILES[..], &[vendor]].concat();
            let made = self.compile(&SHARED_FLAGS, kernels, &files, &folder.join(library))?;
            named_plainly(&made)?;
        }
        Ok(folder)
    }

    /// A library of one source, with a name that ends in a number.
    ///
    /// # Errors
    /// As [`Self::emulator`].
    pub fn library(&self, source: &Path, to: &Path) -> io::Result<()> {
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        named_plainly(&self.compile(&SHARED_FLAGS, source, &[], to)?)
    }

    /// A folder for what is made of these sources by this compiler, and of no others.
    fn folder(&self, dir: &Path, name: &str) -> io::Result<PathBuf> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.version.as_bytes());
        hash_folder(&source_dir(), &mut hasher)?;
        let folder = dir.join(format!("{name}-{}", &hasher.finalize().to_hex()[..16]));
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Compiles kernels together with files of the emulator, unless that was done before.
    fn compile(&self, flags: &[&str], kernels: &Path, files: &[&str], to: &Path) -> io::Result<PathBuf> {
        if to.exists() {
            return Ok(to.to_path_buf());
        }
        let unfinished = unfinished(to);
        let mut command = Command::new(&self.compiler);
        command.args(COMMON_FLAGS).args(flags).arg("-I").arg(source_dir());
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("fma") {
            command.arg("-mfma"); // the same bits from the library are slow
        }
        command.arg("-o").arg(&unfinished).args(["-x", "c++"]).arg(kernels);
        command.args(files.iter().map(|file| source_dir().join("emulator").join(file)));
        let output = command.output()?;
        if !output.status.success() {
            return Err(refused(&command, &output));
        }
        // Whole at once: another process may be starting it.
        fs::rename(&unfinished, to)?;
        Ok(to.to_path_buf())
    }
}

fn refused(command: &Command, output: &Output) -> io::Error {
    io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Some look for the name without a number first, and it must not be another library's.
fn named_plainly(library: &Path) -> io::Result<()> {
    let plain = library.with_extension("");
    if plain.exists() {
        return Ok(());
    }
    let unfinished = unfinished(&plain);
    std::os::unix::fs::symlink(library.file_name().unwrap_or_default(), &unfinished)?;
    fs::rename(&unfinished, &plain)
}

/// A name beside it that no other process or thread uses.
fn unfinished(to: &Path) -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id());
    let number: String = thread.chars().filter(char::is_ascii_digit).collect();
    to.with_extension(format!("{}-{number}", std::process::id()))
}

/// The file that has every kernel.
#[must_use]
pub fn kernels() -> PathBuf {
    source_dir().join("plesio.cu")
}

/// Files that both fakes are made of.
const FAKE_FILES: [&str; 5] = ["fake.cc", "fake_memory.cc", "fake_image.cc", "fake_stream.cc", "machine.cc"];
const SHARED_FLAGS: [&str; 5] = ["-O2", "-shared", "-fPIC", "-fvisibility-inlines-hidden", "-Wl,-Bsymbolic"];

/// Bit identity: nothing is contracted, and a warning is a mistake.
const COMMON_FLAGS: [&str; 6] =
    ["-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-pthread"];

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/source")
}

fn hash_folder(folder: &Path, hasher: &mut blake3::Hasher) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            hash_folder(&entry.path(), hasher)?;
        } else {
            hasher.update(entry.file_name().as_encoded_bytes());
            hasher.update(&fs::read(entry.path())?);
        }
    }
    Ok(())
}

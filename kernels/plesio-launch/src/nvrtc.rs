//! The kernels compiled on the machine that runs them, by NVIDIA's run-time compiler: for the chip that is there, and
//! with line numbers by which profilers show the source.
//!
//! Knows how that library is asked; loads it only when [`recompile`] is called. The source is the one that this
//! program was built with, headers included, so nothing is read from disk. Results are those of every other artefact,
//! bit for bit: the same rules of arithmetic are asked for.
//!
//! NVRTC 13.0 User Guide, "Supported Compile Options".

use std::fmt;

use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts, sys};
use plesio_artefact::{Artefact, Target, source};

use crate::Chip;

/// The source in one piece, with lines that say from which file each part is.
const SOURCE: &str = include_str!(concat!(env!("OUT_DIR"), "/source.cu"));

/// Nothing was compiled.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RecompileError {
    /// The library cannot be opened.
    Missing,
    /// The chip is not one of NVIDIA's.
    Chip {
        /// What its maker's compilers call it.
        architecture: String,
    },
    /// The library does not know the chip, or refuses the source; in its words.
    Refused {
        /// What was asked for.
        target: Target,
        /// The log.
        said: String,
    },
}

impl fmt::Display for RecompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => {
                f.write_str("no libnvrtc: install the CUDA toolkit and name its lib64 in LD_LIBRARY_PATH")
            }
            Self::Chip { architecture } => write!(f, "NVIDIA's compiler makes nothing for {architecture}"),
            Self::Refused { target, said } => {
                write!(f, "{target}: {said}; use a newer libnvrtc, or the embedded kernels")
            }
        }
    }
}

impl std::error::Error for RecompileError {}

/// Compiles the kernels for a chip: PTX of the library's own version. Whether the chip's driver takes that,
/// [`Artefacts::choose`](crate::Artefacts::choose) knows.
///
/// # Errors
/// There is no library, or it makes nothing for this chip.
pub fn recompile(chip: &Chip) -> Result<Artefact, RecompileError> {
    compile(SOURCE, &chip.architecture)
}

fn compile(text: &str, architecture: &str) -> Result<Artefact, RecompileError> {
    let foreign = || RecompileError::Chip { architecture: architecture.into() };
    let capability =
        architecture.parse::<Target>().ok().and_then(|chip| chip.capability()).ok_or_else(foreign)?;
    let target: Target = format!("compute_{capability}").parse().map_err(|_| foreign())?;
    if !is_present() {
        return Err(RecompileError::Missing);
    }
    let options = CompileOptions {
        ftz: Some(false),
        prec_sqrt: Some(true),
        prec_div: Some(true),
        fmad: Some(false),
        name: Some(source::UNIT.into()),
        options: vec![
            format!("--gpu-architecture={target}"),
            "--std=c++17".into(),
            "--generate-line-info".into(),
            // The host compilers' word for it, which this library does not know.
            "--define-macro=__builtin_memcpy=memcpy".into(),
        ],
        ..CompileOptions::default()
    };
    let refused = |said| RecompileError::Refused { target: target.clone(), said };
    let compiled = compile_ptx_with_opts(text, options).map_err(|error| {
        refused(match error {
            CompileError::CompileError { log, .. } => log.to_string_lossy().trim().into(),
            other => other.to_string(),
        })
    })?;
    let text = compiled.as_bytes().unwrap_or_default();
    // The library ends the text with a zero, which is not part of it.
    let ptx = text.strip_suffix(b"\0").unwrap_or(text);
    Ok(Artefact::new(target, ptx.to_vec()))
}

/// Whether the library can be opened: every call into it would panic otherwise.
fn is_present() -> bool {
    // SAFETY: loads a library by its system name, whose initialisers are NVIDIA's and ask nothing of the caller.
    unsafe { sys::is_culib_present() }
}

#[cfg(test)]
mod tests {
    use plesio_artefact::driver;

    use super::*;

    /// PTX for an architecture, or nothing where there is no library.
    fn compiled(text: &str, architecture: &str) -> Option<Result<Artefact, RecompileError>> {
        match compile(text, architecture) {
            Err(RecompileError::Missing) => {
                eprintln!("skipped: {}", RecompileError::Missing);
                None
            }
            result => Some(result),
        }
    }

    #[test]
    fn the_embedded_source_compiles_with_its_lines_and_unfused() {
        let Some(result) = compiled(SOURCE, "sm_90") else { return };
        let artefact = result.unwrap();
        assert_eq!(artefact.target.name(), "compute_90");
        assert!(driver::least(&artefact).is_some());
        let text = str::from_utf8(&artefact.bytes).unwrap();
        assert!(text.contains(".entry plesio_") && text.contains(".target sm_90"), "no kernel");
        assert!(text.contains("device.h\"") && text.contains("\t.loc\t"), "no lines");
        assert!(!text.contains('\0') && !text.contains(".ftz"));
    }

    #[test]
    fn a_product_and_a_sum_stay_two_roundings() {
        let kernel = "extern \"C\" __global__ void f(float* x) { x[0] = x[1] * x[2] + x[3]; }";
        let Some(result) = compiled(kernel, "sm_75") else { return };
        let text = String::from_utf8(result.unwrap().bytes.into()).unwrap();
        assert!(
            text.contains("mul.rn.f32") && text.contains("add.rn.f32") && !text.contains("fma"),
            "{text}"
        );
    }

    #[test]
    fn what_the_compiler_refuses_is_told_with_file_and_line() {
        let Some(result) = compiled("#line 7 \"slot.h\"\nthis is not C++\n", "sm_75") else { return };
        let told = result.unwrap_err().to_string();
        assert!(told.contains("slot.h(7)"), "{told}");
        let told = compiled("", "sm_99").unwrap().unwrap_err().to_string();
        assert!(told.contains("compute_99") && told.contains("newer libnvrtc"), "{told}");
    }

    #[test]
    fn chips_of_others_are_refused_before_the_library_is_opened() {
        for architecture in ["gfx942", "", "sm_", "sm_90; rm"] {
            assert!(matches!(compile("", architecture), Err(RecompileError::Chip { .. })), "{architecture}");
        }
    }
}

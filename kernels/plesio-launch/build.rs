//! Embeds the kernels: from a folder of prebuilt artefacts, by the compilers that are here, or not at all.
//!
//! Decides nothing itself (`plesio_artefact::embed` does) and writes what the crate includes: `embedded.rs` beside
//! the artefacts, and the source in one piece for the feature `nvrtc`. Uses no network; the same inputs give the same
//! outputs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use plesio_artefact::embed::FOLDER_VARIABLE;
use plesio_artefact::folder::FIX as FOLDER_FIX;
use plesio_artefact::toolchain::CUDA_VARIABLES;
use plesio_artefact::{Delivery, Digest, Embedding, Places, Source, Toolchain, manifest};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let folder = package.join("../source");
    for name in CUDA_VARIABLES.iter().chain([&FOLDER_VARIABLE]) {
        println!("cargo::rerun-if-env-changed={name}");
    }
    // Where the workspace is, so that a relative path means what it does in a shell at the root.
    let named = env::var_os(FOLDER_VARIABLE).filter(|value| !value.is_empty());
    let named = named.map(|path| package.join("../..").join(path));
    let source = Source::read(&folder).map_err(|error| error.to_string())?;
    for name in source.names() {
        println!("cargo::rerun-if-changed={}", folder.join(name).display());
    }
    let delivery = Delivery::decide(named, || Toolchain::find(&Places::of_environment(None)));
    if let Delivery::Folder(folder) = &delivery {
        println!("cargo::rerun-if-changed={}", folder.join(manifest::FILE).display());
    }
    let embedding = delivery
        .embed(&source, &folder, &out)
        .map_err(|error| format!("{FOLDER_VARIABLE}: {error}; {FOLDER_FIX}"))?;
    for line in embedding.warnings.iter().flat_map(|warning| warning.lines()) {
        println!("cargo::warning={line}");
    }
    write(&out.join("embedded.rs"), &embedded(&embedding, source.digest(), &out)?)?;
    if env::var_os("CARGO_FEATURE_NVRTC").is_some() {
        write(&out.join("source.cu"), &source.flatten())?;
    }
    Ok(())
}

/// The text of `embedded.rs`, with the artefacts that it names written beside it.
fn embedded(embedding: &Embedding, source: Digest, out: &Path) -> Result<String, String> {
    let mut text = format!("const SOURCE: Digest = Digest({:?});\n", source.0);
    text += &format!("const WITHOUT: &str = {:?};\n", embedding.without.as_deref().unwrap_or_default());
    text += "const EMBEDDED: &[(&str, Digest, &[u8])] = &[\n";
    for artefact in &embedding.artefacts {
        let path = out.join(artefact.target.file_name());
        fs::write(&path, &artefact.bytes).map_err(|cause| format!("{}: {cause}", path.display()))?;
        let (name, digest) = (artefact.target.name(), artefact.digest.0);
        text += &format!(
            "    ({name:?}, Digest({digest:?}), include_bytes!({:?})),\n",
            artefact.target.file_name()
        );
    }
    Ok(text + "];\n")
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|cause| format!("{}: {cause}", path.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|cause| format!("{name}: {cause}"))
}

//! `kernels`: every artefact of the kernels from their one source, judged, with a manifest that vouches for them.
//!
//! Installs nothing: what cannot be built here is skipped aloud with the line that brings the compiler. Fails where
//! something that could be built was not, or where a kernel keeps anything behind its registers; then there is no
//! manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{fs, io};

use plesio_artefact::compile::{self, Built};
use plesio_artefact::{
    Artefact, CompileError, Compiler, Job, Kind, Places, Source, Target, Toolchain, driver, folder, target,
};

mod resources;
mod table;

use resources::Kernel;
use table::Column;

const USAGE: &str = "\
Usage: cargo xtask kernels [--out DIR] [--cuda DIR] [--target NAME]...

Builds cubins (nvcc), PTX and AMD's code objects (clang) from kernels/source into DIR, which is target/kernels unless
named; prints what each kernel takes of each chip, and writes DIR/manifest. No kernel may spill or keep a stack.

  --cuda DIR      a CUDA toolkit, asked before CUDA_HOME, CUDA_PATH and PATH
  --target NAME   only these; also chips that no release has kernels for, such as gfx1030 or sm_86";

/// The newest driver that PTX may ask for: that of CUDA 11.0, which the oldest machines in use have.
const PTX_DRIVER_MAX: u32 = 11000;

struct Plan {
    out: PathBuf,
    cuda: Option<PathBuf>,
    targets: Vec<Target>,
    /// Whether they were asked for by name.
    named: bool,
}

/// A report of one artefact on one chip that is still to be made.
enum Report<'a> {
    /// By the compiler, as it made the artefact.
    Cubin(&'a Built),
    /// By the assembler, for a chip of this capability.
    Ptx(&'a Artefact, &'a Path, u32),
    /// By reading the text alone: there is no assembler.
    PtxText(&'a Artefact),
    /// From the object's notes.
    CodeObject(&'a Artefact, &'a Path),
}

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let Some(plan) = Plan::read(root, arguments)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let begin = Instant::now();
    let toolchain = Toolchain::find(&Places::of_environment(plan.cuda.clone()));
    let source_folder = root.join("kernels/source");
    let source = Source::read(&source_folder).map_err(|error| error.to_string())?;
    let out = std::path::absolute(&plan.out).map_err(|cause| format!("{}: {cause}", plan.out.display()))?;
    if out.exists() && !out.is_dir() {
        return Err(format!(
            "--out {} is no folder; name one, it is made where there is none",
            out.display()
        ));
    }
    // What has not been judged yet lies where nobody looks for artefacts; those of before stay until it has been.
    let unjudged = out.join("unjudged");
    fs::create_dir_all(&unjudged).map_err(|cause| unwritable(&unjudged, &cause))?;

    let (jobs, skipped) = jobs(&plan.targets, &toolchain);
    let results = compile::each(&jobs, &|job: &Job| {
        let result = job.run(&source_folder, &unjudged);
        tell(job, &result);
        result
    });
    for (lack, targets) in &skipped {
        println!("skipped {}: {lack}", targets.join(", "));
    }
    let mut broken: Vec<String> =
        results.iter().filter_map(|result| Some(result.as_ref().err()?.to_string())).collect();
    let built: Vec<&Built> = results.iter().flatten().collect();
    let columns = judge(&built, &toolchain, &unjudged, &mut broken);
    print!("{}", table::text(&columns));
    fs::remove_dir_all(&unjudged).map_err(|cause| unwritable(&unjudged, &cause))?;
    broken.extend(faults(&columns));
    if !broken.is_empty() {
        return Err(format!("{}\nno artefact is written", broken.join("\n")));
    }
    if plan.named && !skipped.is_empty() {
        return Err("not all that was named can be built here; no artefact is written".into());
    }
    if built.is_empty() {
        println!("nothing was built");
        return Ok(());
    }
    let artefacts: Vec<Artefact> = built.iter().map(|built| built.artefact.clone()).collect();
    let manifest = folder::write(&out, source.digest(), toolchain.versions(), &artefacts)
        .map_err(|error| format!("{error}; name another --out"))?;
    let bytes: u64 = manifest.entries.iter().map(|entry| entry.len_bytes).sum();
    println!(
        "{} artefacts, {:.1} KB, source {}, in {} after {:.1} s",
        manifest.entries.len(),
        bytes as f64 / 1e3,
        manifest.source,
        out.display(),
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

impl Plan {
    fn read(root: &Path, arguments: &[String]) -> Result<Option<Self>, String> {
        let mut plan =
            Self { out: root.join("target/kernels"), cuda: None, targets: Vec::new(), named: false };
        let mut arguments = arguments.iter();
        while let Some(flag) = arguments.next() {
            if matches!(flag.as_str(), "-h" | "--help") {
                return Ok(None);
            }
            let mut value = || arguments.next().ok_or_else(|| format!("{flag} wants a value\n\n{USAGE}"));
            match flag.as_str() {
                "--out" => plan.out = value()?.into(),
                "--cuda" => plan.cuda = Some(value()?.into()),
                "--target" => {
                    let target: Target = value()?.parse().map_err(|error| format!("--target: {error}"))?;
                    if !plan.targets.contains(&target) {
                        plan.targets.push(target);
                    }
                }
                _ => return Err(format!("unknown flag {flag}\n\n{USAGE}")),
            }
        }
        plan.named = !plan.targets.is_empty();
        if plan.targets.is_empty() {
            plan.targets = target::shipped();
        }
        Ok(Some(plan))
    }
}

/// What can be built here, and what cannot by what is missing.
fn jobs(targets: &[Target], toolchain: &Toolchain) -> (Vec<Job>, BTreeMap<String, Vec<String>>) {
    let (mut jobs, mut skipped) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for target in targets {
        // PTX is clang's: nvcc writes it for drivers as new as itself.
        let compiler = if target.kind() == Kind::Cubin { Compiler::Nvcc } else { Compiler::Clang };
        match toolchain.job(target, compiler) {
            Ok(job) => jobs.push(job),
            Err(lack) => skipped.entry(lack.to_string()).or_default().push(target.to_string()),
        }
    }
    (jobs, skipped)
}

fn tell(job: &Job, result: &Result<Built, CompileError>) {
    match result {
        Ok(Built { artefact, time, .. }) => println!(
            "{:<11} {:<6} {:>8.1} KB {:>6.1} s",
            job.target,
            job.compiler,
            artefact.bytes.len() as f64 / 1e3,
            time.as_secs_f64()
        ),
        Err(_) => println!("{:<11} {:<6} failed", job.target, job.compiler),
    }
}

/// Every report that the tools here can make; what could not be read is broken, what could not be made is told.
fn judge(built: &[&Built], toolchain: &Toolchain, folder: &Path, broken: &mut Vec<String>) -> Vec<Column> {
    let (mut reports, mut lacks) = (Vec::new(), BTreeSet::new());
    for built in built {
        let artefact = &built.artefact;
        match artefact.kind() {
            Kind::Cubin => reports.push(Report::Cubin(built)),
            Kind::CodeObject => match toolchain.readelf() {
                Ok(readelf) => reports.push(Report::CodeObject(artefact, readelf)),
                Err(lack) => drop(lacks.insert(format!("{} is not judged: {lack}", artefact.target))),
            },
            Kind::Ptx => {
                broken.extend(too_new(artefact));
                let from = artefact.target.capability().unwrap_or_default();
                match toolchain.ptxas() {
                    Ok(ptxas) => {
                        let chips = target::shipped().into_iter().filter(|chip| chip.kind() == Kind::Cubin);
                        let chips = chips.filter_map(|chip| chip.capability()).filter(|chip| *chip >= from);
                        reports.extend(chips.map(|chip| Report::Ptx(artefact, ptxas, chip)));
                    }
                    Err(lack) => {
                        lacks.insert(format!("{} is judged by its text alone: {lack}", artefact.target));
                        reports.push(Report::PtxText(artefact));
                    }
                }
            }
        }
    }
    for lack in lacks {
        println!("{lack}");
    }
    let mut columns = Vec::new();
    for (report, kernels) in
        reports.iter().zip(compile::each(&reports, &|report: &Report<'_>| report.make(folder)))
    {
        match kernels {
            Ok(kernels) => columns.push(Column { title: report.title(), target: report.target(), kernels }),
            Err(error) => broken.push(format!("{}: {error}", report.target())),
        }
    }
    columns
}

/// Why PTX is not for every driver that there is, where it is not.
fn too_new(artefact: &Artefact) -> Option<String> {
    let least = driver::least(artefact).filter(|least| *least > PTX_DRIVER_MAX)?;
    let [least, oldest] = [least, PTX_DRIVER_MAX].map(driver::spell);
    Some(format!(
        "PTX for {} needs a driver of CUDA {least} or newer, and must load with every one from CUDA {oldest} on; take \
         --target compute_75, which drivers compile for newer chips too",
        artefact.target
    ))
}

/// Why nothing can be written to a folder.
fn unwritable(path: &Path, cause: &io::Error) -> String {
    format!("{}: {cause}; name another --out", path.display())
}

impl Report<'_> {
    fn make(&self, folder: &Path) -> Result<Vec<Kernel>, String> {
        match self {
            Self::Cubin(built) => resources::of_ptxas(&built.said),
            Self::PtxText(artefact) => resources::of_ptx(&String::from_utf8_lossy(&artefact.bytes)),
            Self::Ptx(artefact, ptxas, capability) => {
                let mut ptxas = Command::new(ptxas);
                ptxas.args(["-v", &format!("-arch=sm_{capability}"), "-o", "/dev/null"]);
                let output = answer(ptxas.arg(folder.join(artefact.target.file_name())))?;
                resources::of_ptxas(&output.1)
            }
            Self::CodeObject(artefact, readelf) => {
                let mut readelf = Command::new(readelf);
                let output = answer(readelf.arg("--notes").arg(folder.join(artefact.target.file_name())))?;
                resources::of_notes(&output.0)
            }
        }
    }

    fn title(&self) -> (&'static str, String) {
        match self {
            Self::Cubin(built) => ("cubin", chip(&built.artefact)),
            Self::Ptx(_, _, capability) => ("PTX on", capability.to_string()),
            Self::PtxText(artefact) => ("PTX", chip(artefact)),
            Self::CodeObject(artefact, _) => ("code object", chip(artefact)),
        }
    }

    fn target(&self) -> String {
        match self {
            Self::Cubin(built) => built.artefact.target.to_string(),
            Self::Ptx(artefact, _, capability) => format!("{} on sm_{capability}", artefact.target),
            Self::PtxText(artefact) | Self::CodeObject(artefact, _) => artefact.target.to_string(),
        }
    }
}

/// An architecture without what its maker puts before it.
fn chip(artefact: &Artefact) -> String {
    artefact.target.name().trim_start_matches(|letter: char| !letter.is_ascii_digit()).into()
}

/// What a tool that ends well prints, as output and as errors.
fn answer(command: &mut Command) -> Result<(String, String), String> {
    let name = command.get_program().display().to_string();
    let output =
        command.env("LC_ALL", "C").output().map_err(|cause| format!("cannot run {name}: {cause}"))?;
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if output.status.success() {
        Ok((out, err))
    } else {
        Err(format!("{name}: {}: {}", output.status, err.trim()))
    }
}

/// One line for every kernel that breaks a gate, and for every target that lacks a kernel which another one has.
fn faults(columns: &[Column]) -> Vec<String> {
    let names =
        |column: &Column| column.kernels.iter().map(|kernel| kernel.name.clone()).collect::<BTreeSet<_>>();
    let all: BTreeSet<String> = columns.iter().flat_map(names).collect();
    let mut faults = Vec::new();
    for column in columns {
        for kernel in column.kernels.iter().filter(|kernel| !kernel.faults.is_empty()) {
            faults.push(format!("{} for {}: {}", kernel.name, column.target, kernel.faults.join(", ")));
        }
        let missing: Vec<String> = all.difference(&names(column)).cloned().collect();
        if !missing.is_empty() {
            faults.push(format!("{} lacks {}", column.target, missing.join(", ")));
        }
    }
    faults
}

#[cfg(test)]
mod tests;

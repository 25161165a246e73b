//! The folder a demo leaves behind. Nothing half-written: every file is written beside and renamed.
//!
//! What lies in the folder already may be anything, links and pipes too: a file of ours is always a new one, so that
//! nothing is written through a link to a place outside, and no open waits for a reader.

use crate::failure::Failure;
use plesio_model::PeftFiles;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// All files of a demo, but for its logs.
const FILES: [&str; 4] = [REPORT, DOCUMENT, ADAPTER_CONFIG, ADAPTER];
pub(crate) const REPORT: &str = "report.html";
pub(crate) const DOCUMENT: &str = "run.json";
const ADAPTER_CONFIG: &str = "adapter/adapter_config.json";
const ADAPTER: &str = "adapter/adapter_model.safetensors";

pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder and tries to write in it, so that a run does not end with nowhere to go.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let failure = |cause: io::Error| {
            Failure::usage("out", format!("cannot write to --out {}", path.display()), cause)
                .fix("name a folder that you may write to, as in --out ~/plesio-demo")
        };
        let folder = Self { path: path.to_path_buf() };
        fs::create_dir_all(folder.logs()).map_err(failure)?;
        folder.try_writing().map_err(failure)?;
        // What an earlier run left must not pass for this one's.
        for name in FILES {
            match fs::remove_file(path.join(name)) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failure(cause)),
                _ => {}
            }
        }
        Ok(folder)
    }

    /// A place for an adapter alone, tried and left as it was: a run that ends without one leaves nothing.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        let failure = |cause: io::Error| {
            Failure::usage("out", format!("cannot write to --out {}", path.display()), cause)
                .fix("name a folder that you may write to, as in --out ~/plesio-up")
        };
        let folder = Self { path: path.to_path_buf() };
        let place = Self { path: folder.adapter() };
        let is_absent = |path: &&Path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err();
        let absent: Vec<&Path> = place.path.ancestors().take_while(is_absent).collect();
        let tried = fs::create_dir_all(&place.path).and_then(|()| place.try_writing());
        for made in absent {
            let _used = fs::remove_dir(made);
        }
        tried.map_err(failure)?;
        Ok(folder)
    }

    fn try_writing(&self) -> io::Result<()> {
        let trial = self.path.join(".plesio-trial");
        create_new(&trial)?;
        fs::remove_file(&trial)
    }

    /// Where the adapter goes.
    pub(crate) fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }

    /// Where the nodes' logs go.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.path.join(REPORT)
    }

    /// Writes one file, whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        write_whole(&self.path.join(name), bytes)
    }

    /// The adapter in PEFT's layout.
    pub(crate) fn write_adapter(&self, files: &PeftFiles) -> Result<(), Failure> {
        let path = self.adapter();
        fs::create_dir_all(&path).map_err(|cause| {
            Failure::run("write", format!("cannot make {}", path.display()), cause)
                .fix("move away what stands in its place")
        })?;
        self.write(ADAPTER_CONFIG, files.config_json.as_bytes())?;
        self.write(ADAPTER, &files.safetensors)
    }
}

/// Writes a file beside its name, which it takes once it is whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    let write = || create_new(beside)?.write_all(bytes).and_then(|()| fs::rename(beside, path));
    write().map_err(|cause| {
        let _gone = fs::remove_file(beside);
        Failure::run("write", format!("cannot write {}", path.display()), cause)
            .fix("see whether the disk is full (df) and the folder still there")
    })
}

/// A new and empty file at `path`, whatever stood there before, a folder excepted.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    File::create_new(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_place_for_an_adapter_is_tried_and_left_as_it_was() {
        let home = std::env::temp_dir().join(format!("plesio-take-{}", std::process::id()));
        fs::create_dir_all(&home).expect("a folder for temporary files");
        let out = home.join("far/out");
        let folder = Folder::take(&out).expect("it can be made");
        assert!(!home.join("far").exists());
        let files = PeftFiles { config_json: "{}".into(), safetensors: vec![1] };
        folder.write_adapter(&files).expect("it is made when it is needed");
        Folder::take(&out).expect("there already");
        assert_eq!(fs::read(out.join(ADAPTER)).expect("still there"), [1]);
        assert_eq!(fs::read_dir(out.join("adapter")).expect("still there").count(), 2, "and nothing else");
        fs::write(home.join("file"), b"").expect("our own folder");
        assert!(Folder::take(&home.join("file")).is_err());
        fs::remove_dir_all(&home).expect("our own folder");
    }

    /// Files of ours were opened through links that lay in the folder, which emptied what the links led to; and a
    /// pipe in the place of a log kept the demo waiting for ever.
    #[test]
    fn what_lies_in_the_folder_is_replaced_and_never_followed() {
        let place = std::env::temp_dir().join(format!("plesio-folder-{}", std::process::id()));
        fs::create_dir_all(place.join("out/logs")).expect("a folder for temporary files");
        let precious = place.join("precious");
        fs::write(&precious, b"precious").expect("our own folder");
        for name in ["out/.plesio-trial", "out/run.json", "out/run.json.part", "out/logs/n0.log"] {
            symlink(&precious, place.join(name)).expect("our own folder");
        }
        let mode = Mode::from_bits_truncate(0o600);
        mkfifo(&place.join("out/logs/n1.log"), mode).expect("our own folder");

        let folder = Folder::create(&place.join("out")).expect("links are no reason to refuse");
        for name in ["n0.log", "n1.log"] {
            create_new(&folder.logs().join(name)).expect("replaced");
        }
        folder.write(DOCUMENT, b"{}").expect("replaced");
        assert_eq!(fs::read(&precious).expect("still there"), b"precious");
        let written = place.join("out").join(DOCUMENT);
        assert!(written.symlink_metadata().expect("written").is_file());
        assert_eq!(fs::read(written).expect("written"), b"{}");
        fs::remove_dir_all(&place).expect("our own folder");
    }
}

//! A device by its name, in flags, files and what the launcher says to its nodes.

use clap::Args;
use plesio::DeviceChoice;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::path::PathBuf;
use std::str::FromStr;

/// What the nodes of a demo compute on.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct DevicesArgs {
    /// What computes: `auto` takes the device that sums a version fastest, by trial; `cpu`, `cuda:N` and `hip:N` take that one.
    /// A list is for the nodes in their order, and the last of it for all that follow
    #[arg(
        long,
        env = "PLESIO_DEVICE",
        default_value = "auto",
        value_delimiter = ',',
        value_name = "DEVICES"
    )]
    pub(crate) device: Vec<DeviceArg>,

    /// Folder of prebuilt kernels (cargo xtask kernels --out DIR), in the place of those in this program
    #[arg(long, env = "PLESIO_KERNELS_DIR", value_name = "DIR")]
    pub(crate) kernels_dir: Option<PathBuf>,
}

impl DevicesArgs {
    /// Of a node, by its place.
    pub(crate) fn of(&self, index: usize) -> DeviceArg {
        self.device.get(index).or(self.device.last()).copied().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct DeviceArg(pub(crate) DeviceChoice);

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl Serialize for DeviceArg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DeviceArg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

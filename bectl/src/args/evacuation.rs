//! The command line of a vdev that goes.

use clap::Args;

#[derive(Debug, Args)]
pub struct VdevRemove {
    /// Its number, as `vdev list` has it
    #[arg(value_name = "VDEV")]
    pub vdev: u32,
    /// Take its devices out of the configuration file as well; the one before is kept with a `~` behind its name
    #[arg(long)]
    pub update_config: bool,
}

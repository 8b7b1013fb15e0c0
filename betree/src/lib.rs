//! A tiered object storage stack on copy-on-write Bε-trees.

pub mod base;
pub mod database;
pub mod dmu;
pub mod log;
pub mod pool;
pub mod run;
pub mod vdev;

//! Rounds, the order of the workloads, and one child process for each engine and workload.

use crate::arguments::{Arguments, Task};
use crate::counters;
use crate::engine::{Engine, Settings};
use crate::engine_betree::Betree;
use crate::error::Error;
use crate::report::{self, Measurement, Results};
use crate::workload;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The engines, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineName {
    /// This project.
    Betree,
    /// RocksDB.
    #[cfg(feature = "rocksdb")]
    RocksDb,
}

impl EngineName {
    /// All that this build has.
    pub const ALL: &[Self] = &[
        Self::Betree,
        #[cfg(feature = "rocksdb")]
        Self::RocksDb,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Betree => "betree",
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => "rocksdb",
        }
    }

    /// The engine called `name`.
    ///
    /// # Errors
    /// [`Error::Arguments`] when this build has none of that name.
    pub fn parse(name: &str) -> Result<Self, Error> {
        Self::ALL
            .iter()
            .copied()
            .find(|engine| engine.name() == name)
            .ok_or_else(|| Error::Arguments(format!("this build has no engine {name}")))
    }
}

/// The folder of one run, removed with all that is in it when the run ends, also when it fails.
struct Scratch(PathBuf);

impl Scratch {
    fn create(under: &Path) -> Result<Self, Error> {
        let path = under.join(format!("peers-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("peers: {} stays behind: {error}", self.0.display());
        }
    }
}

/// Runs all rounds and prints the comparison.
///
/// # Errors
/// The first engine that failed or gave a wrong answer; what the system refused.
pub fn compare(arguments: &Arguments) -> Result<(), Error> {
    let scratch = Scratch::create(&arguments.folder)?;
    let mut results = Results::new(arguments);
    for round in 1..=arguments.rounds {
        for (workload, wanted) in workload::with_preparations(&arguments.workloads) {
            for engine in arguments.engines.iter().copied() {
                let folder = scratch.0.join(engine.name());
                let task = Task {
                    engine,
                    workload,
                    settings: arguments.settings,
                    limits: arguments.limits,
                    folder: folder.clone(),
                };
                let load_average = counters::load_average()?;
                let measurement = spawn(&task)?;
                if wanted {
                    println!("{}", report::line(round, &measurement));
                    results.measurements.push(measurement.in_round(round, load_average));
                }
            }
        }
        for engine in &arguments.engines {
            remove(&scratch.0.join(engine.name()))?;
        }
    }
    println!("\n{}", results.tables());
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&results)?;
        std::fs::write(path, text).map_err(|source| Error::File { path: path.clone(), source })?;
    }
    Ok(())
}

/// Runs `task` in a process of its own.
fn spawn(task: &Task) -> Result<Measurement, Error> {
    let program =
        std::env::current_exe().map_err(|source| Error::File { path: "/proc/self/exe".into(), source })?;
    let output = std::process::Command::new(&program)
        .args(task.to_arguments())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Error::File { path: program, source })?;
    if !output.status.success() {
        return Err(Error::Child {
            engine: task.engine.name(),
            workload: task.workload.name(),
            status: output.status,
        });
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs `task` in this process and prints what was measured, as JSON.
///
/// # Errors
/// The engine's, and [`Error::Wrong`] when it gave a wrong answer.
pub fn run_child(task: &Task) -> Result<(), Error> {
    let measurement = match task.engine {
        EngineName::Betree => run_on::<Betree>(task)?,
        #[cfg(feature = "rocksdb")]
        EngineName::RocksDb => run_on::<crate::engine_rocksdb::RocksDb>(task)?,
    };
    println!("{}", serde_json::to_string(&measurement)?);
    Ok(())
}

fn run_on<E: Engine>(task: &Task) -> Result<Measurement, Error> {
    let data = task.folder.join(task.workload.data_set());
    let settings = Settings { keys: task.workload.keys(&task.settings, &task.limits), ..task.settings };
    if task.workload.starts_empty() {
        remove(&data)?;
    }
    std::fs::create_dir_all(&data).map_err(|source| Error::File { path: data.clone(), source })?;
    let engine = E::open(&data, &settings)?;
    let outcome = workload::run(engine, task.workload, &settings, &task.limits, &task.folder)?;
    let measurement = Measurement::new(
        task.engine.name(),
        task.workload.name(),
        &outcome,
        counters::disk_bytes(&data)?,
        counters::memory_peak_bytes()?,
    );
    if task.workload.leaves_nothing() {
        remove(&data)?;
    }
    Ok(measurement)
}

/// Removes a folder that may be there.
fn remove(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { path: folder.into(), source })
        }
        _ => Ok(()),
    }
}

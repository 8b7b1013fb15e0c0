//! What the command line says.

use crate::engine::Settings;
use crate::error::Error;
use crate::plan::EngineName;
use crate::workload::{Limits, Workload};
use std::path::PathBuf;

/// The text of `--help`.
pub const HELP: &str = "\
Runs the same workloads on betree and RocksDB, and compares.

usage: peers [options]

  --keys N            keys of the data set                        [4000000]
  --rounds N          times that everything is done; medians      [3]
  --cache SIZE        memory for caching (KiB, MiB, GiB)          [256MiB]
  --direct yes|no     both read past the page cache; no: both through it   [yes]
  --workloads A,B     of load_seq, load_random, get_warm, get_reopen, get_missing, scan,
                      short_scan, overwrite, mixed, mixed_1, mixed_2, durable   [all]
  --engines A,B       of betree, rocksdb, in the order of running [all]
  --operations N      most operations of a workload that does not go over all keys  [1000000]
  --seconds N         longest time of such a workload             [20]
  --dir PATH          where the databases lie while it runs       [beside the program]
  --json PATH         also write every single result there
";

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Compare the engines.
    Compare(Arguments),
    /// Run one workload on one engine: the program calls itself with this.
    Child(Task),
}

/// What to compare, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Arguments {
    /// Keys, cache and direct reads.
    pub settings: Settings,
    /// Operations and time of a workload.
    pub limits: Limits,
    /// How often everything is done.
    pub rounds: u32,
    /// What to run, in the order of [`Workload::ALL`].
    pub workloads: Vec<Workload>,
    /// On what.
    pub engines: Vec<EngineName>,
    /// Where the databases lie.
    pub folder: PathBuf,
    /// Where the results go.
    pub json: Option<PathBuf>,
}

/// One workload on one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The engine.
    pub engine: EngineName,
    /// The workload.
    pub workload: Workload,
    /// Keys, cache and direct reads.
    pub settings: Settings,
    /// Operations and time.
    pub limits: Limits,
    /// Folder of this engine's databases.
    pub folder: PathBuf,
}

impl Arguments {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// [`Error::Arguments`] says which one makes no sense.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, Error> {
        let mut parsed = Self {
            settings: Settings { keys: 4_000_000, cache_bytes: 256 << 20, direct: true },
            limits: Limits { operations: 1_000_000, seconds: 20.0 },
            rounds: 3,
            workloads: Workload::ALL.to_vec(),
            engines: EngineName::ALL.to_vec(),
            folder: beside_the_program(),
            json: None,
        };
        let mut child = false;
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                return Ok(Command::Help);
            }
            if name == "--child" {
                child = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| Error::Arguments(format!("{name} needs a value")))?;
            match name.as_str() {
                "--keys" => parsed.settings.keys = number(&name, &value)?,
                "--rounds" => parsed.rounds = number(&name, &value)?,
                "--cache" => parsed.settings.cache_bytes = size(&value)?,
                "--direct" => {
                    parsed.settings.direct = match value.as_str() {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(Error::Arguments(format!("--direct is yes or no, not {value}"))),
                    };
                }
                "--operations" => parsed.limits.operations = number(&name, &value)?,
                "--seconds" => parsed.limits.seconds = number(&name, &value)?,
                "--dir" => parsed.folder = value.into(),
                "--json" => parsed.json = Some(value.into()),
                "--engines" => {
                    parsed.engines = value.split(',').map(EngineName::parse).collect::<Result<_, _>>()?;
                }
                "--workloads" => parsed.workloads = Workload::parse_list(&value)?,
                _ => return Err(Error::Arguments(format!("unknown option {name}"))),
            }
        }
        if parsed.settings.keys < 2 || parsed.rounds == 0 || parsed.limits.operations == 0 {
            return Err(Error::Arguments("two keys, one round and one operation are the least".into()));
        }
        if parsed.limits.seconds.is_nan() || parsed.limits.seconds <= 0.0 {
            return Err(Error::Arguments("--seconds must be above 0".into()));
        }
        if !child {
            return Ok(Command::Compare(parsed));
        }
        let ([engine], [workload]) = (&parsed.engines[..], &parsed.workloads[..]) else {
            return Err(Error::Arguments("--child runs one workload on one engine".into()));
        };
        Ok(Command::Child(Task {
            engine: *engine,
            workload: *workload,
            settings: parsed.settings,
            limits: parsed.limits,
            folder: parsed.folder,
        }))
    }
}

impl Task {
    /// The arguments from which [`Arguments::parse`] makes this task again.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<String> {
        let named = [
            ("--engines", self.engine.name().to_string()),
            ("--workloads", self.workload.name().to_string()),
            ("--keys", self.settings.keys.to_string()),
            ("--cache", self.settings.cache_bytes.to_string()),
            ("--direct", if self.settings.direct { "yes" } else { "no" }.to_string()),
            ("--operations", self.limits.operations.to_string()),
            ("--seconds", self.limits.seconds.to_string()),
            ("--dir", self.folder.to_string_lossy().into_owned()),
        ];
        let named = named.into_iter().flat_map(|(name, value)| [name.to_string(), value]);
        std::iter::once("--child".to_string()).chain(named).collect()
    }
}

/// The build folder: it is on a real file system, and not under version control.
fn beside_the_program() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().map_or_else(|| PathBuf::from("."), Into::into)
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Error> {
    text.replace('_', "").parse().map_err(|_| Error::Arguments(format!("{name} is a number, not {text}")))
}

/// Bytes, of a number that may end in KiB, MiB or GiB.
fn size(text: &str) -> Result<u64, Error> {
    let (digits, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
        .unwrap_or((text, 0));
    let wrong = || Error::Arguments(format!("--cache is a size such as 256MiB, not {text}"));
    let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, Error> {
        Arguments::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn options_are_read() {
        let Command::Compare(all) = parse("").unwrap() else { panic!() };
        assert_eq!((all.settings.keys, all.settings.cache_bytes, all.rounds), (4_000_000, 256 << 20, 3));
        assert_eq!(all.workloads, Workload::ALL);
        let line =
            "--keys 10_000 --cache 64MiB --direct yes --workloads mixed,load_seq --rounds 1 --engines betree";
        let Command::Compare(some) = parse(line).unwrap() else { panic!() };
        assert_eq!((some.settings.keys, some.settings.cache_bytes, some.rounds), (10_000, 64 << 20, 1));
        assert!(some.settings.direct);
        assert_eq!(some.workloads, [Workload::LoadSeq, Workload::Mixed1, Workload::Mixed2]);
        assert_eq!(parse("--rounds 2 --help").unwrap(), Command::Help);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--keys",
            "--keys many",
            "--keys 0",
            "--rounds 0",
            "--cache 99999999999GiB",
            "--cache 1MB",
            "--direct maybe",
            "--workloads nap",
            "--engines paper",
            "--seconds 0",
            "--seconds NaN",
            "--fast yes",
            "--child --engines betree",
        ] {
            assert!(matches!(parse(line), Err(Error::Arguments(_))), "{line}");
        }
    }

    #[test]
    fn a_task_survives_the_command_line() {
        let task = Task {
            engine: EngineName::Betree,
            workload: Workload::Mixed2,
            settings: Settings { keys: 77, cache_bytes: 12_345, direct: true },
            limits: Limits { operations: 5, seconds: 0.25 },
            folder: "some where".into(),
        };
        assert_eq!(Arguments::parse(task.to_arguments()).unwrap(), Command::Child(task));
    }
}

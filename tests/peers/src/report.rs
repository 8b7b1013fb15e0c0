//! Results: lines while it runs, tables of medians at the end, JSON for other programs.

use crate::arguments::Arguments;
use crate::keys::ENTRY_BYTES;
use crate::workload::Outcome;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// What was measured of one workload on one engine in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Name of the engine.
    pub engine: String,
    /// Name of the workload.
    pub workload: String,
    /// Round, from 1.
    pub round: u32,
    /// Operations done.
    pub operations: u64,
    /// Time for them.
    pub seconds: f64,
    /// Operations per second.
    pub operations_per_second: f64,
    /// Latency that half of the operations stayed within, in nanoseconds.
    pub p50_ns: u64,
    /// Latency of 99 % of them.
    pub p99_ns: u64,
    /// Latency of 99.9 % of them.
    pub p999_ns: u64,
    /// The longest of those looked at.
    pub max_ns: u64,
    /// CPU time of all threads until the database was closed.
    pub cpu_seconds: f64,
    /// Bytes read from devices until then.
    pub device_read_bytes: u64,
    /// Bytes written to devices until then.
    pub device_write_bytes: u64,
    /// Bytes of keys and values written by the workload.
    pub user_bytes_written: u64,
    /// Space that the database's files take.
    pub disk_bytes: u64,
    /// Space in use in them, for an engine that allocates its files ahead.
    pub used_bytes: Option<u64>,
    /// Peak resident memory of the process.
    pub memory_peak_bytes: u64,
    /// Load average of the machine when the workload started.
    pub load_average: f64,
}

impl Measurement {
    /// Of a workload that has just run.
    #[must_use]
    pub fn new(
        engine: &str,
        workload: &str,
        outcome: &Outcome,
        disk_bytes: u64,
        memory_peak_bytes: u64,
    ) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        Self {
            engine: engine.into(),
            workload: workload.into(),
            round: 0,
            operations: outcome.operations,
            seconds,
            operations_per_second: outcome.operations as f64 / seconds,
            p50_ns: outcome.latencies.quantile(0.5),
            p99_ns: outcome.latencies.quantile(0.99),
            p999_ns: outcome.latencies.quantile(0.999),
            max_ns: outcome.latencies.max(),
            cpu_seconds: outcome.counters.cpu_seconds,
            device_read_bytes: outcome.counters.read_bytes,
            device_write_bytes: outcome.counters.write_bytes,
            user_bytes_written: outcome.user_bytes_written,
            disk_bytes,
            used_bytes: outcome.used_bytes,
            memory_peak_bytes,
            load_average: 0.0,
        }
    }

    /// The same, as part of `round`, started at `load_average`.
    #[must_use]
    pub fn in_round(self, round: u32, load_average: f64) -> Self {
        Self { round, load_average, ..self }
    }
}

/// All results of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// Keys of the data set.
    pub keys: u64,
    /// Memory for caching, in bytes.
    pub cache_bytes: u64,
    /// Whether reads went past the page cache.
    pub direct: bool,
    /// Everything measured, in order.
    pub measurements: Vec<Measurement>,
}

/// A column of the tables: its heading, how to get it, how to print it.
struct Column {
    heading: &'static str,
    value: fn(&Measurement) -> Option<f64>,
    print: fn(f64) -> String,
}

const COLUMNS: &[Column] = &[
    Column { heading: "ops/s", value: |m| Some(m.operations_per_second), print: count },
    Column { heading: "p50", value: |m| Some(m.p50_ns as f64), print: duration },
    Column { heading: "p99", value: |m| Some(m.p99_ns as f64), print: duration },
    Column { heading: "p99.9", value: |m| Some(m.p999_ns as f64), print: duration },
    Column { heading: "max", value: |m| Some(m.max_ns as f64), print: duration },
    Column { heading: "cpu/op", value: |m| Some(m.cpu_seconds / m.operations as f64 * 1e9), print: duration },
    Column {
        heading: "read/op",
        value: |m| Some(m.device_read_bytes as f64 / m.operations as f64),
        print: bytes,
    },
    Column {
        heading: "write/user",
        value: |m| {
            (m.user_bytes_written > 0).then(|| m.device_write_bytes as f64 / m.user_bytes_written as f64)
        },
        print: |share| format!("{share:.2}"),
    },
    Column { heading: "disk", value: |m| Some(m.used_bytes.unwrap_or(m.disk_bytes) as f64), print: bytes },
    Column { heading: "memory", value: |m| Some(m.memory_peak_bytes as f64), print: bytes },
];

impl Results {
    /// Nothing measured yet.
    #[must_use]
    pub const fn new(arguments: &Arguments) -> Self {
        let settings = arguments.settings;
        Self {
            keys: settings.keys,
            cache_bytes: settings.cache_bytes,
            direct: settings.direct,
            measurements: Vec::new(),
        }
    }

    /// One column of all rounds, ascending.
    fn values(&self, workload: &str, engine: &str, value: fn(&Measurement) -> Option<f64>) -> Vec<f64> {
        let measurements = self.measurements.iter().filter(|m| m.workload == workload && m.engine == engine);
        let mut values: Vec<f64> = measurements.filter_map(value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    }

    /// The median over the rounds of one column; `None` when there is nothing to say.
    fn median(&self, workload: &str, engine: &str, value: fn(&Measurement) -> Option<f64>) -> Option<f64> {
        let values = self.values(workload, engine, value);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            n if n % 2 == 1 => Some(values[middle]),
            _ => Some((values[middle - 1] + values[middle]) / 2.0),
        }
    }

    /// How many times as fast the fastest round was as the slowest; `None` for a single round, which cannot say. A
    /// ratio between engines that does not exceed it is noise.
    fn spread(&self, workload: &str, engine: &str) -> Option<f64> {
        match self.values(workload, engine, |m| Some(m.operations_per_second))[..] {
            [slowest, .., fastest] => Some(fastest / slowest),
            _ => None,
        }
    }

    /// The medians of all workloads as a Markdown table, with the ratio of the first engine to each other one.
    #[must_use]
    pub fn tables(&self) -> String {
        let mut workloads: Vec<&str> = Vec::new();
        let mut engines: Vec<&str> = Vec::new();
        let mut rounds = 0;
        for m in &self.measurements {
            if !workloads.contains(&m.workload.as_str()) {
                workloads.push(&m.workload);
            }
            if !engines.contains(&m.engine.as_str()) {
                engines.push(&m.engine);
            }
            rounds = rounds.max(m.round);
        }
        let mut rows = vec![["workload", "engine"].map(String::from).to_vec()];
        rows[0].extend(COLUMNS.iter().map(|column| column.heading.to_string()));
        rows[0].push("spread".into());
        for workload in workloads {
            for engine in &engines {
                let mut row = vec![workload.to_string(), (*engine).to_string()];
                row.extend(COLUMNS.iter().map(|column| {
                    self.median(workload, engine, column.value).map_or_else(|| "–".into(), column.print)
                }));
                row.push(
                    self.spread(workload, engine).map_or_else(|| "?".into(), |spread| format!("{spread:.2}")),
                );
                rows.push(row);
            }
            for other in engines.iter().skip(1) {
                let mut row = vec![workload.to_string(), format!("{} / {other}", engines[0])];
                row.extend(COLUMNS.iter().map(|column| {
                    let of = |engine| self.median(workload, engine, column.value);
                    match (of(engines[0]), of(other)) {
                        // Beyond that the other one is as good as nothing.
                        (Some(first), Some(other)) if first / other >= 1000.0 => "> 999".into(),
                        (Some(first), Some(other)) if other > 0.0 => format!("{:.2}", first / other),
                        _ => "–".into(),
                    }
                }));
                row.push(String::new());
                rows.push(row);
            }
        }
        let loads = self.measurements.iter().map(|m| m.load_average);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{} keys ({} of user data), cache {}, direct reads {}, medians of {} rounds, load average {} to {}; spread: \
             fastest round / slowest, a ratio within it is noise\n",
            self.keys,
            bytes((self.keys * ENTRY_BYTES) as f64),
            bytes(self.cache_bytes as f64),
            if self.direct { "yes" } else { "no" },
            rounds,
            loads.clone().fold(f64::INFINITY, f64::min),
            loads.fold(0.0, f64::max)
        );
        text + &table(&rows)
    }
}

/// `rows`, of which the first is the heading, as a Markdown table with straight columns.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            // Names start at the left, numbers end at the right.
            let (before, behind) = if column < 2 { ("", padding.as_str()) } else { (padding.as_str(), "") };
            let _ = write!(text, "| {before}{cell}{behind} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                let _ = write!(text, "|{dashes}{}", if column < 2 { "-" } else { ":" });
            }
            text.push_str("|\n");
        }
    }
    text
}

/// One line on one measurement, for the impatient.
#[must_use]
pub fn line(round: u32, m: &Measurement) -> String {
    let columns: Vec<String> = COLUMNS
        .iter()
        .filter_map(|column| Some(format!("{} {}", column.heading, (column.print)((column.value)(m)?))))
        .collect();
    format!("round {round}  {:<11} {:<8} {}", m.workload, m.engine, columns.join("  "))
}

fn count(value: f64) -> String {
    scaled(value, &[(1e9, " G"), (1e6, " M"), (1e3, " k")], "")
}

fn bytes(value: f64) -> String {
    let gib = f64::from(1 << 30);
    scaled(value, &[(gib, " GiB"), (gib / 1024.0, " MiB"), (1024.0, " KiB")], " B")
}

fn duration(nanoseconds: f64) -> String {
    scaled(nanoseconds, &[(1e9, " s"), (1e6, " ms"), (1e3, " µs")], " ns")
}

/// `value` in the first unit that it reaches, else in `rest`, with three digits that count.
fn scaled(value: f64, units: &[(f64, &str)], rest: &str) -> String {
    let (value, unit) = units
        .iter()
        .find(|(size, _)| value >= *size)
        .map_or((value, rest), |(size, unit)| (value / size, *unit));
    let digits = if value >= 100.0 || value == 0.0 { 0 } else { 1 + usize::from(value < 10.0) };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(engine: &str, round: u32, operations_per_second: f64) -> Measurement {
        Measurement {
            engine: engine.into(),
            workload: "scan".into(),
            round,
            operations: 10,
            seconds: 1.0,
            operations_per_second,
            p50_ns: 1_500,
            p99_ns: 2_000_000,
            p999_ns: 3_000_000_000,
            max_ns: 9,
            cpu_seconds: 0.5,
            device_read_bytes: 40_960,
            device_write_bytes: 0,
            user_bytes_written: 0,
            disk_bytes: 3 << 30,
            used_bytes: None,
            memory_peak_bytes: 5 << 20,
            load_average: f64::from(round),
        }
    }

    fn results(measurements: Vec<Measurement>) -> Results {
        Results { keys: 10, cache_bytes: 256 << 20, direct: true, measurements }
    }

    #[test]
    fn medians_and_ratios() {
        let results = results(vec![
            measurement("betree", 1, 100.0),
            measurement("rocksdb", 1, 4.0),
            measurement("betree", 2, 3000.0),
            measurement("rocksdb", 2, 6.0),
            measurement("betree", 3, 20.0),
        ]);
        let text = results.tables();
        let cells = |line: usize| -> Vec<String> {
            text.lines().nth(line).unwrap().split('|').map(|cell| cell.trim().to_string()).collect()
        };
        assert!(
            text.starts_with(
                "10 keys (1.13 KiB of user data), cache 256 MiB, direct reads yes, medians of 3"
            )
        );
        assert_eq!(cells(4)[1..6], ["scan", "betree", "100", "1.50 µs", "2.00 ms"]);
        assert_eq!(cells(5)[1..4], ["scan", "rocksdb", "5.00"], "the mean of the middle two");
        assert_eq!(cells(6)[1..4], ["scan", "betree / rocksdb", "20.00"]);
        assert_eq!(cells(4)[10], "–", "nothing was written");
        assert!(text.contains("3 rounds, load average 1 to 3;"), "{text}");
        assert_eq!([&cells(4)[13], &cells(5)[13], &cells(6)[13]], ["150.00", "1.50", ""]);
        let widths: Vec<usize> = text.lines().skip(2).map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn a_single_round_does_not_claim_to_be_steady() {
        let results = results(vec![measurement("betree", 1, 100.0)]);
        assert_eq!(results.spread("scan", "betree"), None);
        assert!(results.tables().lines().last().unwrap().ends_with("? |"));
    }

    #[test]
    fn numbers_are_short() {
        for (text, expected) in [
            (count(1_234_567.0), "1.23 M"),
            (count(305.4), "305"),
            (bytes(4096.0), "4.00 KiB"),
            (bytes(0.0), "0"),
            (duration(12.34), "12.3 ns"),
            (duration(2.5e9), "2.50 s"),
        ] {
            assert_eq!(text.trim_end_matches(" B"), expected);
        }
    }

    #[test]
    fn a_measurement_survives_json() {
        let before = measurement("betree", 2, 1.5);
        let after: Measurement = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
        assert_eq!(after, before);
    }
}

//! Bytes choose operations on a small database, which a model follows.

use super::choices::{self, Choices, follow};
use crate::rig::{Change, Operation, State, Value};
use betree::StoragePreference;
use betree::base::fuzzing::Target;

/// The target.
pub const TARGET: Target = Target { name: "operations", seeds, run };

/// Operations after which an input ends.
const OPERATIONS_MAX: usize = 200;
/// Bytes that may be live.
const LIVE_BYTES_MAX: usize = 300 << 10;

fn seeds() -> Vec<Vec<u8>> {
    choices::seeds(1, 300)
}

fn run(bytes: &[u8]) -> bool {
    follow(bytes, OPERATIONS_MAX, |choices, state| Some(operation(choices, state)))
}

fn name(choices: &mut Choices<'_>) -> Vec<u8> {
    vec![b'a' + choices.next() % 3]
}

fn next_key(choices: &mut Choices<'_>) -> Vec<u8> {
    let number = choices.next() % 40;
    let mut key = format!("k{number:02}").into_bytes();
    if number % 13 == 7 {
        key.resize(30 + usize::from(number) * 20, b'.');
    }
    if number == 0 { Vec::new() } else { key }
}

fn bytes(choices: &mut Choices<'_>) -> Vec<u8> {
    choices.written += 1;
    let length = match choices.next() {
        length @ 0..=199 => usize::from(length) * 3,
        length @ 200..=249 => usize::from(length - 199) * 200,
        length => (16 << 10) + usize::from(length - 250) * 9000,
    };
    let mut bytes = format!("value {}", choices.written).into_bytes();
    bytes.resize(length.max(bytes.len()), choices.written as u8);
    bytes
}

fn change(choices: &mut Choices<'_>) -> Change {
    let kind = choices.next();
    let key = next_key(choices);
    match kind % 16 {
        0..=8 => Change::Put { key, value: Value::new(&bytes(choices)), preference: StoragePreference::NONE },
        9..=11 => Change::Delete { key },
        12..=14 => {
            let offset = u32::from(choices.next());
            let bytes = bytes(choices);
            Change::Upsert { key, offset, bytes: bytes[..bytes.len().min(90)].to_vec() }
        }
        _ => {
            let (mut low, mut high) = (key, next_key(choices));
            if low > high {
                std::mem::swap(&mut low, &mut high);
            }
            Change::RangeDelete { low, high }
        }
    }
}

fn snapshot_operation(choices: &mut Choices<'_>, kind: u8, dataset: Vec<u8>, state: &State) -> Operation {
    let all = state.snapshots.get(&dataset).map_or(&[][..], Vec::as_slice);
    if all.is_empty() || (kind < 191 && all.len() < 3) {
        choices.written += 1;
        return Operation::Snapshot(dataset, format!("s{}", choices.written).into_bytes());
    }
    let snapshot = all[usize::from(choices.next()) % all.len()].0.clone();
    match kind {
        ..=193 => Operation::DeleteSnapshot(dataset, snapshot),
        194 | 195 => Operation::Rollback(dataset, snapshot),
        196 | 197 => Operation::Clone(dataset, snapshot, name(choices)),
        _ => Operation::Promote(dataset),
    }
}

/// The next operation that makes sense on `state`.
fn operation(choices: &mut Choices<'_>, state: &State) -> Operation {
    let kind = choices.next();
    let dataset = name(choices);
    if !state.datasets.contains_key(&dataset) {
        return Operation::Create(dataset);
    }
    let live = state.datasets.values().flat_map(|entries| entries.values());
    if live.map(|value| value.bytes().len()).sum::<usize>() > LIVE_BYTES_MAX {
        let change = Change::RangeDelete { low: Vec::new(), high: vec![0xff] };
        return Operation::Write { dataset, change };
    }
    match kind {
        0..=149 => Operation::Write { dataset, change: change(choices) },
        150..=179 => {
            let count = 1 + choices.next() % 6;
            let changes = (0..count).map(|_| (dataset.clone(), change(choices))).collect();
            Operation::Batch { changes, sync: kind.is_multiple_of(2) }
        }
        180..=186 => Operation::Sync,
        187..=199 => {
            let operation = snapshot_operation(choices, kind, dataset, state);
            if state.allows(&operation) { operation } else { Operation::Sync }
        }
        200..=214 => Operation::Checkpoint,
        215..=229 => Operation::Settle,
        230..=234 => {
            let operation = Operation::Destroy(dataset);
            if state.allows(&operation) { operation } else { Operation::Sync }
        }
        235..=239 => {
            let to = name(choices);
            if state.datasets.contains_key(&to) { Operation::Sync } else { Operation::Rename(dataset, to) }
        }
        240..=244 => Operation::Reopen,
        245..=247 => {
            let preference = StoragePreference::FASTEST;
            Operation::Migrate { dataset, low: Vec::new(), high: vec![0xff], preference }
        }
        _ => Operation::Kill,
    }
}

//! Bytes choose operations on object stores, which a model follows.

use super::choices::{self, Choices, follow};
use crate::rig::{ObjectChange, Operation, State, StoreArrival, StoreOperation, Value};
use betree::CHUNK_BYTES;
use betree::base::fuzzing::Target;

/// The target.
pub const TARGET: Target = Target { name: "object_operations", seeds, run };

/// Operations after which an input ends.
const OPERATIONS_MAX: usize = 100;

fn seeds() -> Vec<Vec<u8>> {
    choices::seeds(2, 200)
}

fn run(bytes: &[u8]) -> bool {
    follow(bytes, OPERATIONS_MAX, |choices, state| {
        Some(operation(choices, state)).filter(|operation| state.allows(operation))
    })
}

fn name(choices: &mut Choices<'_>) -> Vec<u8> {
    vec![b'a' + choices.next() % 4]
}

fn value(choices: &mut Choices<'_>) -> Value {
    choices.written += 1;
    let length = match choices.next() {
        length @ 0..=239 => 1 + usize::from(length) * 20,
        length => (16 << 10) + usize::from(length - 240) * 500,
    };
    Value::new(&vec![choices.written as u8 | 1; length])
}

fn offset(choices: &mut Choices<'_>) -> u64 {
    let place = choices.next();
    let chunk = u64::from(place % 3) * CHUNK_BYTES;
    let beside = u64::from(choices.next()) * 10;
    if place < 128 { chunk + beside } else { chunk.saturating_sub(beside) }
}

fn change(choices: &mut Choices<'_>, in_batch: bool) -> ObjectChange {
    let kind = choices.next() % if in_batch { 10 } else { 16 };
    let (name, other) = (name(choices), name(choices));
    match kind {
        0..=3 => ObjectChange::Put(name, value(choices)),
        4..=6 => ObjectChange::Write(name, offset(choices), value(choices)),
        7 => ObjectChange::Delete(name),
        8 => ObjectChange::Rename(name, other),
        9 => ObjectChange::SetMetadata(name, other, vec![kind]),
        10 | 11 => ObjectChange::Copy(name, other),
        12 => ObjectChange::Append(name, value(choices)),
        13 | 14 => ObjectChange::Truncate(name, offset(choices)),
        _ => ObjectChange::Punch(name, offset(choices), offset(choices) + 1),
    }
}

/// The next operation; it may make no sense on the state.
fn operation(choices: &mut Choices<'_>, state: &State) -> Operation {
    let kind = choices.next();
    let store = vec![b's' + kind % 2];
    if !state.stores.contains_key(&store) && !(236..=239).contains(&kind) {
        return Operation::Store(StoreOperation::Create(store));
    }
    Operation::Store(match kind {
        0..=139 => StoreOperation::Change(store, change(choices, false)),
        140..=179 => {
            let count = 1 + choices.next() % 5;
            let changes = (0..count).map(|_| change(choices, true)).collect();
            StoreOperation::Batch(store, changes, kind.is_multiple_of(2))
        }
        180..=189 => StoreOperation::Snapshot(store, vec![b'0' + choices.next() % 3]),
        190..=197 => StoreOperation::DeleteSnapshot(store, vec![b'0' + choices.next() % 3]),
        198..=205 => StoreOperation::Rollback(store, vec![b'0' + choices.next() % 3]),
        206..=209 => StoreOperation::Rename(store, vec![b's' + choices.next() % 2]),
        210..=212 => StoreOperation::Destroy(store),
        213..=226 => return Operation::Checkpoint,
        227..=235 => return Operation::Settle,
        236..=239 => {
            let base = choices.next() % 4;
            let base = (base > 0).then(|| vec![b'0' + base - 1]);
            let changes = vec![ObjectChange::Put(name(choices), value(choices))];
            // No other has this name.
            let arrived = vec![b'r', choices.next()];
            StoreOperation::Receive(StoreArrival {
                store,
                base,
                name: arrived,
                changes,
                is_whole: kind < 239,
            })
        }
        240..=247 => return Operation::Reopen,
        _ => return Operation::Kill,
    })
}

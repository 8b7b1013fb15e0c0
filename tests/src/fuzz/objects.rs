//! Bytes choose operations on object stores, which a model follows.

use crate::rig::{Layout, Machine, ObjectChange, Operation, State, StoreOperation, Value, scan};
use betree::CHUNK_BYTES;
use betree::base::fuzzing::Target;

/// The target.
pub const TARGET: Target = Target { name: "object_operations", seeds, run };

/// Operations after which an input ends.
const OPERATIONS_MAX: usize = 100;

fn seeds() -> Vec<Vec<u8>> {
    let mut rng = betree::vdev::SimRng::new(2);
    (0..4).map(|layout| [vec![layout], (0..200).map(|_| rng.next_u64() as u8).collect()].concat()).collect()
}

/// Reads the bytes of an input; behind its end everything is zero.
struct Choices<'a> {
    bytes: &'a [u8],
    written: u64,
}

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn name(&mut self) -> Vec<u8> {
        vec![b'a' + self.next() % 4]
    }

    fn value(&mut self) -> Value {
        self.written += 1;
        let length = match self.next() {
            length @ 0..=239 => 1 + usize::from(length) * 20,
            length => (16 << 10) + usize::from(length - 240) * 500,
        };
        Value::new(&vec![self.written as u8 | 1; length])
    }

    fn offset(&mut self) -> u64 {
        let place = self.next();
        let chunk = u64::from(place % 3) * CHUNK_BYTES;
        let beside = u64::from(self.next()) * 10;
        if place < 128 { chunk + beside } else { chunk.saturating_sub(beside) }
    }

    fn change(&mut self, in_batch: bool) -> ObjectChange {
        let kind = self.next() % if in_batch { 10 } else { 16 };
        let (name, other) = (self.name(), self.name());
        match kind {
            0..=3 => ObjectChange::Put(name, self.value()),
            4..=6 => ObjectChange::Write(name, self.offset(), self.value()),
            7 => ObjectChange::Delete(name),
            8 => ObjectChange::Rename(name, other),
            9 => ObjectChange::SetMetadata(name, other, vec![kind]),
            10 | 11 => ObjectChange::Copy(name, other),
            12 => ObjectChange::Append(name, self.value()),
            13 | 14 => ObjectChange::Truncate(name, self.offset()),
            _ => ObjectChange::Punch(name, self.offset(), self.offset() + 1),
        }
    }

    /// The next operation; it may make no sense on the state.
    fn operation(&mut self, state: &State) -> Operation {
        let kind = self.next();
        let store = vec![b's' + kind % 2];
        if !state.stores.contains_key(&store) {
            return Operation::Store(StoreOperation::Create(store));
        }
        Operation::Store(match kind {
            0..=139 => StoreOperation::Change(store, self.change(false)),
            140..=179 => {
                let count = 1 + self.next() % 5;
                let changes = (0..count).map(|_| self.change(true)).collect();
                StoreOperation::Batch(store, changes, kind.is_multiple_of(2))
            }
            180..=189 => StoreOperation::Snapshot(store, vec![b'0' + self.next() % 3]),
            190..=197 => StoreOperation::DeleteSnapshot(store, vec![b'0' + self.next() % 3]),
            198..=205 => StoreOperation::Rollback(store, vec![b'0' + self.next() % 3]),
            206..=209 => StoreOperation::Rename(store, vec![b's' + self.next() % 2]),
            210..=212 => StoreOperation::Destroy(store),
            213..=226 => return Operation::Checkpoint,
            227..=239 => return Operation::Settle,
            240..=247 => return Operation::Reopen,
            _ => return Operation::Kill,
        })
    }
}

#[expect(clippy::panic, reason = "a target panics when it finds something")]
fn run(bytes: &[u8]) -> bool {
    let mut choices = Choices { bytes, written: 0 };
    let layout = Layout::ALL[usize::from(choices.next()) % Layout::ALL.len()];
    let mut machine = match Machine::create(layout, u64::from(choices.next())) {
        Ok(machine) => machine,
        Err(failure) => panic!("{failure}"),
    };
    let check = |machine: &Machine| {
        let found = machine.database().and_then(scan);
        assert!(
            found == Ok(machine.timeline().newest().fingerprint()),
            "the database differs from the model: {found:?}"
        );
        let verified = machine.database().map(betree::Database::verify);
        assert!(matches!(verified, Ok(Ok(_))), "{verified:?}");
    };
    for count in 0.. {
        if choices.bytes.is_empty() || count == OPERATIONS_MAX {
            break;
        }
        let operation = choices.operation(machine.timeline().newest());
        if !machine.timeline().newest().allows(&operation) {
            continue;
        }
        if let Err(failure) = machine.run(&operation) {
            panic!("{failure}");
        }
        if matches!(operation, Operation::Reopen | Operation::Checkpoint | Operation::Kill) {
            check(&machine);
        }
    }
    check(&machine);
    true
}

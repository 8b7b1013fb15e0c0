//! Bytes choose operations on a small database, which a model follows.

use crate::rig::{Change, Layout, Machine, Operation, State, Value, scan};
use betree::StoragePreference;
use betree::base::fuzzing::Target;

/// The target.
pub const TARGET: Target = Target { name: "operations", seeds, run };

/// Operations after which an input ends.
const OPERATIONS_MAX: usize = 200;
/// Bytes that may be live.
const LIVE_BYTES_MAX: usize = 300 << 10;

fn seeds() -> Vec<Vec<u8>> {
    let mut rng = betree::vdev::SimRng::new(1);
    (0..4).map(|layout| [vec![layout], (0..300).map(|_| rng.next_u64() as u8).collect()].concat()).collect()
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
        vec![b'a' + self.next() % 3]
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.next() % 40;
        let mut key = format!("k{number:02}").into_bytes();
        if number % 13 == 7 {
            key.resize(30 + usize::from(number) * 20, b'.');
        }
        if number == 0 { Vec::new() } else { key }
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.written += 1;
        let length = match self.next() {
            length @ 0..=199 => usize::from(length) * 3,
            length @ 200..=249 => usize::from(length - 199) * 200,
            length => (16 << 10) + usize::from(length - 250) * 9000,
        };
        let mut bytes = format!("value {}", self.written).into_bytes();
        bytes.resize(length.max(bytes.len()), self.written as u8);
        bytes
    }

    fn change(&mut self) -> Change {
        let kind = self.next();
        let key = self.key();
        match kind % 16 {
            0..=8 => {
                Change::Put { key, value: Value::new(&self.bytes()), preference: StoragePreference::NONE }
            }
            9..=11 => Change::Delete { key },
            12..=14 => {
                let offset = u32::from(self.next());
                let bytes = self.bytes();
                Change::Upsert { key, offset, bytes: bytes[..bytes.len().min(90)].to_vec() }
            }
            _ => {
                let (mut low, mut high) = (key, self.key());
                if low > high {
                    std::mem::swap(&mut low, &mut high);
                }
                Change::RangeDelete { low, high }
            }
        }
    }

    fn snapshot_operation(&mut self, kind: u8, dataset: Vec<u8>, state: &State) -> Operation {
        let all = state.snapshots.get(&dataset).map_or(&[][..], Vec::as_slice);
        if all.is_empty() || (kind < 191 && all.len() < 3) {
            self.written += 1;
            return Operation::Snapshot(dataset, format!("s{}", self.written).into_bytes());
        }
        let snapshot = all[usize::from(self.next()) % all.len()].0.clone();
        match kind {
            ..=193 => Operation::DeleteSnapshot(dataset, snapshot),
            194 | 195 => Operation::Rollback(dataset, snapshot),
            196 | 197 => Operation::Clone(dataset, snapshot, self.name()),
            _ => Operation::Promote(dataset),
        }
    }

    /// The next operation that makes sense on `state`.
    fn operation(&mut self, state: &State) -> Operation {
        let kind = self.next();
        let dataset = self.name();
        if !state.datasets.contains_key(&dataset) {
            return Operation::Create(dataset);
        }
        let live = state.datasets.values().flat_map(|entries| entries.values());
        if live.map(|value| value.bytes().len()).sum::<usize>() > LIVE_BYTES_MAX {
            let change = Change::RangeDelete { low: Vec::new(), high: vec![0xff] };
            return Operation::Write { dataset, change };
        }
        match kind {
            0..=149 => Operation::Write { dataset, change: self.change() },
            150..=179 => {
                let count = 1 + self.next() % 6;
                let changes = (0..count).map(|_| (dataset.clone(), self.change())).collect();
                Operation::Batch { changes, sync: kind.is_multiple_of(2) }
            }
            180..=186 => Operation::Sync,
            187..=199 => {
                let operation = self.snapshot_operation(kind, dataset, state);
                if state.allows(&operation) { operation } else { Operation::Sync }
            }
            200..=214 => Operation::Checkpoint,
            215..=229 => Operation::Settle,
            230..=234 => {
                let operation = Operation::Destroy(dataset);
                if state.allows(&operation) { operation } else { Operation::Sync }
            }
            235..=239 => {
                let to = self.name();
                if state.datasets.contains_key(&to) {
                    Operation::Sync
                } else {
                    Operation::Rename(dataset, to)
                }
            }
            240..=244 => Operation::Reopen,
            245..=247 => {
                let preference = StoragePreference::FASTEST;
                Operation::Migrate { dataset, low: Vec::new(), high: vec![0xff], preference }
            }
            _ => Operation::Kill,
        }
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
    };
    for count in 0.. {
        if choices.bytes.is_empty() || count == OPERATIONS_MAX {
            break;
        }
        let operation = choices.operation(machine.timeline().newest());
        if let Err(failure) = machine.run(&operation) {
            panic!("{failure}");
        }
        if matches!(operation, Operation::Reopen | Operation::Checkpoint | Operation::Kill) {
            check(&machine);
        }
    }
    check(&machine);
    let verified = machine.database().map(betree::Database::verify);
    assert!(matches!(verified, Ok(Ok(_))), "{verified:?}");
    true
}

//! Records of the intent log: one batch each.
//!
//! A record, little-endian: first sequence u64, number of operations varint, then the operations, each taking one
//! sequence number in order:
//!
//! | tag | fields |
//! |---|---|
//! | 0 put, 1 delete, 2 upsert, 3 put large | dataset varint, preference u8, key (varint length, bytes), payload (likewise; none for delete) |
//! | 4 range delete | dataset varint, start (varint length, bytes), 0 or 1, end when 1 |
//! | 16 create dataset | dataset varint, dataset record (varint length, bytes) |
//! | 17 rename dataset | dataset varint, name (varint length, bytes) |
//! | 18 destroy dataset | dataset varint |
//! | 19 changed | generation varint: a change of snapshots, which is not in the log, is in this checkpoint, and what follows builds on it |
//! | 20 filler | 0, bytes (varint length, bytes): nothing, so that the log goes on elsewhere |
//!
//! A record is replayed when all of it is in the log: a batch is whole or not there.

use crate::base::codec::{DecodeError, Decoder, put_varint};
use crate::base::ids::{DatasetId, Generation};
use crate::base::preference::StoragePreference;
use crate::run::{EntryRef, Kind};

const RANGE_DELETE: u8 = 4;
const CREATE: u8 = 16;
const RENAME: u8 = 17;
const DESTROY: u8 = 18;
const CHANGED: u8 = 19;
const FILLER: u8 = 20;

/// Longest field of a record that replay accepts.
const FIELD_BYTES_MAX: usize = 64 << 20;

/// One operation of a record, as replay sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    Message { dataset: DatasetId, entry: EntryRef<'a> },
    RangeDelete { dataset: DatasetId, start: &'a [u8], end: Option<&'a [u8]> },
    Create { dataset: DatasetId, record: &'a [u8] },
    Rename { dataset: DatasetId, name: &'a [u8] },
    Destroy { dataset: DatasetId },
    Changed { generation: Generation },
    Filler { bytes: usize },
}

/// Builds one record.
#[derive(Debug, Default)]
pub(crate) struct RecordWriter {
    bytes: Vec<u8>,
}

impl RecordWriter {
    /// Starts a record of `count` operations.
    pub fn start(&mut self, first_sequence: u64, count: usize) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&first_sequence.to_le_bytes());
        put_varint(&mut self.bytes, count as u64);
    }

    fn tag(&mut self, tag: u8, dataset: DatasetId) {
        self.bytes.push(tag);
        put_varint(&mut self.bytes, dataset.0);
    }

    fn field(&mut self, bytes: &[u8]) {
        put_varint(&mut self.bytes, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub fn message(
        &mut self,
        dataset: DatasetId,
        kind: Kind,
        preference: StoragePreference,
        key: &[u8],
        payload: &[u8],
    ) {
        self.tag(kind as u8, dataset);
        self.bytes.push(preference.as_u8());
        self.field(key);
        if kind != Kind::Delete {
            self.field(payload);
        }
    }

    pub fn range_delete(&mut self, dataset: DatasetId, start: &[u8], end: Option<&[u8]>) {
        self.tag(RANGE_DELETE, dataset);
        self.field(start);
        self.bytes.push(u8::from(end.is_some()));
        if let Some(end) = end {
            self.field(end);
        }
    }

    pub fn create(&mut self, dataset: DatasetId, record: &[u8]) {
        self.tag(CREATE, dataset);
        self.field(record);
    }

    pub fn rename(&mut self, dataset: DatasetId, name: &[u8]) {
        self.tag(RENAME, dataset);
        self.field(name);
    }

    pub fn destroy(&mut self, dataset: DatasetId) {
        self.tag(DESTROY, dataset);
    }

    pub fn changed(&mut self, generation: Generation) {
        self.bytes.push(CHANGED);
        put_varint(&mut self.bytes, generation.0);
    }

    /// Says nothing, in `bytes` bytes.
    pub fn filler(&mut self, bytes: usize) {
        self.bytes.push(FILLER);
        put_varint(&mut self.bytes, 0);
        put_varint(&mut self.bytes, bytes as u64);
        self.bytes.resize(self.bytes.len() + bytes, 0);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the operations of one record.
#[derive(Debug)]
pub(crate) struct RecordReader<'a> {
    input: Decoder<'a>,
    next_sequence: u64,
    left: u64,
}

impl<'a> RecordReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let next_sequence = input.ordinal("first sequence")?;
        let left = input.varint("operation count")?;
        // An operation takes at least two bytes.
        if left > input.remaining() as u64 {
            return Err(input.invalid("operation count"));
        }
        Ok(Self { input, next_sequence, left })
    }

    /// The next operation and its sequence number.
    pub fn next(&mut self) -> Result<Option<(u64, Operation<'a>)>, DecodeError> {
        if self.left == 0 {
            self.input.finish("record")?;
            return Ok(None);
        }
        self.left -= 1;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let input = &mut self.input;
        let tag = input.u8("operation")?;
        let dataset = DatasetId(input.varint("dataset")?);
        let operation = match tag {
            RANGE_DELETE => {
                let start = input.bytes(FIELD_BYTES_MAX, "range start")?;
                let end = match input.u8("range end flag")? {
                    0 => None,
                    1 => Some(input.bytes(FIELD_BYTES_MAX, "range end")?),
                    _ => return Err(input.invalid("range end flag")),
                };
                Operation::RangeDelete { dataset, start, end }
            }
            CREATE => Operation::Create { dataset, record: input.bytes(FIELD_BYTES_MAX, "dataset record")? },
            RENAME => Operation::Rename { dataset, name: input.bytes(FIELD_BYTES_MAX, "dataset name")? },
            DESTROY => Operation::Destroy { dataset },
            FILLER => {
                let filler = input.bytes(FIELD_BYTES_MAX, "filler")?;
                if dataset.0 != 0 || filler.iter().any(|byte| *byte != 0) {
                    return Err(input.invalid("filler"));
                }
                Operation::Filler { bytes: filler.len() }
            }
            CHANGED => Operation::Changed { generation: Generation(dataset.0) },
            tag => {
                let kind = Kind::from_u8(tag).ok_or_else(|| input.invalid("operation"))?;
                let preference = StoragePreference::from_u8(input.u8("preference")?);
                let preference = preference.ok_or_else(|| input.invalid("preference"))?;
                let key = input.bytes(FIELD_BYTES_MAX, "key")?;
                let payload =
                    if kind == Kind::Delete { &[][..] } else { input.bytes(FIELD_BYTES_MAX, "payload")? };
                Operation::Message { dataset, entry: EntryRef { key, sequence, kind, preference, payload } }
            }
        };
        Ok(Some((sequence, operation)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RecordWriter {
        let mut writer = RecordWriter::default();
        writer.start(7, 8);
        writer.message(DatasetId(1), Kind::Put, StoragePreference::FAST, b"key", b"value");
        writer.message(DatasetId(300), Kind::Delete, StoragePreference::NONE, b"", b"");
        writer.range_delete(DatasetId(1), b"a", Some(b"b"));
        writer.range_delete(DatasetId(1), b"a", None);
        writer.rename(DatasetId(2), b"new");
        writer.destroy(DatasetId(3));
        writer.changed(Generation(9));
        writer.filler(3);
        writer
    }

    #[test]
    fn records_have_golden_bytes_and_read_back() {
        let writer = sample();
        let golden = [
            &[7, 0, 0, 0, 0, 0, 0, 0, 8][..],
            &[0, 1, 1, 3, b'k', b'e', b'y', 5, b'v', b'a', b'l', b'u', b'e'],
            &[1, 0xac, 2, 254, 0],
            &[4, 1, 1, b'a', 1, 1, b'b'],
            &[4, 1, 1, b'a', 0],
            &[17, 2, 3, b'n', b'e', b'w'],
            &[18, 3],
            &[19, 9],
            &[20, 0, 3, 0, 0, 0],
        ]
        .concat();
        assert_eq!(writer.bytes(), golden);
        let mut reader = RecordReader::new(&golden).unwrap();
        let mut operations = Vec::new();
        while let Some(operation) = reader.next().unwrap() {
            operations.push(operation);
        }
        assert_eq!((operations.len(), &operations[7]), (8, &(14, Operation::Filler { bytes: 3 })));
        assert_eq!(
            operations[2],
            (9, Operation::RangeDelete { dataset: DatasetId(1), start: b"a", end: Some(b"b") })
        );
        assert_eq!(operations[5], (12, Operation::Destroy { dataset: DatasetId(3) }));
        assert_eq!(operations[6], (13, Operation::Changed { generation: Generation(9) }));
    }

    #[test]
    fn damaged_records_are_errors() {
        let bytes = sample().bytes().to_vec();
        let read = |bytes: &[u8]| -> Result<(), DecodeError> {
            let mut reader = RecordReader::new(bytes)?;
            while reader.next()?.is_some() {}
            Ok(())
        };
        assert!(read(&bytes).is_ok());
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 5, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _any = read(&damaged);
            }
        }
    }
}

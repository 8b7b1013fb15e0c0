//! Fuzz targets of the decoders of this layer.

use super::format::{ObjectRecord, key_chunk, key_custom, key_staged, staged_key};
use super::format::{chunk_key, custom_key};
use crate::base::fuzzing::Target;
use crate::base::preference::StoragePreference;

/// The targets of this layer.
pub const TARGETS: &[Target] = &[
    Target { name: "object_record", seeds: record_seeds, run: record },
    Target { name: "object_key", seeds: key_seeds, run: key },
];

fn record_seeds() -> Vec<Vec<u8>> {
    let record = |id, size, preference, has_metadata| {
        ObjectRecord { id, size, modified: 9, created: 5, version: id + 7, preference, has_metadata }.encode()
    };
    vec![
        record(1, 0, StoragePreference::NONE, false),
        record(1 << 50, i64::MAX as u64, StoragePreference::SLOWEST, true),
    ]
}

fn record(bytes: &[u8]) -> bool {
    let Ok(found) = ObjectRecord::decode(bytes) else { return false };
    assert_eq!(found.encode(), bytes, "a record that is written differently");
    true
}

fn key_seeds() -> Vec<Vec<u8>> {
    vec![chunk_key(7, 9), custom_key(7, b"key"), staged_key(7)]
}

fn key(bytes: &[u8]) -> bool {
    let chunk = key_chunk(bytes).map(|(id, chunk)| chunk_key(id, chunk));
    let custom = key_custom(bytes).map(|(id, key)| custom_key(id, key));
    let staged = key_staged(bytes).map(staged_key);
    let mut valid = false;
    for again in [chunk, custom, staged].into_iter().flatten() {
        assert_eq!(again, bytes, "a key that is written differently");
        valid = true;
    }
    valid
}

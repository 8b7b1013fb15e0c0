//! Fuzz targets of trees: node headers, pending drops, large-value pointers, messages of the default action.

use super::action::{Action, DefaultMessageAction};
use super::drops::{Dropping, Drops};
use super::format::{NodeRef, decode_node, encode_node};
use super::node::{NodeBody, NodeCell, Slot};
use super::value::{Caching, LargeValue};
use crate::base::codec::{Decoder, Encoder};
use crate::base::compression::Compression;
use crate::base::extent::{Extent, total_blocks};
use crate::base::fuzzing::Target;
use crate::base::ids::{Generation, Uuid};
use crate::dmu::fuzzing::{FIRST_BLOCK, VDEV, place, with_memory};
use crate::dmu::{Deaths, Dmu, StoredExtents};
use crate::run::{Run, fuzzing::sample};
use std::sync::Arc;

/// The targets of this layer.
pub const TARGETS: &[Target] = &[
    Target { name: "node_header", seeds: node_seeds, run: node },
    Target { name: "node_pointer", seeds: pointer_seeds, run: pointer },
    Target { name: "drops", seeds: drop_seeds, run: drops },
    Target { name: "large_value", seeds: value_seeds, run: value },
    Target { name: "upsert", seeds: message_seeds, run: messages },
];

const POOL: Uuid = Uuid([7; 16]);

fn run(dmu: &Dmu, entries: u64) -> Arc<Run> {
    let (reference, _) = sample(Compression::None, entries);
    let Ok(run) = Run::from_reference(dmu, &reference) else { unreachable!("it was just encoded") };
    run
}

fn stored(dmu: &Dmu, extents: &[Extent]) -> StoredExtents {
    let mut out = Encoder::new();
    out.u8(extents.len() as u8);
    extents.iter().for_each(|extent| extent.encode(&mut out));
    let Ok(stored) = StoredExtents::decode(&mut Decoder::new(out.as_slice()), dmu) else {
        unreachable!("at most three extents are stored as they are")
    };
    stored
}

fn child(dmu: &Dmu, level: u8) -> NodeRef {
    let extents = stored(dmu, &[Extent { vdev: VDEV, block: FIRST_BLOCK, blocks: 1 }]);
    NodeRef { level, birth: Generation(4), length: 200, checksum: 9, extents }
}

fn body(dmu: &Dmu, level: u8) -> NodeBody {
    let cell = || (level > 1).then(|| NodeCell::on_disk(dmu, child(dmu, level - 1)));
    let base = usize::from(level == 1);
    let slot = |runs: Vec<Arc<Run>>, base| Arc::new(Slot::new(runs, base, cell()));
    NodeBody {
        level,
        pivots: vec![b"key00030".as_slice().into(), b"m".as_slice().into()],
        slots: vec![
            slot(vec![run(dmu, 9), run(dmu, 60)], base),
            slot(vec![run(dmu, 60)], 0),
            slot(vec![], 0),
        ],
    }
}

fn node_seeds() -> Vec<Vec<u8>> {
    with_memory(|dmu| {
        let encode = |body: &NodeBody| encode_node(body, POOL, Generation(5)).unwrap_or_default();
        vec![encode(&body(dmu, 1)), encode(&body(dmu, 2)), encode(&NodeBody::empty(dmu, 1))]
    })
}

fn node(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        let Ok(found) = decode_node(bytes, dmu, POOL) else { return false };
        assert!(found.slots.len() == found.pivots.len() + 1);
        for key in [&b""[..], b"key00031", &[0xff; 80]] {
            assert!(found.slot_index(key) < found.slots.len());
            assert!(found.slot_index_before(Some(key)) < found.slots.len());
        }
        let generation = bytes.get(28..36).and_then(|bytes| bytes.first_chunk::<8>());
        let Some(generation) = generation.map(|bytes| Generation(u64::from_le_bytes(*bytes))) else {
            return false;
        };
        let Ok(again) = encode_node(&found, POOL, generation) else {
            unreachable!("its children are on disk")
        };
        let read = decode_node(&again, dmu, POOL).and_then(|body| encode_node(&body, POOL, generation));
        assert!(read.is_ok_and(|bytes| bytes == again), "a node that is read back differently");
        true
    })
}

fn pointer_seeds() -> Vec<Vec<u8>> {
    with_memory(|dmu| {
        let mut out = Encoder::new();
        child(dmu, 3).encode(&mut out);
        vec![out.finish()]
    })
}

fn pointer(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        let mut input = Decoder::new(bytes);
        let Ok(found) = NodeRef::decode(&mut input, dmu) else { return false };
        let mut out = Encoder::new();
        found.encode(&mut out);
        assert!(out.as_slice() == &bytes[..input.position()], "a pointer that would be written differently");
        // Whatever it points to, it is looked at with care.
        let _refused = NodeCell::on_disk(dmu, found).load(dmu);
        true
    })
}

fn drop_seeds() -> Vec<Vec<u8>> {
    with_memory(|dmu| {
        let mut drops = Drops::default();
        let deaths = Deaths::default();
        for (slot, floor) in body(dmu, 2).slots.iter().zip([0, 1, 0, 1]) {
            let drop = Dropping { death: Generation(6), floor: Generation(floor) };
            drops.add_slot(slot, drop, &deaths, Generation(6));
        }
        drops.encode()
    })
}

fn drops(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        let mut found = Drops::default();
        if found.decode_chunk(bytes, dmu).is_err() {
            return false;
        }
        let chunks = found.encode();
        let mut again = Drops::default();
        for chunk in &chunks {
            assert!(again.decode_chunk(chunk, dmu).is_ok(), "drops that are not read back");
        }
        assert!(again.encode() == chunks, "drops that are read back differently");
        true
    })
}

fn value_seeds() -> Vec<Vec<u8>> {
    let extent = |block, blocks| Extent { vdev: VDEV, block, blocks };
    let value = |length: u32, extents: Vec<Extent>| LargeValue {
        birth: Generation(3),
        length,
        extents,
        checksums: vec![0x8a91_36aa; (length as usize).div_ceil(16 << 10)],
    };
    vec![
        value(20_000, vec![extent(FIRST_BLOCK, 5)]).encode(),
        value(100_000, vec![extent(FIRST_BLOCK, 10), extent(FIRST_BLOCK + 20, 15)]).encode(),
    ]
}

fn value(bytes: &[u8]) -> bool {
    with_memory(|dmu| {
        let Ok(found) = LargeValue::decode(bytes) else { return false };
        assert!(found.encode() == bytes, "a pointer that would be written differently");
        // What is longer is refused or not by what the pool holds, after as many bytes were asked for.
        if total_blocks(&found.extents) < 1 << 12 {
            place(dmu, &[0; 64 << 10]);
            if let Ok(value) = found.read(dmu, Caching::Bypass) {
                assert!(value.len() == found.length as usize);
            }
        }
        true
    })
}

fn message_seeds() -> Vec<Vec<u8>> {
    let upper = DefaultMessageAction::upsert_msg(4, b"upper");
    let lower = DefaultMessageAction::upsert_msg(20, b"lower");
    let replace = DefaultMessageAction::insert_msg(b"a value");
    let delete = DefaultMessageAction::delete_msg();
    let seed = |upper: &[u8], lower: &[u8]| [&[upper.len() as u8][..], upper, lower].concat();
    vec![
        seed(&upper, &lower),
        seed(&lower, &replace),
        seed(&[&delete[..], &upper].concat(), &[&replace[..], &lower].concat()),
        seed(&replace, &delete),
    ]
}

/// Two messages for one key, the newer one first.
fn messages(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first() else { return false };
    let Some((upper, lower)) = rest.split_at_checked(usize::from(*length)) else { return false };
    let valid = DefaultMessageAction::is_valid(upper) && DefaultMessageAction::is_valid(lower);
    let action = Action::new(DefaultMessageAction);
    for start in [None, Some(b"what was there before".to_vec())] {
        let mut both = start.clone();
        assert!(action.apply(b"key", lower, &mut both).is_ok(), "the action panicked");
        assert!(action.apply(b"key", upper, &mut both).is_ok(), "the action panicked");
        let Ok(merged) = action.merge(b"key", upper, lower) else { unreachable!("the action panicked") };
        if !valid {
            continue;
        }
        if let Some(merged) = merged {
            let mut once = start.clone();
            assert!(DefaultMessageAction::is_valid(&merged));
            assert!(
                action.apply(b"key", &merged, &mut once).is_ok_and(|()| once == both),
                "merging changed it"
            );
        }
    }
    valid
}

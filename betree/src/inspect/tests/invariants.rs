//! For every invariant a pool that breaks it and no other: the check gives exactly its code.

use super::parts::{Entry, Part, What, entries};
use super::pool::{BadBlock, Bench, configuration, devices};
use crate::base::checksum::{crc, crc_append};
use crate::base::codec::{Decoder, Encoder, get_varint};
use crate::base::extent::Extent;
use crate::base::ids::{DatasetId, Generation, Uuid};
use crate::base::units::BLOCK_BYTES_U64;
use crate::database::{
    ChunkRecord, DatasetRecord, ListPart, Origin, Receiving, Role, SubList, chunk_key, dataset_key,
    dead_list_key, drops_key, snapshot_name_key,
};
use crate::inspect::catalogue::Catalogue;
use crate::inspect::ledger::Ledger;
use crate::inspect::{CheckOptions, Code, Progress, check};
use crate::pool::format::{End, next_slot};
use crate::run::RunRef;
use crate::tree::{LargeValue, NodeRef};
use crate::vdev::{BlockDevice, SimClock, SimDisk};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

const DATA: DatasetId = DatasetId(1);

fn find(parts: &[Part], what: &What) -> usize {
    parts.iter().position(|part| part.what == *what && part.dataset == DATA).unwrap()
}

/// Changes the run pointer of meta section `meta` in its node; the encoded length must stay.
fn edit_run(bench: &Bench, parts: &[Part], meta: usize, change: impl FnOnce(&mut RunRef)) {
    let ground = bench.ground();
    let (node, at) = (parts[meta].parent.unwrap(), parts[meta].pointer_at);
    bench.edit(parts, node, |bytes| {
        let length = u32::from_le_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
        let mut reference = RunRef::decode(&mut Decoder::new(&bytes[at..at + length]), &ground.dmu).unwrap();
        change(&mut reference);
        let mut out = Encoder::new();
        reference.encode(&mut out);
        assert_eq!(out.len(), length, "the pointer keeps its length");
        bytes[at..at + length].copy_from_slice(out.as_slice());
    });
}

fn run_of(bench: &Bench, parts: &[Part], meta: usize) -> RunRef {
    let ground = bench.ground();
    let (node, at) = (parts[meta].parent.unwrap(), parts[meta].pointer_at);
    let bytes = bench.read(&parts[node]);
    let length = u32::from_le_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
    RunRef::decode(&mut Decoder::new(&bytes[at..at + length]), &ground.dmu).unwrap()
}

/// Meta sections of the dataset whose run pointer is as asked for.
fn metas(bench: &Bench, parts: &[Part], choose: impl Fn(&RunRef) -> bool) -> Vec<usize> {
    let all =
        (0..parts.len()).filter(|index| parts[*index].what == What::Meta && parts[*index].dataset == DATA);
    all.filter(|index| choose(&run_of(bench, parts, *index))).collect()
}

/// Changes the first run for which it works without changing the length of its pointer.
fn edit_any_run(
    bench: &Bench,
    parts: &[Part],
    choose: impl Fn(&RunRef) -> bool,
    change: impl Fn(&mut RunRef),
) {
    let encoded = |reference: &RunRef| {
        let mut out = Encoder::new();
        reference.encode(&mut out);
        out.len()
    };
    let meta = metas(bench, parts, choose).into_iter().find(|meta| {
        let before = run_of(bench, parts, *meta);
        let mut after = before.clone();
        change(&mut after);
        encoded(&before) == encoded(&after) && before != after
    });
    edit_run(bench, parts, meta.unwrap(), change);
}

type Break = fn(&Bench);

fn newest(bench: &Bench) -> Generation {
    bench.superblock(None).generation
}

/// Byte of a slot that neither the newest superblock nor the next commit uses.
fn old_slot(bench: &Bench, end: End) -> u64 {
    bench.slot_offset(end, (bench.superblock(None).slot + 4) % 8)
}

fn break_slot(bench: &Bench) {
    bench.disks[0].flip_bit(old_slot(bench, End::Back) + 700, 3);
}

fn break_diverged(bench: &Bench) {
    // In the payload: the next dataset.
    let only_back = |end| end == End::Back;
    bench.edit_superblock(newest(bench), only_back, |superblock| superblock.payload[20] += 1);
}

fn break_ring(bench: &Bench) {
    let g1 = bench.superblock(None).previous;
    let g2 = bench.superblock(Some(g1)).previous;
    let g3 = bench.superblock(Some(g2)).previous;
    let g4 = bench.superblock(Some(g3)).previous;
    bench.edit_superblock(g2, |_| true, |superblock| superblock.previous = g4);
}

fn break_rollback(bench: &Bench) {
    let lost = |superblock: &mut crate::pool::format::Superblock| {
        superblock.highest_seen = Generation(superblock.generation.0 + 3);
    };
    bench.edit_superblock(newest(bench), |_| true, lost);
}

/// A page of the table, in the slot that is used next, of a checkpoint that knew of a newer one.
fn break_rollback_in_a_page(bench: &Bench) {
    let parts = bench.parts();
    let block = parts[parts.iter().position(|part| part.what == What::Page).unwrap()].extents[0].block;
    let bytes = bench.disks[0].bytes();
    let page = |block: u64| bytes[block as usize * 4096..][..4096].to_vec();
    let generation = |block: &u64| u64::from_le_bytes(page(*block)[40..48].try_into().unwrap());
    let slots = (block - 2..=block + 2).filter(|block| page(*block).starts_with(b"betreeTP"));
    let oldest = slots.min_by_key(generation).unwrap();
    assert!(oldest != block);
    let mut changed = page(oldest);
    changed[40..48].copy_from_slice(&(newest(bench).0 + 2).to_le_bytes());
    changed[48..56].copy_from_slice(&(newest(bench).0 + 1).to_le_bytes());
    let sum = crc_append(crc(&changed[..12]), &changed[16..]);
    changed[12..16].copy_from_slice(&sum.to_le_bytes());
    bench.disks[0].overwrite(oldest * BLOCK_BYTES_U64, &changed);
}

fn break_padding(bench: &Bench) {
    bench.disks[0].overwrite(12 * BLOCK_BYTES_U64 + 100, &[1]);
}

fn break_root(bench: &Bench) {
    bench.edit_record(|payload| payload[28] ^= 1);
}

fn break_fallback(bench: &Bench) {
    let previous = bench.superblock(None).previous;
    // The checksum of its allocation table.
    bench.edit_superblock(previous, |_| true, |superblock| superblock.payload[40] ^= 1);
}

fn break_checksum(bench: &Bench) {
    let parts = bench.parts();
    let part = &parts[find(&parts, &What::Block)];
    let mut bytes = bench.read(part);
    bytes[20] ^= 4;
    bench.write(part, &bytes);
}

fn break_value(bench: &Bench) {
    let parts = bench.parts();
    let part = &parts[find(&parts, &What::Value)];
    let mut bytes = bench.read(part);
    bytes[50] ^= 4;
    bench.write(part, &bytes);
}

fn break_decode(bench: &Bench) {
    let parts = bench.parts();
    let node = find(&parts, &What::Node { level: 1 });
    bench.edit(&parts, node, |bytes| bytes[11] = 1);
}

/// A length in more bytes than it needs, of a value that is shorter by as many.
fn break_canonical(bench: &Bench) {
    let parts = bench.parts();
    let block = parts.iter().position(|part| part.what == What::Block && part.dataset == DATA).unwrap();
    bench.edit(&parts, block, |bytes| {
        let is_put = |entry: &Entry| bytes[entry.tag_at] & 3 == 0 && !entry.payload.is_empty();
        let entry = entries(bytes).into_iter().find(is_put).unwrap();
        let (at, old) = (entry.tag_at + 1, entry.suffix.start - entry.tag_at - 1);
        let mut length = entry.payload.len() - 1;
        let (suffix, payload) = (bytes[entry.suffix].to_vec(), bytes[entry.payload].to_vec());
        let mut new = Vec::new();
        for _ in 0..old {
            new.push(length as u8 | 0x80);
            length >>= 7;
        }
        new.push(length as u8);
        new.extend(suffix);
        new.extend(&payload[..payload.len() - 1]);
        bytes[at..at + new.len()].copy_from_slice(&new);
    });
}

fn break_reserved_field(bench: &Bench) {
    let parts = bench.parts();
    let meta = find(&parts, &What::Meta);
    bench.edit(&parts, meta, |bytes| bytes[6] = 1);
}

fn break_identity(bench: &Bench) {
    let parts = bench.parts();
    let node = find(&parts, &What::Node { level: 1 });
    bench.edit(&parts, node, |bytes| bytes[28] += 1);
}

fn break_pool_name(bench: &Bench) {
    let parts = bench.parts();
    let node = find(&parts, &What::Node { level: 1 });
    bench.edit(&parts, node, |bytes| bytes[12] ^= 1);
}

fn break_generation(bench: &Bench) {
    let parts = bench.parts();
    let young = newest(bench).0 + 5;
    edit_any_run(bench, &parts, |_| true, |run| run.birth = Generation(young));
}

fn break_level(bench: &Bench) {
    let parts = bench.parts();
    let child = parts
        .iter()
        .find(|part| {
            let above = part.parent.map(|parent| parts[parent].what.clone());
            part.what == What::Node { level: 1 }
                && above == Some(What::Node { level: 2 })
                && part.dataset == DATA
        })
        .unwrap();
    bench.edit(&parts, child.parent.unwrap(), |bytes| bytes[child.pointer_at] = 2);
}

/// Two pointers to one child. The keys of its runs lie outside of the second slot, but it is not looked at again.
fn break_cycle(bench: &Bench) {
    let parts = bench.parts();
    let root = find(&parts, &What::Node { level: 2 });
    let children: Vec<usize> = parts
        .iter()
        .filter(|part| matches!(part.what, What::Node { .. }) && part.parent == Some(root))
        .map(|part| part.pointer_at)
        .collect();
    let ground = bench.ground();
    bench.edit(&parts, root, |bytes| {
        let pointer = |at: usize| {
            let mut input = Decoder::new(&bytes[at..]);
            NodeRef::decode(&mut input, &ground.dmu).unwrap();
            bytes[at..at + input.position()].to_vec()
        };
        let (first, second) = (pointer(children[0]), pointer(children[1]));
        assert_eq!(first.len(), second.len());
        bytes[children[1]..children[1] + first.len()].copy_from_slice(&first);
    });
}

/// Two keys of a block change places.
fn break_order(bench: &Bench) {
    let parts = bench.parts();
    let block = (0..parts.len())
        .find(|index| {
            let is_block = parts[*index].what == What::Block && parts[*index].dataset == DATA;
            is_block && {
                let entries = entries(&bench.read(&parts[*index]));
                entries.len() > 3 && entries[1].suffix.len() == entries[2].suffix.len()
            }
        })
        .unwrap();
    bench.edit(&parts, block, |bytes| {
        let entries = entries(bytes);
        let (a, b) = (entries[1].suffix.clone(), entries[2].suffix.clone());
        for (a, b) in a.zip(b) {
            bytes.swap(a, b);
        }
        for byte in 0..4 {
            bytes.swap(24 + 4 + byte, 24 + 8 + byte);
        }
    });
}

fn break_bounds(bench: &Bench) {
    let parts = bench.parts();
    let further = |run: &mut RunRef| {
        if let Some((_, last)) = &mut run.keys {
            let at = last.len() - 1;
            last[at] += 1;
        }
    };
    edit_any_run(bench, &parts, |run| run.keys.is_some(), further);
}

fn break_sequence(bench: &Bench) {
    let parts = bench.parts();
    let meta = find(&parts, &What::Meta);
    let records = {
        let bytes = bench.read(&parts[meta]);
        64 + 64 * u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize
    };
    bench.edit(&parts, meta, |bytes| bytes[records + 8] ^= 1);
}

/// Two runs of one slot that share a key change places.
fn break_age(bench: &Bench) {
    let pair = |parts: &[Part]| {
        let all = metas(bench, parts, |run| run.range_deletes == 0);
        let of_one_node = |pair: &[usize; 2]| parts[pair[0]].parent == parts[pair[1]].parent;
        let mut pairs =
            all.iter().enumerate().flat_map(|(at, a)| all[at + 1..].iter().map(move |b| [*a, *b]));
        pairs.find(|pair| of_one_node(pair) && shares_a_key(bench, parts, pair))
    };
    let mut parts = bench.parts();
    for _ in 0..12 {
        if pair(&parts).is_some() {
            break;
        }
        let database = crate::Database::open_with(bench.configuration.clone()).unwrap();
        database.open_dataset("aa").unwrap().insert(b"key00060", b"again").unwrap();
        database.close().unwrap();
        parts = bench.parts();
    }
    let [a, b] = pair(&parts).unwrap();
    let node = parts[a].parent.unwrap();
    let (a, b) = (parts[a].pointer_at, parts[b].pointer_at);
    bench.edit(&parts, node, |bytes| {
        // Each with its length before it.
        let end = |at: usize| at + u32::from_le_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
        let (first, between, second) = (a - 4..end(a), end(a)..b - 4, b - 4..end(b));
        let swapped = [&bytes[second.clone()], &bytes[between], &bytes[first.clone()]].concat();
        bytes[first.start..second.end].copy_from_slice(&swapped);
    });
}

fn shares_a_key(bench: &Bench, parts: &[Part], pair: &[usize]) -> bool {
    let keys = |meta: usize| {
        let blocks = parts.iter().filter(move |part| part.what == What::Block && part.parent == Some(meta));
        let mut keys = Vec::new();
        for block in blocks {
            let bytes = bench.read(block);
            let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            let at = 24 + number(0) * (4 + if number(20) & 1 == 1 { 4 } else { 2 });
            let prefix = bytes[at..at + number(4)].to_vec();
            let whole = |entry: super::parts::Entry| [&prefix[..], &bytes[entry.suffix]].concat();
            keys.extend(entries(&bytes).into_iter().map(whole));
        }
        keys
    };
    let second = keys(pair[1]);
    keys(pair[0]).iter().any(|key| second.contains(key))
}

fn break_count(bench: &Bench) {
    let parts = bench.parts();
    edit_any_run(bench, &parts, |run| run.entries > 2, |run| run.deletes += 1);
}

fn break_upsert_bytes(bench: &Bench) {
    let parts = bench.parts();
    edit_any_run(bench, &parts, |run| run.entries > 2, |run| run.upsert_bytes += 1);
}

fn break_filter(bench: &Bench) {
    let parts = bench.parts();
    let meta = find(&parts, &What::Meta);
    bench.edit(&parts, meta, |bytes| {
        let lines = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        assert!(lines > 0);
        bytes[64..64 + 64 * lines].fill(0);
    });
}

/// A delete with a value, counted as a delete.
fn break_kind(bench: &Bench) {
    let parts = bench.parts();
    let block = find(&parts, &What::Block);
    let meta = parts[block].parent.unwrap();
    bench.edit(&parts, block, |bytes| {
        let entry = entries(bytes).into_iter().find(|entry| bytes[entry.tag_at] & 3 == 0).unwrap();
        assert!(!entry.payload.is_empty());
        bytes[entry.tag_at] |= 1;
    });
    edit_run(bench, &parts, meta, |run| run.deletes += 1);
}

/// A run with a block more than it needs.
fn break_size(bench: &Bench) {
    let parts = bench.parts();
    let behind = |run: &RunRef| {
        let last = *run.extents.extents().last().unwrap();
        Extent { block: last.end(), blocks: 1, ..last }
    };
    let all = metas(bench, &parts, |run| run.extents.extents().len() == 1);
    let taken =
        bench.forge(|forge| all.into_iter().find(|meta| forge.take(behind(&run_of(bench, &parts, *meta)))));
    let parts_now = bench.parts();
    let run = run_of(bench, &parts, taken.unwrap());
    let same = |meta: &usize| run_of(bench, &parts_now, *meta).extents == run.extents;
    let meta = metas(bench, &parts_now, |_| true).into_iter().find(same).unwrap();
    let (node, at) = (parts_now[meta].parent.unwrap(), parts_now[meta].pointer_at);
    // Behind version, preference, flags, checksum, count and vdev.
    bench.edit(&parts_now, node, |bytes| bytes[at + 12] += 1);
}

fn break_large_bytes(bench: &Bench) {
    let parts = bench.parts();
    edit_any_run(bench, &parts, |run| run.large_bytes > 0, |run| run.large_bytes += 4096);
}

/// A pointer to a large value that does not decode.
fn break_pointer(bench: &Bench) {
    let parts = bench.parts();
    let value = &parts[find(&parts, &What::Value)];
    bench.edit(&parts, value.parent.unwrap(), |bytes| bytes[value.pointer_at + 10] ^= 1);
}

fn break_tier(bench: &Bench) {
    let parts = bench.parts();
    let meta = &parts[find(&parts, &What::Meta)];
    // Behind version, preference, flags, checksum and count: the vdev.
    bench.edit(&parts, meta.parent.unwrap(), |bytes| bytes[meta.pointer_at + 8] = 7);
}

fn break_outside(bench: &Bench) {
    let parts = bench.parts();
    let meta = &parts[find(&parts, &What::Meta)];
    let at = meta.pointer_at + 16;
    bench.edit(&parts, meta.parent.unwrap(), |bytes| bytes[at..at + 8].fill(0));
}

/// Two entries name one large value; that of the second is freed.
fn break_overlap(bench: &Bench) {
    let parts = bench.parts();
    let pointer = |part: &Part| {
        let block = bench.read(&parts[part.parent.unwrap()]);
        let entry = entries(&block).into_iter().find(|entry| entry.payload.start == part.pointer_at);
        block[entry.unwrap().payload].to_vec()
    };
    let birth = |part: &Part| LargeValue::decode(&pointer(part)).unwrap().birth;
    let values: Vec<&Part> =
        parts.iter().filter(|part| part.what == What::Value && part.offset == 0).collect();
    let pairs = || values.iter().flat_map(|a| values.iter().map(move |b| (*a, *b)));
    let (a, b) = pairs()
        .find(|(a, b)| a.extents != b.extents && birth(a) <= birth(b) && pointer(a).len() == pointer(b).len())
        .unwrap();
    let (extents, parent, at) = (b.extents.clone(), parts[b.parent.unwrap()].clone(), b.pointer_at);
    let first = pointer(a);
    bench.forge(|forge| extents.iter().for_each(|extent| forge.free(*extent)));
    let parts = bench.parts();
    let same = |part: &Part| {
        part.what == What::Block && part.extents == parent.extents && part.offset == parent.offset
    };
    let block = parts.iter().position(same).unwrap();
    bench.edit(&parts, block, |bytes| bytes[at..at + first.len()].copy_from_slice(&first));
}

fn break_unallocated(bench: &Bench) {
    let parts = bench.parts();
    let extent = parts[find(&parts, &What::Value)].extents[0];
    bench.forge(|forge| forge.free(extent));
}

fn break_leak(bench: &Bench) {
    bench.forge(|forge| forge.leak(3));
}

/// The bit of the first bitmap slot of a segment, with counts that agree.
fn break_reserved(bench: &Bench) {
    let parts = bench.parts();
    // In all segments but the first, bitmap slots are the first blocks.
    let bitmap = parts.iter().position(|part| part.what == What::Bitmap && part.pointer_at > 64).unwrap();
    bench.edit(&parts, bitmap, |bytes| {
        assert_eq!(bytes[64] & 7, 7);
        bytes[64] &= !1;
    });
    let more = |bytes: &mut [u8], at: usize| {
        let value = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) + 1;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    let page = parts[bitmap].parent.unwrap();
    bench.edit(&parts, page, |bytes| more(bytes, parts[bitmap].pointer_at + 28));
    bench.edit(&parts, parts[page].parent.unwrap(), |bytes| more(bytes, 64 + 16));
}

fn records(bench: &Bench) -> BTreeMap<DatasetId, DatasetRecord> {
    let ground = bench.ground();
    let mut watch = |_: &Progress| ControlFlow::Continue(());
    let mut ledger = Ledger::new(10, &mut watch);
    Catalogue::read(&ground, &bench.record(&ground), &mut ledger).datasets
}

fn break_name(bench: &Bench) {
    let records = records(bench);
    let mut second = records[&DatasetId(2)].clone();
    second.name = records[&DATA].name.clone();
    bench.forge(|forge| forge.put(&dataset_key(DatasetId(2)), &second.encode()));
}

/// An object store with an object in two chunks, and what `change` does to its datasets.
fn with_store(bench: &Bench, change: impl FnOnce(&crate::database::Pair)) {
    let database = crate::Database::open_with(bench.configuration.clone()).unwrap();
    let store = database.create_object_store("store").unwrap();
    store.put("object", vec![7; 150_000]).unwrap();
    store.open_object("object").unwrap().unwrap().set_metadata("key", "value").unwrap();
    store.create_snapshot("kept").unwrap();
    database.checkpoint().unwrap();
    database.verify().unwrap();
    change(&database.open_pair(b"store").unwrap());
    database.checkpoint().unwrap();
    database.close().unwrap();
}

fn break_object(bench: &Bench) {
    with_store(bench, |pair| pair.metadata.insert(b"\0object", b"no record").unwrap());
}

fn break_tickets(bench: &Bench) {
    with_store(bench, |pair| pair.metadata.insert([3], 1_u64.to_le_bytes()).unwrap());
}

fn break_orphan(bench: &Bench) {
    with_store(bench, |pair| {
        let key = [&9_u64.to_be_bytes()[..], &0_u64.to_be_bytes()].concat();
        pair.chunks.insert(key, vec![1; 20_000]).unwrap();
    });
}

fn break_end(bench: &Bench) {
    with_store(bench, |pair| {
        let (mut key, _) = pair.chunks.last_key_value().unwrap().map(|(key, _)| (key.to_vec(), ())).unwrap();
        key[15] += 1;
        pair.chunks.insert(key, [1]).unwrap();
    });
}

fn break_custom(bench: &Bench) {
    with_store(bench, |pair| {
        let key = [&[1][..], &9_u64.to_be_bytes(), b"key"].concat();
        pair.metadata.insert(key, [1]).unwrap();
    });
}

fn break_store(bench: &Bench) {
    with_store(bench, |_| ());
    assert_eq!(bench.codes(true), []);
    let records = records(bench);
    let (id, record) = records.iter().find(|(_, record)| record.role == Role::Chunks).unwrap();
    let other = DatasetRecord { name: b"other".to_vec(), ..record.clone() };
    bench.forge(|forge| forge.put(&dataset_key(*id), &other.encode()));
}

fn break_store_snapshots(bench: &Bench) {
    with_store(bench, |pair| pair.chunks.delete_snapshot("kept").unwrap());
}

/// A snapshot of the first dataset, and something in its dead list.
fn with_snapshot(bench: &Bench) {
    let database = crate::Database::open_with(bench.configuration.clone()).unwrap();
    let dataset = database.open_dataset("aa").unwrap();
    dataset.create_snapshot("kept").unwrap();
    for number in 0..60 {
        dataset.insert(format!("key{number:05}"), [number as u8; 300]).unwrap();
    }
    for _ in 0..2 {
        database.settle().unwrap();
        database.checkpoint().unwrap();
    }
    database.close().unwrap();
    assert_eq!(bench.codes(true), []);
}

/// The key of a dead list, and the list, of which `change` makes another one.
fn edit_list(bench: &Bench, change: impl FnOnce(&mut Vec<u8>, &mut SubList)) {
    with_snapshot(bench);
    let ground = bench.ground();
    let mut watch = |_: &Progress| ControlFlow::Continue(());
    let mut ledger = Ledger::new(10, &mut watch);
    let lists = Catalogue::read(&ground, &bench.record(&ground), &mut ledger).lists;
    drop(ground);
    let ((dataset, snapshot, interval), list) = lists.first_key_value().unwrap();
    let key = dead_list_key(*dataset, *snapshot, *interval);
    let (mut new_key, mut new) = (key.clone(), list.clone());
    change(&mut new_key, &mut new);
    bench.forge(|forge| {
        forge.delete(&key);
        forge.put(&new_key, &new.encode());
    });
}

fn break_snapshot(bench: &Bench) {
    bench.forge(|forge| forge.put(&snapshot_name_key(DATA, b"ghost"), &3_u64.to_le_bytes()));
}

fn break_snapshot_without_name(bench: &Bench) {
    with_snapshot(bench);
    bench.forge(|forge| forge.delete(&snapshot_name_key(DATA, b"kept")));
}

fn break_origin(bench: &Bench) {
    let mut record = records(bench)[&DATA].clone();
    record.origin = Some(Origin { dataset: DatasetId(2), snapshot: Generation(2) });
    bench.forge(|forge| forge.put(&dataset_key(DATA), &record.encode()));
}

fn break_newest(bench: &Bench) {
    let mut record = records(bench)[&DATA].clone();
    record.newest = Generation(2);
    bench.forge(|forge| forge.put(&dataset_key(DATA), &record.encode()));
}

/// Makes a staging of the dataset, which receives `section` of a stream of `sections` onto the snapshot `base`.
fn make_staging(bench: &Bench, section: u32, sections: u32, base: Uuid) {
    let mut record = records(bench)[&DATA].clone();
    let guid = Uuid([9; 16]);
    let snapshot = b"received".to_vec();
    let position = Default::default();
    let stream = Uuid([8; 16]);
    record.receiving = Some(Receiving { stream, section, sections, guid, base, snapshot, position });
    bench.forge(|forge| forge.put(&dataset_key(DATA), &record.encode()));
}

fn break_sections(bench: &Bench) {
    make_staging(bench, 1, 2, Uuid::default());
}

/// Makes stagings of both datasets of the store, for stores of different names.
fn break_halves(bench: &Bench) {
    with_store(bench, |_| ());
    let stream = Uuid([8; 16]);
    for (id, record) in records(bench).iter().filter(|(_, record)| record.role != Role::Dataset) {
        let section = u32::from(record.role == Role::Chunks);
        let (guid, base, snapshot) = (Uuid([9; 16]), Uuid::default(), b"received".to_vec());
        let position = Default::default();
        let receiving = Some(Receiving { stream, section, sections: 2, guid, base, snapshot, position });
        let name = format!("store{section}").into_bytes();
        let staging = DatasetRecord { receiving, name, ..record.clone() };
        bench.forge(|forge| forge.put(&dataset_key(*id), &staging.encode()));
    }
}

fn break_base(bench: &Bench) {
    make_staging(bench, 0, 1, Uuid([7; 16]));
}

fn break_received_snapshot(bench: &Bench) {
    with_snapshot(bench);
    make_staging(bench, 0, 1, Uuid::default());
}

fn break_dead_list(bench: &Bench) {
    edit_list(bench, |_, list| {
        let entry = list.tail.pop().unwrap();
        list.entries -= 1;
        list.blocks -= u64::from(entry.extent.blocks);
    });
}

fn break_listed_twice(bench: &Bench) {
    edit_list(bench, |_, list| list.push(list.tail[0]));
}

fn break_undead(bench: &Bench) {
    edit_list(bench, |_, list| {
        let mut entry = list.tail[0];
        entry.extent.block += 1;
        list.push(entry);
    });
}

fn break_interval(bench: &Bench) {
    // The interval becomes that behind the snapshot itself.
    edit_list(bench, |key, _| {
        let (snapshot, interval) = key[9..].split_at_mut(8);
        interval.copy_from_slice(snapshot);
    });
}

fn break_lists(bench: &Bench) {
    edit_list(bench, |_, list| list.entries += 1);
}

fn break_chunks(bench: &Bench) {
    let parts = ChunkRecord::Parts(vec![ListPart { list: 98, chunks: 1 }]);
    bench.forge(|forge| forge.put(&chunk_key(99, 0), &parts.encode()));
}

fn break_drops(bench: &Bench) {
    bench.forge(|forge| forge.put(&drops_key(DATA, 0), b""));
}

fn break_free(bench: &Bench) {
    let parts = bench.parts();
    let page = parts.iter().position(|part| part.what == What::Page).unwrap();
    bench.edit(&parts, page, |bytes| *longest(bytes) -= 1);
}

/// The low byte of the recorded longest run of a segment that has free blocks.
pub(super) fn longest(page: &mut [u8]) -> &mut u8 {
    let at = (0..84).map(|segment| 64 + 48 * segment + 36).find(|at| page[*at] > 1);
    &mut page[at.unwrap()]
}

/// Flips a bit of the second frame behind the head; later frames know it to have been flushed.
fn break_log(bench: &Bench) {
    let head = bench.record(&bench.ground()).log_head;
    let block = head.extent.block + u64::from(head.offset) + 1;
    bench.disks[0].flip_bit(block * BLOCK_BYTES_U64 + 110, 0);
}

/// A record that skips a sequence number, in frames that are right again from there to the end.
fn break_record(bench: &Bench) {
    let head = bench.record(&bench.ground()).log_head;
    let disk = &bench.disks[0];
    let mut previous = None;
    for frame in 0..64 {
        let offset = (head.extent.block + u64::from(head.offset) + frame) * BLOCK_BYTES_U64;
        let mut bytes = vec![0; BLOCK_BYTES_U64 as usize];
        disk.device().read_at(&mut bytes, offset).unwrap();
        if bytes[..8] != *b"BETRELOG" || u64::from_le_bytes(bytes[32..40].try_into().unwrap()) != head.epoch {
            assert!(frame > 3);
            return;
        }
        if frame == 2 {
            // Behind the header and the length of the record.
            bytes[100] += 1;
        }
        if let Some(previous) = previous {
            bytes[76..80].copy_from_slice(&u32::to_le_bytes(previous));
        }
        let payload = u32::from_le_bytes(bytes[72..76].try_into().unwrap()) as usize;
        let sum = crate::base::checksum::crc(&bytes[12..96 + payload]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        disk.overwrite(offset, &bytes);
        previous = Some(sum);
    }
    panic!("the log ends in its first extent");
}

const CASES: &[(&str, Code, bool, Break)] = &[
    ("a slot", Code::Slot, false, break_slot),
    ("copies that differ", Code::Diverged, false, break_diverged),
    ("the order of the ring", Code::Ring, false, break_ring),
    ("a newer generation named", Code::Rollback, false, break_rollback),
    ("a newer generation named by a page", Code::Rollback, false, break_rollback_in_a_page),
    ("a reserved block", Code::Padding, false, break_padding),
    ("the epoch of the root record", Code::Root, false, break_root),
    ("the table of the fallback", Code::Fallback, false, break_fallback),
    ("a block of a run", Code::Checksum, false, break_checksum),
    ("a large value", Code::Checksum, true, break_value),
    ("the flags of a node", Code::Decode, false, break_decode),
    ("a reserved field of a run", Code::Decode, false, break_reserved_field),
    ("the length of a length", Code::Canonical, false, break_canonical),
    ("the generation of a node", Code::Identity, false, break_identity),
    ("the pool of a node", Code::Identity, false, break_pool_name),
    ("the birth of a run", Code::Generation, false, break_generation),
    ("the level of a child", Code::Level, false, break_level),
    ("a child twice", Code::Cycle, false, break_cycle),
    ("two keys", Code::Order, false, break_order),
    ("the bounds of a run", Code::Bounds, false, break_bounds),
    ("the newest sequence of a block", Code::Sequence, false, break_sequence),
    ("the age of two runs", Code::Sequence, false, break_age),
    ("the deletes of a run", Code::Count, false, break_count),
    ("the upserts of a run", Code::Count, false, break_upsert_bytes),
    ("a filter", Code::Filter, false, break_filter),
    ("a delete with a value", Code::Kind, false, break_kind),
    ("a block too many", Code::Size, false, break_size),
    ("the large bytes of a run", Code::Value, false, break_large_bytes),
    ("the length of a large value", Code::Value, false, break_pointer),
    ("the vdev of an extent", Code::Tier, false, break_tier),
    ("an extent in the label area", Code::Outside, false, break_outside),
    ("a value with two owners", Code::Overlap, false, break_overlap),
    ("a value that is marked free", Code::Unallocated, false, break_unallocated),
    ("blocks of nobody", Code::Leak, false, break_leak),
    ("a label block marked free", Code::Reserved, false, break_reserved),
    ("a name twice", Code::Dataset, false, break_name),
    ("an object record", Code::Object, false, break_object),
    ("the next ticket", Code::Object, false, break_tickets),
    ("a chunk of no object", Code::Orphan, false, break_orphan),
    ("a chunk behind the end", Code::Orphan, false, break_end),
    ("metadata of no object", Code::Orphan, false, break_custom),
    ("chunks of another store", Code::Store, false, break_store),
    ("a snapshot of half a store", Code::Store, false, break_store_snapshots),
    ("a name of no snapshot", Code::Snapshot, false, break_snapshot),
    ("a snapshot without a name", Code::Snapshot, false, break_snapshot_without_name),
    ("an origin that is gone", Code::Snapshot, false, break_origin),
    ("the newest snapshot", Code::Snapshot, false, break_newest),
    ("a section that is received alone", Code::Staging, false, break_sections),
    ("half an object store that is received", Code::Staging, false, break_halves),
    ("what is received onto another snapshot", Code::Staging, false, break_base),
    ("a snapshot of what is received that is another", Code::Staging, false, break_received_snapshot),
    ("an extent that is not listed", Code::DeadList, false, break_dead_list),
    ("an extent that is listed twice", Code::DeadList, false, break_listed_twice),
    ("an extent that is listed and lives", Code::Undead, false, break_undead),
    ("the interval of a dead list", Code::Interval, false, break_interval),
    ("the count of a dead list", Code::Lists, false, break_lists),
    ("a chunk of no dead list", Code::Lists, false, break_chunks),
    ("an empty list of drops", Code::Drops, false, break_drops),
    ("the longest free run", Code::Free, false, break_free),
    ("a frame of the log", Code::Log, false, break_log),
    ("the sequence of a record", Code::Log, false, break_record),
];

#[test]
fn every_broken_invariant_gives_its_code_and_no_other() {
    let whole = Bench::new();
    assert_eq!(whole.codes(true), []);
    let snapshot = whole.disks[0].snapshot();
    let mut failures = Vec::new();
    for (name, code, deep, break_it) in CASES {
        whole.disks[0].restore(&snapshot);
        println!("{name}:");
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| break_it(&whole))).is_err() {
            failures.push(format!("{name}: cannot be made"));
            continue;
        }
        if *code != Code::Fallback {
            // What both checkpoints share is broken for both.
            whole.forget_fallback();
        }
        let before = whole.disks[0].bytes();
        let found = whole.codes(*deep);
        assert!(whole.disks[0].bytes() == before, "{name}: a check writes nothing");
        if found != [*code] {
            failures.push(format!("{name}: {code} expected, {found:?} found"));
        }
    }
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn every_code_is_given_by_some_broken_pool() {
    let elsewhere = [Code::Copy, Code::Members, Code::Unreadable, Code::Contents, Code::Changed, Code::Moved];
    let given =
        |code: &&Code| CASES.iter().any(|(_, given, _, _)| given == *code) || elsewhere.contains(code);
    let missing: Vec<&Code> = Code::ALL.iter().filter(|code| !given(code)).collect();
    assert_eq!(missing, Vec::<&Code>::new());
}

#[test]
fn a_device_of_another_pool_is_no_member() {
    let bench = Bench::new();
    let clock = SimClock::new(1);
    let other = SimDisk::new("other", 4 << 20, &clock);
    crate::Database::create_with(configuration(devices(std::slice::from_ref(&other))), false).unwrap();
    let both = configuration(devices(&[bench.disks[0].clone(), other]));
    let report = check(&both, &CheckOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.codes(), [Code::Members]);
}

#[test]
fn a_bad_sector_is_named_and_the_rest_is_still_looked_at() {
    let bench = Bench::new();
    let parts = bench.parts();
    let whole = bench.check(false);
    let block = parts[find(&parts, &What::Meta)].extents[0].block;
    let device: Arc<dyn BlockDevice> =
        Arc::new(BadBlock { device: Arc::new(bench.disks[0].device()), block });
    let configuration = configuration(vec![device]);
    let report = check(&configuration, &CheckOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.codes(), [Code::Unreadable]);
    assert_eq!(report.findings[0].offset, Some(block * BLOCK_BYTES_U64));
    assert_eq!(report.totals.nodes, whole.totals.nodes);
    assert_eq!(report.totals.runs, whole.totals.runs);
}

#[test]
fn contents_that_cannot_be_compared_are_a_finding() {
    let bench = Bench::new();
    let options = CheckOptions { deep: true, ..CheckOptions::default() };
    let parts = bench.parts();
    let part = parts[find(&parts, &What::Block)].clone();
    let mut done = false;
    // Sound while it is checked, damaged when it is read again.
    let report = check(&bench.configuration, &options, &mut |progress| {
        if progress.phase == "comparing contents" && !done {
            done = true;
            let mut bytes = bench.read(&part);
            bytes[20] ^= 1;
            bench.write(&part, &bytes);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(report.unwrap().codes(), [Code::Contents, Code::Changed]);
}

#[test]
fn a_byte_that_changes_during_a_check_is_a_finding() {
    let bench = Bench::new();
    let options = CheckOptions { deep: true, ..CheckOptions::default() };
    let report = check(&bench.configuration, &options, &mut |progress| {
        if progress.phase == "comparing contents" {
            // Reserved and never read again.
            bench.disks[0].overwrite(15 * BLOCK_BYTES_U64, &[9]);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(report.unwrap().codes(), [Code::Changed]);
}

#[test]
fn a_torn_slot_of_the_next_commit_is_no_finding() {
    let bench = Bench::new();
    let next = next_slot(bench.superblock(None).slot);
    bench.disks[0].overwrite(bench.slot_offset(End::Front, next) + 512, &[7; 512]);
    let report = bench.check(true);
    assert_eq!(report.codes(), []);
    assert!(report.notes.iter().any(|note| note.contains("a commit that did not end")), "{:?}", report.notes);
    // At the back, a commit cannot have left it: the front would be whole.
    bench.disks[0].overwrite(bench.slot_offset(End::Back, next) + 512, &[7; 512]);
    assert!(bench.codes(false).contains(&Code::Slot));
}

#[test]
fn pointers_without_a_birth_are_refused() {
    // Whoever let go of such a run or node would give blocks back that are in use.
    let bench = Bench::new();
    let parts = bench.parts();
    let snapshot = bench.disks[0].snapshot();
    let of_node: Break = |bench| {
        let parts = bench.parts();
        let child =
            parts.iter().find(|part| part.what == What::Node { level: 1 } && part.dataset == DATA).unwrap();
        let at = child.pointer_at + 1;
        bench.edit(&parts, child.parent.unwrap(), |bytes| bytes[at..at + 8].fill(0));
    };
    edit_any_run(&bench, &parts, |_| true, |run| run.birth = Generation(0));
    assert_eq!(bench.codes(false), [Code::Generation]);
    for again in [false, true] {
        if again {
            bench.disks[0].restore(&snapshot);
            of_node(&bench);
            assert_eq!(bench.codes(false), [Code::Decode]);
        }
        let read = |database: crate::Database| -> crate::Result<()> {
            for entry in database.open_dataset("aa")?.range::<&[u8]>(..) {
                entry?;
            }
            Ok(())
        };
        let opened = crate::Database::open_read_only(bench.configuration.clone());
        let error = opened.and_then(read).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
        let opened = crate::Database::open_with(bench.configuration.clone());
        let error = opened.and_then(read).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn findings_are_capped_and_all_are_counted() {
    let bench = Bench::new();
    let parts = bench.parts();
    let mut broken = 0;
    for part in parts.iter().filter(|part| part.what == What::Block && part.dataset != DatasetId(0)) {
        let mut bytes = bench.read(part);
        bytes[20] ^= 0x10;
        bench.write(part, &bytes);
        broken += 1;
    }
    let options = CheckOptions { deep: false, findings_max: 3 };
    let report = check(&bench.configuration, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.findings.len(), 3);
    assert!(broken > 3 && report.counts[&Code::Checksum] == broken, "{broken} {:?}", report.counts);
}

#[test]
fn a_check_that_is_stopped_says_so() {
    let bench = Bench::new();
    let report = check(&bench.configuration, &CheckOptions::default(), &mut |_| ControlFlow::Break(()));
    assert!(report.unwrap().interrupted);
}

#[test]
fn the_toolkit_finds_parts_of_every_kind() {
    let bench = Bench::new();
    let parts = bench.parts();
    for what in [What::Table, What::Page, What::Bitmap, What::Meta, What::Block, What::Value] {
        assert!(parts.iter().any(|part| part.what == what), "{what:?}");
    }
    assert!(parts.iter().any(|part| part.what == What::Node { level: 2 }));
    let large = parts.iter().find(|part| part.what == What::Value).unwrap();
    let block = bench.read(&parts[large.parent.unwrap()]);
    let entry = entries(&block).into_iter().find(|entry| entry.payload.start == large.pointer_at).unwrap();
    assert_eq!(LargeValue::decode(&block[entry.payload.clone()]).unwrap().extents, large.extents);
    let mut at = entry.sequence_at;
    assert!(get_varint(&block, &mut at).is_some() && at == entry.tag_at && entry.start < at);
}

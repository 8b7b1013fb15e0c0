//! Fuzz targets of the pool: superblock with its topology, label, and the words of a configuration.

use super::TierConfiguration;
use super::format::{
    End, ErrorCounts, Features, Member, MemberState, MembershipLabel, Superblock, Topology, TopologyEntry,
    VdevKind, VdevState,
};
use crate::base::checksum::crc;
use crate::base::fuzzing::Target;
use crate::base::ids::{Generation, Uuid, VdevId};
use crate::base::units::BLOCK_BYTES;

/// The targets of this layer.
pub const TARGETS: &[Target] = &[
    Target { name: "superblock", seeds: superblock_seeds, run: superblock },
    Target { name: "label", seeds: label_seeds, run: label },
    Target { name: "zfs_words", seeds: word_seeds, run: words },
];

/// Gives one block of a label area a right checksum.
pub fn reseal(block: &mut [u8]) {
    if let Some((bytes, checksum)) = block.split_last_chunk_mut::<4>() {
        *checksum = crc(bytes).to_le_bytes();
    }
}

/// Whether `block` starts like a superblock or a label.
#[must_use]
pub fn is_ours(block: &[u8]) -> bool {
    block.starts_with(b"betreeSB") || block.starts_with(b"betreeLB")
}

fn block_of(bytes: &[u8]) -> Vec<u8> {
    let mut block = bytes.to_vec();
    block.resize(BLOCK_BYTES, 0);
    reseal(&mut block);
    block
}

fn superblock_seeds() -> Vec<Vec<u8>> {
    let entry =
        |id, tier, state| TopologyEntry { id: VdevId(id), tier, kind: VdevKind::Leaf, leaf_count: 1, state };
    let simple = Superblock {
        features: Features::default(),
        pool: Uuid([1; 16]),
        device: Uuid([2; 16]),
        generation: Generation(7),
        previous: Generation(6),
        highest_seen: Generation(9),
        vdev: VdevId(0),
        tier: 0,
        kind: VdevKind::Leaf,
        leaf: 0,
        leaf_count: 1,
        end: End::Front,
        slot: 3,
        device_blocks: 4096,
        segment_blocks: 1024,
        member_sequences: vec![4],
        retired: Vec::new(),
        topology: Topology { entries: vec![entry(0, 0, VdevState::Durable)], next_vdev: 1 },
        payload: vec![5; 300],
    };
    let grown = Superblock {
        end: End::Back,
        retired: vec![1024, 2048],
        topology: Topology {
            entries: vec![entry(0, 0, VdevState::Durable), entry(1, 1, VdevState::Durable)],
            next_vdev: 4,
        },
        ..simple.clone()
    };
    vec![simple.encode(), grown.encode()]
}

fn superblock(bytes: &[u8]) -> bool {
    let block = block_of(bytes);
    if let Ok(found) = Superblock::decode(&block) {
        assert!(found.encode() == block, "a superblock that would be written differently");
        return true;
    }
    false
}

fn label_seeds() -> Vec<Vec<u8>> {
    let member = |first, missed_from, state| Member {
        device: Uuid([first; 16]),
        missed_from: Generation(missed_from),
        since: 1_800_000_000,
        blocks: 4096,
        errors: ErrorCounts { read: 1, ..ErrorCounts::default() },
        state,
    };
    let label = MembershipLabel {
        features: Features::default(),
        pool: Uuid([1; 16]),
        device: Uuid([2; 16]),
        number: 5,
        generation: Generation(7),
        vdev: VdevId(0),
        leaf: 0,
        end: End::Front,
        configuration_hash: 99,
        leaf_blocks: 4096,
        lengths: vec![4096],
        members: vec![member(2, 0, MemberState::Online)],
    };
    let two = MembershipLabel {
        members: vec![member(2, 0, MemberState::Online), member(3, 5, MemberState::Faulted)],
        ..label.clone()
    };
    vec![label.encode(), two.encode()]
}

fn label(bytes: &[u8]) -> bool {
    let block = block_of(bytes);
    if let Ok(found) = MembershipLabel::decode(&block) {
        assert!(found.encode() == block, "a label that would be written differently");
        return true;
    }
    false
}

fn word_seeds() -> Vec<Vec<u8>> {
    [
        "./a.img:1GiB /dev/sdb mem:256MiB",
        "mirror ./a ./b:size=4MiB:direct=true single file:c:sparse=true",
        "parity1 /a /b /c access=SequentialRead kind=Ssd label=fast",
        "parity2 /a /b /c /d ./e\\:f",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn words(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(tier) = TierConfiguration::parse_zfs_like(text.split(' ').filter(|word| !word.is_empty())) {
        let printed = tier.zfs_like();
        let again: Result<TierConfiguration, _> = printed.parse();
        assert!(again.is_ok_and(|again| again == tier), "{text:?} was read, printed as {printed:?}");
        return true;
    }
    false
}

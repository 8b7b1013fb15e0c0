//! The codes of findings. They are stable: scripts and tests compare them, and a number is never used again.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Space that nobody can use; nothing is lost.
    Leak,
    /// Something is not what was written, or may be overwritten.
    Damage,
}

macro_rules! codes {
    ($($variant:ident $text:literal $meaning:literal,)*) => {
        /// Which invariant does not hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as it is printed, `K17-unallocated` say.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What must hold.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    Members "K1-members" "The devices make up the pool: each is there once, of the recorded length, tier and layout.",
    Diverged "K1-diverged" "No two superblocks of one generation name different roots.",
    Slot "K2-slot" "Every slot of the label areas holds what belongs there, or zeros.",
    Ring "K2-ring" "Each generation is in the slot behind that of the generation before it.",
    Rollback "K2-rollback" "Nothing newer than the newest superblock is known to have been durable.",
    Padding "K3-padding" "Padding and reserved blocks of the label areas are zero.",
    Root "K4-root" "The root record agrees with its superblock and with itself.",
    Fallback "K5-fallback" "The checkpoint before the newest one can be opened, too.",
    Checksum "K6-checksum" "Bytes have the checksum that their pointer states.",
    Unreadable "K6-unreadable" "The devices read what is reached.",
    Copy "K6-copy" "Every member of a vdev holds what the others give.",
    Decode "K7-decode" "Bytes are of the format.",
    Canonical "K7-canonical" "Bytes are those that the writer writes for what they say.",
    Identity "K8-identity" "Headers name the place, owner and generation that their pointer names.",
    Generation "K9-generation" "Nothing is younger than what refers to it.",
    Level "K10-level" "Levels go down by one.",
    Cycle "K10-cycle" "No node is reached twice.",
    Order "K11-order" "Keys, pivots and separators ascend.",
    Bounds "K11-bounds" "Keys, pivots and runs lie inside of their slots and of the bounds that are stated.",
    Sequence "K12-sequence" "No message lies above a newer one, and sequence numbers are inside of the stated bounds.",
    Count "K12-count" "Recorded counts are those of what is there.",
    Filter "K12-filter" "Filters deny no key that is there.",
    Kind "K12-kind" "Messages are of a legal kind.",
    Size "K13-size" "What is stored has exactly the blocks that it needs.",
    Value "K14-value" "Pointers to large values hold the length that they state, and runs the bytes that theirs sum up to.",
    Object "K14-object" "What a store knows of its objects is what it writes, and agrees with itself.",
    Orphan "K14-orphan" "Chunks and custom metadata are of objects that there are, and chunks lie before their end.",
    Tier "K15-tier" "Pointers name durable vdevs of the pool.",
    Overlap "K16-overlap" "No two things share a block.",
    Outside "K16-bounds" "Extents lie inside of blocks that can be handed out.",
    Unallocated "K17-unallocated" "What is reached is marked taken.",
    Leak "K18-leak" "What is marked taken is reached.",
    Reserved "K19-reserved" "Label areas, tables, bitmaps and what lies behind the device are always marked taken.",
    Dataset "K20-dataset" "Names, ids and records of datasets match one to one.",
    Store "K20-store" "An object store has both datasets, and its snapshots are of both.",
    Snapshot "K20-snapshot" "Names, records and order of snapshots match one to one, and clones have the snapshot that they were made of.",
    Staging "K20-staging" "What is received belongs to one stream, each section of it once, and starts from the snapshot that the stream names.",
    DeadList "K21-dead-list" "A dead list names, once, what a snapshot has and what follows it has not.",
    Undead "K22-undead" "A dead list names nothing else, above all nothing that is still reached behind its snapshot.",
    Interval "K23-interval" "What a sub-list names was born in its interval, in which no snapshot lies.",
    Lists "K24-lists" "Chunks of dead lists are of one list each, and counts are those of what is there.",
    Drops "K24-drops" "What waits to be freed is listed without gaps, and of a dataset that there is.",
    Free "K25-free" "The recorded free space is that of the bitmaps.",
    Log "K29-log" "The log is whole as far as it was durable, its records dense and of datasets that there are.",
    Contents "K30-contents" "Iteration, single reads and an independent reading give the same contents.",
    Changed "K31-changed" "A check changes no byte.",
    Moved "K32-moved" "The map of a vdev that left the pool can be read, and has a place for everything of it that is reached.",
}

impl Code {
    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Leak | Self::Orphan => Severity::Leak,
            _ => Severity::Damage,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! Counters and sizes as JSON.

use engine::{Metrics, TreeStats};
use serde_json::{Value, json};

/// All of `metrics`; sizes are bytes unless they say blocks, which have 4 KiB.
pub fn of_database(metrics: &Metrics) -> Value {
    let vdevs: Vec<Value> = metrics
        .vdevs
        .iter()
        .map(|vdev| {
            let requests = [("reads", vdev.reads), ("writes", vdev.writes), ("flushes", vdev.flushes)];
            let mut all =
                json!({ "id": vdev.id.0, "tier": vdev.tier, "device": vdev.device, "blocks": vdev.blocks });
            for (name, of) in requests {
                all[name] = json!({ "requests": of.requests, "bytes": of.bytes, "errors": of.errors });
            }
            all
        })
        .collect();
    let tiers: Vec<Value> = metrics
        .tiers
        .iter()
        .map(|tier| {
            json!({
                "total_blocks": tier.total, "free_blocks": tier.free, "used_blocks": tier.used,
                "pending_blocks": tier.pending, "reserve_blocks": tier.reserve,
            })
        })
        .collect();
    let cache = &metrics.cache;
    json!({
        "vdevs": vdevs,
        "tiers": tiers,
        "cache": {
            "bytes": cache.bytes, "bytes_max": cache.bytes_max, "hits": cache.hits, "misses": cache.misses,
            "inserts": cache.inserts, "evictions": cache.evictions,
        },
        "dirty_header_bytes": metrics.dirty_header_bytes,
        "memtable_bytes": metrics.memtable_bytes,
        "frozen_bytes": metrics.frozen_bytes,
        "waiting_jobs": metrics.waiting_jobs,
        "pending_free_bytes": metrics.pending_free_bytes,
        "log_bytes": metrics.log_bytes,
        "log_blocks": metrics.log_blocks,
        "durable_generation": metrics.durable_generation,
    })
}

/// All of `stats`.
pub fn of_tree(stats: &TreeStats) -> Value {
    // A structure of numbers has nothing that JSON cannot say.
    serde_json::to_value(stats).unwrap_or_default()
}

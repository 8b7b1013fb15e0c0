//! The block and human-readable sizes.

/// Bytes of a block: the unit of allocation, alignment and direct I/O.
pub const BLOCK_BYTES: usize = 4096;

/// [`BLOCK_BYTES`] as `u64`, for offsets.
pub const BLOCK_BYTES_U64: u64 = BLOCK_BYTES as u64;

/// Number of blocks that hold `bytes` bytes.
#[must_use]
pub const fn blocks_for(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES_U64)
}

/// `bytes` rounded up to a whole number of blocks, in bytes.
#[must_use]
pub const fn round_up_to_block(bytes: u64) -> u64 {
    blocks_for(bytes) * BLOCK_BYTES_U64
}

const UNITS: [(&str, u64); 17] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("EiB", 1 << 60),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("EB", 1_000_000_000_000_000_000),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
];

/// Parses a size such as `4096`, `64KiB`, `1.5 GiB`, `10MB` or `4G` (binary) into bytes.
///
/// # Errors
/// A message that says what is wrong with `text`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let (number, factor) = UNITS
        .iter()
        .find_map(|(suffix, factor)| trimmed.strip_suffix(suffix).map(|number| (number, *factor)))
        .or_else(|| trimmed.strip_suffix('B').map(|number| (number, 1)))
        .unwrap_or((trimmed, 1));
    let number = number.trim();
    let bad = || format!("{text:?} is not a size; write for example 4096, \"64KiB\" or \"4GiB\"");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| format!("size {text:?} exceeds 64 bits"));
    }
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = if plain { number.parse().map_err(|_| bad())? } else { return Err(bad()) };
    let bytes = value * factor as f64;
    if bytes >= u64::MAX as f64 {
        return Err(format!("size {text:?} exceeds 64 bits"));
    }
    Ok(bytes as u64)
}

/// Writes `bytes` for people: `"17 B"`, `"1.5 MiB"`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    let (unit, factor) = match bytes {
        0..=1023 => return format!("{bytes} B"),
        b if b < 1 << 20 => ("KiB", 1u64 << 10),
        b if b < 1 << 30 => ("MiB", 1 << 20),
        b if b < 1 << 40 => ("GiB", 1 << 30),
        _ => ("TiB", 1 << 40),
    };
    format!("{:.1} {unit}", bytes as f64 / factor as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_print() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("1.5 GiB", 3 << 29),
            ("4G", 4 << 30),
            ("10MB", 10_000_000),
            ("2PiB", 2 << 50),
            ("1EiB", 1 << 60),
            ("3PB", 3_000_000_000_000_000),
            ("12B", 12),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "x", "-1", "1e3", "nan", "99999999999TiB", "1.2.3"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(format_bytes(3 << 29), "1.5 GiB");
        assert_eq!(format_bytes(17), "17 B");
    }
}

//! CRC-32C (Castagnoli): in hardware on current processors, 4 bytes in every pointer.

/// Checksum of `bytes`.
#[must_use]
pub fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Checksum of the bytes before (whose checksum is `crc`) followed by `bytes`.
#[must_use]
pub fn crc_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

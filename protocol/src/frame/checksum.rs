//! CRC-32C (Castagnoli, RFC 3720 appendix B.4): by the processor where it can, by tables elsewhere.

/// What needs std to find out what the processor can.
#[cfg(all(
    feature = "hardware-crc",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod engine {
    pub(super) use crc32c::crc32c_append as append;
}

#[cfg(not(all(
    feature = "hardware-crc",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod engine {
    use crc::{CRC_32_ISCSI, Crc, Table};

    /// How many tables of 1 KiB the CRC uses: 16 bytes at a time, or one where flash is small.
    #[cfg(feature = "large-tables")]
    const TABLES: usize = 16;
    #[cfg(not(feature = "large-tables"))]
    const TABLES: usize = 1;

    static CRC32C: Crc<u32, Table<TABLES>> = Crc::<u32, Table<TABLES>>::new(&CRC_32_ISCSI);

    pub(super) fn append(before: u32, bytes: &[u8]) -> u32 {
        // The digest begins at what was finalized: turned around and inverted.
        let mut digest = CRC32C.digest_with_initial((!before).reverse_bits());
        digest.update(bytes);
        digest.finalize()
    }
}

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    engine::append(0, bytes)
}

/// CRC-32C of bytes that come in pieces.
pub(crate) struct Checksum(u32);

impl Checksum {
    pub(crate) fn new() -> Self {
        Self(0)
    }

    pub(crate) fn finish(self) -> u32 {
        self.0
    }
}

impl minicbor::encode::Write for &mut Checksum {
    type Error = core::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0 = engine::append(self.0, bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Checksum, crc32c};
    use minicbor::encode::Write;

    #[test]
    fn pieces_give_the_checksum_of_the_whole() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut checksum = Checksum::new();
        let mut out = &mut checksum;
        out.write_all(b"1234").expect("infallible");
        out.write_all(b"56789").expect("infallible");
        assert_eq!(checksum.finish(), 0xe306_9283);
    }
}

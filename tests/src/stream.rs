//! A stream of numbered, checked blocks over a serial line: what arrives of it tells how many bytes the line carries a second, and whether
//! it loses or garbles any.
//!
//! A block has 256 bytes: its number (little endian), a pattern that depends on it, and the CRC-32C of both. Who receives looks for
//! blocks byte by byte, so that one lost byte costs one block and no more.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 256;
/// The end of a stream: silence for so long.
const END: Duration = Duration::from_secs(5);

/// What was received.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Received {
    /// Whole blocks.
    pub blocks: u64,
    /// Blocks whose numbers are missing between the first and the last that came: what was sent before we listened is not lost.
    pub lost: u64,
    /// Bytes after the first whole block that were part of none.
    pub garbled_bytes: u64,
    /// From the first byte to the last.
    pub lasted: Duration,
}

impl Received {
    /// Bytes a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.blocks as f64 * BLOCK_BYTES as f64 / self.lasted.as_secs_f64().max(1e-9)
    }
}

impl fmt::Display for Received {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.blocks * BLOCK_BYTES as u64;
        write!(
            out,
            "{bytes} bytes in {:.1} s, {:.0} bytes a second; {} blocks, {} lost, {} bytes garbled",
            self.lasted.as_secs_f64(),
            self.rate(),
            self.blocks,
            self.lost,
            self.garbled_bytes
        )
    }
}

fn block(number: u32) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[..4].copy_from_slice(&number.to_le_bytes());
    let mut state = u64::from(number) + 1;
    for byte in &mut block[4..BLOCK_BYTES - 4] {
        // xorshift64 (Marsaglia 2003): every byte value comes, and none depends on its place alone.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    let sum = crc32c::crc32c(&block[..BLOCK_BYTES - 4]);
    block[BLOCK_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
    block
}

/// The number of a whole block.
fn number(block: &[u8]) -> Option<u32> {
    let (body, sum) = block.split_at(BLOCK_BYTES - 4);
    let is_whole = crc32c::crc32c(body).to_le_bytes() == sum;
    is_whole.then(|| u32::from_le_bytes([body[0], body[1], body[2], body[3]]))
}

/// Sends blocks for so long, `rate` bytes a second or as many as the line takes; gives how many.
///
/// # Errors
/// When the line fails.
pub async fn send<W: AsyncWrite + Unpin>(
    line: &mut W,
    lasts: Duration,
    rate: Option<u32>,
) -> std::io::Result<u64> {
    let begun = Instant::now();
    let mut sent = 0u64;
    while begun.elapsed() < lasts {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(sent as f64 * BLOCK_BYTES as f64 / f64::from(rate));
            tokio::time::sleep_until((begun + due).into()).await;
        }
        line.write_all(&block(sent as u32)).await?;
        sent += 1;
    }
    line.flush().await?;
    Ok(sent)
}

/// Receives until nothing has come for 5 s, or the line ends.
///
/// # Errors
/// When nothing ever came within `patience`.
pub async fn receive<R: AsyncRead + Unpin>(
    line: &mut R,
    patience: Duration,
) -> anyhow::Result<Received> {
    let mut received = Received::default();
    let (mut begun, mut last) = (None, Instant::now());
    let (mut waiting, mut input) = (Vec::new(), [0; 16 * 1024]);
    let mut expected = None;
    loop {
        let wait = begun.map_or(patience, |_: Instant| END);
        let count = match tokio::time::timeout(wait, line.read(&mut input)).await {
            Ok(Ok(count @ 1..)) => count,
            // A pseudo-terminal ends with an error when its other end is closed.
            Ok(Ok(_) | Err(_)) | Err(_) => break,
        };
        last = Instant::now();
        begun.get_or_insert(last);
        waiting.extend_from_slice(&input[..count]);
        let mut at = 0;
        while waiting.len() - at >= BLOCK_BYTES {
            match number(&waiting[at..at + BLOCK_BYTES]) {
                Some(number) => {
                    let missing = expected.map_or(0, |expected| number.wrapping_sub(expected));
                    received.lost += u64::from(missing);
                    expected = Some(number.wrapping_add(1));
                    received.blocks += 1;
                    at += BLOCK_BYTES;
                }
                None => {
                    received.garbled_bytes += u64::from(expected.is_some());
                    at += 1;
                }
            }
        }
        waiting.drain(..at);
    }
    let begun = begun.ok_or_else(|| anyhow::anyhow!("nothing came within {patience:?}"))?;
    received.garbled_bytes += waiting.len() as u64;
    received.lasted = last - begun;
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(bytes: Vec<u8>) -> Received {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        near.write_all(&bytes).await.unwrap();
        drop(near);
        receive(&mut far, END).await.unwrap()
    }

    fn stream(blocks: std::ops::Range<u32>) -> Vec<u8> {
        blocks.flat_map(block).collect()
    }

    #[tokio::test]
    async fn what_is_lost_or_garbled_is_counted() {
        let whole = of(stream(0..100)).await;
        assert_eq!((whole.blocks, whole.lost, whole.garbled_bytes), (100, 0, 0));
        let mut one_byte_less = stream(0..100);
        one_byte_less.remove(10 * BLOCK_BYTES + 77);
        let seen = of(one_byte_less).await;
        assert_eq!((seen.blocks, seen.lost, seen.garbled_bytes), (99, 1, 255));
        let mut one_bit_turned = stream(0..100);
        one_bit_turned[5000] ^= 4;
        let seen = of(one_bit_turned).await;
        assert_eq!((seen.blocks, seen.lost, seen.garbled_bytes), (99, 1, 256));
        let gap = of([stream(0..50), stream(60..100)].concat()).await;
        assert_eq!((gap.blocks, gap.lost, gap.garbled_bytes), (90, 10, 0));
        let late = of(stream(0..100).split_off(77)).await;
        assert_eq!((late.blocks, late.lost, late.garbled_bytes), (99, 0, 0));
    }
}

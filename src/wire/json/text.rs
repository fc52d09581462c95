//! The fast way through a JSON text: most bytes of a large document are plain characters of one.

const ONES: u64 = u64::MAX / 255;
const TOPS: u64 = ONES << 7;

/// How many bytes from the start mean only themselves inside a text: no quote, backslash or control
/// character among them.
pub(super) fn plain(bytes: &[u8]) -> usize {
    let mut chunks = bytes.chunks_exact(8);
    let mut at = 0;
    for chunk in &mut chunks {
        let Ok(eight) = <[u8; 8]>::try_from(chunk) else {
            break;
        };
        let special = specials(u64::from_le_bytes(eight));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = chunks.remainder();
    at + rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
        .unwrap_or(rest.len())
}

/// The top bit of each byte that is special. Bits above the lowest one set may be wrong: a borrow runs
/// upwards, and only the first is asked for.
const fn specials(word: u64) -> u64 {
    (below(word, 0x20) | zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64))) & TOPS
}

const fn below(word: u64, limit: u64) -> u64 {
    word.wrapping_sub(ONES * limit) & !word
}

const fn zero(word: u64) -> u64 {
    below(word, 1)
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=255u8 {
            let special = byte < 0x20 || byte == b'"' || byte == b'\\';
            for at in 0..17 {
                for filler in [b'a', b' ', 0x7f, 0x80, 0xff, b'!', b'#', b'[', b']'] {
                    let mut bytes = [filler; 20];
                    bytes[at] = byte;
                    assert_eq!(plain(&bytes), if special { at } else { 20 }, "{byte} at {at}");
                    assert_eq!(plain(&bytes[..at]), at);
                }
            }
        }
    }
}

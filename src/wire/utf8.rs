//! UTF-8 checked while it arrives: a bad byte is reported at once, a character may be cut anywhere.

use std::str::from_utf8;

/// The bytes are no UTF-8 and no continuation can make them so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8;

/// Remembers the begun character between two pieces of a text; at most three bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    begun: [u8; 3],
    len: u8,
}

impl Utf8 {
    /// At the start of a text.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            begun: [0; 3],
            len: 0,
        }
    }

    /// Checks the next piece.
    ///
    /// # Errors
    /// [`NotUtf8`] as soon as a byte has come that no valid text can hold at its place.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        // A begun character is completed byte by byte, so that the rest goes through the fast check of std.
        while self.len > 0 {
            let Some((&byte, rest)) = piece.split_first() else {
                return Ok(());
            };
            piece = rest;
            let len = usize::from(self.len);
            let mut whole = [0; 4];
            whole[..len].copy_from_slice(&self.begun[..len]);
            whole[len] = byte;
            match from_utf8(&whole[..=len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() && len < 3 => {
                    self.begun[len] = byte;
                    self.len += 1;
                }
                Err(_) => return Err(NotUtf8),
            }
        }
        let Err(error) = from_utf8(piece) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(NotUtf8);
        }
        let begun = &piece[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.len = begun.len() as u8;
        Ok(())
    }

    /// Whether the text may end here, between two characters.
    #[must_use]
    pub const fn whole(&self) -> bool {
        self.len == 0
    }
}

//! Whole documents out of the pieces a stream comes in.

use bytes::Bytes;

use super::{Refused, Scanner};

/// Cuts a stream into documents. One that lies within a piece is shared with it, one that is spread over
/// pieces is put together; between documents nothing is kept.
#[derive(Debug)]
pub struct Documents {
    scanner: Scanner,
    /// What has come of a document that began in an earlier piece.
    begun: Vec<u8>,
    /// What has not been looked at yet.
    piece: Bytes,
}

impl Documents {
    /// Documents of at most `max` bytes.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self {
            scanner: Scanner::new(max),
            begun: Vec::new(),
            piece: Bytes::new(),
        }
    }

    /// Takes the next piece. Call [`Documents::cut`] until it has nothing more.
    pub fn push(&mut self, piece: Bytes) {
        if self.piece.is_empty() {
            self.piece = piece;
        } else {
            self.piece = [&self.piece[..], &piece[..]].concat().into();
        }
    }

    /// The next whole document; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`Refused`]; what came of the refused document is in [`Documents::begun`].
    pub fn cut(&mut self) -> Result<Option<Bytes>, Refused> {
        if self.piece.is_empty() {
            return Ok(None);
        }
        let found = match self.scanner.advance(&self.piece) {
            Ok(found) => found,
            Err(refused) => {
                self.begun.extend_from_slice(&std::mem::take(&mut self.piece));
                return Err(refused);
            }
        };
        let Some(end) = found.end else {
            let piece = std::mem::take(&mut self.piece);
            self.begun.extend_from_slice(&piece[found.start..]);
            return Ok(None);
        };
        let rest = self.piece.split_off(end);
        let document = std::mem::replace(&mut self.piece, rest);
        if self.begun.is_empty() {
            return Ok(Some(document.slice(found.start..)));
        }
        self.begun.extend_from_slice(&document);
        Ok(Some(std::mem::take(&mut self.begun).into()))
    }

    /// The document that is partly received; empty between documents.
    #[must_use]
    pub fn begun(&self) -> &[u8] {
        &self.begun
    }
}

//! Seeded nonsense: random bytes, random JSON, and mutations of what real clients say.

use causeway::dialect::{Frame, Transport};

/// A small generator; the same seed says the same things.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit.max(1) as u64) as usize
    }

    pub(crate) fn frame(&mut self, transport: Transport, seeds: &[Vec<u8>]) -> Frame {
        let bytes = match self.below(4) {
            0 => (0..self.below(64)).map(|_| self.number() as u8).collect(),
            1 => self.json(0).into_bytes(),
            _ if seeds.is_empty() => self.json(0).into_bytes(),
            _ => self.mutated(seeds),
        };
        match (transport, std::str::from_utf8(&bytes)) {
            // Only valid UTF-8 ever becomes a text frame.
            (Transport::WebSocket, Ok(_)) if self.below(8) > 0 => Frame::Text(bytes.into()),
            _ => Frame::Binary(bytes.into()),
        }
    }

    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"{}[]\",:\\0\xff"[self.below(10)]),
                3 => bytes.truncate(at),
                _ => bytes.splice(at..at, self.json(2).into_bytes()).for_each(drop),
            }
        }
        bytes
    }

    fn json(&mut self, depth: usize) -> String {
        const WORDS: &[&str] = &[
            "type",
            "data",
            "id",
            "timestamp",
            "traceparent",
            "action",
            "method",
            "params",
            "command",
            "jsonrpc",
            "stt_start",
            "",
            "\\u0000",
            "\\ud800",
            "é",
            "*",
            ">",
            "$SYS",
            "\\r\\n",
        ];
        let word = WORDS[self.below(WORDS.len())];
        match self.below(if depth > 4 { 5 } else { 8 }) {
            0 => format!("\"{word}\""),
            1 => self.number().to_string(),
            2 => "-1.5e308".to_owned(),
            3 => "null".to_owned(),
            4 => "true".to_owned(),
            5 => {
                let items: Vec<_> = (0..self.below(4)).map(|_| self.json(depth + 1)).collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let fields: Vec<_> = (0..self.below(5))
                    .map(|_| {
                        let key = WORDS[self.below(WORDS.len())];
                        format!("\"{key}\":{}", self.json(depth + 1))
                    })
                    .collect();
                format!("{{{}}}", fields.join(","))
            }
        }
    }
}

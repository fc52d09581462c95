//! Bodies used last, bounded in bytes, so that one fetch serves every viewer that comes soon after.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

/// Least recently used out first.
#[derive(Debug)]
pub(super) struct Cache {
    limit: usize,
    held: usize,
    clock: u64,
    entries: HashMap<Arc<str>, (u64, Bytes)>,
    by_use: BTreeMap<u64, Arc<str>>,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            held: 0,
            clock: 0,
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    /// The bytes, which count as used now.
    pub(super) fn get(&mut self, key: &str) -> Option<Bytes> {
        let (used, bytes) = self.entries.get_mut(key)?;
        self.clock += 1;
        if let Some(key) = self.by_use.remove(used) {
            self.by_use.insert(self.clock, key);
        }
        *used = self.clock;
        Some(bytes.clone())
    }

    /// Keeps the bytes, at the cost of those not used for longest. What exceeds the limit alone is not kept.
    pub(super) fn insert(&mut self, key: Arc<str>, bytes: Bytes) {
        if bytes.len() > self.limit {
            return;
        }
        self.remove(&key);
        self.clock += 1;
        self.held += bytes.len();
        self.by_use.insert(self.clock, key.clone());
        self.entries.insert(key, (self.clock, bytes));
        while self.held > self.limit {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                return;
            };
            if let Some((_, bytes)) = self.entries.remove(&oldest) {
                self.held -= bytes.len();
            }
        }
    }

    /// Forgets the bytes.
    pub(super) fn remove(&mut self, key: &str) {
        if let Some((used, bytes)) = self.entries.remove(key) {
            self.by_use.remove(&used);
            self.held -= bytes.len();
        }
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;
    use bytes::Bytes;

    fn body(length: usize) -> Bytes {
        Bytes::from(vec![7; length])
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_limit_holds() {
        let mut cache = Cache::new(100);
        cache.insert("a".into(), body(40));
        cache.insert("b".into(), body(40));
        assert!(cache.get("a").is_some());
        cache.insert("c".into(), body(40));
        assert!(cache.get("b").is_none(), "b was not used for longest");
        assert!(cache.get("a").is_some() && cache.get("c").is_some());
        assert_eq!(cache.held(), 80);
        cache.insert("a".into(), body(10));
        assert_eq!(cache.held(), 50, "a replaced entry counts once");
        cache.insert("huge".into(), body(101));
        assert!(cache.get("huge").is_none() && cache.held() == 50);
        cache.remove("a");
        cache.remove("c");
        assert_eq!(cache.held(), 0);
        assert!(cache.by_use.is_empty() && cache.entries.is_empty());
    }
}

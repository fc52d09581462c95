//! What is different when a configuration is read again.

use std::collections::BTreeMap;

use figment::Figment;
use figment::value::Value;

use crate::config::Sources;
use crate::config::layers::layers;
use crate::config::table;

/// Every setting as it is written; values stay inside, since some are secrets.
#[derive(Clone)]
pub struct Written(BTreeMap<String, Value>);

impl Written {
    /// As the sources say it now.
    #[must_use]
    pub fn read(sources: &Sources) -> Self {
        let settings = table::all();
        let (layers, _) = layers(&settings, sources);
        let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
        let values = figment.find_value("").ok();
        let value = |key: &str| values.as_ref()?.find_ref(key).cloned();
        Self(
            settings
                .iter()
                .filter_map(|setting| Some((setting.key.clone(), value(&setting.key)?)))
                .collect(),
        )
    }

    /// The keys in which the two differ.
    #[must_use]
    pub fn changed(&self, now: &Self) -> Vec<String> {
        let keys = self
            .0
            .keys()
            .chain(now.0.keys().filter(|key| !self.0.contains_key(*key)));
        let differ = |key: &&String| self.0.get(*key) != now.0.get(*key);
        keys.filter(differ).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(flags: &[(&str, &str)]) -> Written {
        let flags = flags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Written::read(&Sources {
            flags: flags.collect(),
            ..Sources::default()
        })
    }

    #[test]
    fn only_what_differs_is_named() {
        let before = written(&[("voice.port", "9000"), ("log.level", "info")]);
        // said in another place, but the same
        assert!(before.changed(&before.clone()).is_empty());
        assert!(
            written(&[("log.level", "info")])
                .changed(&written(&[]))
                .is_empty()
        );
        let after = written(&[
            ("voice.port", "9001"),
            ("nats.url", "nats://a"),
            ("voice.routes.x", "y"),
        ]);
        let mut changed = before.changed(&after);
        changed.sort();
        assert_eq!(changed, ["nats.url", "voice.port", "voice.routes"]);
    }
}

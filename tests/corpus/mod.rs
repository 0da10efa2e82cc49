//! The recorded samples in `tests/data/provider/`: one JSON file per answer, with what it means.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::path::Path;
use std::time::Duration;

use penstock::provider::{Headers, Provider, Reader, Reading};
use serde_json::Value;

/// One recorded answer.
pub struct Sample {
    /// The file's name, without its ending.
    pub name: String,
    pub about: String,
    pub source: String,
    pub provider: Provider,
    /// The caller's clock.
    pub now: f64,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub expect: Value,
}

impl Sample {
    /// All samples, in the order of their names.
    pub fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/provider");
        let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 100, "only {} samples in {}", paths.len(), folder.display());
        paths.iter().map(|path| Self::load(path)).collect()
    }

    fn load(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let root: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let string = |key: &str| root[key].as_str().unwrap_or_else(|| panic!("{name}: {key}")).to_owned();
        let now: jiff::Timestamp = string("now").parse().unwrap();
        let headers = root["headers"].as_object().unwrap();
        Self {
            about: string("about"),
            source: string("source"),
            provider: Provider::from_name(&string("provider")).unwrap(),
            now: Duration::try_from(now.duration_since(jiff::Timestamp::UNIX_EPOCH)).unwrap().as_secs_f64(),
            status: u16::try_from(root["status"].as_u64().unwrap()).unwrap(),
            headers: headers.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect(),
            body: match &root["body"] {
                Value::String(text) => text.clone().into_bytes(),
                json => serde_json::to_vec(json).unwrap(),
            },
            expect: root["expect"].clone(),
            name,
        }
    }

    /// The headers as pairs of bytes.
    pub fn pairs(&self) -> Vec<(&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
    }

    /// What a reader with default limits on waits makes of it.
    pub fn read(&self) -> Reading {
        Reader::new(self.provider).read(self.status, Headers::new(&self.pairs()), &self.body, self.now)
    }
}

//! The viewer's pages as they lie on disk: both generations, read once, compressed once.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// Files larger than this are no part of a page.
const MAX: u64 = 32 << 20;

/// One file, ready to be served.
pub(super) struct Asset {
    /// As it lies there.
    pub(super) plain: Bytes,
    /// Compressed, where that makes it smaller.
    pub(super) gzip: Option<Bytes>,
    /// Quoted, of the plain bytes.
    pub(super) etag: String,
    /// MIME type.
    pub(super) kind: &'static str,
}

/// One generation of the viewer.
#[derive(Default)]
pub(super) struct Generation {
    /// The page before it is filled in.
    pub(super) template: String,
    /// What it refers to, by path below `static/`.
    pub(super) files: BTreeMap<String, Asset>,
}

/// What is there of the two generations.
#[derive(Default)]
pub(super) struct Assets {
    /// Scripts of ocp_vscode 3 to 4.0.
    pub(super) third: Option<Generation>,
    /// Scripts of ocp_vscode from 4.1 and of ocp_viewer.
    pub(super) fourth: Option<Generation>,
}

impl Assets {
    /// Reads a folder of unpacked wheels.
    pub(super) fn read(folder: &Path) -> Self {
        Self {
            third: Generation::read(&folder.join("ocp_vscode")),
            fourth: Generation::read(&folder.join("ocp_viewer/server")),
        }
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.third.is_none() && self.fourth.is_none()
    }
}

impl Generation {
    fn read(folder: &Path) -> Option<Self> {
        let template = fs::read_to_string(folder.join("templates/viewer.html")).ok()?;
        let mut files = BTreeMap::new();
        collect(&folder.join("static"), "", &mut files);
        Some(Self { template, files })
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Asset>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = format!("{prefix}{name}");
        // links are not followed: what is served lies below the folder
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), &format!("{path}/"), files),
            Ok(kind) if kind.is_file() && entry.metadata().is_ok_and(|data| data.len() <= MAX) => {
                if let Ok(bytes) = fs::read(entry.path()) {
                    files.insert(path, Asset::new(&name, bytes));
                }
            }
            _ => {}
        }
    }
}

impl Asset {
    pub(super) fn new(name: &str, bytes: Vec<u8>) -> Self {
        let kind = match name.rsplit('.').next() {
            Some("js" | "mjs") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("html") => "text/html; charset=utf-8",
            Some("json" | "map") => "application/json",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("wasm") => "application/wasm",
            _ => "application/octet-stream",
        };
        let digest = Sha256::digest(&bytes);
        let etag = digest
            .iter()
            .take(12)
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let gzip = compress(&bytes).filter(|gzip| gzip.len() < bytes.len() * 9 / 10);
        Self {
            plain: bytes.into(),
            gzip: gzip.map(Bytes::from),
            etag: format!("\"{etag}\""),
            kind,
        }
    }
}

fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

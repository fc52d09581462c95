//! Pictures that pages take, and where they may be written: only below directories that are allowed, and never half a
//! file.

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// What every PNG begins with.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A picture as a page sends it.
#[derive(Deserialize)]
pub struct Picture {
    /// The file that was asked for.
    pub filename: String,
    /// A data URL.
    pub data: String,
}

impl Picture {
    /// Reads the body of an event `screenshot`; `None` when it is none.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The picture itself.
    ///
    /// # Errors
    /// What it is instead.
    pub fn png(&self) -> Result<Vec<u8>, String> {
        let (_, encoded) = self.data.split_once(";base64,").ok_or("it is no data URL")?;
        let bytes = BASE64_STANDARD
            .decode(encoded)
            .map_err(|error| error.to_string())?;
        if bytes.starts_with(PNG) {
            Ok(bytes)
        } else {
            Err("it is no PNG".to_owned())
        }
    }
}

/// The directories below which pictures may be written.
#[derive(Clone, Debug)]
pub struct Files {
    folders: Vec<PathBuf>,
}

impl Files {
    /// Files may be written below `folders`.
    #[must_use]
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// Beside its place first, then renamed: who polls for the name never sees half a file.
    ///
    /// # Errors
    /// Why it is not written.
    pub fn write(&self, picture: &Picture) -> Result<PathBuf, String> {
        let place = self.place(&picture.filename)?;
        let bytes = picture.png()?;
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!("-temp{}", ulid::Ulid::new()));
        let beside = place.with_file_name(name);
        let written = fs::File::create_new(&beside)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&beside, &place));
        written.map_err(|error| {
            let _gone = fs::remove_file(&beside);
            error.to_string()
        })?;
        Ok(place)
    }

    /// Where the file goes: its directory exists and lies, links resolved, below one that is allowed.
    fn place(&self, name: &str) -> Result<PathBuf, String> {
        let path = Path::new(name);
        let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else {
            return Err("it has no directory and name".to_owned());
        };
        let straight = path
            .components()
            .all(|part| !matches!(part, Component::ParentDir));
        if !path.is_absolute() || !straight || name.contains('\0') {
            return Err("it is no absolute path".to_owned());
        }
        let folder = folder.canonicalize().map_err(|error| error.to_string())?;
        let allowed = |root: &PathBuf| root.canonicalize().is_ok_and(|root| folder.starts_with(root));
        if !self.folders.iter().any(allowed) {
            return Err("it lies outside cad.screenshots".to_owned());
        }
        let place = folder.join(file);
        if place.is_dir() {
            return Err("there is a directory of that name".to_owned());
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::{Files, Picture};

    #[test]
    fn files_stay_in_their_directories() {
        let root = std::env::temp_dir().join(format!("screens-{}", ulid::Ulid::new()));
        let (inside, outside) = (root.join("inside"), root.join("outside"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let files = Files::new(vec![inside.clone()]);
        let place = |path: std::path::PathBuf| files.place(path.to_str().unwrap());
        assert!(place(inside.join("a.png")).is_ok());
        for bad in [
            outside.join("a.png"),
            inside.join("../outside/a.png"),
            inside.join("link/a.png"),
            inside.join("missing/a.png"),
            inside.join("link"),
            "a.png".into(),
            "/".into(),
            "".into(),
            inside.join("a\0.png"),
        ] {
            assert!(place(bad.clone()).is_err(), "{}", bad.display());
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn only_a_png_is_a_picture() {
        let data = |data: &str| Picture {
            filename: String::new(),
            data: data.to_owned(),
        };
        assert!(data("data:image/png;base64,iVBORw0KGgo=").png().is_ok());
        for bad in [
            "",
            "iVBORw0KGgo=",
            "data:image/png;base64,AAAA",
            "data:;base64,%%",
        ] {
            assert!(data(bad).png().is_err(), "{bad}");
        }
    }
}

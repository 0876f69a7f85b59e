// SPDX-License-Identifier: MIT OR Apache-2.0
//! SHA-256 of things, and of files that are too large to be read each time.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::write_whole;
use crate::{Cache, VmError};

/// Collects the parts of a key so that no two lists of parts look the same.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    pub(crate) fn part(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String");
        text
    })
}

/// Of bytes at hand.
pub(crate) fn of(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes))
}

/// Of a file, read from end to end.
pub(crate) fn of_file(path: &Path) -> Result<String, VmError> {
    let read = || -> io::Result<String> {
        let (mut file, mut hash, mut chunk) = (File::open(path)?, Sha256::new(), vec![0; 1 << 18]);
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(hex(&hash.finalize())),
                count => hash.update(&chunk[..count]),
            }
        }
    };
    read().map_err(VmError::io("cannot read", path))
}

/// What changes when a file does. The change time is the kernel's own: no program can set it back.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    stamp: Stamp,
    sha256: String,
}

/// Of a file, read only if it changed since the last time.
pub(crate) fn of_file_remembered(cache: &Cache, path: &Path) -> Result<String, VmError> {
    let metadata = fs::metadata(path).map_err(VmError::io("cannot read", path))?;
    let stamp = Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    let absolute = std::path::absolute(path).map_err(VmError::io("cannot find", path))?;
    let note = cache.place(
        "digest",
        &format!("{}.json", of(absolute.as_os_str().as_encoded_bytes())),
    )?;
    if let Some(known) = fs::read(&note)
        .ok()
        .and_then(|text| serde_json::from_slice::<Remembered>(&text).ok())
        && known.stamp == stamp
    {
        return Ok(known.sha256);
    }
    let sha256 = of_file(path)?;
    let text = serde_json::to_vec(&Remembered {
        stamp,
        sha256: sha256.clone(),
    })
    .expect("plain data");
    write_whole(&note, &text)?;
    Ok(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_digest_follows_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(&directory.path().join("cache")).unwrap();
        let file = directory.path().join("file");
        for content in ["one", "two", "two"] {
            fs::write(&file, content).unwrap();
            assert_eq!(of_file_remembered(&cache, &file).unwrap(), of(content));
        }
        let note = fs::read_dir(cache.root().join("digest"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        fs::write(note, "{\"half").unwrap();
        assert_eq!(of_file_remembered(&cache, &file).unwrap(), of("two"));
    }

    #[test]
    fn a_key_keeps_its_parts_apart() {
        assert_ne!(
            Key::default().part("ab").part("c").finish(),
            Key::default().part("a").part("bc").finish()
        );
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots in the cache, so that a run begins where an earlier one of the same VM did: `snapshots/<key>/`
//! with the VM's state, what its console had said, and checksums of both.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::cache::remove_tree;
use crate::machine::{Config, Host};
use crate::{Cache, Snapshot, VmError, identity};

/// So many are kept, those that were made last: 25 MiB each.
const MOST: usize = 24;

const STATE: &str = "state";
const SAID: &str = "console.log";
const SUMS: &str = "sums.json";

/// CRC-32 of each file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sums {
    state: u32,
    said: u32,
}

/// The place in the cache of the snapshot of one VM. Its name is made of all that the VM is made of: whatever
/// is another VM has another place.
#[derive(Debug)]
pub struct Shelf {
    place: PathBuf,
}

impl Shelf {
    /// That of the VM that `host` makes of `config`.
    ///
    /// # Errors
    /// Its place cannot be made, or something that the VM depends on cannot be read.
    pub fn of(cache: &Cache, config: &Config<'_>, host: &Host) -> Result<Self, VmError> {
        let place = cache.place("snapshots", &identity::of_vm(config, host)?)?;
        Ok(Self { place })
    }

    /// The snapshot, if there is one that is whole. One that is damaged is thrown away.
    ///
    /// # Errors
    /// It is damaged, and cannot be thrown away.
    pub fn load(&self) -> Result<Option<Snapshot>, VmError> {
        if !self.place.exists() {
            return Ok(None);
        }
        let read = || -> io::Result<Option<Snapshot>> {
            let known: Sums = serde_json::from_slice(&fs::read(self.place.join(SUMS))?)?;
            let state = File::open(self.place.join(STATE))?;
            let said = fs::read(self.place.join(SAID))?;
            let sums = Sums {
                state: sum(&state)?,
                said: crc32fast::hash(&said),
            };
            Ok((sums == known).then_some(Snapshot { state, said }))
        };
        match read() {
            Ok(Some(snapshot)) => Ok(Some(snapshot)),
            Ok(None) | Err(_) => self.clear().map(|()| None),
        }
    }

    /// Puts a snapshot there, and the oldest of others away.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn store(&self, snapshot: &Snapshot) -> Result<(), VmError> {
        let directory = self.place.parent().expect("a directory in the cache");
        let write = || -> io::Result<()> {
            let partial = tempfile::tempdir_in(directory)?;
            let mut state = snapshot.reader()?;
            io::copy(&mut state, &mut File::create(partial.path().join(STATE))?)?;
            fs::write(partial.path().join(SAID), &snapshot.said)?;
            let sums = Sums {
                state: sum(&snapshot.reader()?)?,
                said: crc32fast::hash(&snapshot.said),
            };
            let sums = serde_json::to_vec(&sums)?;
            fs::write(partial.path().join(SUMS), sums)?;
            match fs::rename(partial.path(), &self.place) {
                // Another process was quicker, with one that is as good.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) =>
                {
                    Ok(())
                }
                renamed => renamed,
            }
        };
        write().map_err(VmError::io("cannot keep the snapshot", &self.place))?;
        prune(directory)
    }

    /// Throws away what is there.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn clear(&self) -> Result<(), VmError> {
        remove_tree(&self.place)
    }
}

/// Of a file, from its beginning.
fn sum(mut file: &File) -> io::Result<u32> {
    let (mut hasher, mut chunk) = (crc32fast::Hasher::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&chunk[..count]),
        }
    }
}

/// Removes all but the youngest.
fn prune(directory: &Path) -> Result<(), VmError> {
    let entries = fs::read_dir(directory).map_err(VmError::io("cannot read", directory))?;
    let made = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    let mut places: Vec<(SystemTime, PathBuf)> =
        entries.filter_map(|entry| made(entry.ok()?)).collect();
    places.sort();
    let surplus = places.len().saturating_sub(MOST);
    places
        .iter()
        .take(surplus)
        .try_for_each(|(_, place)| remove_tree(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(directory: &Path, name: &str) -> Shelf {
        let place = directory.join(name);
        Shelf { place }
    }

    fn snapshot(state: &str) -> Snapshot {
        let snapshot = Snapshot::empty().unwrap();
        fs::write(snapshot.path(), state).unwrap();
        Snapshot {
            said: b"[    0.000000] Linux version 6.1\n".to_vec(),
            ..snapshot
        }
    }

    #[test]
    fn what_was_stored_is_had_again() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = shelf(directory.path(), "key");
        assert!(shelf.load().unwrap().is_none());
        for _ in 0..2 {
            shelf.store(&snapshot("state")).unwrap();
            let found = shelf.load().unwrap().unwrap();
            let state = io::read_to_string(found.reader().unwrap()).unwrap();
            assert_eq!(
                (state.as_str(), found.said),
                ("state", snapshot("").said.clone())
            );
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_snapshot_is_thrown_away() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = shelf(directory.path(), "key");
        for (file, content) in [
            (STATE, "stote"),
            (STATE, "stat"),
            (SAID, ""),
            (SUMS, "{\"state\": "),
        ] {
            shelf.store(&snapshot("state")).unwrap();
            fs::write(shelf.place.join(file), content).unwrap();
            assert!(shelf.load().unwrap().is_none(), "{file}");
            assert!(!shelf.place.exists(), "{file}");
        }
        shelf.store(&snapshot("state")).unwrap();
        fs::remove_file(shelf.place.join(STATE)).unwrap();
        assert!(shelf.load().unwrap().is_none());
    }

    #[test]
    fn the_oldest_are_put_away() {
        let directory = tempfile::tempdir().unwrap();
        let shelves: Vec<_> = (0..MOST + 2)
            .map(|number| shelf(directory.path(), &number.to_string()))
            .collect();
        for (number, shelf) in shelves.iter().enumerate() {
            shelf.store(&snapshot("state")).unwrap();
            let age = std::time::Duration::from_secs(3600 - number as u64);
            let made = SystemTime::now() - age;
            File::open(&shelf.place)
                .unwrap()
                .set_modified(made)
                .unwrap();
        }
        // The last is older than now only because the test says so.
        assert!(shelves[0].load().unwrap().is_none());
        assert!(shelves[MOST + 1].load().unwrap().is_some());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), MOST);
    }
}

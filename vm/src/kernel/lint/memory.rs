// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was judged already: `lint/<base>.json` in the cache, one state for each patch that passed.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Text;
use super::warning::Known;
use crate::cache::write_whole;
use crate::{Cache, VmError};

/// After a patch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) known: Known,
    pub(super) text: Text,
}

/// What was judged already, first the base and then patch after patch.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    keys: Vec<String>,
    passed: Vec<Passed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    key: String,
    state: State,
}

impl Memory {
    /// `keys` stand for the base and for each patch together with all that is before it. What was
    /// remembered under other keys is forgotten.
    pub(super) fn open(cache: &Cache, name: &str, keys: Vec<String>) -> Result<Self, VmError> {
        let path = cache.place("lint", &format!("{name}.json"))?;
        // What cannot be read is not remembered.
        let passed = fs::read(&path).ok();
        let mut passed: Vec<Passed> = passed
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let same = passed.iter().zip(&keys);
        let same = same.take_while(|(passed, key)| passed.key == **key).count();
        passed.truncate(same);
        Ok(Self { path, keys, passed })
    }

    /// How many patches passed, and the state after the last of them; `None` if nothing is known of
    /// the base either.
    pub(super) fn recall(&self) -> Option<(usize, State)> {
        let last = self.passed.last()?;
        Some((self.passed.len() - 1, last.state.clone()))
    }

    /// The first `patches` have passed.
    pub(super) fn keep(&mut self, patches: usize, state: &State) -> Result<(), VmError> {
        self.passed.truncate(patches);
        self.passed.push(Passed {
            key: self.keys[patches].clone(),
            state: state.clone(),
        });
        let text = serde_json::to_vec(&self.passed).expect("plain data");
        write_whole(&self.path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(off: u64) -> State {
        State {
            text: Text {
                off,
                ..Text::default()
            },
            ..State::default()
        }
    }

    #[test]
    fn what_passed_is_remembered_up_to_the_first_patch_that_changed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let open =
            |keys: [&str; 3]| Memory::open(&cache, "b", keys.map(String::from).to_vec()).unwrap();
        let recall = |memory: &Memory| {
            memory
                .recall()
                .map(|(count, state)| (count, state.text.off))
        };

        let mut memory = open(["base", "one", "two"]);
        assert_eq!(recall(&memory), None);
        for patches in 0..3 {
            memory.keep(patches, &state(patches as u64)).unwrap();
        }
        assert_eq!(recall(&open(["base", "one", "two"])), Some((2, 2)));
        let mut changed = open(["base", "one", "TWO"]);
        assert_eq!(recall(&changed), Some((1, 1)));
        changed.keep(2, &state(7)).unwrap();
        assert_eq!(recall(&open(["base", "one", "TWO"])), Some((2, 7)));
        assert_eq!(recall(&open(["BASE", "one", "TWO"])), None);
        fs::write(directory.path().join("lint/b.json"), "half").unwrap();
        assert_eq!(recall(&open(["base", "one", "TWO"])), None);
    }
}

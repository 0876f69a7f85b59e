// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration: tinyconfig, the fragments in order, olddefconfig, and a check that it holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::compile::Make;
use crate::VmError;

/// A fragment, read.
#[derive(Debug)]
pub(super) struct Fragment {
    pub(super) name: String,
    pub(super) text: String,
}

/// The fragments `names` of `directory`.
pub(super) fn load(directory: &Path, names: &[String]) -> Result<Vec<Fragment>, VmError> {
    names
        .iter()
        .map(|name| {
            let path = directory.join(format!("{name}.config"));
            let text = fs::read_to_string(&path).map_err(VmError::io("cannot read", &path))?;
            if let Some(line) = text.lines().find(|line| {
                !line.trim().is_empty() && !line.starts_with('#') && request(line).is_none()
            }) {
                return Err(VmError::Config {
                    path,
                    reason: format!("`{line}` is neither CONFIG_X=… nor a comment"),
                });
            }
            Ok(Fragment {
                name: name.clone(),
                text,
            })
        })
        .collect()
}

/// Makes the `.config` of make's output directory and returns it.
pub(super) fn configure(make: &Make, fragments: &[Fragment]) -> Result<String, VmError> {
    let path = make.out().join(".config");
    make.run(&["tinyconfig"])?;
    // Of two lines for one option the later one counts, so what fragments ask for is appended.
    let mut config = fs::read_to_string(&path).map_err(VmError::io("cannot read", &path))?;
    for fragment in fragments {
        config.push_str(&fragment.text);
        config.push('\n');
    }
    fs::write(&path, config).map_err(VmError::io("cannot write", &path))?;
    make.run(&["olddefconfig"])?;
    let config = fs::read_to_string(&path).map_err(VmError::io("cannot read", &path))?;
    let lacking = lacking(fragments, &config);
    if !lacking.is_empty() {
        return Err(VmError::Lacking {
            kernel: make.kernel().to_owned(),
            lacking: lacking.join(", "),
        });
    }
    Ok(config)
}

/// What a line asks for: an option and its value, `n` for `# CONFIG_X is not set`.
fn request(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_end();
    if let Some(option) = line
        .strip_prefix("# ")
        .and_then(|rest| rest.strip_suffix(" is not set"))
    {
        return option.starts_with("CONFIG_").then_some((option, "n"));
    }
    line.split_once('=')
        .filter(|(option, _)| option.starts_with("CONFIG_"))
}

/// The requests that `config` does not meet; of two for the same option the later one counts.
fn lacking(fragments: &[Fragment], config: &str) -> Vec<String> {
    let has: BTreeMap<_, _> = config.lines().filter_map(request).collect();
    let mut asked = BTreeMap::new();
    for fragment in fragments {
        for (option, value) in fragment.text.lines().filter_map(request) {
            asked.insert(option, (value, &fragment.name));
        }
    }
    let unmet = asked
        .into_iter()
        .filter(|(option, (value, _))| has.get(option).copied().unwrap_or("n") != *value);
    unmet
        .map(|(option, (value, fragment))| format!("{option}={value} (fragment {fragment})"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(name: &str, text: &str) -> Fragment {
        Fragment {
            name: name.into(),
            text: text.into(),
        }
    }

    #[test]
    fn what_the_configuration_lacks_is_named_with_its_fragment() {
        let config =
            "CONFIG_A=y\nCONFIG_N=8\n# CONFIG_OFF is not set\nCONFIG_STRAY=y\nCONFIG_S=\"a=b\"\n";
        let guest = fragment(
            "guest",
            "# why\nCONFIG_A=y\nCONFIG_N=8\nCONFIG_S=\"a=b\"\n# CONFIG_OFF is not set\n# CONFIG_GONE is not set\nCONFIG_LATER=y\n",
        );
        let rings = fragment(
            "rings",
            "CONFIG_RING=y\n# CONFIG_STRAY is not set\nCONFIG_OFF=y\n# CONFIG_LATER is not set\n",
        );
        assert_eq!(
            lacking(&[guest, rings], config),
            [
                "CONFIG_OFF=y (fragment rings)",
                "CONFIG_RING=y (fragment rings)",
                "CONFIG_STRAY=n (fragment rings)",
            ]
        );
    }

    #[test]
    fn a_line_that_asks_for_nothing_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(
            directory.path().join("guest.config"),
            "# fine\nCONFIG_A=y\nNET=y\n",
        )
        .unwrap();
        let error = load(directory.path(), &["guest".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("`NET=y`"), "{error}");
    }
}

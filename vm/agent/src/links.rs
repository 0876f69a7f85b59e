// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns NICs into the links that a job asks for, by `ip`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use nlring_channel::Link;

const NICS: &str = "/sys/class/net";

/// Loopback is brought up too, in each namespace. Links that an earlier job of this VM had are as
/// they should be already.
pub(crate) fn bring_up(links: &[Link]) -> Result<(), String> {
    let nics = nics(Path::new(NICS));
    let made = |namespace: &str| Path::new("/run/netns").join(namespace).exists();
    for (namespace, commands) in batches(links, &nics, made)? {
        ip(namespace.as_deref(), &commands)?;
    }
    Ok(())
}

/// Names of the NICs of this namespace by their MAC addresses.
fn nics(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let nic = |entry: fs::DirEntry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        Some((
            address.trim().to_owned(),
            entry.file_name().to_string_lossy().into_owned(),
        ))
    };
    entries.filter_map(nic).collect()
}

type Batches = Vec<(Option<String>, String)>;

/// One batch of `ip` commands for this namespace and one for each of the others, in that order.
fn batches(
    links: &[Link],
    nics: &BTreeMap<String, String>,
    made: impl Fn(&str) -> bool,
) -> Result<Batches, String> {
    let mut here = "link set lo up\n".to_owned();
    let mut there = BTreeMap::<String, String>::new();
    let namespaces: BTreeSet<_> = links
        .iter()
        .filter_map(|link| link.namespace.as_deref())
        .collect();
    for namespace in namespaces {
        if !made(namespace) {
            writeln!(here, "netns add {namespace}").expect("writing to a String");
        }
        there.insert(namespace.to_owned(), "link set lo up\n".to_owned());
    }
    for Link {
        mac,
        name,
        address,
        prefix,
        namespace,
    } in links
    {
        let Some(nic) = nics.get(mac) else {
            match namespace {
                Some(namespace) if made(namespace) => continue, // moved there for an earlier job
                _ => return Err(format!("there is no NIC with MAC {mac} for {name}")),
            }
        };
        let batch = match namespace {
            None => {
                if nic != name {
                    writeln!(here, "link set dev {nic} name {name}").expect("writing to a String");
                }
                &mut here
            }
            Some(namespace) => {
                writeln!(here, "link set dev {nic} netns {namespace} name {name}")
                    .expect("writing to a String");
                there
                    .get_mut(namespace)
                    .expect("each namespace has its batch")
            }
        };
        writeln!(
            batch,
            "address replace {address}/{prefix} dev {name}\nlink set dev {name} up"
        )
        .expect("writing to a String");
    }
    let there = there
        .into_iter()
        .map(|(namespace, commands)| (Some(namespace), commands));
    Ok(std::iter::once((None, here)).chain(there).collect())
}

fn ip(namespace: Option<&str>, commands: &str) -> Result<(), String> {
    let mut command = Command::new("/sbin/ip");
    if let Some(namespace) = namespace {
        command.args(["-netns", namespace]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start ip: {error}"))?;
    // If ip ends early its own words say why.
    let _ = child
        .stdin
        .take()
        .expect("piped above")
        .write_all(commands.as_bytes());
    let output = child
        .wait_with_output()
        .map_err(|error| format!("cannot wait for ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "ip: {}",
        said.lines().collect::<Vec<_>>().join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(mac: &str, name: &str, host: u8, namespace: Option<&str>) -> Link {
        let namespace = namespace.map(str::to_owned);
        Link {
            mac: mac.into(),
            name: name.into(),
            address: [10, 9, 0, host].into(),
            prefix: 24,
            namespace,
        }
    }

    #[test]
    fn a_pair_is_named_moved_addressed_and_brought_up_once() {
        let links = [
            link("m1", "near0", 1, None),
            link("m2", "far0", 2, Some("peer")),
        ];
        let nics = |names: &[(&str, &str)]| {
            names
                .iter()
                .map(|&(mac, name)| (mac.to_owned(), name.to_owned()))
                .collect()
        };
        let first = batches(&links, &nics(&[("m1", "eth1"), ("m2", "eth0")]), |_| false).unwrap();
        let here = "link set lo up\nnetns add peer\nlink set dev eth1 name near0\n\
                    address replace 10.9.0.1/24 dev near0\nlink set dev near0 up\nlink set dev eth0 netns peer name far0\n";
        let there = "link set lo up\naddress replace 10.9.0.2/24 dev far0\nlink set dev far0 up\n";
        assert_eq!(
            first,
            [
                (None, here.to_owned()),
                (Some("peer".to_owned()), there.to_owned())
            ]
        );

        let second = batches(&links, &nics(&[("m1", "near0")]), |_| true).unwrap();
        let here = "link set lo up\naddress replace 10.9.0.1/24 dev near0\nlink set dev near0 up\n";
        assert_eq!(second[0].1, here);
        assert_eq!(second[1].1, "link set lo up\n");

        let missing = batches(&links, &nics(&[("m2", "eth0")]), |_| false).unwrap_err();
        assert_eq!(missing, "there is no NIC with MAC m1 for near0");
    }
}

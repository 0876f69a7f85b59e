// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network of a VM: pairs of NICs back to back, one of each pair in the peer's namespace.

use std::net::Ipv4Addr;

use nlring_channel::Link;

/// Most pairs that a VM can have: one device slot of the machine each, twice.
pub const MAX_PAIRS: u8 = 8;

/// The network of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topology {
    /// Loopback only.
    None,
    /// This many pairs of virtio NICs, at most [`MAX_PAIRS`]. Pair *p* is `near<p>`, 10.9.*p*.1/24,
    /// in the agent's namespace, and `far<p>`, 10.9.*p*.2/24, in the namespace `peer`.
    Pairs(u8),
    /// One virtio NIC, this end of a cable to another VM, in the agent's namespace.
    Cable(End),
}

/// An end of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// `near0`, 10.9.0.1/24.
    Near,
    /// `far0`, 10.9.0.2/24.
    Far,
}

/// One end of a pair, from the host's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nic {
    pub(crate) pair: u8,
    pub(crate) link: Link,
}

impl Topology {
    /// What each NIC should become, for a [`nlring_channel::Job`].
    #[must_use]
    pub fn links(self) -> Vec<Link> {
        self.nics().into_iter().map(|nic| nic.link).collect()
    }

    pub(crate) fn nics(self) -> Vec<Nic> {
        let pairs = match self {
            Self::None => 0,
            Self::Pairs(pairs) => pairs.min(MAX_PAIRS),
            Self::Cable(end) => {
                let nics = Self::Pairs(1).nics().into_iter();
                let here = |mut nic: Nic| {
                    nic.link.namespace = None;
                    nic
                };
                return nics.map(here).skip(end as usize).take(1).collect();
            }
        };
        (0..pairs)
            .flat_map(|pair| {
                [(1, "near", None), (2, "far", Some("peer"))].map(|(end, name, namespace)| {
                    let link = Link {
                        mac: format!("52:54:00:09:{pair:02x}:{end:02x}"),
                        name: format!("{name}{pair}"),
                        address: Ipv4Addr::new(10, 9, pair, end),
                        prefix: 24,
                        namespace: namespace.map(str::to_owned),
                    };
                    Nic { pair, link }
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_a_pair_share_a_subnet_and_nothing_else() {
        assert!(Topology::None.links().is_empty());
        let links = Topology::Pairs(2).links();
        let words = links.iter().map(|link| {
            let namespace = link.namespace.as_deref().unwrap_or("own");
            format!(
                "{} {} {}/{} {namespace}",
                link.mac, link.name, link.address, link.prefix
            )
        });
        assert_eq!(
            words.collect::<Vec<_>>(),
            [
                "52:54:00:09:00:01 near0 10.9.0.1/24 own",
                "52:54:00:09:00:02 far0 10.9.0.2/24 peer",
                "52:54:00:09:01:01 near1 10.9.1.1/24 own",
                "52:54:00:09:01:02 far1 10.9.1.2/24 peer",
            ]
        );
    }

    #[test]
    fn the_ends_of_a_cable_are_those_of_a_pair_each_in_its_own_vm() {
        for (end, number) in [(End::Near, 0), (End::Far, 1)] {
            let links = Topology::Cable(end).links();
            let of_pair = Topology::Pairs(1).links().remove(number);
            let namespace = None;
            assert_eq!(
                links,
                [Link {
                    namespace,
                    ..of_pair
                }]
            );
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A part of a run, for runs that are shared among machines.

use std::fmt;
use std::str::FromStr;

/// A part of the whole: `2/3` is every third case, beginning with the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    part: usize,
    of: usize,
}

impl Partition {
    /// What of `all` belongs to this part.
    #[must_use]
    pub fn take<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter()
            .skip(self.part - 1)
            .step_by(self.of)
            .collect()
    }
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no partition; write i/n with 1 <= i <= n, as 1/2");
        let (part, of) = text.split_once('/').ok_or_else(wrong)?;
        let (part, of) = (
            part.parse().map_err(|_| wrong())?,
            of.parse().map_err(|_| wrong())?,
        );
        if part >= 1 && part <= of {
            Ok(Self { part, of })
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.part, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_i_of_n() {
        for wrong in ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2"] {
            assert!(wrong.parse::<Partition>().is_err(), "{wrong}");
        }
        assert_eq!("2/3".parse::<Partition>().unwrap().to_string(), "2/3");
    }
}

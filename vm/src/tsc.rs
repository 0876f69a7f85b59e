// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast a guest's time-stamp counter runs under TCG: QEMU answers the guest's RDTSC with the
//! host's own counter, so at the host's speed, which no file of the host tells.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Long enough that the error of reading two clocks is below a thousandth of a percent.
const WINDOW: Duration = Duration::from_millis(20);

/// Readings of which the quickest counts: between the halves of a slow one something else ran.
const READINGS: usize = 8;

/// In kHz, measured once in a process.
pub(crate) fn guest_khz() -> u64 {
    static KHZ: OnceLock<u64> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> u64 {
    1_000_000 // QEMU has no counter to pass on there and counts nanoseconds
}

#[cfg(target_arch = "x86_64")]
fn measure() -> u64 {
    let (start, first) = reading();
    std::thread::sleep(WINDOW);
    let (end, last) = reading();
    let khz = u128::from(last - first) * 1_000_000 / (end - start).as_nanos();
    u64::try_from(khz).expect("a counter of a processor that exists")
}

/// The clock and the counter at the same moment.
#[cfg(target_arch = "x86_64")]
fn reading() -> (Instant, u64) {
    let readings = std::iter::repeat_with(|| {
        let before = Instant::now();
        // SAFETY: every x86-64 processor has RDTSC, and it touches no memory.
        let counter = unsafe { core::arch::x86_64::_rdtsc() };
        (before.elapsed(), before, counter)
    });
    let (_, moment, counter) = readings
        .take(READINGS)
        .min_by_key(|reading| reading.0)
        .expect("several readings");
    (moment, counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (one, two) = (measure(), measure());
        assert!(one.abs_diff(two) < one / 1000, "{one} and {two} kHz");
        assert!((500_000..10_000_000).contains(&one), "{one} kHz");
    }
}

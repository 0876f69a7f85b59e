// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which VMs run beside each other: as many as were asked for, as memory is there for, and none beside one
//! that wants to be alone. Whoever wants a VM waits here for its turn, first come, first served, so that a
//! large one, or one that wants to be alone, is not passed by small ones for ever.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::error::Error;
use crate::memory;

/// The room that VMs of one run share.
#[derive(Debug)]
pub struct Room {
    vms: usize,
    memory_mib: u64,
    crowd: Mutex<Crowd>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Crowd {
    /// VMs that run.
    vms: usize,
    /// What they may take.
    memory_mib: u64,
    /// Whether one of them wants no other.
    is_closed: bool,
    /// How many came so far, and how many of them were let in.
    came: u64,
    let_in: u64,
}

/// What a VM asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// Whether no other may run beside it.
    pub alone: bool,
}

/// A VM's part of the room, until it is dropped.
#[derive(Debug)]
pub struct Seat<'a> {
    room: &'a Room,
    demand: Demand,
}

impl Room {
    /// Room for so many VMs at once, and for so much memory of theirs, in MiB.
    #[must_use]
    pub fn of(vms: usize, memory_mib: u64) -> Self {
        Self {
            vms,
            memory_mib,
            crowd: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Room for so many VMs at once, as far as this machine has memory for them now.
    #[must_use]
    pub fn here(vms: usize) -> Self {
        Self::of(vms, memory::available_mib())
    }

    /// How many VMs there may be at once.
    #[must_use]
    pub fn vms(&self) -> usize {
        self.vms
    }

    /// Whether a VM of this size fits at all.
    ///
    /// # Errors
    /// It does not, even alone.
    pub fn admits(&self, memory_mib: u32) -> Result<(), Error> {
        if u64::from(memory_mib) <= self.memory_mib {
            Ok(())
        } else {
            Err(Error::NoMemory {
                needed_mib: memory_mib,
                free_mib: self.memory_mib,
            })
        }
    }

    /// Waits for a seat. One that was never [admitted](Self::admits) gets the whole room.
    pub fn enter(&self, demand: Demand) -> Seat<'_> {
        let mut crowd = self.crowd();
        let turn = crowd.came;
        crowd.came += 1;
        let must_wait = |crowd: &mut Crowd| crowd.let_in != turn || !self.fits(crowd, demand);
        let waited = self.changed.wait_while(crowd, must_wait);
        let mut crowd = waited.expect("nobody panics with it");
        crowd.let_in += 1;
        crowd.vms += 1;
        crowd.memory_mib += u64::from(demand.memory_mib);
        crowd.is_closed = demand.alone;
        drop(crowd);
        self.changed.notify_all(); // the next may fit too
        Seat { room: self, demand }
    }

    fn fits(&self, crowd: &Crowd, demand: Demand) -> bool {
        let memory = crowd.memory_mib + u64::from(demand.memory_mib);
        crowd.vms == 0
            || (!demand.alone
                && !crowd.is_closed
                && crowd.vms < self.vms
                && memory <= self.memory_mib)
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().expect("nobody panics with it")
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut crowd = self.room.crowd();
        crowd.vms -= 1;
        crowd.memory_mib -= u64::from(self.demand.memory_mib);
        crowd.is_closed = false; // it was alone, or there was none that is
        drop(crowd);
        self.room.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    fn demand(memory_mib: u32, alone: bool) -> Demand {
        Demand { memory_mib, alone }
    }

    /// Whether a VM with this demand has to wait while `seated` run, and gets in when they have gone.
    fn waits(room: &Room, seated: &[Demand], demand: Demand) -> bool {
        let seats: Vec<Seat<'_>> = seated.iter().map(|demand| room.enter(*demand)).collect();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _seat = room.enter(demand);
                tell.send(()).unwrap();
            });
            let has_waited = told.recv_timeout(Duration::from_millis(100)).is_err();
            drop(seats);
            if has_waited {
                told.recv().unwrap();
            }
            has_waited
        })
    }

    #[test]
    fn number_memory_and_the_wish_to_be_alone_each_make_one_wait() {
        let room = Room::of(3, 1300);
        let (small, large) = (demand(256, false), demand(1024, false));
        assert!(!waits(&room, &[], large));
        assert!(!waits(&room, &[small, small], small));
        assert!(waits(&room, &[small, small, small], small));
        assert!(!waits(&room, &[large], small));
        assert!(waits(&room, &[large, small], small));
        assert!(waits(&room, &[demand(256, true)], small));
        assert!(waits(&room, &[small], demand(256, true)));
        assert!(!waits(&room, &[], demand(256, true)));
    }

    #[test]
    fn nobody_passes_one_who_waits() {
        let room = Room::of(2, 1000);
        let first = room.enter(demand(100, false));
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let come = |name: &'static str, alone| {
                let (room, tell) = (&room, tell.clone());
                let before = room.crowd().came;
                scope.spawn(move || {
                    let _seat = room.enter(demand(100, alone));
                    tell.send(name).unwrap();
                });
                while room.crowd().came == before {
                    std::thread::yield_now();
                }
            };
            come("alone", true);
            come("small", false);
            assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
            drop(first);
            assert_eq!([told.recv(), told.recv()], [Ok("alone"), Ok("small")]);
        });
    }

    #[test]
    fn what_does_not_fit_alone_is_refused_with_both_figures() {
        let room = Room::of(2, 1000);
        room.admits(1000).unwrap();
        let error = room.admits(1024).unwrap_err();
        assert_eq!(error.exit_status(), 3);
        let text = error.to_string();
        assert!(
            text.contains("1024 MiB") && text.contains("1000 MiB"),
            "{text}"
        );
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the library costs per message beside the same loop by hand in C (`receive.c`): instructions, by
//! callgrind, over one ring image. Fails above a ratio of 1.2.
//!
//! `cargo bench -p nlring --bench receive`

use std::env;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, bail, ensure};
use nlring::{Flags, Geometry, Received, Receiver, Socket};

#[path = "../tests/image/mod.rs"]
mod image;

/// The library's loop may cost so much of the other's.
const BOUND: f64 = 1.2;
/// Messages of the image.
const FRAMES: u32 = 500;
/// Rounds that are counted, and those of a first run, which are taken off with all that is not a round.
const ROUNDS: u32 = 20;
const FIRST: u32 = 2;
/// How this program asks itself to read the image.
const READ: &str = "--read";
/// The function that is counted, here and in C.
const COUNTED: &str = "receive_all";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [option, path, rounds] = &arguments[..]
        && option == READ
    {
        println!("{}", read(Path::new(path), rounds.parse()?)?);
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let by_hand = directory.path().join("receive");
    compile(&by_hand)?;
    let mut worst = 0.0_f64;
    println!("instructions per message      by hand   library   ratio");
    for (what, geometry) in shapes()? {
        let path = directory.path().join("ring");
        let fresh = || make(&path, &geometry);
        let text = path.display().to_string();
        let shape = [
            geometry.block_size(),
            geometry.frame_size(),
            geometry.frame_nr(),
        ];
        let c = |rounds: u32| {
            let mut words = vec![by_hand.display().to_string(), text.clone()];
            words.extend(shape.map(|number| number.to_string()));
            words.push(rounds.to_string());
            words
        };
        let own = env::current_exe()?.display().to_string();
        let library =
            |rounds: u32| vec![own.clone(), READ.into(), text.clone(), rounds.to_string()];
        let (by_hand, sum) = per_message(&fresh, &geometry, c)?;
        let (library, same) = per_message(&fresh, &geometry, library)?;
        ensure!(
            sum == same,
            "the two did not read the same: {sum} and {same}"
        );
        let ratio = library / by_hand;
        worst = worst.max(ratio);
        println!("{what:28} {by_hand:8.1} {library:9.1} {ratio:7.2}");
    }
    ensure!(
        worst <= BOUND,
        "the library costs {worst:.2} of a loop by hand, more than {BOUND}"
    );
    Ok(())
}

/// Rings whose frames lie differently in their blocks, of different sizes, by which they are known.
fn shapes() -> anyhow::Result<[(&'static str, Geometry); 2]> {
    Ok([
        (
            "packets, 27 frames a block",
            Geometry::for_messages(2400, FRAMES)?,
        ),
        ("a frame a block", Geometry::new(4096, FRAMES, 4096)?),
    ])
}

/// A ring full of messages of packets' sizes, as a kernel leaves it.
fn make(path: &Path, geometry: &Geometry) -> anyhow::Result<()> {
    let file = open(path)?;
    image::empty(&file, geometry)?;
    for frame in 0..geometry.frame_nr() {
        let len = [84, 300, 596, 1500, 1580][frame as usize % 5];
        image::publish(&file, geometry, frame, &vec![frame as u8; len])?;
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Reads the image with the library, this many rounds.
fn read(path: &Path, rounds: u32) -> anyhow::Result<u64> {
    let file = open(path)?;
    let len = file.metadata()?.len();
    let geometry = shapes()?
        .into_iter()
        .map(|(_, geometry)| geometry)
        .find(|geometry| geometry.mapping_len() as u64 == len)
        .context("no ring of this size")?;
    let socket = Socket::from(OwnedFd::from(file.try_clone()?));
    let mut receiver = socket.map_rx_ring(geometry, Flags::ORDERED)?;
    let mut sum = 0;
    for _ in 0..rounds {
        sum += receive_all(&mut receiver, geometry.frame_nr());
        for frame in 0..geometry.frame_nr() {
            image::republish(&file, &geometry, frame)?;
        }
    }
    Ok(sum)
}

/// What is counted: all messages that are there. Behind them the library would ask the socket, which
/// is none here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn receive_all(receiver: &mut Receiver, count: u32) -> u64 {
    let mut sum = 0;
    for _ in 0..count {
        let Ok(Some(Received::Frame(frame))) = receiver.receive() else {
            panic!("too few messages");
        };
        sum += frame.len() as u64 + u64::from(frame[0]);
    }
    black_box(sum)
}

/// Compiles the loop in C as a distribution would.
fn compile(to: &Path) -> anyhow::Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/receive.c");
    let output = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([to, &source])
        .output()
        .context("cannot start cc; run ci/setup")?;
    succeeded(&output, "cc")
}

/// Instructions per message of what `command` gives for a number of rounds, and the sum that it read.
fn per_message(
    fresh: &impl Fn() -> anyhow::Result<()>,
    geometry: &Geometry,
    command: impl Fn(u32) -> Vec<String>,
) -> anyhow::Result<(f64, u64)> {
    fresh()?;
    let (few, _) = instructions(&command(FIRST))?;
    fresh()?;
    let (many, sum) = instructions(&command(FIRST + ROUNDS))?;
    let messages = f64::from(ROUNDS * geometry.frame_nr());
    let counted = u32::try_from(many - few).context("too many rounds")?;
    Ok((f64::from(counted) / messages, sum))
}

/// Instructions inside [`COUNTED`], and what the program printed.
fn instructions(command: &[String]) -> anyhow::Result<(u64, u64)> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            &format!("--toggle-collect={COUNTED}"),
        ])
        .args(command)
        .output()
        .context("cannot start valgrind; run ci/setup")?;
    succeeded(&output, "valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, number)| number.trim().parse().ok());
    let Some(collected) = collected.filter(|&count| count > 0) else {
        bail!("callgrind counted nothing: {said}");
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    Ok((collected, printed.trim().parse()?))
}

fn succeeded(output: &Output, what: &str) -> anyhow::Result<()> {
    ensure!(
        output.status.success(),
        "{what} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

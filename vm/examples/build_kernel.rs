// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds a kernel of kernels.toml, or finds it in the cache, and says how long each phase took.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use nlring_vm::kernel::{self, Event};
use nlring_vm::matrix::Matrix;
use nlring_vm::{Cache, VmError};

/// Build a kernel and time it.
#[derive(Parser)]
struct Arguments {
    /// Its name in kernels.toml
    kernel: String,
    /// The tree that holds kernel-config/
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

fn main() -> ExitCode {
    match build(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build(arguments: &Arguments) -> Result<(), VmError> {
    let cache = Cache::open()?;
    let matrix = Matrix::load(&arguments.root)?;
    let entry = matrix.find(&arguments.kernel)?;
    let start = Instant::now();
    let cached = kernel::cached(&cache, &arguments.root, &entry)?.is_some();
    println!(
        "cached: {cached}, found out in {:.1} ms",
        start.elapsed().as_secs_f32() * 1000.0
    );
    let (start, mut last) = (Instant::now(), String::new());
    let built = kernel::build(&cache, &arguments.root, &entry, &mut |event| match event {
        Event::Steps { done, total, what } => {
            last = format!("{done} of {total}");
            if done % 100 == 0 {
                println!("{:7.1} s  {last} {what}", start.elapsed().as_secs_f32());
            }
        }
        other => println!("{:7.1} s  {other:?} {last}", start.elapsed().as_secs_f32()),
    })?;
    println!("{:7.1} s  {built:#?}", start.elapsed().as_secs_f32());
    Ok(())
}

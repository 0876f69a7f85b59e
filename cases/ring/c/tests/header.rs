// SPDX-License-Identifier: MIT OR Apache-2.0
//! `include/nlring.h` is what `src/lib.rs` says.

use std::env;
use std::fs;
use std::path::Path;

#[test]
fn the_header_is_made_of_the_source() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(package.join("src/lib.rs"))
        .generate()
        .unwrap()
        .write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let header = package.join("include/nlring.h");
    if env::var_os("NLRING_WRITE_HEADER").is_some() {
        fs::write(&header, &made).unwrap();
    }
    let kept = fs::read_to_string(&header).unwrap_or_default();
    assert!(
        kept == made,
        "{} is not what src/lib.rs says; run: NLRING_WRITE_HEADER=1 cargo test -p nlring-c",
        header.display()
    );
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's file system: the guest program as `/init`, `nft` and `ip`, and what else cases run, with
//! their libraries.
//!
//! It is packed as a newc archive without compression: unpacking is a copy, and a compressed one
//! would cost the guest more than the host saves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use cpio::newc::{self, trailer};

use crate::cache::write_whole;
use crate::digest::{self, Key};
use crate::kernel::toolchain;
use crate::libraries::needed;
use crate::{Cache, VmError};

/// Changed whenever the same inputs are packed in another way.
const LAYOUT: &str = "2";

/// The extension of the note with an initramfs's digest.
const DIGEST: &str = "sha256";

/// How long one stays that nobody asks for.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// The guest program's name in the guest.
const INIT: &str = "init";

/// The host's programs that the guest has too, with their Debian packages.
const PROGRAMS: &[(&str, &str)] = &[("nft", "nftables"), ("ip", "iproute2")];

/// Empty directories: mount points, and where `ip netns` keeps its names.
const DIRECTORIES: &[&str] = &["dev", "proc", "sys", "tmp", "run", "var", "etc", "root"];

/// Where the guest has the programs that cases run.
const PLACE: &str = "usr/lib/nlring";

/// Packs `guest`, a static program, into an initramfs, and `programs` under their names, each with the
/// libraries that it needs; or finds the one packed before.
///
/// # Errors
/// `nft` or `ip` is not installed, a program or a library cannot be read, or `guest` is not static.
pub fn pack(
    cache: &Cache,
    guest: &Path,
    programs: &BTreeMap<String, PathBuf>,
) -> Result<PathBuf, VmError> {
    let mut files = contents(guest, programs)?;
    let mut key = Key::default().part(LAYOUT);
    for (name, path) in &files {
        key = key
            .part(name)
            .part(digest::of_file_remembered(cache, path)?);
    }
    let place = cache.place("initramfs", &format!("{}.cpio", key.finish()))?;
    let note = place.with_extension(DIGEST);
    if is_whole(cache, &place, &note) {
        return Ok(place);
    }
    let directory = place.parent().expect("a file in the cache");
    let stripped = tempfile::NamedTempFile::new_in(directory)
        .map_err(VmError::io("cannot pack the initramfs", &place))?;
    if strip(guest, stripped.path()) {
        files.insert(INIT.to_owned(), stripped.path().to_owned());
    }
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        archive(
            &files,
            BufWriter::with_capacity(1 << 18, file.as_file_mut()),
        )?;
        file.persist(&place)?;
        prune(directory)
    };
    write().map_err(VmError::io("cannot pack the initramfs", &place))?;
    write_whole(&note, digest::of_file_remembered(cache, &place)?.as_bytes())?;
    Ok(place)
}

/// Whether there is one packed before that is still what it was then. It is stamped as asked for, by its
/// note, since its own times tell that nobody has written to it.
fn is_whole(cache: &Cache, packed: &Path, note: &Path) -> bool {
    let Ok(digest) = fs::read_to_string(note) else {
        return false;
    };
    digest::of_file_remembered(cache, packed).is_ok_and(|found| found == digest)
        && File::options()
            .append(true)
            .open(note)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .is_ok()
}

/// Debug information is most of a program, and each boot would copy it. Symbols stay, for backtraces.
/// Where there is no `strip` the guest is only larger.
fn strip(program: &Path, to: &Path) -> bool {
    let status = Command::new("strip")
        .arg("--strip-debug")
        .arg("-o")
        .arg(to)
        .arg(program)
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Names in the guest, without the leading slash, and the files of the host behind them.
fn contents(
    guest: &Path,
    programs: &BTreeMap<String, PathBuf>,
) -> Result<BTreeMap<String, PathBuf>, VmError> {
    if let Some(library) = needed(guest)?.first() {
        let reason = format!(
            "it needs {}, but the guest program must be static: build it with -C target-feature=+crt-static",
            library.display()
        );
        return Err(VmError::Config {
            path: guest.to_owned(),
            reason,
        });
    }
    let mut files = BTreeMap::from([(INIT.to_owned(), guest.to_owned())]);
    for &(program, package) in PROGRAMS {
        let path = toolchain::find(program).ok_or_else(|| VmError::Missing {
            tool: program.into(),
            package: package.into(),
        })?;
        add(&mut files, format!("sbin/{program}"), &path)?;
    }
    for (name, path) in programs {
        add(&mut files, format!("{PLACE}/{name}"), path)?;
    }
    Ok(files)
}

/// Adds a program, and its libraries where it looks for them.
fn add(files: &mut BTreeMap<String, PathBuf>, name: String, program: &Path) -> Result<(), VmError> {
    for library in needed(program)? {
        files.insert(
            library.to_string_lossy().trim_start_matches('/').to_owned(),
            library,
        );
    }
    files.insert(name, program.to_owned());
    Ok(())
}

fn archive(files: &BTreeMap<String, PathBuf>, mut output: impl Write) -> io::Result<()> {
    let mut directories: BTreeSet<String> =
        DIRECTORIES.iter().map(|name| (*name).to_owned()).collect();
    for name in files.keys() {
        for above in Path::new(name)
            .ancestors()
            .skip(1)
            .filter(|above| !above.as_os_str().is_empty())
        {
            directories.insert(above.to_string_lossy().into_owned());
        }
    }
    let mut inode = 0;
    let mut entry = |name: &str| {
        inode += 1;
        newc::Builder::new(name).ino(inode).nlink(1)
    };
    for name in &directories {
        entry(name).mode(0o040_755).write(&mut output, 0).finish()?;
    }
    // The kernel opens it for /init before anything can be mounted on /dev.
    let console = entry("dev/console")
        .mode(0o020_600)
        .rdev_major(5)
        .rdev_minor(1);
    console.write(&mut output, 0).finish()?;
    // ip keeps the names of namespaces in /var/run/netns.
    let mut link = entry("var/run").mode(0o120_777).write(&mut output, 4);
    link.write_all(b"/run")?;
    link.finish()?;
    for (name, path) in files {
        let mut content = Vec::new();
        File::open(path)?.read_to_end(&mut content)?;
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{} is above 4 GiB", path.display())))?;
        let mut file = entry(name).mode(0o100_755).write(&mut output, size);
        file.write_all(&content)?;
        file.finish()?;
    }
    trailer(&mut output)?;
    output.flush()
}

/// Removes what no guest has been booted from for [`KEEP`]; each is of some 10 MB. What is in use now
/// was stamped when it was found.
fn prune(directory: &Path) -> io::Result<()> {
    let now = SystemTime::now();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let modified = |path| fs::metadata(path).and_then(|metadata| metadata.modified());
        // Another process may be pruning too.
        let Ok(made) = modified(path.clone()) else {
            continue;
        };
        let stamped = modified(path.with_extension(DIGEST)).map_or(made, |asked| asked.max(made));
        if now.duration_since(stamped).is_ok_and(|age| age > KEEP) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_the_files_and_every_directory_above_them() {
        let directory = tempfile::tempdir().unwrap();
        let guest = directory.path().join("guest");
        fs::write(&guest, "program").unwrap();
        let files = BTreeMap::from([
            ("init".to_owned(), guest.clone()),
            ("lib/deep/er.so".to_owned(), guest),
        ]);
        let mut bytes = Vec::new();
        archive(&files, &mut bytes).unwrap();
        let (mut input, mut seen) = (bytes.as_slice(), Vec::new());
        loop {
            let mut reader = newc::Reader::new(&mut input).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            seen.push(format!(
                "{} {:o} {content}",
                reader.entry().name(),
                reader.entry().mode()
            ));
            reader.finish().unwrap();
        }
        let (above, below) = (
            |line: &str| seen.iter().position(|seen| seen == line),
            "lib/deep/er.so 100755 program",
        );
        assert!(
            above("lib 40755 ") < above("lib/deep 40755 ")
                && above("lib/deep 40755 ") < above(below),
            "{seen:?}"
        );
        for line in [
            "init 100755 program",
            "dev/console 20600 ",
            "var/run 120777 /run",
            below,
        ] {
            assert!(above(line).is_some(), "no {line} in {seen:?}");
        }
    }

    #[test]
    fn only_what_nobody_asked_for_in_a_week_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            ("new.cpio", 6),
            ("old.cpio", 8),
            ("old.sha256", 8),
            ("asked.cpio", 8),
            ("asked.sha256", 6),
        ];
        for (name, days) in files {
            let file = File::create(directory.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(days * 24 * 3600))
                .unwrap();
        }
        prune(directory.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["asked.cpio", "asked.sha256", "new.cpio"]);
    }

    #[test]
    fn a_guest_that_is_not_static_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let message = pack(&cache, &std::env::current_exe().unwrap(), &BTreeMap::new())
            .unwrap_err()
            .to_string();
        assert!(message.contains("must be static"), "{message}");
    }
}

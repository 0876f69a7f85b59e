// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bases of a few files.

use super::*;

struct Place {
    root: tempfile::TempDir,
    cache: Cache,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(&root.path().join("cache")).unwrap();
        fs::create_dir_all(root.path().join("linux/net")).unwrap();
        for file in ["Kbuild", "net/ring.c"] {
            fs::write(root.path().join("linux").join(file), file).unwrap();
        }
        Self { root, cache }
    }

    fn base(source: Source) -> Base {
        Base {
            name: "b".into(),
            source,
        }
    }

    fn tree(&self) -> Base {
        Self::base(Source::Tree(self.root.path().join("linux")))
    }

    fn tarball(&self, sha256: Option<String>) -> Base {
        let path = self.root.path().join("linux.tar.xz");
        let made = Command::new("tar")
            .arg("-cJf")
            .arg(&path)
            .arg("-C")
            .arg(self.root.path())
            .arg("linux")
            .status()
            .unwrap();
        assert!(made.success());
        let sha256 = sha256.unwrap_or_else(|| digest::of_file(&path).unwrap());
        Self::base(Source::Tarball { path, sha256 })
    }

    fn work(&self, base: &Base) -> Result<PathBuf, VmError> {
        let identity = identify(&self.cache, base)?;
        let pristine = pristine(&self.cache, base, &identity, &mut |_| ())?;
        work(&self.cache, base, &identity.id, &pristine)
    }
}

#[test]
fn a_tree_and_a_tarball_become_work_trees() {
    let place = Place::new();
    for base in [place.tree(), place.tarball(None)] {
        let work = place.work(&base).unwrap();
        assert_eq!(
            fs::read_to_string(work.join("net/ring.c")).unwrap(),
            "net/ring.c"
        );
        assert_eq!(fs::metadata(work.join("net/ring.c")).unwrap().nlink(), 2);
        assert_eq!(place.work(&base).unwrap(), work);
    }
    assert_eq!(
        fs::metadata(place.root.path().join("linux/net/ring.c"))
            .unwrap()
            .nlink(),
        1,
        "the user's tree is linked to"
    );
}

#[test]
fn an_edit_in_a_tree_makes_another_base() {
    let place = Place::new();
    let before = identify(&place.cache, &place.tree()).unwrap().id;
    fs::write(place.root.path().join("linux/net/ring.c"), "NET/RING.C").unwrap();
    let after = identify(&place.cache, &place.tree()).unwrap().id;
    assert_ne!(before, after);
}

#[test]
fn a_git_tree_counts_without_what_git_ignores() {
    let place = Place::new();
    let tree = place.root.path().join("linux");
    assert!(
        Command::new("git")
            .arg("init")
            .arg("-q")
            .arg(&tree)
            .status()
            .unwrap()
            .success()
    );
    fs::write(tree.join(".gitignore"), "*.o\n").unwrap();
    let before = identify(&place.cache, &place.tree()).unwrap().id;
    fs::write(tree.join("net/ring.o"), "object").unwrap();
    assert_eq!(identify(&place.cache, &place.tree()).unwrap().id, before);
    assert!(
        !place
            .work(&place.tree())
            .unwrap()
            .join("net/ring.o")
            .exists()
    );
}

#[test]
fn unpacking_that_was_cut_off_starts_again() {
    let place = Place::new();
    let base = place.tarball(None);
    let id = identify(&place.cache, &base).unwrap().id;
    fs::create_dir_all(place.cache.root().join(format!("base/{id}.partial/half"))).unwrap();
    fs::create_dir_all(place.cache.root().join(format!("work/{id}.partial/half"))).unwrap();
    assert!(!place.work(&base).unwrap().join("half").exists());
}

#[test]
fn a_base_that_cannot_be_had_says_why_in_one_line() {
    let place = Place::new();
    let built = Place::new();
    fs::write(built.root.path().join("linux/.config"), "").unwrap();
    let empty = Place::new();
    fs::remove_file(empty.root.path().join("linux/Kbuild")).unwrap();
    for (base, expected) in [
        (place.tarball(Some("0".repeat(64))), "kernels.toml says 000"),
        (
            Place::base(Source::Debian("linux-source-0.1".into())),
            "apt-get install linux-source-0.1",
        ),
        (
            Place::base(Source::Tree("/nowhere".into())),
            "there is no directory /nowhere",
        ),
        (
            Place::base(Source::Tarball {
                path: "/nowhere.tar".into(),
                sha256: "0".repeat(64),
            }),
            "there is no /nowhere.tar",
        ),
        (built.tree(), "make mrproper"),
        (empty.tree(), "no kernel source"),
    ] {
        let message = place.work(&base).unwrap_err().to_string();
        assert!(
            message.contains(expected) && !message.contains('\n'),
            "{message}\nlacks {expected}"
        );
    }
}

#[test]
fn a_base_that_could_not_be_unpacked_leaves_nothing() {
    let place = Place::new();
    fs::remove_file(place.root.path().join("linux/Kbuild")).unwrap();
    place.work(&place.tree()).unwrap_err();
    let left = fs::read_dir(place.cache.root().join("base")).unwrap();
    assert_eq!(left.count(), 0);
}

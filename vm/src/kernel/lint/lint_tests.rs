// SPDX-License-Identifier: MIT OR Apache-2.0
//! Series of one or two patches on a tree of three files, with the real compiler.

use std::fs;

use super::*;

/// What stands for the kernel's build: it compiles, and says of each `__user` what sparse could say.
const MAKEFILE: &str = r"
.PHONY: tinyconfig olddefconfig net/netlink/ net/netfilter/
tinyconfig:
	@mkdir -p $(O)/net/netlink; : >$(O)/.config
olddefconfig:
	@grep -q RING Kconfig || sed -i '/RING/d' $(O)/.config
	@cmp -s $(O)/.config $(O)/synced || cp $(O)/.config $(O)/synced
net/netfilter/:
net/netlink/: $(O)/net/netlink/af_netlink.o
$(O)/net/netlink/%.o: net/netlink/%.c $(O)/synced
	@echo '  CC      $<'
	@gcc -O1 -Wall $$(sed -n 's/^CONFIG_RING=y/-DRING/p' $(O)/.config) -c -o $@ $(CURDIR)/$<
	@grep -n __user $< | sed 's|^\([0-9]*\):.*|$(CURDIR)/$<:\1:1: warning: address spaces|'
";

/// What stands for checkpatch: it minds spaces at the end.
const CHECKPATCH: &str = r#"
my $file = pop;
open(my $patch, '<', $file);
while (<$patch>) { if (/^\+.* $/) { print "$file:$.: ERROR:TRAILING_WHITESPACE: space\n"; $bad = 1; } }
exit($bad);
"#;

const SOURCE: &str = "\
static int helper(int a) { return a; }
int send(int a) { return helper(a); }
int old; // __user
";

struct Place {
    root: tempfile::TempDir,
    cache: Cache,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let place = Self {
            cache: Cache::at(&root.path().join("cache")).unwrap(),
            root,
        };
        for (file, content) in [
            ("linux/Kbuild", ""),
            ("linux/Kconfig", ""),
            ("linux/Makefile", MAKEFILE),
            ("linux/scripts/checkpatch.pl", CHECKPATCH),
            ("linux/net/netlink/af_netlink.c", SOURCE),
            ("kernel-config/fragments/off.config", "# nothing\n"),
            ("kernel-config/fragments/on.config", "CONFIG_RING=y\n"),
            (
                "kernel-config/kernels.toml",
                "[base.b]\ntree = \"../linux\"\n\
                 [kernel.on]\nbase = \"b\"\nfragments = [\"on\"]\nringed = true\nsteps = 1\n\
                 [kernel.off]\nbase = \"b\"\nfragments = [\"off\"]\nringed = false\nsteps = 1\n",
            ),
        ] {
            place.write(file, content);
        }
        place.patch(1, "Kconfig", "", "RING\n");
        place
    }

    fn write(&self, file: &str, content: &str) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The patch of this number makes `after` of `before`.
    fn patch(&self, number: u32, file: &str, before: &str, after: &str) -> &Self {
        let lines = |mark: &str, text: &str| -> String {
            let lines = text.split_inclusive('\n');
            lines.flat_map(|line| [mark, line]).collect()
        };
        let count = |text: &str| {
            let lines = text.lines().count();
            format!("{},{lines}", usize::from(lines > 0))
        };
        let text = format!(
            "--- a/{file}\n+++ b/{file}\n@@ -{} +{} @@\n{}{}",
            count(before),
            count(after),
            lines("-", before),
            lines("+", after)
        );
        self.write(&format!("kernel-config/patches/{number:04}-p.patch"), &text);
        self
    }

    fn source(&self, after: &str) -> &Self {
        self.patch(2, "net/netlink/af_netlink.c", SOURCE, after)
    }

    fn lint(&self) -> (Vec<Event>, Findings) {
        let matrix = Matrix::load(self.root.path()).unwrap();
        let mut events = Vec::new();
        let findings = lint(&self.cache, self.root.path(), &matrix, "b", &mut |event| {
            events.push(event);
        });
        (events, findings.unwrap())
    }

    fn complaints(&self) -> Vec<String> {
        let (events, findings) = self.lint();
        let complaints: Vec<_> = events
            .into_iter()
            .filter_map(|event| match event {
                Event::Complaint(what) => Some(what),
                _ => None,
            })
            .collect();
        assert_eq!(complaints.len(), findings.complaints);
        complaints
    }
}

fn judged(events: &[Event]) -> Vec<usize> {
    let number = |event: &Event| match event {
        Event::Patch { number, .. } => Some(*number),
        _ => None,
    };
    events.iter().filter_map(number).collect()
}

#[test]
fn what_is_clean_is_judged_once() {
    let place = Place::new();
    let with_option = format!("#ifdef RING\nint ring(int a) {{ return a * 7; }}\n#endif\n{SOURCE}");
    place.source(&with_option);
    let (events, findings) = place.lint();
    assert_eq!(judged(&events), [1, 2]);
    let text = findings.text.unwrap();
    assert_eq!((findings.complaints, text.off), (0, text.unpatched));
    assert!(text.on > text.off, "{text:?}");

    assert_eq!(place.lint(), (vec![Event::Remembered(2)], findings));
    place.source(&with_option.replace('7', "9"));
    assert_eq!(judged(&place.lint().0), [2]);
    place.patch(1, "Kconfig", "", "RING\nmore\n");
    assert_eq!(judged(&place.lint().0), [1, 2]);
}

#[test]
fn every_judge_is_heard() {
    let unused = SOURCE.replace("helper(a)", "a");
    let table = [
        (
            SOURCE.replace("return helper", "int x; return helper"),
            "net/netlink/af_netlink.c:2: warning: unused variable 'x' [-Wunused-variable] (off)",
        ),
        // The line that it is about is an old one, which nobody minded before.
        (
            format!("\n{unused}"),
            "net/netlink/af_netlink.c:2: warning: 'helper' defined but not used [-Wunused-function] (off)",
        ),
        (
            format!("#ifdef RING\nstatic int x;\n#endif\n{SOURCE}"),
            "net/netlink/af_netlink.c:2: warning: 'x' defined but not used [-Wunused-variable] (on)",
        ),
        // The one on the old line is known, wherever that goes.
        (
            format!("int new; // __user\n{SOURCE}"),
            "net/netlink/af_netlink.c:1: warning: address spaces (off)",
        ),
        (
            format!("int new; \n{SOURCE}"),
            "checkpatch: line 7: ERROR:TRAILING_WHITESPACE: space",
        ),
        (
            SOURCE.replace("return helper(a)", "return helper(a) * 1234567"),
            "the text of net/netlink/af_netlink.o grows by ",
        ),
        (
            SOURCE.replace("helper(a);", "helper(b);"),
            "cannot build kernel off: ",
        ),
    ];
    for (after, expected) in table {
        let place = Place::new();
        let complaints = place.source(&after).complaints();
        assert!(
            complaints.len() == 1 && complaints[0].starts_with(expected),
            "{after}\n{complaints:#?} are not {expected}"
        );
    }
}

#[test]
fn a_complaint_is_made_until_the_patch_is_mended() {
    let place = Place::new();
    place.source(&format!("int space; \n{SOURCE}"));
    let complaints = place.complaints();
    assert_eq!((complaints.len(), place.complaints()), (1, complaints));
    place.source(&format!("int space;\n{SOURCE}"));
    let (events, findings) = place.lint();
    assert_eq!((judged(&events), findings.complaints), (vec![2], 0));
}

#[test]
fn objects_that_went_do_not_make_old_warnings_new() {
    let place = Place::new();
    place.source(&format!("int one;\n{SOURCE}"));
    assert_eq!(place.complaints(), [""; 0]);
    fs::remove_dir_all(place.cache.root().join("out")).unwrap();
    place.source(&format!("int another;\n{SOURCE}"));
    let (events, findings) = place.lint();
    assert_eq!(findings.complaints, 0);
    assert_eq!(events[0], Event::Remembered(1));
    assert!(events.contains(&Event::Ground), "{events:?}");
    assert_eq!(judged(&events), [2]);
}

#[test]
fn a_file_that_was_never_touched_brings_its_old_warnings() {
    let place = Place::new();
    assert_eq!(place.complaints(), [""; 0]);
    place.source(&format!("int harmless;\n{SOURCE}"));
    let (events, findings) = place.lint();
    assert!(events.contains(&Event::Ground), "{events:?}");
    assert_eq!(findings.complaints, 0);
}

#[test]
fn an_option_that_never_comes_is_a_complaint() {
    let place = Place::new();
    place.patch(1, "Kconfig", "", "wrong\n");
    let complaints = place.complaints();
    assert!(complaints[0].contains("CONFIG_RING=y"), "{complaints:?}");
}

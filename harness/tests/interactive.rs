// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person types and sees: `nlring shell`, `nlring gdb` and `nlring bisect` at a terminal. Needs kernel 6.1
//! in the cache, and what `ci/setup --with gdb` installs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nlring_harness::guest_binary;
use nlring_harness::packages::{self, Need};
use nlring_harness::tree::Tree;
use nlring_vm::matrix::Matrix;
use nlring_vm::{Cache, kernel};
use rexpect::process::{Signal, WaitStatus};
use rexpect::session::{PtySession, spawn_command};
use rustix::termios::{self, LocalModes, Winsize};

const KERNEL: &str = "6.1";
const PROMPT: &str = "nlring 6.1:";

/// A boot takes 4 s; on a machine that is busy with other things it may take much longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// One VM at a time.
static DESK: Mutex<()> = Mutex::new(());

/// Somebody at a terminal, where nlring runs. When it goes, nothing that nlring started may be left.
struct Person {
    /// Taken when it is over.
    session: Option<PtySession>,
    mark: String,
    _desk: MutexGuard<'static, ()>,
}

impl Person {
    /// The command is killed while these are there too; whatever is left of them then fails the test.
    fn dies_beside(&mut self, others: &[&str]) {
        let names: Vec<String> = marked(&self.mark)
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        for name in others {
            assert!(
                names.iter().any(|found| found.starts_with(name)),
                "{names:?}"
            );
        }
        self.session()
            .process_mut()
            .signal(Signal::SIGKILL)
            .unwrap();
        self.session().exp_eof().unwrap();
    }

    fn types(arguments: &[&str]) -> Self {
        let desk = DESK.lock().unwrap_or_else(PoisonError::into_inner);
        require_all();
        let mark = format!("{}-{:?}", std::process::id(), Instant::now());
        let mut command = nlring(arguments);
        command.env("NLRING_TEST_MARK", &mark).env("TERM", "dumb");
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap();
        let mut session = spawn_command(command, Some(patience)).unwrap();
        session.process_mut().set_kill_timeout(Some(10_000));
        Self {
            session: Some(session),
            mark,
            _desk: desk,
        }
    }

    fn session(&mut self) -> &mut PtySession {
        self.session.as_mut().expect("it is not over yet")
    }

    /// Waits for `text`; what was there before it.
    fn sees(&mut self, text: &str) -> String {
        match self.session().exp_string(text) {
            Ok(before) => before,
            Err(error) => panic!("never saw {text:?}: {error}"),
        }
    }

    fn says(&mut self, line: &str) {
        self.session().send_line(line).unwrap();
    }

    fn presses(&mut self, keys: &str) {
        self.session().send(keys).unwrap();
        self.session().flush().unwrap();
    }

    fn resizes(&mut self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = self.session().process().get_file_handle().unwrap();
        termios::tcsetwinsize(&terminal, size).unwrap();
    }

    /// Whether the terminal is as a shell needs it when nlring has ended.
    fn has_a_terminal_in_order(&mut self) -> bool {
        let terminal = self.session().process().get_file_handle().unwrap();
        let modes = termios::tcgetattr(&terminal).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits for the end of nlring; its exit status.
    fn is_left(&mut self) -> i32 {
        if let Err(error) = self.session().exp_eof() {
            panic!("nlring did not end: {error}");
        }
        match self.session().process().wait().unwrap() {
            WaitStatus::Exited(_, status) => status,
            other => panic!("nlring did not exit: {other:?}"),
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        drop(self.session.take());
        let until = Instant::now() + Duration::from_secs(20);
        let mut left = marked(&self.mark);
        while !left.is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
            left = marked(&self.mark);
        }
        for &(process, _) in &left {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
        assert!(
            thread::panicking() || left.is_empty(),
            "left behind: {left:?}"
        );
    }
}

/// Processes, with their names, that have inherited this mark.
fn marked(mark: &str) -> Vec<(rustix::process::Pid, String)> {
    let word = format!("NLRING_TEST_MARK={mark}");
    let has_it = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == word.as_bytes())
    };
    let all = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    all.filter(|process| has_it(process))
        .filter_map(|process| {
            let number = process.file_name()?.to_str()?.parse().ok()?;
            let name = fs::read_to_string(process.join("comm")).ok()?;
            Some((
                rustix::process::Pid::from_raw(number)?,
                name.trim().to_owned(),
            ))
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn nlring(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nlring"));
    command
        .args(arguments)
        .current_dir(root())
        .env("NLRING_ROOT", root());
    command
}

/// Fails in a line where something is not there.
fn require_all() {
    let missing = packages::missing(&[Need::Run, Need::Gdb]);
    assert!(
        missing.is_empty(),
        "run ci/setup --with gdb: {missing:?} are missing"
    );
    let entry = Matrix::load(&root()).unwrap().find(KERNEL).unwrap();
    let cached = kernel::cached(&Cache::open().unwrap(), &root(), &entry).unwrap();
    assert!(
        cached.is_some(),
        "run ci/nlring kernel build {KERNEL}: it is not in the cache"
    );
    // So that no test waits for a compiler.
    guest_binary::ensure(&Tree::find().unwrap(), || ()).unwrap();
}

#[test]
fn a_shell_is_used_and_left() {
    let mut person = Person::types(&["shell"]);
    person.sees(PROMPT);
    person.says("echo $((6 * 7)) on $(uname -r)");
    person.sees("42 on 6.1.");
    person.sees(PROMPT);

    // What the guest's program hears, QEMU and nlring do not.
    person.says("echo be$((1))gin; sleep 1000");
    person.sees("be1gin");
    person.presses("\u{3}");
    person.sees(PROMPT);
    person.says("echo $?-after");
    person.sees("130-after");
    person.sees(PROMPT);

    let window = "trap 'stty size; exit' WINCH; echo wait$((1)); while :; do sleep 0.1; done";
    person.says(&format!("bash -c {window:?}"));
    person.sees("wait1");
    person.resizes(33, 111);
    person.sees("33 111");
    person.sees(PROMPT);

    person.says("command -v netlink_mmap");
    person.sees("/kernels/");
    person.sees(PROMPT);
    person.says("touch /root/mine /tmp/mine; ls -d /tmp/[m]ine");
    person.sees("Read-only file system");
    person.sees("/tmp/mine");
    person.sees(PROMPT);
    person.says("exit 7");
    assert_eq!(person.is_left(), 7);
    assert!(person.has_a_terminal_in_order());
    assert!(!Path::new("/tmp/mine").exists());
}

#[test]
fn a_guest_that_does_not_hear_is_ended() {
    let mut person = Person::types(&["shell", "--kernel", KERNEL]);
    person.sees(PROMPT);
    assert!(!person.has_a_terminal_in_order());
    person.says("trap '' INT; stty -isig; echo dea$((1))f; sleep 1000");
    person.sees("dea1f");
    person.presses("\u{3}\u{4}");
    person.presses("\u{1d}\u{1d}\u{1d}");
    assert_eq!(person.is_left(), 130);
    assert!(person.has_a_terminal_in_order());
}

#[test]
fn a_shell_that_is_killed_takes_its_vm_along() {
    let mut person = Person::types(&["shell"]);
    person.sees(PROMPT);
    person.dies_beside(&["qemu-system"]);
}

#[test]
fn a_command_has_its_output_and_its_status() {
    let _desk = DESK.lock().unwrap_or_else(PoisonError::into_inner);
    require_all();
    // More than any buffer on the way holds, to a reader that takes its time.
    let text = "cat; echo \"it's $NOTHING 7\" >/dev/stderr; seq 100000; exit 42";
    let mut child = nlring(&["shell", text])
        .stdin(fs::File::open(root().join("LICENSE-MIT")).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut output = child.stdout.take().unwrap();
    thread::sleep(Duration::from_secs(15));
    std::io::Read::read_to_string(&mut output, &mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
    let licence = fs::read_to_string(root().join("LICENSE-MIT")).unwrap();
    let numbers = (1..=100_000).map(|number| number.to_string());
    let expected = licence
        .lines()
        .map(str::to_owned)
        .chain([String::from("it's  7")])
        .chain(numbers);
    let mut lines = said.lines();
    for line in expected {
        assert_eq!(lines.next(), Some(&*line));
    }
    assert_eq!(lines.next(), None);
    assert!(!said.contains('\r'));
}

#[test]
fn a_kernel_is_stopped_and_its_rings_are_shown() {
    const GDB: &str = "(gdb) ";
    let mut person = Person::types(&["gdb", "netlink_mmap"]);
    person.sees("The kernel is up");
    person.sees(GDB);
    person.says("set width 0");
    person.sees(GDB);
    person.says("nl-sockets");
    person.sees("no netlink socket has a ring");
    person.sees(GDB);
    person.says("help nl-ring");
    person.sees("Show a ring");
    person.sees(GDB);
    person.says("nl-ring &nl_table");
    person.sees("there is no struct netlink_ring");
    person.sees(GDB);

    // The selftest's first message into a ring.
    person.says("break netlink_ring_deliver");
    person.sees(GDB);
    person.says("continue");
    person.sees("Breakpoint 2, netlink_ring_deliver");
    person.sees(GDB);
    person.says("nl-sockets");
    person.sees("route port ");
    person.sees("mapped 1 times");
    person.sees("  rx ");
    let ring = person.sees(": 8 frames of 1024 bytes in 2 blocks of 4096");
    person.sees(GDB);
    person.says(&format!("nl-ring {ring}"));
    person.sees("receive, head 0, cursor 0, 0 from there to the head");
    person.sees("  0-7: UNUSED");
    person.sees(GDB);
    person.says("finish");
    person.sees("Run till exit");
    person.sees(GDB);
    person.says(&format!("nl-ring {ring}"));
    person.sees("receive, head 1, cursor 0, 1 from there to the head");
    person.sees("  0: VALID, ");
    person.sees("  1-7: UNUSED");
    person.sees(GDB);

    person.says("delete");
    person.sees(GDB);
    person.says("continue");
    person.sees("Continuing.");
    thread::sleep(Duration::from_secs(1));
    person.presses("\u{3}");
    person.sees("received signal SIGINT");
    person.sees(GDB);
    person.says("quit");
    assert_eq!(person.is_left(), 0);
    let output = root().join("target/nlring-report/gdb/output.log");
    assert!(fs::read(&output).unwrap().starts_with(b"TAP version 13"));
}

#[test]
fn gdb_that_is_killed_takes_its_vm_along() {
    let mut person = Person::types(&["gdb"]);
    person.sees("(gdb) ");
    person.dies_beside(&["qemu-system", "gdb", "nlring"]);
}

#[test]
fn there_is_nothing_to_search_where_a_case_passes() {
    let case = "multicast::joining_a_group_with_a_ring_is_refused";
    let mut person = Person::types(&["bisect", case, "--seed", "7"]);
    person.sees(&format!("makes {case} fail on 6.1? seed 7"));
    person.sees(" patches: pass in ");
    person.sees("it should fail; it does not: pass");
    assert_eq!(person.is_left(), 2);
}

#[test]
fn a_search_ends_at_control_c() {
    let mut person = Person::types(&[
        "bisect",
        "multicast::joining_a_group_with_a_ring_is_refused",
    ]);
    person.sees("fail on 6.1? seed");
    person.presses("\u{3}");
    assert_eq!(person.is_left(), 130);
}

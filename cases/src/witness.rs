// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel that watches itself complains of is heard: faults that its driver LKDTM makes on request,
//! each announced. A kernel whose complaints are not heard has nothing against any case.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::WaitStatus;

use crate::child::Child;
use crate::{Case, Group, Kernel, Setting, Unmet};

/// Where a fault is asked for, by name.
const ON_REQUEST: &str = "/sys/kernel/debug/provoke-crash/DIRECT";

/// The case, what LKDTM calls its fault, and the splat that this is to be.
#[rustfmt::skip]
const FAULTS: &[(&str, &str, &str)] = &[
    ("a_warning_is_heard", "WARNING", "warning: lkdtm_WARNING"),
    ("a_warning_with_a_message_is_heard", "WARNING_MESSAGE", "warning: lkdtm_WARNING_MESSAGE"),
    ("a_bug_is_heard", "BUG", "kernel-bug: drivers/misc/lkdtm/bugs.c"),
    ("a_write_to_null_is_heard", "EXCEPTION", "general-protection: maybe for address"),
    ("a_jump_to_null_is_heard", "EXEC_NULL", "null-dereference: address: 0000000000000000"),
    ("a_jump_into_data_is_heard", "EXEC_DATA", "page-fault: unable to handle page fault"),
    ("a_read_of_freed_memory_is_heard", "READ_AFTER_FREE", "kasan: use-after-free in lkdtm_READ_AFTER_FREE"),
    ("a_read_of_a_freed_page_is_heard", "READ_BUDDY_AFTER_FREE", "kasan: use-after-free in lkdtm_READ_BUDDY_AFTER_FREE"),
    ("a_second_free_is_heard", "SLAB_FREE_DOUBLE", "kasan: double-free"),
    ("a_free_into_another_cache_is_heard", "SLAB_FREE_CROSS", "warning: kmem_cache_free"),
    ("an_index_out_of_bounds_is_heard", "ARRAY_BOUNDS", "ubsan: drivers/misc/lkdtm/bugs.c"),
    ("a_corrupted_list_is_heard", "CORRUPT_LIST_DEL", "list: list_del corruption"),
    ("a_reference_to_what_is_gone_is_heard", "REFCOUNT_INC_ZERO", "refcount: addition on 0; use-after-free"),
];

/// Them as cases.
pub(crate) fn cases() -> Vec<Case> {
    let case = |&(name, _, splat)| {
        Case::new(Group::Witness, name, run)
            .on(Kernel::Debug)
            .expecting(splat)
    };
    FAULTS.iter().map(case).collect()
}

fn run(setting: &mut Setting) -> anyhow::Result<()> {
    let named = FAULTS.iter().find(|(name, ..)| *name == setting.case);
    let (_, fault, _) = named.context("it is not in the table")?;
    let mounted = mount(
        Some("debugfs"),
        "/sys/kernel/debug",
        Some("debugfs"),
        MsFlags::empty(),
        None::<&str>,
    );
    if mounted.is_err() || !Path::new(ON_REQUEST).exists() {
        bail!(Unmet(
            "a kernel with CONFIG_LKDTM, such as 6.1-debug".into()
        ));
    }
    // The kernel ends who makes an oops, and may not have freed what they held.
    let status = Child::start(|| {
        fs::write(ON_REQUEST, fault).with_context(|| format!("cannot write {fault}"))
    })?
    .wait()?;
    ensure!(
        matches!(status, WaitStatus::Exited(_, 0) | WaitStatus::Signaled(..)),
        "the child ended so: {status:?}"
    );
    setting.note(format!("{fault}: {status:?}"));
    Ok(())
}

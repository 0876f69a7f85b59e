// SPDX-License-Identifier: MIT OR Apache-2.0
//! The contract, clause by clause.

use crate::clause::{Clause, clauses};

pub const SETUP: &[Clause] = clauses! {
    "setup-frame-place" =>
        "Frame i lies in block i / frames_per_block at (i % frames_per_block) * nm_frame_size: none \
         straddles two blocks, and the rest of a block is not used.",
    "setup-blocks" =>
        "A block is contiguous whatever multiple of the page size it has, also where no compound page is of \
         that size.",
    "setup-capability" =>
        "Without `CAP_NET_ADMIN` in the user namespace that owns the socket's network namespace, a set-up \
         is refused: `EPERM`.",
    "setup-capability-there" =>
        "That capability is enough: a caller who has it in that user namespace only gets the ring.",
    "setup-charged" =>
        "The memory of a ring is charged to the memory cgroup of the caller.",
    "setup-short-request" =>
        "A request of less than 16 bytes is refused: `EINVAL`.",
    "setup-long-request" =>
        "A request of more than a page is refused: `EINVAL`.",
    "setup-unreadable-request" =>
        "A request that cannot be read is refused: `EFAULT`.",
    "setup-old-request" =>
        "The 16-byte request sets up a ring in allocation order, without multicast.",
    "setup-unknown-flags" =>
        "Bits of `nm_flags` that have no meaning are refused: `EINVAL`.",
    "setup-zeros-behind" =>
        "Zeros behind the 20 bytes that are known do not matter.",
    "setup-bytes-behind" =>
        "Bytes behind the 20 that are known, and not zero, are refused: `EINVAL`.",
    "setup-mapped" =>
        "While any ring of the socket is mapped, set-up and tear-down of either are refused: `EBUSY`.",
    "setup-again" =>
        "A second set-up of a ring is refused, `EBUSY`, and the first one stays as it is.",
    "setup-block-zero" =>
        "A block size of 0 is refused: `EINVAL`.",
    "setup-block-huge" =>
        "A block size above `INT_MAX` is refused: `EINVAL`.",
    "setup-block-pages" =>
        "A block size that is no multiple of the page size is refused: `EINVAL`.",
    "setup-frame-small" =>
        "A frame of less than 24 bytes is refused: `EINVAL`.",
    "setup-frame-aligned" =>
        "A frame size that is no multiple of 4 is refused: `EINVAL`.",
    "setup-frame-in-block" =>
        "A frame larger than the block is refused: `EINVAL`.",
    "setup-frame-count" =>
        "A number of frames that is not that of the blocks is refused: `EINVAL`.",
    "setup-overflow" =>
        "A product of frames per block and blocks that overflows 32 bits is refused, `EINVAL`, whatever it \
         wraps to.",
    "setup-tx-flags" =>
        "Flags on a TX ring are refused: `EINVAL`.",
    "setup-order-of-checks" =>
        "Of several things that are wrong at once the first is told, in the order: capability, request, \
         mapping, ring there already, shape, membership.",
    "setup-no-memory" =>
        "A ring for which there is no memory is refused, `ENOMEM`, and keeps none of it.",
    "setup-no-oom-kill" =>
        "Nobody is killed to make room for a ring.",
    "setup-zeroed" =>
        "The memory of a new ring is zeros, whatever was in those pages.",
    "setup-down-with-frames" =>
        "A tear-down with `nm_frame_nr` other than 0 is refused: `EINVAL`.",
    "setup-down-frees" =>
        "A tear-down frees the memory of the ring.",
    "setup-down-nothing" =>
        "Tearing down a ring that is not there succeeds.",
    "setup-resize" =>
        "Unmapped and torn down, a ring can be set up again in another shape, and works.",
    "setup-race" =>
        "Of set-ups that race for one ring exactly one wins, and the others get `EBUSY`.",
    "setup-race-leak" =>
        "The losers of such a race keep no memory.",
    "setup-option" =>
        "`getsockopt` tells each ring as it was set up, flags included.",
    "setup-option-absent" =>
        "`getsockopt` tells zeros for a ring that is not set up.",
    "setup-option-length" =>
        "`getsockopt` writes, and returns as the length, the smaller of what was asked for and 20 bytes.",
    "setup-option-short" =>
        "`getsockopt` for less than 4 bytes is refused: `EINVAL`.",
};

pub const MAPPING: &[Clause] = clauses! {
    "mapping-rx-first" =>
        "One mapping shows the RX ring first and the TX ring right behind it.",
    "mapping-one-ring" =>
        "A ring that is not set up takes no room in the mapping.",
    "mapping-length" =>
        "A mapping of another length than that of all rings is refused: `EINVAL`.",
    "mapping-offset" =>
        "A mapping from another offset than 0 is refused: `EINVAL`.",
    "mapping-no-ring" =>
        "A mapping of a socket without rings is refused: `EINVAL`.",
    "mapping-writable-private" =>
        "A private mapping that is writable is refused: `EINVAL`.",
    "mapping-becomes-writable" =>
        "A private mapping may not become writable: `EACCES`.",
    "mapping-executable" =>
        "An executable mapping is refused.",
    "mapping-becomes-executable" =>
        "No mapping may become executable: `EACCES`.",
    "mapping-several" =>
        "Several mappings at once show the same frames.",
    "mapping-counted" =>
        "The rings are held until the last of several mappings is gone, and not by one that was refused.",
    "mapping-fork" =>
        "A child inherits the mapping, can use it, and holds the rings with it.",
    "mapping-resized" =>
        "`mremap` of a mapping to another size, larger or smaller, fails.",
    "mapping-outlives-close" =>
        "A mapping keeps the socket alive after `close`: messages go on arriving in the ring.",
    "mapping-end" =>
        "With its last mapping a closed socket goes, and its rings with it.",
};

pub const RX: &[Clause] = clauses! {
    "rx-layout" =>
        "A frame is the header of 24 bytes, its fields where they always were, and right behind it the \
         message.",
    "rx-in-turn" =>
        "Frames are filled one after the other, the last followed by the first.",
    "rx-valid" =>
        "A `VALID` frame holds the whole message, and `nm_len` is its length.",
    "rx-published-last" =>
        "The status word is written last, and released: whoever sees `VALID` sees the whole message.",
    "rx-reserved" =>
        "A frame that the kernel holds for a message in the making reads `RESERVED`.",
    "rx-pid" =>
        "`nm_pid` is the pid that `recvmsg` would report with `SCM_CREDENTIALS`.",
    "rx-pid-kernel" =>
        "`nm_pid` is 0 for messages of the kernel.",
    "rx-uid-gid" =>
        "`nm_uid` and `nm_gid` are the sender's.",
    "rx-uid-gid-translated" =>
        "`nm_uid` and `nm_gid` are translated into the user namespace of whoever set the ring up.",
    "rx-uid-gid-pinned" =>
        "That user namespace is the one at set-up, whoever sends, reads or has the socket later.",
    "rx-came-to-nothing" =>
        "A frame reserved for a message that then comes to nothing is published with `nm_len` 0.",
    "rx-copy" =>
        "A message that does not fit a frame's room waits in the socket's queue, whole, and its frame reads \
         `COPY`.",
    "rx-copy-length" =>
        "`nm_len` of a `COPY` frame is the length of the message that waits.",
    "rx-room" =>
        "A message of exactly `nm_frame_size` - 24 bytes fits, and one byte more does not.",
    "rx-released" =>
        "A frame that the user gives back is used again when its turn comes.",
    "rx-skip" =>
        "The kernel passes `SKIP` frames, and leaves them alone.",
    "rx-skip-copy" =>
        "The kernel passes `SKIP` frames for messages that do not fit, too.",
    "rx-skip-locked" =>
        "`SKIP` frames are passed only with the taking of a later frame: where none can be taken, the turn \
         stays where it is.",
    "rx-skip-bound" =>
        "More than 1024 `SKIP` frames in a row are a full ring, and 1024 are not.",
    "rx-skip-due" =>
        "A frame that was passed and given back is not taken before what came in its place was read or kept.",
    "rx-skip-reader" =>
        "A reader that keeps frames by the rule, and releases them at any time, reads every message once, in \
         order.",
    "rx-every-family" =>
        "What fits arrives in the ring whatever family sends it, also where that knows nothing of rings.",
    "rx-every-sender" =>
        "What fits arrives in the ring also from another program.",
    "rx-copied-once" =>
        "A message is copied once, straight into its frame.",
    "rx-nsid" =>
        "A message that carries a namespace id for `NETLINK_LISTEN_ALL_NSID` always comes as `COPY`.",
    "rx-compat-twin" =>
        "A message that has a 32-bit twin always comes as `COPY`.",
    "rx-copy-pairs" =>
        "`COPY` frames stand for the messages of the queue one for one, in the same order.",
    "rx-copy-queued-first" =>
        "Whoever sees `COPY` finds the message in the queue.",
    "rx-copy-buffer" =>
        "For a message that the receive buffer cannot hold no frame is taken, and it is dropped as at a full \
         ring.",
    "rx-early" =>
        "In allocation order a ring-aware sender takes the frame before its own locks.",
    "rx-early-bulk" =>
        "In allocation order the bulk of a message is copied outside every lock: several CPUs fill frames at \
         the same time.",
    "rx-early-generation" =>
        "A frame taken early for a ring that is gone, or for another socket, is not used: the message is \
         delivered as if none had been taken.",
    "rx-ordered" =>
        "In an ordered ring frames, `COPY` included, stand in the order of sending.",
    "rx-ordered-ids" =>
        "In an ordered ring the packet ids of a queue strictly increase, whatever CPUs they come from.",
    "rx-ordered-verdict" =>
        "With an ordered ring a batch verdict up to an id never covers a packet that was not shown yet.",
    "rx-full" =>
        "At a full ring a message is dropped, and no frame that the user holds is touched.",
    "rx-full-in-turn" =>
        "A ring is full when the frame whose turn it is is not free, whatever frames behind it are.",
    "rx-full-all-frames" =>
        "A ring is not full before every one of its frames is taken.",
    "rx-full-counted" =>
        "A message of the kernel that meets a full ring counts in the socket's drops.",
    "rx-full-enobufs" =>
        "A drop of a message of the kernel is reported by `ENOBUFS`, once while it is pending.",
    "rx-full-no-enobufs" =>
        "With `NETLINK_NO_ENOBUFS` a drop is not reported.",
    "rx-full-sender" =>
        "The kernel's sender sees the error of a full receive buffer: nfnetlink_queue counts the packet.",
    "rx-full-fail-open" =>
        "nfnetlink_queue lets a packet that meets a full ring pass where fail-open was asked for.",
    "rx-full-eagain" =>
        "A program that sends to a full ring gets `EAGAIN` at once, also where it would block.",
    "rx-full-resumes" =>
        "A full ring does not congest the socket: when frames are released, messages arrive with no further \
         call.",
    "rx-buffer" =>
        "A message that fits is not held against the receive buffer.",
    "rx-untrusted" =>
        "Whatever the user writes into the ring, at any moment and from any thread, does the kernel no harm.",
    "rx-untrusted-others" =>
        "Whatever the user writes into its ring, no other socket loses or misreads a message.",
    "rx-one-owner" =>
        "No frame is given to two messages, also where the user marks it free while the kernel fills it.",
};

pub const TX: &[Clause] = clauses! {
    "tx-flush-sendto" =>
        "`sendto` with no buffer and length 0 flushes the ring.",
    "tx-flush-sendmsg" =>
        "`sendmsg` with one empty `iov` whose base is `NULL` flushes the ring.",
    "tx-flush-null" =>
        "An empty send from an address that is not `NULL` is no flush: `ENODATA`, and no frame is taken.",
    "tx-plain-sends" =>
        "Ordinary sends work on a socket with a TX ring as ever, and take no frame.",
    "tx-in-turn" =>
        "A flush sends consecutive `VALID` frames from where the last one ended, across the end of the ring, \
         and stops at the first other one.",
    "tx-released" =>
        "A frame that was sent reads `UNUSED`.",
    "tx-skip" =>
        "A flush steps over `SKIP` frames, sends nothing of them, and marks them `UNUSED`.",
    "tx-header-once" =>
        "The header of a frame is sampled once: a length that was checked is the length that is used.",
    "tx-copied-first" =>
        "A message is copied before it is looked at: nothing written to the frame afterwards reaches it.",
    "tx-send-buffer" =>
        "A message from a frame meets the limit of the send buffer as one by `sendto` does.",
    "tx-credentials" =>
        "A message from a frame meets the capability checks that one by `sendto` of the same caller meets.",
    "tx-no-more-checks" =>
        "Nothing that `sendto` would send is refused from a frame.",
    "tx-answers" =>
        "What a family refuses is answered as it is for `sendto`, and is no error of the flush.",
    "tx-bytes" =>
        "A flush returns the bytes that it sent.",
    "tx-nothing" =>
        "A flush with no `VALID` frame returns 0.",
    "tx-one-round" =>
        "A flush takes at most one round of the ring, however fast the user fills it.",
    "tx-signal-short" =>
        "A pending signal ends a flush that has sent something with a short count, and the rest stays.",
    "tx-signal-eintr" =>
        "A pending signal ends a flush that has sent nothing with `EINTR`.",
    "tx-error-stays" =>
        "A frame that met an error stays `VALID` and stays next.",
    "tx-error-told" =>
        "The error is returned if nothing was sent in the call.",
    "tx-error-next" =>
        "An error behind messages that were sent gives the short count, and is returned by the next flush.",
    "tx-error-way-out" =>
        "The owner of a frame that met an error may mend it, try again or mark it `SKIP`, and the flush goes \
         on.",
    "tx-length-zero" =>
        "`nm_len` 0 is an error: `EINVAL`.",
    "tx-length-large" =>
        "`nm_len` above `nm_frame_size` - 24 is an error, `EINVAL`, and that length is none.",
    "tx-many" =>
        "One flush sends many frames.",
    "tx-several-in-frame" =>
        "One frame may carry several netlink messages back to back, and each is answered.",
    "tx-no-ring" =>
        "Without a TX ring the call is the empty send that it always was: `ENODATA`.",
    "tx-one-at-a-time" =>
        "Of flushes at once each frame is sent by one, and a flush that may not wait gets `EAGAIN`.",
    "tx-torn-down" =>
        "A flush that meets the tear-down of its ring ends with a clear error or its count, never a fault.",
    "tx-tear-down-waits" =>
        "A tear-down waits for a flush to end, and a signal ends the waiting: `EINTR`.",
    "tx-untrusted" =>
        "Whatever the user writes into the ring, while it is flushed and from any thread, does the kernel no \
         harm.",
    "tx-multicast" =>
        "A flush to a multicast group is refused, `EOPNOTSUPP`, and its frames stay.",
};

pub const MULTICAST: &[Clause] = clauses! {
    "multicast-bind" =>
        "`bind` with groups on a socket with an RX ring is refused: `EOPNOTSUPP`.",
    "multicast-membership" =>
        "`NETLINK_ADD_MEMBERSHIP` on a socket with an RX ring is refused: `EOPNOTSUPP`.",
    "multicast-callback" =>
        "Groups of families with a callback of their own, generic netlink among them, are refused as well.",
    "multicast-member" =>
        "An RX ring on a socket with a membership is refused: `EOPNOTSUPP`.",
    "multicast-untouched" =>
        "A refusal leaves the socket as it was: port, memberships, ring and traffic.",
    "multicast-others" =>
        "Other listeners of a group notice nothing of a refusal.",
    "multicast-einval-first" =>
        "A group that does not exist is `EINVAL` with a ring as without.",
    "multicast-eperm-first" =>
        "Who may not join at all is told so, `EPERM`, before the refusal.",
    "multicast-before-callback" =>
        "The refusal comes before any callback of the family.",
    "multicast-before-autobind" =>
        "The refusal comes before the socket is bound to a port.",
    "multicast-race" =>
        "Of a join and a ring that race on one socket exactly one wins.",
    "multicast-race-undone" =>
        "The loser of that race undoes what its family's callback did.",
    "multicast-tx" =>
        "A TX ring alone does not keep a socket out of groups, nor groups from a TX ring.",
    "multicast-again" =>
        "A socket whose RX ring was torn down may join, and one that has left its groups may have a ring.",
    "multicast-opt-in" =>
        "A socket whose ring was set up with `NL_MMAP_RING_MULTICAST` may join groups, in any way and before \
         or after.",
    "multicast-own-copy" =>
        "Each listener with a ring has its own copy of a message in its own ring.",
    "multicast-group" =>
        "`nm_group` is the group that a message was sent to, and 0 for one that was not.",
    "multicast-loss" =>
        "A listener whose ring is full loses the message for itself, and gets `ENOBUFS`.",
    "multicast-nobody-waits" =>
        "Neither the sender nor any other listener waits for one whose ring is full.",
};

pub const POLL: &[Clause] = clauses! {
    "poll-valid" =>
        "`POLLIN` as long as a `VALID` frame is not released.",
    "poll-copy" =>
        "`POLLIN` as long as a `COPY` frame is not released.",
    "poll-queue" =>
        "`POLLIN` as long as the socket's queue is not empty, whatever the frames say.",
    "poll-wakes" =>
        "A program that sleeps in poll is woken by a message that arrives in the ring.",
    "poll-reserved" =>
        "A lone `RESERVED` frame does not wake.",
    "poll-skip" =>
        "A lone `SKIP` frame does not wake.",
    "poll-error" =>
        "A pending error is told by `POLLERR`.",
    "poll-behind" =>
        "`VALID` and `COPY` frames are seen behind `UNUSED` and `SKIP` ones.",
    "poll-behind-reserved" =>
        "`VALID` frames are seen behind one that is `RESERVED`.",
    "poll-after-reserved" =>
        "A frame that was `RESERVED` when poll looked is seen once it is published.",
    "poll-constant" =>
        "The cost of poll does not grow with the ring.",
    "poll-read-on" =>
        "The library reads on behind a `RESERVED` frame, and comes back to it.",
};

pub const DUMP: &[Clause] = clauses! {
    "dump-frames" =>
        "A dump on a ringed socket fills frames.",
    "dump-whole" =>
        "A dump is whole: no part of it is lost and none comes twice, whatever the ring meets.",
    "dump-part-minimum" =>
        "A part is never smaller than `NLMSG_GOODSIZE`, or the family's minimum where that is larger.",
    "dump-part-frame" =>
        "A part is sized to the frame where that is larger.",
    "dump-part-copy" =>
        "Where a frame has less room than a part needs, parts come as `COPY`.",
    "dump-poll" =>
        "A dump goes on from poll.",
    "dump-recvmsg" =>
        "A dump goes on from `recvmsg`.",
    "dump-flush" =>
        "A dump goes on from a flush of the TX ring, also of an empty one.",
    "dump-full" =>
        "A full ring pauses a dump, and nothing else: it goes on when frames are released.",
    "dump-parked" =>
        "A finished part that meets a full ring is parked, and delivered before any other.",
    "dump-parked-first" =>
        "The first part of a dump is parked like any other.",
    "dump-parked-done" =>
        "`NLMSG_DONE` is parked like any other.",
    "dump-closed" =>
        "A socket that is closed with a dump under way, or a part parked, leaves nothing behind.",
};

pub const REST: &[Clause] = clauses! {
    "rest-filter" =>
        "A socket filter drops and cuts messages of a ringed socket as of any other.",
    "rest-tap" =>
        "An nlmon tap hears what a ringed socket receives and what a TX ring sends.",
    "rest-extended-ack" =>
        "Extended acks come to a ringed socket as to any other.",
    "rest-capped-ack" =>
        "`NETLINK_CAP_ACK` cuts the request out of an ack for a ringed socket too.",
    "rest-message-queue" =>
        "Cookies of POSIX message queues go to the socket's queue, without a frame.",
    "rest-diag" =>
        "`sock_diag` with `NDIAG_SHOW_RING_CFG` tells block size, block count, frame size and frame count of \
         either ring.",
    "rest-diag-asked" =>
        "`sock_diag` tells no ring where it was not asked, or where there is none.",
    "rest-off" =>
        "A kernel without the feature answers `ENOPROTOOPT` to both options, set and get, and maps nothing.",
    "rest-off-unchanged" =>
        "With the feature compiled out the rest of netlink behaves as on an unpatched kernel.",
    "rest-on-unchanged" =>
        "With the feature compiled in, sockets without rings behave as on an unpatched kernel.",
    "rest-library" =>
        "Where a ring cannot be had, the library does the same work through the plain socket.",
    "rest-old-program" =>
        "A program written for Linux 3.10 to 4.5 runs unchanged.",
};

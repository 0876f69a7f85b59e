# SPDX-License-Identifier: MIT OR Apache-2.0
"""Commands for gdb that show the rings of netlink sockets, in a kernel that is stopped.

Structures are read as net/netlink/ring.c and af_netlink.h describe them. What the kernel's debugging
information does not describe, which is what files share, is read by its layout: that of user space is fixed.
"""

import itertools
import struct

import gdb

PROTOCOLS = {
    0: "route", 2: "usersock", 4: "sock_diag", 5: "nflog", 6: "xfrm", 7: "selinux", 9: "audit",
    10: "fib_lookup", 11: "connector", 12: "netfilter", 15: "uevent", 16: "generic", 21: "crypto",
}  # fmt: skip
STATUSES = ["UNUSED", "RESERVED", "VALID", "COPY", "SKIP"]
FLAGS = [(1, "ordered"), (2, "multicast")]


def words(address, count):
    """`count` numbers of 32 bits at `address`."""
    memory = gdb.selected_inferior().read_memory(int(address), 4 * count)
    return struct.unpack(f"<{count}I", bytes(memory))


def pointer_at(address):
    """The pointer that lies at `address`."""
    return struct.unpack("<Q", bytes(gdb.selected_inferior().read_memory(int(address), 8)))[0]


def offset_of(kind, field):
    """Where a field of a structure begins, in bytes."""
    return kind[field].bitpos // 8


def sockets():
    """(protocol, address of its struct netlink_sock) of each netlink socket that has an address."""
    kind = gdb.lookup_type("struct netlink_sock")
    table_kind = gdb.lookup_type("struct bucket_table").pointer()
    node = offset_of(kind, "node")
    tables = gdb.parse_and_eval("nl_table")
    if int(tables) == 0:
        return
    for protocol in range(32):
        # The first member of a struct rhashtable is its table; while it grows there is a second.
        table = gdb.Value(pointer_at(tables[protocol]["hash"].address)).cast(table_kind)
        while int(table):
            buckets = int(table.dereference()["buckets"].address)
            for bucket in range(int(table["size"])):
                # The lowest bit of a bucket is its lock, and of what ends a chain that it does.
                entry = pointer_at(buckets + 8 * bucket) & ~1
                while entry and not entry & 1:
                    yield protocol, entry - node
                    entry = pointer_at(entry)
            table = table["future_tbl"]


def geometry(ring):
    """Block size, blocks, frame size, frames and flags of a struct netlink_ring."""
    return words(ring["ext"].address, 5)


def shape(ring):
    """The same, for a person."""
    block_size, blocks, frame_size, frames, flags = geometry(ring)
    named = [name for bit, name in FLAGS if flags & bit]
    text = f"{frames} frames of {frame_size} bytes in {blocks} blocks of {block_size}"
    return ", ".join([text, *named])


class Sockets(gdb.Command):
    """List the netlink sockets that have a ring; with -a, all.

    nl-sockets [-a]

    For each: protocol, port, address of its struct netlink_sock, mappings, and of its rings the address,
    which nl-ring takes, and the geometry. Sockets without an address (bound by nobody yet) are not found."""

    def __init__(self):
        super().__init__("nl-sockets", gdb.COMMAND_DATA)

    def invoke(self, argument, _from_tty):
        if argument not in ("", "-a"):
            raise gdb.GdbError(f'nl-sockets: "{argument}" is neither nothing nor -a; see help nl-sockets')
        kind = gdb.lookup_type("struct netlink_sock").pointer()
        if not any(field.name == "rings" for field in kind.target().fields()):
            raise gdb.GdbError("nl-sockets: this kernel does not have the series")
        listed = 0
        for protocol, address in sockets():
            socket = gdb.Value(address).cast(kind)
            rings = socket["rings"]
            if not any(field.name == "rx" for field in rings.type.fields()):
                raise gdb.GdbError("nl-sockets: this kernel has no rings (CONFIG_NETLINK_MMAP)")
            of_socket = [(name, rings[name]) for name in ("rx", "tx") if int(rings[name])]
            if not of_socket and not argument:
                continue
            listed += 1
            name = PROTOCOLS.get(protocol, str(protocol))
            print(f"{name} port {int(socket['portid'])}: socket {address:#x}, mapped {int(rings['mapped'])} times")
            for name, ring in of_socket:
                print(f"  {name} {int(ring):#x}: {shape(ring)}")
        if not listed:
            print("no netlink socket has a ring" if not argument else "there is no netlink socket yet")


class Ring(gdb.Command):
    """Show a ring: its geometry, head, cursor, and the status words of its frames.

    nl-ring ADDRESS

    ADDRESS is that of a struct netlink_ring, as nl-sockets tells it, or an expression that gives it. Frames in
    a row that are alike are one line: their status word as user space sees it, the length in the first, and
    what the kernel notes of them. Of a receive ring the head is the next frame to be taken, and the cursor
    the oldest that may not have been read; of a transmit ring the head is the next to be sent."""

    def __init__(self):
        super().__init__("nl-ring", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, _from_tty):
        if not argument:
            raise gdb.GdbError("nl-ring: which one? nl-sockets tells their addresses")
        kind = gdb.lookup_type("struct netlink_ring").pointer()
        ring = gdb.parse_and_eval(argument).cast(kind)
        frames = geometry(ring)[3]
        head, unread = int(ring["head"]), int(ring["unread"])
        if not 0 < frames <= 1 << 24 or head >= frames or unread > frames:
            raise gdb.GdbError(f"nl-ring: at {argument} there is no struct netlink_ring")
        socket = int(ring["sk"])
        print(f"ring {int(ring):#x} of socket {socket:#x}: {shape(ring)}")
        rings = gdb.Value(socket).cast(gdb.lookup_type("struct netlink_sock").pointer())["rings"]
        if int(rings["tx"]) == int(ring):
            print(f"transmit, head {head}, {int(ring['left'])} left in this flush")
        else:
            cursor = (head - unread) % frames
            print(f"receive, head {head}, cursor {cursor}, {unread} from there to the head")
        number = 0
        for (status, notes), run in itertools.groupby(self.states(ring, frames), key=lambda state: state[:2]):
            run = list(run)
            where = f"{number}" if len(run) == 1 else f"{number}-{number + len(run) - 1}"
            print(f"  {where}: {status}{notes}" + (f", {run[0][2]} bytes" if run[0][2] else ""))
            number += len(run)

    @staticmethod
    def states(ring, frames):
        """(status word, what the kernel notes, length) of each frame."""
        for number in range(frames):
            frame = ring["frames"][number]
            status, length = words(frame["hdr"], 2)
            name = STATUSES[status] if status < len(STATUSES) else f"{status:#x}"
            notes = f", ticket {int(frame['ticket'])}" if int(frame["ticket"]) else ""
            yield name, notes + (", passed" if bool(frame["passed"]) else ""), length


Sockets()
Ring()

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The least that a program must do to read a ring, by hand: what the library is measured against. It
 * reads VALID frames only, and believes their lengths no more than the library does.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { UNUSED = 0, VALID = 2, HEADER_LEN = 24 };

struct frame {
	uint32_t status;
	uint32_t len;
	uint32_t group, pid, uid, gid;
	unsigned char message[];
};

struct ring {
	unsigned char *memory;
	uint32_t block_size, frame_size, frames_per_block, frames;
	/* The frame that comes next: its number, its place, and how many are left in its block. */
	uint32_t position, left;
	unsigned char *at;
};

static void rewind_ring(struct ring *ring)
{
	ring->position = 0;
	ring->left = ring->frames_per_block;
	ring->at = ring->memory;
}

static void advance(struct ring *ring)
{
	if (++ring->position == ring->frames) {
		rewind_ring(ring);
	} else if (--ring->left == 0) {
		ring->left = ring->frames_per_block;
		ring->at = ring->memory + (size_t)(ring->position / ring->frames_per_block) *
					  ring->block_size;
	} else {
		ring->at += ring->frame_size;
	}
}

/* What is counted: all messages that are there. */
__attribute__((noinline)) uint64_t receive_all(struct ring *ring)
{
	uint64_t sum = 0;

	for (;;) {
		struct frame *frame = (struct frame *)ring->at;
		uint32_t len;

		if (__atomic_load_n(&frame->status, __ATOMIC_ACQUIRE) != VALID)
			return sum;
		len = __atomic_load_n(&frame->len, __ATOMIC_RELAXED);
		if (len == 0 || len > ring->frame_size - HEADER_LEN)
			abort();
		sum += len + frame->message[0];
		__atomic_store_n(&frame->status, UNUSED, __ATOMIC_RELEASE);
		advance(ring);
	}
}

int main(int argc, char **argv)
{
	struct ring ring = {0};
	uint64_t sum = 0;
	size_t len;
	int fd, rounds;

	if (argc != 6)
		return 2;
	ring.block_size = atoi(argv[2]);
	ring.frame_size = atoi(argv[3]);
	ring.frames = atoi(argv[4]);
	ring.frames_per_block = ring.block_size / ring.frame_size;
	rounds = atoi(argv[5]);
	len = (size_t)ring.frames / ring.frames_per_block * ring.block_size;
	fd = open(argv[1], O_RDWR);
	if (fd < 0)
		return 1;
	ring.memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring.memory == MAP_FAILED)
		return 1;
	rewind_ring(&ring);
	while (rounds--) {
		uint32_t frame;

		sum += receive_all(&ring);
		for (frame = 0; frame < ring.frames; frame++) {
			size_t at = (size_t)(frame / ring.frames_per_block) * ring.block_size +
				    (size_t)(frame % ring.frames_per_block) * ring.frame_size;

			((struct frame *)(ring.memory + at))->status = VALID;
		}
	}
	printf("%llu\n", (unsigned long long)sum);
	return 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#ifndef NLRING_H
#define NLRING_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Memory-mapped netlink: rings for a netlink socket that some other library opened and goes on using.
 *
 *     struct nlring_config config = {.rx_largest = 2048, .rx_messages = 512};
 *     struct nlring *ring = nlring_open(mnl_socket_get_fd(socket), &config);
 *     const struct nlmsghdr *message;
 *     ssize_t len;
 *
 *     while (nlring_wait(ring, -1) == 1)
 *             while ((len = nlring_receive(ring, &message)) > 0)
 *                     mnl_cb_run(message, len, 0, port, callback, data);
 *
 * Rings come from nlring_open and kept messages from nlring_keep; other pointers are to be valid, and
 * none but what nlring_close and nlring_release take may be NULL. What fails sets errno, and leaves a
 * line of words with nlring_error.
 */

/*
 For `nlring_config.rx_flags`: messages stand in the ring in exactly the order in which they were
 sent, instead of that in which their frames were allocated.
 */
#define NLRING_ORDERED 1

/*
 For `nlring_config.rx_flags`: the socket is in multicast groups, or is to join some.
 */
#define NLRING_MULTICAST 2

/*
 A socket with what was attached to it. One thread at a time may use it.
 */
struct nlring;

/*
 A message that was kept in the ring while later ones pass it.
 */
struct nlring_kept;

/*
 What to attach to a socket. Begin with all zeros.
 */
struct nlring_config {
  /*
   The largest message that is to come through the ring, in bytes; a larger one is copied, in
   its place. For nfnetlink_queue, the packets' size and 200 more.
   */
  uint32_t rx_largest;
  /*
   How many messages may wait in the ring at least; 0 for no ring to receive by.
   */
  uint32_t rx_messages;
  /*
   NLRING_ORDERED and NLRING_MULTICAST.
   */
  uint32_t rx_flags;
  /*
   The largest message, or messages back to back, that one slot is to hold, in bytes.
   */
  uint32_t tx_largest;
  /*
   How many slots there are at least; 0 for no ring to send by.
   */
  uint32_t tx_messages;
  /*
   To do without rings on a kernel that has them: all calls work, by recvmmsg and sendmmsg.
   */
  bool plain;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Why this thread's last call failed that set errno: one line, what was tried, what happened, what
 to do. It is there until the next call fails.
 */
const char *nlring_error(void);

/*
 Attaches rings to a netlink socket, which stays the caller's: to speak on, and to close, here or
 there first. A kernel without rings is served by recvmmsg and sendmmsg.

 NULL with errno EINVAL for a shape or flags that no ring has, EPERM without CAP_NET_ADMIN, EBUSY
 if the socket has rings, EOPNOTSUPP if it is in a multicast group and NLRING_MULTICAST was not
 asked for, ENOMEM, EBADF.
 */
struct nlring *nlring_open(int fd, const struct nlring_config *config);

/*
 Takes the rings off the socket, which receives as before; messages in them are gone. While kept
 messages are not released the socket keeps its rings, so release them first. NULL is let be.
 */
void nlring_close(struct nlring *ring);

/*
 Whether messages come through a ring, rather than by recvmmsg.
 */
bool nlring_receives_by_ring(const struct nlring *ring);

/*
 Whether messages leave through a ring, rather than by sendmmsg.
 */
bool nlring_sends_by_ring(const struct nlring *ring);

/*
 The next message: its bytes, and in `message` where they are, until the next call of
 nlring_receive, nlring_wait, nlring_keep or nlring_close. 0 if there is none at the moment; it never waits. A
 message in the ring costs no system call.

 -1 with errno ENOBUFS if messages were lost (nlring_lost says how many; receiving goes on),
 EBADMSG for a frame that is not as the kernel leaves it, EMSGSIZE for a copied message with its
 end cut off, and what recvmsg says.
 */
ssize_t nlring_receive(struct nlring *ring,
                       const struct nlmsghdr **message);

/*
 How many messages were lost when nlring_receive said ENOBUFS last; -1 where the kernel does not
 count them.
 */
int64_t nlring_lost(const struct nlring *ring);

/*
 Waits until there is something to receive, at most this many milliseconds, or for ever for -1: 1
 if there is, 0 if not. A program that polls the descriptor itself calls it with 0 whenever that
 is readable.

 -1 with what poll says.
 */
int nlring_wait(struct nlring *ring, int milliseconds);

/*
 Keeps the message that was received last in its frame while later ones pass it.

 NULL with errno EINVAL if it is not in a frame, since it was copied, or there is none.
 */
struct nlring_kept *nlring_keep(struct nlring *ring);

/*
 The bytes of a message that was kept, and in `message` where they are.
 */
size_t nlring_kept_message(const struct nlring_kept *kept, const struct nlmsghdr **message);

/*
 Gives a kept message's frame back to the kernel, from any thread. NULL is let be.
 */
void nlring_release(struct nlring_kept *kept);

/*
 The next free slot to write messages to, and in `room` how many bytes it has. Nothing is sent
 before nlring_submit and nlring_flush; until nlring_submit it is the same slot.

 NULL with errno EAGAIN if every slot waits to be sent, EINVAL without tx_messages, EBADMSG for a
 frame that is not as the kernel leaves it.
 */
void *nlring_slot(struct nlring *ring, size_t *room);

/*
 The first `len` bytes of the slot that nlring_slot gave go out with the next nlring_flush: 0.

 -1 with errno EMSGSIZE if these are no bytes or more than its room, and as nlring_slot.
 */
int nlring_submit(struct nlring *ring, size_t len);

/*
 Sends every slot that was submitted, in order, by one call; the bytes that went out.

 -1 with the error with which the first was refused: it stays where it is and is the first of the
 next flush, until that succeeds or nlring_take_back gives it up.
 */
ssize_t nlring_flush(struct nlring *ring);

/*
 Gives up the slot with which the next flush would begin: 1, or 0 if none waits.

 -1 as nlring_slot.
 */
int nlring_take_back(struct nlring *ring);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NLRING_H */

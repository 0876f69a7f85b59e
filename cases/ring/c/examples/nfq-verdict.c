/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A packet queue's verdicts, written with libmnl. The socket is opened, bound and spoken on with
 * libmnl's calls; what rings change is the loop: messages are read where the kernel put them, and the
 * verdicts on all that were there leave by one call.
 *
 *	cc nfq-verdict.c -lmnl -lnlring
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <libmnl/libmnl.h>
#include <nlring.h>

/* A packet of an Ethernet frame, and what nfnetlink_queue says about it. */
#define LARGEST 2048
#define MESSAGES 512

static const char usage[] =
	"usage: nfq-verdict [--plain] QUEUE COUNT\n"
	"\n"
	"Accepts COUNT packets of the queue of that number, and says how many came by which way.\n"
	"--plain  without rings: every message by recvmmsg, every verdict by sendmmsg\n";

struct queue {
	struct nlring *ring;
	uint16_t number;
	unsigned long packets;
	unsigned long bytes;
	unsigned long lost;
};

static int die(const char *what, const char *why)
{
	fprintf(stderr, "nfq-verdict: cannot %s: %s\n", what, why);
	exit(1);
}

static struct nlmsghdr *begin(void *room, unsigned int type, uint16_t queue)
{
	struct nlmsghdr *message = mnl_nlmsg_put_header(room);
	struct nfgenmsg *family = mnl_nlmsg_put_extra_header(message, sizeof(*family));

	message->nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type;
	message->nlmsg_flags = NLM_F_REQUEST;
	family->nfgen_family = AF_UNSPEC;
	family->version = NFNETLINK_V0;
	family->res_id = htons(queue);
	return message;
}

/* Binds or unbinds the queue, by libmnl alone: a question and its answer. */
static void configure(struct mnl_socket *socket, uint16_t queue, uint8_t what)
{
	char room[MNL_SOCKET_BUFFER_SIZE];
	struct nlmsghdr *message = begin(room, NFQNL_MSG_CONFIG, queue);
	struct nfqnl_msg_config_cmd command = {.command = what};
	struct nfqnl_msg_config_params params = {
		.copy_range = htonl(0xffff),
		.copy_mode = NFQNL_COPY_PACKET,
	};
	ssize_t len;

	message->nlmsg_flags |= NLM_F_ACK;
	mnl_attr_put(message, NFQA_CFG_CMD, sizeof(command), &command);
	if (what == NFQNL_CFG_CMD_BIND)
		mnl_attr_put(message, NFQA_CFG_PARAMS, sizeof(params), &params);
	if (mnl_socket_sendto(socket, message, message->nlmsg_len) < 0)
		die("speak of the queue", strerror(errno));
	len = mnl_socket_recvfrom(socket, room, sizeof(room));
	if (len < 0 || mnl_cb_run(room, len, 0, 0, NULL, NULL) < 0)
		die("bind or unbind the queue", strerror(errno));
}

/* The next free slot; with none left, what is in them is sent first. */
static void *slot(struct nlring *ring)
{
	size_t room;
	void *free = nlring_slot(ring, &room);

	if (!free && errno == EAGAIN && nlring_flush(ring) >= 0)
		free = nlring_slot(ring, &room);
	if (!free)
		die("find room for a verdict", nlring_error());
	return free;
}

static int accept_packet(const struct nlmsghdr *message, void *data)
{
	struct nfqnl_msg_verdict_hdr verdict = {.verdict = htonl(NF_ACCEPT)};
	struct queue *queue = data;
	struct nlmsghdr *answer;
	struct nlattr *attribute;
	int found = 0;

	mnl_attr_for_each(attribute, message, sizeof(struct nfgenmsg)) {
		struct nfqnl_msg_packet_hdr *header = mnl_attr_get_payload(attribute);

		if (mnl_attr_get_type(attribute) == NFQA_PACKET_HDR) {
			verdict.id = header->packet_id;
			found = 1;
		}
		if (mnl_attr_get_type(attribute) == NFQA_PAYLOAD)
			queue->bytes += mnl_attr_get_payload_len(attribute);
	}
	if (!found)
		return MNL_CB_OK;
	answer = begin(slot(queue->ring), NFQNL_MSG_VERDICT, queue->number);
	mnl_attr_put(answer, NFQA_VERDICT_HDR, sizeof(verdict), &verdict);
	if (nlring_submit(queue->ring, answer->nlmsg_len) < 0)
		die("submit a verdict", nlring_error());
	queue->packets++;
	return MNL_CB_OK;
}

static void receive_all(struct queue *queue)
{
	const struct nlmsghdr *message;
	ssize_t len;

	while ((len = nlring_receive(queue->ring, &message)) != 0) {
		if (len > 0 && mnl_cb_run(message, len, 0, 0, accept_packet, queue) < 0)
			die("read a message", strerror(errno));
		/* Packets that were lost went no further; the kernel has counted them. */
		if (len < 0 && errno == ENOBUFS)
			queue->lost += nlring_lost(queue->ring);
		else if (len < 0)
			die("receive", nlring_error());
	}
	if (nlring_flush(queue->ring) < 0)
		die("send verdicts", nlring_error());
}

int main(int argc, char **argv)
{
	const char *program = argv[0];
	struct nlring_config config = {
		.rx_largest = LARGEST,
		.rx_messages = MESSAGES,
		.rx_flags = NLRING_ORDERED,
		.tx_largest = 128,
		.tx_messages = MESSAGES,
	};
	struct queue queue = {0};
	struct mnl_socket *socket;
	unsigned long wanted;

	if (argc > 1 && !strcmp(argv[1], "--help")) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc > 1 && !strcmp(argv[1], "--plain")) {
		config.plain = true;
		argc--, argv++;
	}
	if (argc != 3) {
		fprintf(stderr, "%s: it takes QUEUE and COUNT\n%s", program, usage);
		return 2;
	}
	queue.number = atoi(argv[1]);
	wanted = strtoul(argv[2], NULL, 10);

	socket = mnl_socket_open(NETLINK_NETFILTER);
	if (!socket || mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
		die("open a netlink socket", strerror(errno));
	configure(socket, queue.number, NFQNL_CFG_CMD_BIND);
	/* What came until now waits in the socket, and is received first. */
	queue.ring = nlring_open(mnl_socket_get_fd(socket), &config);
	if (!queue.ring)
		die("attach rings", nlring_error());
	printf("receives %s, sends %s\n",
	       nlring_receives_by_ring(queue.ring) ? "by ring" : "plainly",
	       nlring_sends_by_ring(queue.ring) ? "by ring" : "plainly");
	fflush(stdout);
	while (queue.packets < wanted) {
		if (nlring_wait(queue.ring, -1) < 0)
			die("wait", nlring_error());
		receive_all(&queue);
	}
	printf("accepted %lu packets of %lu bytes, %lu lost\n", queue.packets, queue.bytes, queue.lost);
	nlring_close(queue.ring);
	/* The rings are gone, and the answer comes to the socket again. */
	configure(socket, queue.number, NFQNL_CFG_CMD_UNBIND);
	printf("unbound the queue by libmnl\n");
	mnl_socket_close(socket);
	return 0;
}

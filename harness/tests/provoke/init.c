// SPDX-License-Identifier: MIT OR Apache-2.0
//! PID 1 of a VM that has one fault made in it, the one that `fault=` of the kernel's command line names.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CGROUP "/sys/fs/cgroup/small/"

/* Complains on the console, and goes on: what is missing then is seen in the log. */
static void put(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		printf("provoke: cannot write %s to %s: %s\n", text, path,
		       strerror(errno));
	close(file);
}

static void lkdtm(const char *fault)
{
	put("/sys/kernel/debug/provoke-crash/DIRECT", fault);
}

static void take_all_memory(void)
{
	for (;;)
		memset(malloc(1 << 20), 1, 1 << 20);
}

static void make(const char *fault)
{
	if (!strcmp(fault, "none")) {
		return;
	} else if (!strcmp(fault, "oom")) {
		take_all_memory();
	} else if (!strcmp(fault, "oom-in-cgroup")) {
		put("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
		mkdir(CGROUP, 0755);
		put(CGROUP "memory.max", "8M");
		put(CGROUP "cgroup.procs", "0");
		take_all_memory();
	} else if (!strcmp(fault, "segfault")) {
		*(volatile int *)8 = 1;
	} else if (!strcmp(fault, "privileged-instruction")) {
		asm volatile("hlt");
	} else if (strchr(fault, '(')) {
		/* The call whose place the fault has. */
		syscall(SYS_ptrace);
	} else {
		lkdtm(fault);
	}
}

/* As a job of the harness is begun, so that the log tells whose fault it is. */
static void start(const char *fault, int job)
{
	char mark[128];

	snprintf(mark, sizeof(mark), "nlring: job %d begins: %s, seed 0\n", job, fault);
	put("/dev/kmsg", mark);
	if (!fork()) {
		make(fault);
		_exit(0);
	}
	sleep(1);
}

int main(void)
{
	const char *fault = getenv("fault"), *seconds = getenv("seconds");
	const char *times = getenv("times");
	int jobs = times ? atoi(times) : 1;

	if (!fault || !strcmp(fault, "exit"))
		return 1;
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, NULL);
	/* Nobody wants to wait for minutes. */
	put("/proc/sys/kernel/hung_task_timeout_secs", "10");
	put("/proc/sys/kernel/watchdog_thresh", "5");
	put("/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout", "10");
	for (int job = 1; job <= jobs; job++)
		start(fault, job);
	sleep(seconds ? atoi(seconds) : 3);
	reboot(RB_POWER_OFF);
	return 1;
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults that take the place of a system call in a kernel's image, one at a time (`-DFAULT=…`). What they
//! call is the kernel's own.

#define REPORT __attribute__((noreturn)) void

enum { ATOMIC = 0xa20, KERNEL = 0xcc0, UNINTERRUPTIBLE = 2 };

extern void *__kmalloc(unsigned long size, unsigned int flags);
extern void kfree(void *object);
extern void *__alloc_pages(unsigned int flags, unsigned int order, int node, void *mask);
extern void __free_pages(void *page, unsigned int order);
extern void vfree(void *area);
extern void *__alloc_skb(unsigned int size, unsigned int flags, int how, int node);
extern void *skb_put(void *skb, unsigned int length);
extern void refcount_warn_saturate(int *count, int kind);
extern void schedule(void);
extern long schedule_timeout(long jiffies);
extern REPORT panic(const char *format, ...);

#define at(type, address) (*(volatile type *)(address))

static inline char *current(void)
{
	char *task;

	asm volatile("movq %%gs:current_task, %0" : "=r"(task));
	return task;
}

static inline void add_to_preempt_count(int count)
{
	asm volatile("addl %0, %%gs:__preempt_count" : : "r"(count));
}

static inline void write_to_null(void) { at(int, 8) = 1; }
static inline void read_poison(void) { (void)at(int, 0x6b6b6b6b6b6b6b73); }
static inline void read_what_is_not_mapped(void) { (void)at(int, 0xffffc90000a41000); }
static inline void write_to_code(void) { at(int, (unsigned long)schedule) = 1; }
static inline void jump_to_null(void) { asm volatile("xor %eax, %eax; call *%rax"); }
static inline void divide_by_zero(void) { asm volatile("xor %ecx, %ecx; div %ecx"); }
static inline void invalid_opcode(void) { asm volatile("ud2"); }
static inline void breakpoint(void) { asm volatile("int3"); }
static inline void lose_the_stack(void) { asm volatile("xor %esp, %esp; push %rax"); }

static inline void write_to_null_in_interrupt(void)
{
	add_to_preempt_count(0x10000);
	write_to_null();
}

static inline void spin(void)
{
	for (;;)
		asm volatile("pause");
}

static inline void spin_deaf(void)
{
	asm volatile("cli");
	spin();
}

static inline void sleep_for_ever(void)
{
	at(int, current() + STATE) = UNINTERRUPTIBLE;
	schedule();
}

static inline void sleep_in_atomic(void)
{
	add_to_preempt_count(1);
	at(int, current() + STATE) = UNINTERRUPTIBLE;
	schedule_timeout(10);
	add_to_preempt_count(-1);
}

static inline void count(int kind)
{
	int references = 0;

	refcount_warn_saturate(&references, kind);
}

static inline void take_one_of_too_many(void) { count(1); }
static inline void take_what_is_gone(void) { count(2); }
static inline void give_back_too_much(void) { count(3); }
static inline void leak_a_reference(void) { count(4); }

static inline void take_large_pages(void)
{
	while (__alloc_pages(ATOMIC, 10, -1, 0))
		;
}

static inline void free_mapped_pages(void)
{
	char *page = __alloc_pages(KERNEL, 4, -1, 0);

	at(int, page + 0x30) = 3; /* its mapcount */
	__free_pages(page, 4);
}

static inline void free_twice(void)
{
	void *object = __kmalloc(64, KERNEL);

	kfree(object);
	kfree(object);
}

static inline void write_to_freed(void)
{
	char *object = __kmalloc(192, KERNEL);

	kfree(object);
	at(int, object + 64) = 1;
	for (int i = 0; i < 64; i++)
		__kmalloc(192, KERNEL);
}

static inline void write_beyond(void)
{
	char *object = __kmalloc(96, KERNEL);

	at(int, object + 96) = 1;
	kfree(object);
}

static inline void free_what_is_no_area(void) { vfree((void *)0xffffc90000a41000); }
static inline void free_half_a_page(void) { vfree((void *)0xffffc90000a41008); }
static inline void put_too_much(void) { skb_put(__alloc_skb(16, KERNEL, 0, -1), 4096); }

static inline void give_up(void) { panic("a fault that was asked for"); }

long fault(void)
{
	FAULT;
	return 0;
}

/* A PKCS#11 library that stands in front of another one. It counts calls, makes
 * them fail or hang as a page shared with the test says, and passes to
 * C_Initialize what crypto11 cannot: the parameters of NSS.
 *
 * Built by hsm.go with TARGET (path of the library), CONTROL (path of the page)
 * and, for NSS, PARAMS. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#define FUNCTIONS 68 /* of CK_FUNCTION_LIST, PKCS#11 v2.40 */

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word);

struct list {
	unsigned char version[2];
	function function[FUNCTIONS];
};

/* hsm.go knows this layout. */
struct control {
	word calls[FUNCTIONS];
	word code[FUNCTIONS];  /* what the next calls return */
	word times[FUNCTIONS]; /* how many of them */
	word hang[FUNCTIONS];  /* while not 0 */
	word sick[FUNCTIONS];  /* what calls return until C_Initialize */
};

static struct list real, mine;
static volatile struct control *control;

/* fails takes one of the failures that are left. */
static int fails(int i)
{
	word left = control->times[i];
	while (left > 0) {
		word seen = __sync_val_compare_and_swap(&control->times[i], left, left - 1);
		if (seen == left)
			return 1;
		left = seen;
	}
	return 0;
}

static word call(int i, word a, word b, word c, word d, word e, word f)
{
	__sync_fetch_and_add(&control->calls[i], 1);
	while (control->hang[i])
		usleep(1000);
	if (i == 0)
		for (int j = 0; j < FUNCTIONS; j++)
			control->sick[j] = 0;
	if (control->sick[i])
		return control->sick[i];
	if (fails(i))
		return control->code[i];
#ifdef PARAMS
	if (i == 0) { /* NSS has its own CK_C_INITIALIZE_ARGS */
		struct { void *mutex[4]; word flags; const char *params; void *reserved; }
			args = {{0}, 2 /* CKF_OS_LOCKING_OK */, PARAMS, NULL};
		return real.function[0]((word)&args, 0, 0, 0, 0, 0);
	}
#endif
	return real.function[i](a, b, c, d, e, f);
}

#define SHIM(i) \
	static word shim##i(word a, word b, word c, word d, word e, word f) \
	{ return call(i, a, b, c, d, e, f); }
SHIM(0) SHIM(1) SHIM(6) SHIM(12) SHIM(18) SHIM(24) SHIM(25) SHIM(26) SHIM(33) SHIM(34)

word C_GetFunctionList(struct list **out)
{
	word (*get)(struct list **);
	struct list *theirs;
	void *target = dlopen(TARGET, RTLD_NOW | RTLD_LOCAL);
	int fd = open(CONTROL, O_RDWR);
	if (!target || fd < 0)
		return 5; /* CKR_GENERAL_ERROR */
	control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	get = (word (*)(struct list **))dlsym(target, "C_GetFunctionList");
	if (control == MAP_FAILED || !get || get(&theirs) != 0)
		return 5;
	real = *theirs;
	mine = *theirs;
	mine.function[0] = shim0;
	mine.function[1] = shim1;
	mine.function[6] = shim6;
	mine.function[12] = shim12;
	mine.function[18] = shim18;
	mine.function[24] = shim24;
	mine.function[25] = shim25;
	mine.function[26] = shim26;
	mine.function[33] = shim33;
	mine.function[34] = shim34;
	*out = &mine;
	return 0;
}

// For releases alone, which run with glibc 2.31: what the static libraries take of a newer one is bound to the first version
// of it, which every glibc has.

#if defined(__x86_64__)
#define FIRST "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FIRST "GLIBC_2.17"
#endif

int first_pthread_once(int *control, void (*routine)(void));
__asm__(".symver first_pthread_once, pthread_once@" FIRST);

int pthread_once(int *control, void (*routine)(void));
int pthread_once(int *control, void (*routine)(void))
{
	return first_pthread_once(control, routine);
}

/*
 * A program that becomes the gateway when there is a file GO, so that a test holds a process that is to start; built by the tests:
 *
 *     cc -O2 -DGO='"/folder/go"' -DPROGRAM='"/path/of/ringway"' waits.c -o waits
 *
 * It ends with the process that started it.
 */
#include <unistd.h>

int main(int argc, char **argv) {
  pid_t parent = getppid();
  (void)argc;
  while (access(GO, F_OK) != 0) {
    if (getppid() != parent) return 1;
    usleep(10000);
  }
  execv(PROGRAM, argv);
  return 1;
}

/* TestU01's SmallCrush on the 32-bit words of standard input: lines "p", p-value, name of the test.

       gcc -O2 small_crush.c -ltestu01 -lprobdist -lmylib -lm -o small_crush

   P. L'Ecuyer and R. Simard, "TestU01: A C library for empirical testing of random number
   generators", ACM Trans. Math. Softw. 33 (2007). */
#include <stdio.h>
#include <stdlib.h>
#include "bbattery.h"
#include "swrite.h"
#include "unif01.h"

static unsigned int next_word(void) {
    static unsigned int words[1 << 16];
    static size_t at, count;
    if (at == count) {
        at = 0;
        count = fread(words, sizeof *words, 1 << 16, stdin);
        if (count == 0) {
            fprintf(stderr, "standard input ended before the last test\n");
            exit(1);
        }
    }
    return words[at++];
}

int main(void) {
    swrite_Basic = FALSE;
    unif01_Gen *words = unif01_CreateExternGenBits("standard input", next_word);
    bbattery_SmallCrush(words);
    for (int i = 0; i < bbattery_NTests; i++)
        printf("p %.17g %s\n", bbattery_pVal[i], bbattery_TestNames[i]);
    unif01_DeleteExternGenBits(words);
    return 0;
}

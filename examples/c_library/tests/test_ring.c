#include <stdio.h>
#include "ring.h"

int main(void)
{
    struct ring ring = {{0}, 0};
    for (int value = 1; value <= 10; value++)
        ring_add(&ring, value);
    printf("sum of the last eight: %d\n", ring_sum(&ring));
    return ring_sum(&ring) == 52 ? 0 : 1;
}

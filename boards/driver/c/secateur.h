/* Driver for the engine's registers: no operating system, no allocation, C99.
 *
 * Every call returns a secateur_result. Waiting is bounded: after `polls` reads of STATUS without
 * what a call waits for it returns SECATEUR_TIMEOUT. Calls for one engine must not overlap.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SECATEUR_H
#define SECATEUR_H

#include <stddef.h>
#include <stdint.h>

#include "secateur_registers.h"

typedef enum {
    SECATEUR_OK = 0,
    SECATEUR_BUS,       /* the bus has refused an access */
    SECATEUR_NO_ENGINE, /* no engine at this address, or of another register map */
    SECATEUR_TIMEOUT,   /* what the call waits for has not come */
    SECATEUR_BAD_IMAGE, /* not an image, cut short, or larger than the weight memory */
    SECATEUR_STOPPED    /* the engine has stopped for an error: secateur_state() */
} secateur_result;

/* Access to a register at a byte offset; returns 0 if it was not refused. */
typedef int (*secateur_read_fn)(void *bus, uint32_t offset, uint32_t *value);
typedef int (*secateur_write_fn)(void *bus, uint32_t offset, uint32_t value);

typedef struct {
    void *bus;
    secateur_read_fn read;
    secateur_write_fn write;
    uint32_t polls;
    uint32_t n;            /* bytes of a word of a tensor */
    uint32_t p;            /* lanes of pixels */
    uint32_t weight_words; /* of n + 1 bytes */
    int rom;               /* the image is in ROM */
} secateur;

/* Memory-mapped registers: `bus` is the base address, a volatile uint32_t *. */
int secateur_mmio_read(void *bus, uint32_t offset, uint32_t *value);
int secateur_mmio_write(void *bus, uint32_t offset, uint32_t value);

/* Find the engine and fill in `device`. Changes nothing in the engine. */
secateur_result secateur_open(secateur *device, void *bus, secateur_read_fn read,
                              secateur_write_fn write, uint32_t polls);

/* Load a .sec file of `length` bytes from memory, and wait until it is accepted. Metadata behind
 * the image may be there or not. With a ROM `image` is not used: the ROM is checked anew. */
secateur_result secateur_load(secateur *device, const uint8_t *image, size_t length);

/* Keep the image, forget all tensors: a new sequence begins. */
secateur_result secateur_restart(secateur *device);

/* Whether tensors pass through registers (1) or through the AXI streams (0, after power-up). */
secateur_result secateur_use_registers(secateur *device, int use);

/* Beats of the results of an inference, after which the result stream sets `tlast`. */
secateur_result secateur_set_beats(secateur *device, uint32_t beats);

/* Send `words` words of n bytes of an input, or take `beats` beats of n bytes of a result. Both
 * want secateur_use_registers(device, 1). */
secateur_result secateur_send(secateur *device, const uint8_t *input, size_t words);
secateur_result secateur_receive(secateur *device, uint8_t *output, size_t beats);

/* A whole inference: all of the input, then all of the result. */
secateur_result secateur_infer(secateur *device, const uint8_t *input, size_t words,
                               uint8_t *output, size_t beats);

/* Cycles of the last inference; inferences since the last command, modulo 2^16; state and error,
 * SECATEUR_STATE_* and SECATEUR_ERROR_*. */
secateur_result secateur_cycles(secateur *device, uint32_t *cycles);
secateur_result secateur_inferences(secateur *device, uint32_t *count);
secateur_result secateur_state(secateur *device, uint32_t *state, uint32_t *error);

/* Whether the weight memory has changed since the image was accepted (1), or not that the engine
 * knows of (0); walks over it that have ended since then, modulo 2^16. After an upset: secateur_load(). */
secateur_result secateur_upset(secateur *device, int *upset, uint32_t *scrubs);

#endif

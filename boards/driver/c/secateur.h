/* Driver for the engine's registers in C99, without an operating system or allocation.
 *
 * Every call returns a secateur_result. Waiting is bounded: a call returns SECATEUR_TIMEOUT after
 * `polls` reads of STATUS without success. Calls for one engine must not overlap.
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
    SECATEUR_NO_ENGINE, /* no engine at this address, or one with another register map */
    SECATEUR_TIMEOUT,   /* the expected status did not appear in time */
    SECATEUR_BAD_IMAGE, /* not an image, truncated, or larger than the weight memory */
    SECATEUR_STOPPED,   /* the engine has stopped with an error: secateur_state() */
    SECATEUR_OTHER_IMAGE /* the engine has accepted another image than the given one */
} secateur_result;

/* Access to a register at a byte offset; returns 0 on success. */
typedef int (*secateur_read_fn)(void *bus, uint32_t offset, uint32_t *value);
typedef int (*secateur_write_fn)(void *bus, uint32_t offset, uint32_t value);

typedef struct {
    void *bus;
    secateur_read_fn read;
    secateur_write_fn write;
    uint32_t polls;
    uint32_t n;            /* bytes per word of a tensor */
    uint32_t p;            /* pixel lanes */
    uint32_t weight_words; /* size of the weight memory, in words of n + 1 bytes */
    int rom;               /* the image is in ROM */
} secateur;

/* Memory-mapped registers: `bus` is the base address, a volatile uint32_t *. */
int secateur_mmio_read(void *bus, uint32_t offset, uint32_t *value);
int secateur_mmio_write(void *bus, uint32_t offset, uint32_t value);

/* Identify the engine and fill in `device`. The state of the engine does not change. */
secateur_result secateur_open(secateur *device, void *bus, secateur_read_fn read,
                              secateur_write_fn write, uint32_t polls);

/* Load a .sec file of `length` bytes from memory and wait until the engine has accepted it. The
 * metadata after the image may be omitted. With a ROM nothing is loaded: the engine checks the ROM
 * again, and the ROM must hold `image` unless that is NULL. */
secateur_result secateur_load(secateur *device, const uint8_t *image, size_t length);

/* Of an engine with a ring: read a .sec file that lies at `address`, a multiple of 64, as the engine
 * sees its memory, in every inference from there; wait until the engine has accepted it. `image` is
 * the same file as the processor sees it. It must stay there; up to 3 bytes behind it are read, too. */
secateur_result secateur_read_from(secateur *device, uint32_t address, const uint8_t *image,
                                   size_t length);

/* Compare the CRC-32 of the image that the engine has accepted with that of a .sec file, of which
 * its first 24 bytes suffice. SECATEUR_BUS also means that no image is accepted. */
secateur_result secateur_check_holds(secateur *device, const uint8_t *image, size_t length);

/* Keep the image and forget all tensors: a new sequence begins. */
secateur_result secateur_restart(secateur *device);

/* Transfer tensors by registers (1) or by the AXI streams (0, the state after power-up). */
secateur_result secateur_use_registers(secateur *device, int use);

/* Set the number of result beats per inference, after which the result stream asserts `tlast`. */
secateur_result secateur_set_beats(secateur *device, uint32_t beats);

/* Send `words` words of n bytes of an input, or receive `beats` beats of n bytes of a result. Both
 * need secateur_use_registers(device, 1). */
secateur_result secateur_send(secateur *device, const uint8_t *input, size_t words);
secateur_result secateur_receive(secateur *device, uint8_t *output, size_t beats);

/* Run an inference: send the whole input, then receive the whole result. */
secateur_result secateur_infer(secateur *device, const uint8_t *input, size_t words,
                               uint8_t *output, size_t beats);

/* Read the cycles of the last inference; the inferences since the last command, modulo 2^16; state
 * and error, SECATEUR_STATE_* and SECATEUR_ERROR_*. */
secateur_result secateur_cycles(secateur *device, uint32_t *cycles);
secateur_result secateur_inferences(secateur *device, uint32_t *count);
secateur_result secateur_state(secateur *device, uint32_t *state, uint32_t *error);

/* Read whether the engine has found a change of the weight memory since it accepted the image (1)
 * or not (0), and the number of complete checks since then, modulo 2^16. After an upset call
 * secateur_load(). */
secateur_result secateur_upset(secateur *device, int *upset, uint32_t *scrubs);

#endif

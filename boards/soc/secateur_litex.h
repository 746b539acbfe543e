/* Inferences by the DMA of LiteX, for a SoC with `add_secateur` of secateur_litex.py.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SECATEUR_LITEX_H
#define SECATEUR_LITEX_H

#include "secateur.h"

/* Where tensors lie in memory, and how long they are: `words` and `beats` count n bytes. Both may be
 * those of several inferences. Both addresses are multiples of n, or of the bytes of the bus if
 * these are fewer. No other variable shares a line of the cache with `output`. */
typedef struct {
    const void *input;
    size_t words;
    void *output;
    size_t beats;
} secateur_tensors;

/* Start inferences; secateur_use_registers(device, 0), as after power-up. A result that has waited
 * since before the last load or restart is discarded. */
secateur_result secateur_dma_start(secateur *device, const secateur_tensors *tensors);

/* Whether all results are in memory; the event `result` of the interrupt says the same. */
int secateur_dma_done(void);

/* Stop the DMA, which ends the event, and let the processor see the results. The DMA loses what it
 * holds: call this when the results are there, or when the engine has stopped. */
void secateur_dma_stop(void);

/* Start inferences, wait for their results, stop. */
secateur_result secateur_dma_infer(secateur *device, const secateur_tensors *tensors);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "secateur_litex.h"

#include <generated/csr.h>
#include <system.h>

static void take(const secateur *device, void *output, size_t beats)
{
    secateur_result_base_write((uintptr_t)output);
    secateur_result_length_write((uint32_t)(beats * device->n));
    secateur_result_enable_write(1);
}

/* Wait for all results, as long as the engine runs. */
static secateur_result await_results(secateur *device)
{
    uint32_t left, state, error;
    for (left = device->polls; left > 0; left--) {
        if (secateur_dma_done())
            return SECATEUR_OK;
        if (secateur_state(device, &state, &error) != SECATEUR_OK)
            return SECATEUR_BUS;
        if (state == SECATEUR_STATE_ERROR)
            return SECATEUR_STOPPED;
    }
    return SECATEUR_TIMEOUT;
}

secateur_result secateur_dma_start(secateur *device, const secateur_tensors *tensors)
{
    uint32_t status;
    secateur_result result = SECATEUR_OK;
    if (device->read(device->bus, SECATEUR_STATUS, &status))
        return SECATEUR_BUS;
    if (status & SECATEUR_STATUS_STREAM_VALID) {
        /* of an inference before the last load or restart */
        take(device, tensors->output, 1);
        result = await_results(device);
        secateur_dma_stop();
    }
    if (result != SECATEUR_OK)
        return result;
    take(device, tensors->output, tensors->beats);
    secateur_input_base_write((uintptr_t)tensors->input);
    secateur_input_length_write((uint32_t)(tensors->words * device->n));
    secateur_input_enable_write(1);
    return SECATEUR_OK;
}

int secateur_dma_done(void)
{
    return (int)secateur_result_done_read();
}

void secateur_dma_stop(void)
{
    secateur_input_enable_write(0);
    secateur_result_enable_write(0);
    flush_cpu_dcache();
}

secateur_result secateur_dma_infer(secateur *device, const secateur_tensors *tensors)
{
    secateur_result result = secateur_dma_start(device, tensors);
    if (result == SECATEUR_OK)
        result = await_results(device);
    secateur_dma_stop();
    return result;
}

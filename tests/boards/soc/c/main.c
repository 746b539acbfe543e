/* Loads an image, runs its inputs in several ways and prints what comes out, for the test. */
#include <stdint.h>

#include <generated/csr.h>
#include <generated/mem.h>
#include <generated/soc.h>
#include <irq.h>
#include <system.h>

#include "case.h"
#include "secateur.h"
#include "secateur_litex.h"

enum { POLLS = 100000, END = 4 };

void isr(void);
int main(void);

static uint8_t output[INPUTS * RESULT_BYTES] __attribute__((aligned(64)));
static secateur engine;
static volatile int interrupts;

static void put(char letter)
{
    while (uart_txfull_read())
        ;
    uart_rxtx_write((uint8_t)letter);
}

static void hex(uint32_t value, int digits)
{
    while (digits-- > 0)
        put("0123456789abcdef"[value >> (4 * digits) & 15]);
}

/* A line: a word, a code, the cycles of the last inference, and bytes. */
static void say(const char *word, secateur_result code, size_t bytes)
{
    uint32_t cycles = 0;
    size_t i;
    secateur_cycles(&engine, &cycles);
    while (*word)
        put(*word++);
    put(' ');
    hex((uint32_t)code, 1);
    put(' ');
    hex(cycles, 8);
    put(' ');
    for (i = 0; i < bytes; i++)
        hex(output[i], 2);
    put('\n');
}

/* Forget earlier results; their place now is in the cache. */
static void forget(void)
{
    volatile uint8_t *bytes = output;
    size_t i;
    for (i = 0; i < sizeof output; i++)
        bytes[i] = 0xa5;
    for (i = 0; i < sizeof output; i++)
        (void)bytes[i];
}

static secateur_tensors some(size_t first, size_t count)
{
    secateur_tensors tensors = {inputs + first * INPUT_BYTES, count * INPUT_BYTES / engine.n,
                                output, count * RESULT_BYTES / engine.n};
    return tensors;
}

static secateur_result infer(size_t first, size_t count)
{
    const secateur_tensors tensors = some(first, count);
    forget();
    return secateur_dma_infer(&engine, &tensors);
}

/* The results of all inputs are in memory: until they are taken, no more of this interrupt. */
void isr(void)
{
    if (irq_pending() & irq_getmask() & 1 << SECATEUR_INTERRUPT) {
        interrupts++;
        secateur_ev_enable_write(0);
    }
}

static secateur_result infer_by_interrupt(void)
{
    const secateur_tensors tensors = some(0, INPUTS);
    secateur_result result;
    uint32_t left;
    forget();
    secateur_ev_enable_write(1 << CSR_SECATEUR_EV_ENABLE_RESULT_OFFSET);
    irq_setmask(1 << SECATEUR_INTERRUPT);
    irq_setie(1);
    result = secateur_dma_start(&engine, &tensors);
    for (left = POLLS; left > 0 && interrupts == 0; left--)
        ;
    irq_setie(0);
    secateur_dma_stop();
    return interrupts == 1 ? result : SECATEUR_TIMEOUT;
}

static secateur_result infer_by_registers(void)
{
    secateur_result result;
    forget();
    if ((result = secateur_use_registers(&engine, 1)) == SECATEUR_OK)
        result = secateur_infer(&engine, inputs, INPUT_BYTES / engine.n, output,
                                RESULT_BYTES / engine.n);
    secateur_use_registers(&engine, 0);
    return result;
}

int main(void)
{
    void *base = (void *)SECATEUR_BASE;
    uint32_t value;
    size_t i;
    say("open", secateur_open(&engine, base, secateur_mmio_read, secateur_mmio_write, POLLS), 0);
    say("damaged", secateur_load(&engine, damaged, sizeof damaged), 0);
    say("holds", secateur_check_holds(&engine, image, sizeof image), 0);
    /* An access that is refused ends, of which this processor learns nothing. */
    say("refused", (secateur_result)secateur_mmio_read(base, SECATEUR_RESULT, &value), 0);
    say("stopped", infer(0, 1), 0);
    say("load", secateur_load(&engine, image, sizeof image), 0);
    for (i = 0; i < INPUTS; i++)
        say("infer", infer(i, 1), RESULT_BYTES);
    say("restart", secateur_restart(&engine), 0);
    say("batch", infer(0, INPUTS), sizeof output);
    say("restart", secateur_restart(&engine), 0);
    say("interrupt", infer_by_interrupt(), sizeof output);
    say("restart", secateur_restart(&engine), 0);
    say("registers", infer_by_registers(), RESULT_BYTES);
    put(END);
    return 0;
}

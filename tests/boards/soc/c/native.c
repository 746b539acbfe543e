/* What LiteX's headers need where a test is the processor. */
#include <stdint.h>

#include <generated/csr.h>

typedef uint32_t (*read_fn)(uint32_t address);
typedef void (*write_fn)(uint32_t address, uint32_t value);
static read_fn read_bus;
static write_fn write_bus;
int flushes;

void connect(read_fn read, write_fn write)
{
    read_bus = read;
    write_bus = write;
}

unsigned long csr_read_simple(unsigned long address)
{
    return read_bus((uint32_t)address);
}

void csr_write_simple(unsigned long value, unsigned long address)
{
    write_bus((uint32_t)address, (uint32_t)value);
}

void flush_cpu_dcache(void)
{
    flushes++;
}

/* The events that are pending: 1 of the engine, 2 of the results. */
int events(void)
{
    uint32_t pending = secateur_ev_pending_read();
    return (int)((pending >> CSR_SECATEUR_EV_PENDING_ENGINE_OFFSET & 1) |
                 (pending >> CSR_SECATEUR_EV_PENDING_RESULT_OFFSET & 1) << 1);
}

/* Words of the bus that the DMA has read. */
uint32_t sent(void)
{
    return secateur_input_offset_read();
}

/* One DMA alone. */
void send(uint32_t base, uint32_t length)
{
    secateur_input_base_write(base);
    secateur_input_length_write(length);
    secateur_input_enable_write(1);
}

void receive(uint32_t base, uint32_t length)
{
    secateur_result_base_write(base);
    secateur_result_length_write(length);
    secateur_result_enable_write(1);
}

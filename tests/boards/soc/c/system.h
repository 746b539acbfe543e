/* In place of LiteX's: accesses to its registers go over a simulated bus. */
#ifndef SYSTEM_H
#define SYSTEM_H

#define CSR_ACCESSORS_DEFINED
unsigned long csr_read_simple(unsigned long address);
void csr_write_simple(unsigned long value, unsigned long address);
void flush_cpu_dcache(void);

#endif

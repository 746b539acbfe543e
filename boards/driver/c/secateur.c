/* SPDX-License-Identifier: Apache-2.0 */
#include "secateur.h"

/* Header of an image: stream.md. */
enum { HEADER_BYTES = 24, WORDS_AT = 8, CRC_AT = 20 };

#define FIELD(value, name) (((value) & SECATEUR_##name) >> SECATEUR_##name##_SHIFT)

static secateur_result get(secateur *device, uint32_t offset, uint32_t *value)
{
    return device->read(device->bus, offset, value) ? SECATEUR_BUS : SECATEUR_OK;
}

static secateur_result put(secateur *device, uint32_t offset, uint32_t value)
{
    return device->write(device->bus, offset, value) ? SECATEUR_BUS : SECATEUR_OK;
}

static uint32_t little_endian(const uint8_t *bytes, size_t count)
{
    uint32_t value = 0;
    size_t i;
    for (i = 0; i < count; i++)
        value |= (uint32_t)bytes[i] << (8 * i);
    return value;
}

/* Bytes per access to INPUT or RESULT. */
static size_t part_bytes(const secateur *device)
{
    return device->n < 4 ? device->n : 4;
}

/* Wait until a bit of STATUS is set or the engine has stopped. */
static secateur_result await_status(secateur *device, uint32_t bit)
{
    uint32_t left, status;
    secateur_result result;
    for (left = device->polls; left > 0; left--) {
        result = get(device, SECATEUR_STATUS, &status);
        if (result != SECATEUR_OK)
            return result;
        if (status & bit)
            return SECATEUR_OK;
        if (FIELD(status, STATUS_STATE) == SECATEUR_STATE_ERROR)
            return SECATEUR_STOPPED;
    }
    return SECATEUR_TIMEOUT;
}

/* Wait until the engine has checked the image. */
static secateur_result await_accepted(secateur *device)
{
    uint32_t left, state, error;
    secateur_result result;
    for (left = device->polls; left > 0; left--) {
        result = secateur_state(device, &state, &error);
        if (result != SECATEUR_OK)
            return result;
        if (state == SECATEUR_STATE_ERROR)
            return SECATEUR_STOPPED;
        if (state != SECATEUR_STATE_LOADING && state != SECATEUR_STATE_CHECKING)
            return SECATEUR_OK;
    }
    return SECATEUR_TIMEOUT;
}

int secateur_mmio_read(void *bus, uint32_t offset, uint32_t *value)
{
    *value = ((volatile uint32_t *)bus)[offset / 4];
    return 0;
}

int secateur_mmio_write(void *bus, uint32_t offset, uint32_t value)
{
    ((volatile uint32_t *)bus)[offset / 4] = value;
    return 0;
}

secateur_result secateur_open(secateur *device, void *bus, secateur_read_fn read,
                              secateur_write_fn write, uint32_t polls)
{
    uint32_t id, version, geometry;
    secateur_result result;
    device->bus = bus;
    device->read = read;
    device->write = write;
    device->polls = polls;
    if ((result = get(device, SECATEUR_ID, &id)) != SECATEUR_OK)
        return result;
    if (id != SECATEUR_MAGIC)
        return SECATEUR_NO_ENGINE;
    if ((result = get(device, SECATEUR_VERSION, &version)) != SECATEUR_OK)
        return result;
    if (FIELD(version, VERSION_MAP) != SECATEUR_MAP_VERSION)
        return SECATEUR_NO_ENGINE;
    if ((result = get(device, SECATEUR_GEOMETRY, &geometry)) != SECATEUR_OK)
        return result;
    device->n = FIELD(geometry, GEOMETRY_N);
    device->p = FIELD(geometry, GEOMETRY_P);
    device->rom = (int)FIELD(geometry, GEOMETRY_ROM);
    return get(device, SECATEUR_WEIGHT_WORDS, &device->weight_words);
}

/* Bytes of an image in a .sec file; 0: it is none, or does not fit. */
static size_t image_bytes(const secateur *device, const uint8_t *image, size_t length)
{
    uint32_t words;
    size_t size;
    if (length < HEADER_BYTES)
        return 0;
    words = little_endian(image + WORDS_AT, 4);
    size = (size_t)words * (device->n + 1);
    return words > device->weight_words || size < HEADER_BYTES || size > length ? 0 : size;
}

secateur_result secateur_load(secateur *device, const uint8_t *image, size_t length)
{
    size_t at, size = 0;
    secateur_result result;
    if (!device->rom && (size = image_bytes(device, image, length)) == 0)
        return SECATEUR_BAD_IMAGE;
    result = put(device, SECATEUR_CONTROL, SECATEUR_CONTROL_RESET);
    for (at = 0; at < size && result == SECATEUR_OK; at += 4) {
        size_t left = size - at;
        /* The engine ignores bytes after the end of its image. */
        result = put(device, SECATEUR_IMAGE, little_endian(image + at, left < 4 ? left : 4));
    }
    if (result == SECATEUR_OK)
        result = await_accepted(device);
    if (result != SECATEUR_OK || image == NULL)
        return result;
    return secateur_check_holds(device, image, length);
}

secateur_result secateur_read_from(secateur *device, uint32_t address, const uint8_t *image,
                                   size_t length)
{
    const size_t size = image_bytes(device, image, length);
    secateur_result result;
    if (size == 0 || address % 64 != 0)
        return SECATEUR_BAD_IMAGE;
    if ((result = put(device, SECATEUR_SOURCE_BYTES, 0)) != SECATEUR_OK ||
        (result = put(device, SECATEUR_SOURCE_BASE, address)) != SECATEUR_OK ||
        (result = put(device, SECATEUR_SOURCE_BYTES, (uint32_t)size)) != SECATEUR_OK ||
        (result = put(device, SECATEUR_CONTROL, SECATEUR_CONTROL_RESET)) != SECATEUR_OK ||
        (result = await_accepted(device)) != SECATEUR_OK)
        return result;
    return secateur_check_holds(device, image, length);
}

secateur_result secateur_check_holds(secateur *device, const uint8_t *image, size_t length)
{
    uint32_t crc, state, error;
    secateur_result result;
    if (length < HEADER_BYTES)
        return SECATEUR_BAD_IMAGE;
    /* Not every bus tells that an access is refused. */
    if ((result = secateur_state(device, &state, &error)) != SECATEUR_OK)
        return result;
    if (state != SECATEUR_STATE_WAITING && state != SECATEUR_STATE_RUNNING)
        return SECATEUR_BUS;
    if ((result = get(device, SECATEUR_IMAGE_CRC, &crc)) != SECATEUR_OK)
        return result;
    return crc == little_endian(image + CRC_AT, 4) ? SECATEUR_OK : SECATEUR_OTHER_IMAGE;
}

secateur_result secateur_restart(secateur *device)
{
    return put(device, SECATEUR_CONTROL, SECATEUR_CONTROL_RESTART);
}

secateur_result secateur_use_registers(secateur *device, int use)
{
    return put(device, SECATEUR_MODE, use ? SECATEUR_MODE_REGISTERS : 0u);
}

secateur_result secateur_set_beats(secateur *device, uint32_t beats)
{
    return put(device, SECATEUR_RESULT_BEATS, beats);
}

secateur_result secateur_send(secateur *device, const uint8_t *input, size_t words)
{
    const size_t part = part_bytes(device), size = words * device->n;
    size_t at;
    secateur_result result;
    for (at = 0; at < size; at += part) {
        if ((result = await_status(device, SECATEUR_STATUS_INPUT_READY)) != SECATEUR_OK)
            return result;
        result = put(device, SECATEUR_INPUT, little_endian(input + at, part));
        if (result != SECATEUR_OK)
            return result;
    }
    return SECATEUR_OK;
}

secateur_result secateur_receive(secateur *device, uint8_t *output, size_t beats)
{
    const size_t part = part_bytes(device), size = beats * device->n;
    size_t at, i;
    uint32_t value;
    secateur_result result;
    for (at = 0; at < size; at += part) {
        if ((result = await_status(device, SECATEUR_STATUS_RESULT_VALID)) != SECATEUR_OK)
            return result;
        if ((result = get(device, SECATEUR_RESULT, &value)) != SECATEUR_OK)
            return result;
        for (i = 0; i < part; i++)
            output[at + i] = (uint8_t)(value >> (8 * i));
    }
    return SECATEUR_OK;
}

secateur_result secateur_infer(secateur *device, const uint8_t *input, size_t words,
                               uint8_t *output, size_t beats)
{
    secateur_result result = secateur_send(device, input, words);
    return result == SECATEUR_OK ? secateur_receive(device, output, beats) : result;
}

secateur_result secateur_cycles(secateur *device, uint32_t *cycles)
{
    return get(device, SECATEUR_CYCLES, cycles);
}

secateur_result secateur_inferences(secateur *device, uint32_t *count)
{
    return get(device, SECATEUR_INFERENCES, count);
}

secateur_result secateur_state(secateur *device, uint32_t *state, uint32_t *error)
{
    uint32_t status = 0;
    secateur_result result = get(device, SECATEUR_STATUS, &status);
    *state = FIELD(status, STATUS_STATE);
    *error = FIELD(status, STATUS_ERROR);
    return result;
}

secateur_result secateur_upset(secateur *device, int *upset, uint32_t *scrubs)
{
    uint32_t status = 0;
    secateur_result result = get(device, SECATEUR_STATUS, &status);
    *upset = (status & SECATEUR_STATUS_UPSET) != 0;
    return result == SECATEUR_OK ? get(device, SECATEUR_SCRUBS, scrubs) : result;
}

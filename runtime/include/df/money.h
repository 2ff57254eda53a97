/* money.h - exact money: signed 128-bit sums of nanos (1e-9 of a currency unit).
 *
 * Shown as micros (1e-6), rounded once, half to even. Amounts of different currencies are never
 * added: the currency is part of every cell's key. Sums are checked; an overflow is an error and
 * never wraps.
 */
#ifndef DF_MONEY_H
#define DF_MONEY_H

#include <stdbool.h>
#include <stdint.h>

#include "df/bytes.h"

typedef __int128 df_nanos; /* 1e-9 of a currency unit */

#define DF_NANOS_PER_MICRO 1000
#define DF_NANOS_PER_UNIT 1000000000

/* *sum += v; false, *sum unchanged, on overflow. */
bool df_nanos_add(df_nanos *sum, df_nanos v);

/* Micros of v, rounded half to even. */
__int128 df_nanos_to_micros(df_nanos v);

/* v in units of 10^-digits (digits 0 to 9), rounded half to even: with df_currency_digits, what an
 * invoice says. */
__int128 df_nanos_round(df_nanos v, uint32_t digits);

/* Decimal text of an integer ("-12"). buf holds at least DF_INT128_TEXT_MAX bytes. Returns len. */
#define DF_INT128_TEXT_MAX 44
int df_int128_text(__int128 v, char *buf);

/* The same of v * 10^-digits: "-0.05", "12" for 0 digits. buf holds DF_DECIMAL_TEXT_MAX bytes. */
#define DF_DECIMAL_TEXT_MAX 56
int df_decimal_text(__int128 v, uint32_t digits, char *buf);

/* Parse a decimal amount of units ("187.4", "-3", at most 9 decimals) into nanos, exactly.
 * False on anything else (exponents, spaces, overflow). */
bool df_nanos_parse(struct df_bytes text, df_nanos *ret);

/* ISO 4217: three upper-case letters that are a known code. "XXX" = no currency. */
bool df_currency_known(struct df_bytes code);
/* Decimals of its minor unit: 2 unless ISO 4217 says 0 or 3. */
uint32_t df_currency_digits(struct df_bytes code);

/* Protobuf field of 128-bit sums: bytes, two's complement little endian, shortest form, 0 = absent.
 */
void df_pb_int128(struct df_buf *b, uint32_t field, __int128 v);
bool df_int128_from_bytes(struct df_bytes b, __int128 *ret);

#endif

/* unit.h - what every cmocka file needs, in the order cmocka asks for. */
#ifndef ADTALLY_TESTS_UNIT_H
#define ADTALLY_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif

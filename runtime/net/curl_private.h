/* curl_private.h - what the two HTTP clients on libcurl share. */
#ifndef DFI_CURL_PRIVATE_H
#define DFI_CURL_PRIVATE_H

#define DFI_USER_AGENT "adtally/" ADTALLY_VERSION

void dfi_curl_init(void); /* before the first handle, from any thread */

#endif

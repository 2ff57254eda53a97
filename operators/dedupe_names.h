/* dedupe_names.h - what the two compilations of dedupe's files are called (dedupe_private.h). */
#ifndef ADI_DEDUPE_NAMES_H
#define ADI_DEDUPE_NAMES_H

#ifdef ADI_BILLING
#define ADI_DEDUPE_OPS ad_op_dedupe_billing
#define ADI_DEDUPE_NAME "dedupe_billing"
#define ADI_DEDUPE_VERSION 2

#define adi_set_open adi_billing_set_open
#define adi_set_release adi_billing_set_release
#define adi_set_seek adi_billing_set_seek
#define adi_set_add adi_billing_set_add
#define adi_set_sorted adi_billing_set_sorted
#define adi_set_keep adi_billing_set_keep
#define adi_tags_init adi_billing_tags_init
#define adi_tags_release adi_billing_tags_release
#define adi_tags_hold adi_billing_tags_hold
#define adi_tags_drop adi_billing_tags_drop
#define adi_tags_reserve adi_billing_tags_reserve
#define adi_tags_add adi_billing_tags_add
#define adi_tags_prefetch adi_billing_tags_prefetch
#define adi_tags_test adi_billing_tags_test
#define adi_tags_may adi_billing_tags_may
#define adi_tags_bytes adi_billing_tags_bytes
#define adi_bucket_get adi_billing_bucket_get
#define adi_bucket_find adi_billing_bucket_find
#define adi_buckets_expire adi_billing_buckets_expire
#define adi_bucket_destroy adi_billing_bucket_destroy
#define adi_run_release adi_billing_run_release
#define adi_bucket_grow adi_billing_bucket_grow
#define adi_bucket_spill adi_billing_bucket_spill
#define adi_runs_seek adi_billing_runs_seek
#define adi_run_block adi_billing_run_block
#define adi_run_blocks adi_billing_run_blocks
#define adi_run_put_block adi_billing_run_put_block
#define adi_run_delete adi_billing_run_delete
#define adi_run_put_end adi_billing_run_put_end
#define adi_block_read adi_billing_block_read
#define adi_run_give_memory adi_billing_run_give_memory
#define adi_hour_delete adi_billing_hour_delete
#define adi_delta_append adi_billing_delta_append
#define adi_buckets_snapshot adi_billing_buckets_snapshot
#define adi_damaged adi_billing_damaged
#define adi_buckets_restore adi_billing_buckets_restore
#define adi_merge_step adi_billing_merge_step
#define adi_merge_settle adi_billing_merge_settle
#define adi_merge_abort adi_billing_merge_abort
#else
#define ADI_DEDUPE_OPS ad_op_dedupe
#define ADI_DEDUPE_NAME "dedupe"
#define ADI_DEDUPE_VERSION 1
#endif

#endif
